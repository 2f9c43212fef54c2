"""Small print of flows: headers, links, built-in tasks, chord sizes, stamps, graphs. Cases and answers of 5.7."""

from __future__ import annotations

import io
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chain, chord, group
from celery.canvas import Signature
from celery.exceptions import ChordError
from celery.result import GroupResult, result_from_tuple
from tests.compat import third_party
from tests.embedded import working

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 15.0
_names = count()


@pytest.fixture
def app() -> Celery:
    url = f"memory://details-{next(_names)}"
    app = Celery("details", broker=url, backend=url, set_as_current=False)
    app.conf.result_extended = True

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="headers", bind=True)
    def headers(self: Any, before: Any = None) -> Any:
        return [before, self.request.headers]

    @app.task(name="replaced", bind=True)
    def replaced(self: Any) -> Any:
        return self.replace(headers.si())

    return app


@pytest.fixture
def tasks(app: Celery) -> Iterator[Any]:
    with working(app):
        yield app.tasks


class TestHeaders:
    """[task.15]: who sees the headers of a call."""

    def test_the_first_step_of_a_chain(self, tasks: Any) -> None:
        headers = tasks["headers"]
        result = chain(headers.s(), headers.s()).apply_async(headers={"own": 1})
        assert result.get(timeout=PATIENCE) == [[None, {"own": 1}], None]

    def test_the_members_and_the_body_of_a_chord(self, tasks: Any) -> None:
        headers = tasks["headers"]
        result = chord([headers.s(1), headers.s(2)], headers.s()).apply_async(headers={"own": 1})
        assert result.get(timeout=PATIENCE) == [[[1, {"own": 1}], [2, {"own": 1}]], {"own": 1}]

    def test_not_what_replaces_a_task(self, tasks: Any) -> None:
        assert tasks["replaced"].apply_async(headers={"own": 1}).get(timeout=PATIENCE) == [None, None]


class TestLinks:
    """[task.53]: several callbacks."""

    def children(self, app: Celery, link: Any) -> list[Any]:
        result = app.tasks["add"].apply_async((1, 1), link=link)
        result.get(timeout=PATIENCE)
        return app.AsyncResult(result.id).children or []

    def test_several_become_a_group(self, app: Celery, tasks: Any) -> None:
        add = tasks["add"]
        (child,) = self.children(app, [add.s(5), add.s(7)])
        assert isinstance(child, GroupResult)
        assert child.get(timeout=PATIENCE) == [7, 9]

    def test_groups_go_by_themselves(self, app: Celery, tasks: Any) -> None:
        add = tasks["add"]
        (child,) = self.children(app, [group(add.s(5), add.s(7))])
        assert child.get(timeout=PATIENCE) == [7, 9]
        first, second = self.children(app, [add.s(1), group(add.s(5), add.s(7)), add.s(2)])
        assert first.get(timeout=PATIENCE) == [7, 9]
        assert second.get(timeout=PATIENCE) == [3, 4]
        assert first.id != second.id

    def test_a_group_calls_nobody(self, app: Celery) -> None:
        """[canvas.76]: that is what chords are for."""
        with pytest.raises(TypeError, match="link"):
            group(app.tasks["add"].s(1, 1)).apply_async(link=app.tasks["add"].s(1))


class TestBuiltinTasks:
    """[task.71]: what other senders ask a worker to do."""

    def test_names(self, app: Celery) -> None:
        ends = "accumulate backend_cleanup chain chord chord_unlock chunks group map starmap"
        assert {f"celery.{end}" for end in ends.split()} <= set(app.tasks)

    def test_accumulate_and_maps(self, tasks: Any) -> None:
        add, total = tasks["add"], tasks["total"]
        assert tasks["celery.accumulate"].delay(1, 2).get(timeout=PATIENCE) == [1, 2]
        assert tasks["celery.accumulate"].delay(1, 2, index=1).get(timeout=PATIENCE) == 2
        assert tasks["celery.map"].delay(total.s(), [[1, 2], [3]]).get(timeout=PATIENCE) == [3, 3]
        assert tasks["celery.starmap"].delay(add.s(), [[1, 2], [3, 4]]).get(timeout=PATIENCE) == [3, 7]

    def test_chunks(self, app: Celery, tasks: Any) -> None:
        sent = tasks["celery.chunks"].delay(tasks["add"].s(), [(1, 1), (2, 2), (3, 3)], 2).get(timeout=PATIENCE)
        assert result_from_tuple(sent, app).get(timeout=PATIENCE) == [[2, 4], [6]]

    def test_group(self, app: Celery, tasks: Any) -> None:
        members = [dict(tasks["add"].s(n, n).set(task_id=f"m{n}")) for n in (1, 2)]
        known = [["gg", None], [[["m1", None], None], [["m2", None], None]]]
        sent = tasks["celery.group"].delay(members, known, "gg", ())
        assert sent.get(timeout=PATIENCE) == known
        assert result_from_tuple(known, app).get(timeout=PATIENCE) == [2, 4]
        (child,) = app.AsyncResult(sent.id).children or ()
        assert child.id == "gg"

    def test_chord(self, app: Celery, tasks: Any) -> None:
        members = [dict(tasks["add"].s(n, n)) for n in (1, 2)]
        sent = tasks["celery.chord"].delay(members, dict(tasks["total"].s())).get(timeout=PATIENCE)
        assert result_from_tuple(sent, app).get(timeout=PATIENCE) == 6

    def test_chain_is_only_a_name(self, tasks: Any) -> None:
        with pytest.raises(NotImplementedError, match="not a real task"):
            tasks["celery.chain"].delay().get(timeout=PATIENCE)


class TestChords:
    def test_sizes(self, app: Celery) -> None:
        """[canvas.52]: groups sum their members, chains are as wide as they end, chords as their bodies."""
        add, total = app.tasks["add"].s(1), app.tasks["total"].s()
        pair = group(add, add)

        def size(*header: Any) -> int:
            return chord(list(header), total).__length_hint__()

        assert [size(), size(add), size(add, add)] == [0, 1, 2]
        assert size(pair, add) == 3
        assert size(chain(add, add), chain(add, pair)) == 3
        assert size(chord([add, add, add], total)) == 1
        assert size(chord([add], pair), pair) == 4

    def test_the_barrier_waits_for_so_many(self, app: Celery) -> None:
        add, total = app.tasks["add"], app.tasks["total"]
        header = [add.s(1, 1), chain(add.s(1, 1), group(add.s(1), add.s(2))), chord([add.s(1, 1)], total.s())]
        result = chord(header, total.s())()
        barriers = app.assembly.barriers
        assert barriers is not None
        assert barriers.standing(result.parent.id) == (4, 0)
        with working(app):
            assert result.get(timeout=PATIENCE) == 2 + 3 + 4 + 2

    def test_a_member_that_cannot_be_read_is_waited_for_so_long(self) -> None:
        """[canvas.57]: where results have to be asked for, a member counts before its result is there."""
        app = Celery("slow", broker=f"memory://details-{next(_names)}", set_as_current=False)
        app.conf.update(result_backend="tests.flow.test_foreign_chords:Counting", result_chord_join_timeout=0.05)
        app.task(name="total")(sum)
        body = app.signature("total", task_id="the-body")
        app.backend.apply_chord(("the-header", [app.AsyncResult("nobody")]), body)
        request = app.Context(id="nobody", group="the-header", chord=body, task="total")
        app.backend.on_chord_part_return(request, "SUCCESS", 1)
        error = app.AsyncResult("the-body").result
        assert isinstance(error, ChordError)
        assert str(error).startswith("Join error: TimeoutError")
        third_party.Shelf.shelf.clear()
        app.close()


class TestStamps:
    def test_results_show_them(self, app: Celery, tasks: Any) -> None:
        """[stamp.10]: with `result_extended`."""
        call: Signature[int] = tasks["add"].s(1, 1)
        call.stamp(colour="red", number=[1, 2])
        result = call.apply_async()
        result.get(timeout=PATIENCE)
        meta = app.backend.get_task_meta(result.id)
        assert (sorted(meta["stamped_headers"]), meta["colour"], meta["number"]) == (
            ["colour", "number"],
            "red",
            [1, 2],
        )


class TestGraphs:
    def test_of_a_chain_and_a_chord(self, app: Celery, tasks: Any) -> None:
        """[canvas.69]"""
        add, total = tasks["add"], tasks["total"]
        last = chain(add.s(1, 2), group(add.s(3), add.s(4)), total.s())()
        last.get(timeout=PATIENCE)
        members, first = last.parent, last.parent.parent
        root = app.AsyncResult(first.id)
        graph = root.graph
        edges = [(str(node), str(target)) for node in graph for target in graph[node]]
        assert edges == [(first.id, members.id), *((members.id, member.id) for member in members)]
        drawn = io.StringIO()
        graph.to_dot(drawn)
        assert drawn.getvalue().startswith("digraph dependencies {")
        assert f'"{members.id}" -> "{members[0].id}"' in drawn.getvalue()
