"""Canvases at the caller ([canvas], [stamp]): what `tests/wire/test_canvases.py` cannot compare with Celery's."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import pickle
import warnings
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

import celery
from celery import Celery, Task, chain, chord, chunks, codecs, group, signals, xmap, xstarmap
from celery.canvas import Signature, StampingVisitor, maybe_signature, signature
from celery.exceptions import CPendingDeprecationWarning
from celery.message import read_body
from celery.result import GroupResult
from tests.compat.memory_apps import make_app

if TYPE_CHECKING:
    from collections.abc import Iterator

app = make_app()
add = app.tasks["tasks.add"]


@app.task(name="tasks.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The batches that are handed to the broker."""
    batches: list[list[Any]] = []
    broker = app.assembly.broker
    monkeypatch.setattr(type(broker), "publish", lambda self, publications: batches.append(list(publications)))
    return batches


def bodies(batches: list[list[Any]]) -> list[Any]:
    return [read_body(json.loads(publication.message.body)) for batch in batches for publication in batch]


# ------------------------------------------------------------------------------------------------------------- making


def test_names_of_the_front_door() -> None:
    for kind in (chain, chord, group, chunks, xmap, xstarmap):
        assert getattr(celery, kind.__name__.lstrip("_")) is kind
        assert kind.__module__ == "celery.canvas"


def test_a_generator_is_asked_when_it_is_needed() -> None:
    asked = []

    def members() -> Iterator[Signature[int]]:
        for number in range(3):
            asked.append(number)
            yield add.s(number, number)

    made = group(members())
    copied, joined = made.clone(), made | total.s()
    stamped = copied.stamp(k="v")
    assert repr(made) == "group(<lazy: [...]>)"
    assert asked == []
    assert [member.options["k"] for member in stamped.tasks] == ["v"] * 3
    assert asked == [0, 1, 2]
    assert json.loads(json.dumps(joined, default=lambda lazy: lazy.__json__()))["kwargs"]["header"] == json.loads(
        json.dumps(list(made.tasks))
    )
    assert asked == [0, 1, 2]  # once


def test_what_json_would_not_see_is_an_error() -> None:
    with pytest.raises(TypeError):
        json.dumps(group(add.s(1) for _ in range(2)))


@pytest.mark.parametrize(
    "canvas",
    [chain(add.s(1), add.s(2)), group(add.s(1), add.s(2)), chord([add.s(1, 1)], total.s()), add.map([1]),
     chunks(add.s(), [(1, 2)], 1), chain(add.s(1), group(add.s(2), chord([add.s(1)], total.s())))],
    ids=repr,
)  # fmt: skip
def test_other_forms(canvas: Any) -> None:
    assert type(copy.deepcopy(canvas)) is dict
    again = pickle.loads(pickle.dumps(canvas))
    rebuilt = maybe_signature(json.loads(json.dumps(canvas)), app=app)
    assert json.dumps(again) == json.dumps(rebuilt) == json.dumps(canvas)
    assert b"celery.canvas" in pickle.dumps(canvas)
    assert b"celery.canvas." not in pickle.dumps(canvas)  # where no other version would find it


def test_a_copy_has_its_own_members_and_options() -> None:
    canvas = chain(add.s(1, 1), group(add.s(2), chord([add.s(3)], total.s())))
    before = json.dumps(canvas)
    copied = canvas.clone(queue="q")
    copied.freeze()
    for task in copied.tasks:
        task.set(priority=1)
    assert json.dumps(canvas) == before
    assert group(add.s(1), add.s(2)).clone((5,)).tasks == [add.s(5, 1), add.s(5, 2)]
    assert chain(add.s(1), add.s(2)).clone((5,)).tasks == [add.s(5, 1), add.s(2)]
    assert chord([add.s(1)], total.s()).clone((5,)).args == (5,)


def test_the_app_of_a_canvas() -> None:
    other = Celery("other", set_as_current=False)
    assert chain(add.s(1), add.s(2)).app is group(add.s(1)).app is chord([add.s(1)], total.s()).app is app
    assert group(add.s(1), app=other).app is other
    assert chord([], total.s()).app is app
    assert xmap(add.s(), [1]).app is app


def test_own_kinds_are_found_again() -> None:
    @Signature.register_type("own_kind")
    class Own(Signature[Any]):
        pass

    try:
        assert type(signature({**dict(add.s()), "subtask_type": "own_kind"})) is Own
    finally:
        del Signature.TYPES["own_kind"]
    with pytest.raises(KeyError):
        signature({**dict(add.s()), "subtask_type": "own_kind"})


def test_a_subclass_of_chain_stays_one() -> None:
    class own(chain):  # noqa: N801 - as its base
        pass

    assert type(own(add.s(1), add.s(2))) is own
    assert type(own(add.s(1), add.s(2)) | add.s(3)) is own
    assert type(own(add.s(1))) is own


# ------------------------------------------------------------------------------------------------------------ sending


@pytest.mark.slow
def test_groups_go_out_in_batches(published: list[list[Any]]) -> None:
    result = group(add.s(i, i) for i in range(2345)).apply_async()
    assert [len(batch) for batch in published] == [1000, 1000, 345]
    ids = [publication.message.id for batch in published for publication in batch]
    assert ids == [member.id for member in result.results]
    assert len(set(ids)) == 2345
    assert isinstance(result, GroupResult)


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_the_body_that_members_share_is_the_same_in_each(published: list[list[Any]], serializer: str) -> None:
    """It is encoded once; two members have arguments that only kombu writes as JSON."""
    number, text = (UUID(int=7), "\ud800") if serializer in ("json", "pickle") else (7, "é")
    rest = chain(chord([add.s(1, 1), add.s(2, number), add.s(text, 3)], total.s()), add.s(4), add.s("é"))
    rest.apply_async(serializer=serializer)
    messages = [publication.message for batch in published for publication in batch]
    read = [codecs.decode(m.body, m.content_type, m.content_encoding, {m.content_type}) for m in messages]
    first, *others = [body[2]["chord"] for body in read]
    assert type(first) is dict
    assert [first["task"], len(first["options"]["chain"])] == ["tasks.total", 2]
    assert others == [first, first]
    assert [body[0][0] for body in read] == [1, 2, text]


def test_who_changes_the_body_of_one_member_changes_that_one(published: list[list[Any]]) -> None:
    def before(body: Any, **_: Any) -> None:
        if body[0][0] == 1:
            body[2]["chord"]["options"] = {"changed": True}

    signals.before_task_publish.connect(before)
    try:
        chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
    finally:
        signals.before_task_publish.disconnect(before)
    assert [body[2]["chord"]["options"].get("changed") for body in bodies(published)] == [True, None]


def test_receivers_hear_of_a_batch_once_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`after_task_publish` says that the broker has accepted a message: not before, and not if it has not."""
    order: list[str] = []
    broker = type(app.assembly.broker)
    monkeypatch.setattr(broker, "publish", lambda self, publications: order.append(f"{len(publications)} sent"))

    def after(sender: str, headers: dict[str, Any], **_: Any) -> None:
        order.append(sender)

    def refuse(self: Any, publications: Any) -> None:
        raise ValueError("refused")

    signals.after_task_publish.connect(after)
    try:
        group(add.s(1, 1), add.s(2, 2)).apply_async()
        assert order == ["2 sent", "tasks.add", "tasks.add"]
        monkeypatch.setattr(broker, "publish", refuse)
        with pytest.raises(ValueError, match="refused"):
            group(add.s(1, 1), add.s(2, 2)).apply_async()
        assert len(order) == 3
    finally:
        signals.after_task_publish.disconnect(after)


def test_a_map_goes_where_its_task_would(published: list[list[Any]]) -> None:
    routed = make_app(task_routes={"tasks.add": {"queue": "special"}})
    one = routed.tasks["tasks.add"]
    for call in (one.map([1]), one.starmap([(1, 2)]), one.s(1, 2), signature("unknown", app=routed)):
        call.apply_async()
    routed.send_task("unknown", route_name="tasks.add")
    queues = [publication.route.routing_key for batch in published for publication in batch]
    assert queues == ["special", "special", "special", "celery", "special"]


def test_a_task_of_its_own_kind_sends_its_members_itself(published: list[list[Any]]) -> None:
    class Loud(Task):  # type: ignore[type-arg]
        def apply_async(self, *args: Any, **options: Any) -> Any:
            calls.append(options["group_index"])
            return super().apply_async(*args, **options)

    calls: list[int] = []
    loud = app.task(name="tasks.loud", base=Loud)(lambda: None)
    group(loud.s(), loud.s()).apply_async()
    assert calls == [0, 1]
    assert len(published) == 1


@pytest.mark.slow
@pytest.mark.parametrize("stages", [8, 64])
def test_size_grows_with_the_number_of_tasks(stages: int) -> None:
    """PAINS 24: a chain of chords, written in any way."""
    one = [group(add.s(1), add.s(2)), total.s()]
    for canvas in (
        chain(*(one * stages)),
        chain(*[chord(one[0], one[1])] * stages),
        _piped(one * stages),
    ):
        frozen = canvas.clone()
        frozen.freeze()
        assert len(json.dumps(frozen)) < 1200 * stages + 1000
        assert len(json.dumps(canvas)) < 700 * stages + 1000


def _piped(parts: list[Any]) -> Any:
    made = parts[0]
    for part in parts[1:]:
        made = made | part
    return made


@pytest.mark.slow
def test_a_large_graph_is_sent(published: list[list[Any]]) -> None:
    steps = [add.s(0, 0), *(step for _ in range(50) for step in (group(add.s(i) for i in range(39)), total.s()))]
    chain(*steps).apply_async()
    [[publication]] = published
    (_, _, embed) = bodies(published)[0]
    assert len(embed["chain"]) == 50
    assert len(publication.message.body) < 300 * 2_000


def test_canvases_nest_deeply(published: list[list[Any]]) -> None:
    canvas: Any = add.s(1)
    for depth in range(40):
        canvas = chord([canvas, add.s(depth)], total.s()) if depth % 2 else chain(add.s(depth), group(canvas, add.s(1)))
    maybe_signature(json.loads(json.dumps(canvas)), app=app).apply_async((1,))
    assert published


def test_nothing_is_sent_where_chords_cannot_be(published: list[list[Any]]) -> None:
    forgetful = make_app(result_backend="disabled://")
    one = forgetful.tasks["tasks.add"]
    with pytest.raises(NotImplementedError):
        chord([one.s(1, 1)], one.s()).apply_async()
    assert published == []


def test_a_chord_wants_a_body() -> None:
    with pytest.raises(ValueError, match="expected a chord with a body"):
        chord([add.s(1, 1)]).apply_async()
    with pytest.raises(ValueError, match="expected a chord with a body"):
        chord([add.s(1, 1)]).apply()


def test_places_in_a_header_are_counted_by_ends(published: list[list[Any]]) -> None:
    """A chain that ends with a group takes as many places as that has members; Celery gives two of them the same."""
    chord([chain(add.s(1, 1), group(add.s(2), add.s(3))), add.s(4, 4)], total.s()).apply_async()
    first, last = (publication.message for publication in published[0])
    assert last.headers["group_index"] == 2
    assert [task["options"]["group_index"] for task in bodies(published)[0][2]["chain"][0]["kwargs"]["tasks"]] == [0, 1]
    assert first.headers["group_index"] is None


def test_a_member_s_own_chain_goes_on(published: list[list[Any]]) -> None:
    chain(add.s(1, 1).set(chain=[dict(add.s(9))]), add.s(2)).apply_async()
    assert [step["args"] for step in bodies(published)[0][2]["chain"]] == [[2], [9]]  # from the end


# -------------------------------------------------------------------------------------------------------------- links


def test_errbacks_of_a_header() -> None:
    errback = signature("tasks.errback")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        quiet = chord([add.s(1), chord([add.s(2)], total.s())], total.s())
        quiet.link_error(errback)
    assert any(issubclass(warning.category, CPendingDeprecationWarning) for warning in told)
    assert "link_error" not in quiet.tasks[0].options
    app.conf.task_allow_error_cb_on_chord_header = True
    try:
        loud = chord([add.s(1), chord([add.s(2)], total.s())], total.s())
        assert loud.link_error(errback) is errback
        [copied] = loud.tasks[0].options["link_error"]
        assert (copied.task, copied.immutable) == ("tasks.errback", True)
        assert loud.tasks[1].body.options["link_error"] == [copied]
        assert loud.body.options["link_error"] == [errback]
    finally:
        app.conf.task_allow_error_cb_on_chord_header = False


def test_a_group_without_members_has_nobody_to_link() -> None:
    with pytest.raises(IndexError):
        group().link(add.s(1))
    assert group().link_error(add.s(1)) == ()


# ------------------------------------------------------------------------------------------------------- typed tasks


@dataclasses.dataclass
class Order:
    number: int
    day: dt.date


ORDER = Order(7, dt.date(2026, 11, 28))
PLAIN = {"number": 7, "day": "2026-11-28"}


@app.task(name="tasks.ship", typed=True)
def ship(order: Order, again: Order | None = None) -> Order:
    return order


def test_typed_arguments_travel_wherever_they_stand(published: list[list[Any]]) -> None:
    chain(ship.s(ORDER), ship.si(ORDER), ship.s(ORDER), ship.s(again=ORDER)).apply_async()
    chord([ship.s(ORDER), ship.s(ORDER)], ship.si(ORDER)).apply_async()
    ship.apply_async((ORDER,), link=ship.si(ORDER), link_error=[ship.si(ORDER)])
    chained, *header, linked = bodies(published)
    assert [step["args"] for step in chained[2]["chain"]] == [[], [PLAIN], [PLAIN]]
    assert chained[2]["chain"][0]["kwargs"] == {"again": PLAIN}
    assert [member[0] for member in header] == [[PLAIN], [PLAIN]]
    assert {json.dumps(member[2]["chord"]["args"]) for member in header} == {json.dumps([PLAIN])}
    assert [link["args"] for links in ("callbacks", "errbacks") for link in linked[2][links]] == [[PLAIN], [PLAIN]]


def test_typed_arguments_of_members_are_checked(published: list[list[Any]]) -> None:
    with pytest.raises(TypeError, match=r"tasks\.ship: argument 'order'"):
        group(ship.s(ORDER), ship.s("no order")).apply_async()
    with pytest.raises(TypeError, match=r"tasks\.ship: argument 'again'"):
        chain(ship.s(ORDER), ship.s(5)).apply_async()
    assert published == []


# ----------------------------------------------------------------------------------------------------------- built in


def test_tasks_of_old_senders() -> None:
    names = {"accumulate", "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap"}
    assert {f"celery.{name}" for name in names} <= set(app.tasks)
    with pytest.raises(NotImplementedError, match="chain is not a real task"):
        app.tasks["celery.chain"]()


def test_a_group_by_its_task(published: list[list[Any]]) -> None:
    members = group(add.s(1), add.s(2))
    frozen = members.freeze()
    tasks = [dict(task) for task in members.tasks]
    found = app.tasks["celery.group"](tasks, frozen.as_tuple(), members.id, (5,))
    assert found.as_tuple() == frozen.as_tuple()
    messages = [publication.message for batch in published for publication in batch]
    assert [message.id for message in messages] == [result.id for result in frozen.results]
    assert {message.headers["group"] for message in messages} == {members.id}
    assert [body[0] for body in bodies(published)] == [[5, 1], [5, 2]]


def test_a_chord_by_its_task(published: list[list[Any]]) -> None:
    app.tasks["celery.chord"]([dict(add.s(1, 1))], dict(total.s()), interval=1, max_retries=2)
    [(args, _, embed)] = bodies(published)
    assert (args, embed["chord"]["task"]) == ([1, 1], "tasks.total")
    assert not {"interval", "max_retries", "countdown"} & embed["chord"]["options"].keys()
    eager = app.tasks["celery.chord"]([dict(add.s(1, 1))], dict(total.s()), eager=True)
    assert eager.get() == 2


def test_chunks_by_their_task(published: list[list[Any]]) -> None:
    app.tasks["celery.chunks"](dict(add.s()), [(1, 1), (2, 2), (3, 3)], 2)
    assert [body[1]["it"] for body in bodies(published)] == [[[1, 1], [2, 2]], [[3, 3]]]


# ------------------------------------------------------------------------------------------------------------- stamps


def test_stamps_of_a_run_here() -> None:
    @app.task(name="tasks.read_stamps", bind=True)
    def read(self: Any) -> Any:
        return self.request.stamped_headers, self.request.stamps

    assert read.s().stamp(k="v", n=[1, 2]).apply().get() == (["k", "n"], {"k": ["v"], "n": [1, 2]})


def test_a_visitor_must_say_what_it_does_with_a_signature() -> None:
    with pytest.raises(TypeError, match="abstract"):
        StampingVisitor()  # type: ignore[abstract]


def test_stamps_that_are_there_are_not_written_over() -> None:
    stamped = add.s(1).stamp(k="v")
    assert stamped.clone(k="other", stamped_headers=["x"]).options == {"k": "v", "stamped_headers": ["k"]}
    linked_later = add.s(2)
    stamped.link(linked_later)
    assert "k" not in linked_later.options
