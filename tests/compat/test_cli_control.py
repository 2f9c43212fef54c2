"""`celery inspect`, `celery control`, `celery status` ([cli.11] to [cli.13], [control.38]), with a worker at hand."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from celery.bin.celery import celery
from celery.contrib.testing.worker import start_worker
from celery.ports import Notice
from celery.worker.control import Panel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

APP = """
from celery import Celery
from celery.worker.control import control_command, inspect_command

app = Celery("asked", broker="memory://asked-{id}", backend="cache+memory://")


@app.task(name="add")
def add(x, y):
    return x + y


@control_command(args=[("n", int)], variadic="rest", signature="[N=1] [words]")
def stir(state, n=1, rest=None):
    \"""Stir the pot.\"""
    if n > 5:
        raise ValueError("too much")
    return {"ok": f"stirred {n} times with {rest}"}


@inspect_command()
def pot(state):
    \"""Look into the pot.\"""
    return {"soup": [1, 2]}


@inspect_command(name="unwell")
def unwell(state):
    return {"error": "no fire"}
"""


class Asked:
    def __init__(self, app: Celery) -> None:
        self.app = app

    def run(self, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(celery, ["-A", "asked", *words], auto_envvar_prefix="CELERY")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output

    def printed(self, *words: str) -> str:
        code, output = self.run(*words)
        assert code == 0, output
        return output

    def read(self, *words: str) -> Any:
        return json.loads(self.printed(*words).splitlines()[0])


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    (tmp_path / "asked.py").write_text(APP.replace("{id}", tmp_path.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(Panel.data), dict(Panel.meta)
    module = __import__("asked")
    yield module.app
    module.app.close()
    sys.modules.pop("asked")
    for kept, table in zip(before, (Panel.data, Panel.meta), strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture
def nobody(app: Celery) -> Asked:
    return Asked(app)


@pytest.fixture
def asked(app: Celery) -> Iterator[Asked]:
    with start_worker(app, pool="threads", hostname="w1@h", perform_ping_check=False):
        yield Asked(app)


#: Seconds: a worker in this very process answers at once; silence ends the wait.
SOON = ("-t", "0.5")


class TestNobody:
    @pytest.mark.parametrize("words", [["status"], ["inspect", "ping"], ["control", "enable_events"], ["status", "-j"]])
    def test_nobody_answers(self, nobody: Asked, words: list[str]) -> None:
        code, output = nobody.run(*words, "-t", "0.05")
        assert code == 69
        assert output == "Error: No nodes replied within time constraint\n"

    def test_commands_are_listed_custom_ones_among_them(self, nobody: Asked) -> None:
        listed = nobody.printed("inspect", "--list")
        assert listed.startswith("Inspect Commands:\n")
        for line in ("  active ", "  conf [include_defaults=False] ", "  query_task [id1 [id2 [... [idN]]]]", "  pot "):
            assert line in listed
        assert "hello" not in listed
        assert "enable_events" not in listed
        listed = nobody.printed("control", "--list")
        assert "  stir [N=1] [words] " in listed
        assert "Stir the pot." in listed
        assert "  rate_limit <task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>" in listed
        assert "Stir the pot." in nobody.printed("control", "--help")
        assert "Look into the pot." in nobody.printed("inspect", "--help")

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["inspect", "nope"], "Command nope not recognized. Available inspect commands: active, active_queues"),
            (["inspect", "shutdown"], "It is a command of `celery control`."),
            (["control", "ping"], "It is a command of `celery inspect`."),
            (["control", "pool_grow", "x"], "pool_grow: expected n as int, got 'x'"),
            (["control", "pool_grow", "1", "2"], "Too many arguments: expected pool_grow [N=1], got also 2"),
            (["inspect"], "Missing argument 'COMMAND'"),
            (["inspect", "ping", "-t", "x"], "'x' is not a valid float"),
            (["status", "more"], "unexpected extra argument"),
        ],
    )
    def test_what_cannot_be_meant(self, nobody: Asked, words: list[str], says: str) -> None:
        code, output = nobody.run(*words)
        assert code == 2
        assert says in " ".join(output.split())


class TestAsking:
    def test_status(self, asked: Asked) -> None:
        assert asked.printed("status", *SOON) == "->  w1@h: OK\n\n1 node online.\n"
        assert asked.printed("-q", "status", *SOON) == " w1@h: OK\n\n1 node online.\n"
        assert asked.printed("status", "-j", *SOON) == '{"w1@h": {"ok": "pong"}}\n\n1 node online.\n'

    def test_ping(self, asked: Asked) -> None:
        assert asked.printed("inspect", "ping", *SOON) == "->  w1@h: OK\n        pong\n\n1 node online.\n"
        assert asked.printed("inspect", "ping", "-j", *SOON) == '{"w1@h": {"ok": "pong"}}\n'

    @pytest.mark.slow
    def test_destination(self, asked: Asked) -> None:
        assert "w1@h: OK" in asked.printed("status", "-d", "w1@h,w2@h", *SOON)
        assert asked.run("status", "-d", "w2@h", "-t", "0.1")[0] == 69

    def test_lists_and_mappings(self, asked: Asked) -> None:
        assert "->  w1@h: OK\n    - empty -\n" in asked.printed("inspect", "active", *SOON)
        assert "->  w1@h: OK\n    * add\n" in asked.printed("inspect", "registered", *SOON)
        assert asked.read("inspect", "registered", "rate_limit", "-j", *SOON) == {"w1@h": ["add"]}
        assert '    {\n        "soup": [\n            1,\n            2\n        ]\n    }\n' in asked.printed(
            "inspect", "pot", *SOON
        )
        assert asked.read("inspect", "query_task", "a", "b", "-j", *SOON) == {"w1@h": {}}
        assert "    {}\n" in asked.printed("inspect", "query_task", "a", *SOON)

    def test_what_a_queue_has_given(self, asked: Asked) -> None:
        assert asked.app.send_task("add", (1, 2)).get(timeout=20) == 3
        assert asked.read("inspect", "stats", "-j", *SOON)["w1@h"]["queues"] == {"celery": 1}


class TestTelling:
    def test_orders(self, asked: Asked) -> None:
        said = asked.printed("control", "rate_limit", "add", "10/m", *SOON)
        assert said == "->  w1@h: OK\n        new rate limit set successfully\n"
        assert asked.app.tasks["add"].rate_limit == "10/m"
        said = asked.printed("control", "rate_limit", "nope", "10/m", *SOON)
        assert said == "->  w1@h: ERROR\n        unknown task\n"
        assert asked.read("control", "stir", "2", "salt", "pepper", "-j", *SOON) == [
            {"w1@h": {"ok": "stirred 2 times with ['salt', 'pepper']"}}
        ]
        assert "stirred 1 times with []" in asked.printed("control", "stir", *SOON)

    def test_what_a_worker_cannot_do_is_told(self, asked: Asked) -> None:
        assert "->  w1@h: ERROR\n        ValueError('too much')" in asked.printed("control", "stir", "9", *SOON)
        assert "w1@h: ERROR" in asked.printed("control", "rate_limit", "add", *SOON)
        assert "w1@h: ERROR\n        no fire\n" in asked.printed("inspect", "unwell", *SOON)

    def test_a_worker_that_is_not_well(self, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(Panel.data, "ping", Panel.data["unwell"])
        code, output = asked.run("status", *SOON)
        assert code == 1
        assert "->  w1@h: ERROR\n        no fire\n" in output
        assert "1 node online." in output
        assert "w1@h: not well" in output


class TestQueues:
    @pytest.mark.slow
    def test_who_takes_and_how_fast(self, asked: Asked) -> None:
        for _ in range(3):
            assert asked.app.send_task("add", (1, 2)).get(timeout=20) == 3
        (row,) = asked.read("queues", "--json", "-Q", "celery", *SOON)
        assert (row["queue"], row["workers"], row["waiting"]) == ("celery", 1, 0)
        said = asked.printed("queues", "--watch", "-n", "2", "-i", "0.1", "--json", *SOON).splitlines()
        before, after = (json.loads(line)[0] for line in said)
        assert (before["in"], before["out"]) == (None, None)
        assert (after["in"], after["out"]) == (0.0, 0.0)
        head, line = asked.printed("queues", *SOON).splitlines()
        assert head.split() == ["Queue", "Waiting", "Oldest", "Held", "Parked", "Dead", "Workers"]
        assert line.split() == ["celery", "0", "-", "0", "0", "0", "1"]

    @pytest.mark.slow
    @pytest.mark.parametrize(("ahead", "grade"), [(0, "good"), (100, "bad"), (-100, "bad")])
    def test_the_check_speaks_to_workers(
        self, asked: Asked, monkeypatch: pytest.MonkeyPatch, ahead: float, grade: str
    ) -> None:
        def heartbeat(state: Any) -> None:
            """As of a worker on a machine whose clock is wrong."""
            event = {"type": "worker-heartbeat", "hostname": state.hostname, "timestamp": time.time() + ahead}
            notice = Notice("celeryev", "topic", "worker.heartbeat", json.dumps(event).encode(), durable=True)
            state.app.assembly.broker.tell([notice])

        monkeypatch.setitem(Panel.data, "heartbeat", heartbeat)
        code, output = asked.run("check", "--json", *SOON)
        rooms = {(one["room"], one["place"]): one for one in json.loads(output)}
        assert rooms["workers", "w1@h"]["text"] == "answers, and its results can be read here (json)"
        clock = rooms["clocks", "w1@h"]
        assert clock["grade"] == grade
        assert code == (grade == "bad")
        if ahead:
            assert f"100.0 s {'ahead of' if ahead > 0 else 'behind'} ours" in clock["text"]

    @pytest.mark.slow
    def test_a_worker_whose_results_nobody_reads(self, app: Celery, asked: Asked, tmp_path: Path) -> None:
        app.conf.result_serializer = "yaml"
        app.conf.result_accept_content = ["msgpack"]
        code, output = asked.run("check", *SOON)
        assert code == 1
        assert "its results are written as 'yaml' (result_serializer), and this app reads ['msgpack'] alone" in output
