"""`celery queues` and `celery check`, and `celery migrate` between brokers of ours ([cli.18]), in this process."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from celery import group
from celery.bin.celery import celery
from celery.bin.queues import _age
from celery.exceptions import TaskRevokedError
from celery.ports import Inspectable
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

APP = """
from kombu import Queue
from celery import Celery

app = Celery("q", broker="sqlite:///one.db", backend="sqlite:///one.db")
app.conf.task_queues = [Queue("celery"), Queue("b")]


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="total")
def total(values):
    return sum(values)
"""
CANARY = "s3cr3t-canary"


class Broker:
    def __init__(self, app: Celery, module: Any, folder: Path) -> None:
        self.app = app
        self.module = module
        self.folder = folder

    def run(self, *words: str, answer: str | None = None) -> tuple[int, str]:
        before = dict(os.environ)
        done = CliRunner().invoke(celery, ["-A", "qapp", *words], input=answer, auto_envvar_prefix="CELERY")
        os.environ.clear()
        os.environ.update(before)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output

    def printed(self, *words: str, answer: str | None = None) -> str:
        code, output = self.run(*words, answer=answer)
        assert code == 0, output
        return output

    def park(self, n: int, queue: str = "celery") -> None:
        """As a worker does with what it finds there."""
        consumer: Any = self.app.assembly.broker.consume([QueueSpec(queue)])
        consumer.defer([(delivery, time.time() + 1000) for delivery in consumer.fetch(n, 0)])
        consumer.close()

    def waiting(self, url: str = "", queue: str = "celery") -> list[str]:
        broker = self.app.assembly.open_broker(url) if url else self.app.assembly.broker
        assert isinstance(broker, Inspectable)
        ids = [json.loads(one.envelope)["headers"]["id"] for one in broker.inspection.peek(queue, 1000)]
        if url:
            broker.close()
        return ids


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    (tmp_path / "qapp.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("qapp")
    yield Broker(module.app, module, tmp_path)
    module.app.close()
    sys.modules.pop("qapp")


class TestQueues:
    def test_how_they_stand(self, broker: Broker) -> None:
        for i in range(3):
            broker.module.add.apply_async((i, CANARY), task_id=f"t{i}")
        broker.module.add.apply_async((1, 1), queue="unknown")
        broker.park(1)
        consumer = broker.app.assembly.broker.consume([QueueSpec("celery")])
        (delivery,) = consumer.fetch(1, 0)
        (row,) = json.loads(broker.printed("queues", "--no-workers", "--json", "-Q", "celery"))
        assert 0 <= row.pop("oldest") < 60
        assert row == {"queue": "celery", "waiting": 1, "held": 1, "parked": 1, "dead": 0, "workers": None}
        consumer.reject([delivery], requeue=False)
        consumer.close()
        rows = json.loads(broker.printed("queues", "--no-workers", "--json"))
        assert [(one["queue"], one["waiting"], one["dead"]) for one in rows] == [
            ("b", 0, 0),
            ("celery", 1, 1),
            ("unknown", 1, 0),
        ]
        table = broker.printed("queues", "--no-workers")
        assert [line.split()[0] for line in table.splitlines()] == ["Queue", "b", "celery", "unknown"]
        assert CANARY not in table

    def test_ages(self) -> None:
        ages = [_age(seconds) for seconds in (0.25, 5, 90, 7200, 86400 * 3, 86400 * 800)]
        assert ages == ["0.2s", "5s", "2m", "2h", "3d", "800d"]

    def test_peeking(self, broker: Broker) -> None:
        for i in range(3):
            broker.module.add.apply_async((i, CANARY), task_id=f"t{i}", priority=i)
        said = broker.printed("queues", "peek", "celery", "-n", "2")
        assert [line.split()[:2] for line in said.splitlines()] == [["celery", "add[t0]"], ["celery", "add[t1]"]]
        assert CANARY not in said
        assert CANARY in broker.printed("queues", "peek", "celery", "--args")
        (first, *_) = json.loads(broker.printed("queues", "peek", "celery", "--json"))
        assert (first["task"], first["id"], first["priority"]) == ("add", "t0", 0)
        assert "args" not in first
        assert broker.printed("queues", "peek", "nowhere") == "Nothing waits in nowhere.\n"
        assert broker.waiting() == ["t0", "t1", "t2"]

    def test_what_is_parked_is_listed_and_cancelled(self, broker: Broker) -> None:
        results = [broker.module.add.apply_async((i, CANARY), task_id=f"t{i}") for i in range(4)]
        broker.module.total.apply_async(([1],), task_id="other")
        broker.park(5)
        said = broker.printed("queues", "parked")
        assert [line.split()[3] for line in said.splitlines()] == [
            "add[t0]",
            "add[t1]",
            "add[t2]",
            "add[t3]",
            "total[other]",
        ]
        assert CANARY not in said
        assert [one["id"] for one in json.loads(broker.printed("queues", "parked", "--json", "--task", "tot*"))] == [
            "other"
        ]
        assert len(broker.printed("queues", "parked", "-n", "1").splitlines()) == 1
        assert broker.printed("queues", "parked", "-Q", "b") == "Nothing is parked.\n"
        assert broker.run("queues", "parked", "--cancel", "t0", answer="n\n")[0] == 1
        assert broker.run("queues", "parked", "--cancel")[0] == 2
        assert broker.printed("queues", "parked", "--cancel", "t0", answer="y\n").endswith("Revoked 1 message.\n")
        assert results[0].state == "REVOKED"
        with pytest.raises(TaskRevokedError):
            results[0].get(timeout=5)
        assert json.loads(broker.printed("queues", "parked", "--cancel", "-f", "--task", "add", "--json")) == {
            "revoked": 3
        }
        assert "total[other]" in broker.printed("queues", "parked")
        assert results[3].state == "REVOKED"

    def test_the_flow_of_a_cancelled_task_hears_of_it(self, broker: Broker) -> None:
        add, total = broker.module.add, broker.module.total
        chord = (group(add.s(1, 1), add.s(2, 2)) | total.s()).apply_async()
        broker.park(1)
        broker.printed("queues", "parked", "--cancel", "-f", "--task", "add")
        (left,) = broker.waiting()
        broker.park(1)
        broker.printed("queues", "parked", "--cancel", "-f", left)
        assert chord.state == "FAILURE"

    def test_a_broker_that_does_not_answer(self, broker: Broker) -> None:
        broker.module.app.conf.broker_url = f"redis://u:{CANARY}@127.0.0.1:1/0"
        for words in (["queues", "--no-workers"], ["queues", "peek", "celery"], ["queues", "parked"]):
            code, output = broker.run(*words)
            assert code == 69
            assert "The broker does not answer" in output
            assert CANARY not in output


class TestCheck:
    def found(self, broker: Broker, *words: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        code, output = broker.run("check", "--json", "-t", "5", *words)
        rooms: dict[str, list[dict[str, Any]]] = {}
        for one in json.loads(output):
            rooms.setdefault(one["room"], []).append(one)
        return code, rooms

    def test_all_is_well(self, broker: Broker) -> None:
        code, rooms = self.found(broker, "--strict")
        assert code == 0
        assert {one["grade"] for found in rooms.values() for one in found} == {"good"}
        assert rooms["tasks"][0]["text"] == "2 tasks are known"
        assert "one.db is writable" in rooms["broker"][0]["text"]
        lines = broker.printed("check").splitlines()
        assert lines[:2] == ["settings", "  ok        nothing unknown, deprecated or dangerous"]
        assert broker.printed("-q", "check") == ""

    @pytest.mark.filterwarnings("ignore")
    def test_settings(self, broker: Broker) -> None:
        conf = broker.app.conf
        conf.task_serialiser = "json"
        conf.task_serializer = "pickle"
        conf.task_reject_on_worker_lost = True
        code, rooms = self.found(broker)
        texts = {one["text"]: one["grade"] for one in rooms["settings"]}
        assert texts["Unknown setting 'task_serialiser': did you mean 'task_serializer'?"] == "bad"
        assert any(text.startswith("task_serializer is 'pickle', which the accepted content") for text in texts)
        assert any(text.startswith("task_reject_on_worker_lost is on") for text in texts)
        assert code == 1
        del conf.changes["task_serialiser"]
        code, rooms = self.found(broker)
        assert {one["grade"] for one in rooms["settings"]} == {"doubtful"}
        assert code == 0
        assert self.found(broker, "--strict")[0] == 1

    def test_pickle_is_doubtful(self, broker: Broker) -> None:
        broker.app.conf.accept_content = ["json", "pickle"]
        _, rooms = self.found(broker)
        assert [one["text"] for one in rooms["settings"] if "any code" in one["text"]]

    def test_a_module_that_cannot_be_imported(self, broker: Broker) -> None:
        broker.app.conf.include = ["no_such_module"]
        code, rooms = self.found(broker)
        assert code == 1
        assert "No module named 'no_such_module'" in rooms["tasks"][0]["text"]

    @pytest.mark.parametrize("setting", ["broker_url", "result_backend"])
    def test_a_server_that_is_away(self, broker: Broker, setting: str) -> None:
        setattr(broker.app.conf, setting, f"redis://u:{CANARY}@127.0.0.1:1/0")
        code, rooms = self.found(broker)
        (found,) = rooms["broker" if setting == "broker_url" else "results"]
        assert code == 69
        assert found["place"] == "redis://u:**@127.0.0.1:1/0"
        assert not found["reachable"]
        assert CANARY not in json.dumps(rooms)

    def test_every_url_is_looked_at(self, broker: Broker) -> None:
        broker.app.conf.broker_url = ["redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0"]
        _, rooms = self.found(broker)
        assert [one["place"] for one in rooms["broker"]] == ["redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0"]

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("nosuch://x", "expected a broker among"),
            ("sqlite:////no/such/folder/x.db", "cannot be made"),
            ("amqp://x:y@127.0.0.1:1//", ""),
        ],
    )
    def test_urls_that_lead_nowhere(self, broker: Broker, url: str, says: str) -> None:
        broker.app.conf.broker_url = url
        code, rooms = self.found(broker)
        assert code in (1, 69)
        assert rooms["broker"][0]["grade"] == "bad"
        assert says in rooms["broker"][0]["text"]

    def test_a_file_that_others_may_read(self, broker: Broker) -> None:
        self.found(broker)
        (broker.folder / "one.db").chmod(0o644)
        _, rooms = self.found(broker)
        assert [one["grade"] for one in rooms["broker"]] == ["good", "doubtful", "good"]

    def test_memory(self, broker: Broker) -> None:
        broker.app.conf.broker_url = "memory://check"
        broker.app.conf.result_backend = None
        code, rooms = self.found(broker)
        assert code == 0
        assert rooms["results"][0]["text"] == "none are kept (result_backend is not set)"


class TestMigrate:
    TO = "sqlite:///two.db"

    @pytest.fixture(autouse=True)
    def _messages(self, broker: Broker) -> None:
        for i in range(250):
            broker.module.add.apply_async((i, CANARY), task_id=f"t{i}")
        broker.module.total.apply_async(([1],), task_id="b0", queue="b")

    def migrate(self, broker: Broker, *words: str) -> str:
        return broker.printed("migrate", "sqlite:///one.db", self.TO, "-t", "0.1", *words)

    @pytest.mark.slow
    def test_copied(self, broker: Broker) -> None:
        said = self.migrate(broker)
        assert said.splitlines()[0] == "Migrating task 1/251: add[t0]" or "total[b0]" in said.splitlines()[0]
        assert said.splitlines()[-1] == "Migrated 251 tasks."
        assert CANARY not in said
        for url in ("", self.TO):
            assert broker.waiting(url) == [f"t{i}" for i in range(250)]
            assert broker.waiting(url, "b") == ["b0"]
        consumer = broker.app.assembly.broker.consume([QueueSpec("celery")])
        (delivery,) = consumer.fetch(1, 0)
        consumer.close()
        assert delivery.message is not None
        assert not delivery.message.redelivered

    @pytest.mark.slow
    def test_taken(self, broker: Broker) -> None:
        assert "Migrated 251 tasks." in self.migrate(broker, "-a")
        assert broker.waiting() == broker.waiting(queue="b") == []
        assert broker.waiting(self.TO) == [f"t{i}" for i in range(250)]

    def test_so_many(self, broker: Broker) -> None:
        assert "Migrated 120 tasks." in self.migrate(broker, "-a", "-n", "120", "-Q", "celery")
        assert len(broker.waiting()) == 130
        assert broker.waiting(self.TO) == [f"t{i}" for i in range(120)]

    @pytest.mark.slow
    def test_some_tasks_to_another_queue(self, broker: Broker) -> None:
        assert "Migrated 1 task." in self.migrate(broker, "-a", "-T", "total", "-Q", "b:celery,celery")
        assert broker.waiting(self.TO) == ["b0"]
        assert len(broker.waiting()) == 250
        (sent,) = broker.app.assembly.open_broker(self.TO).inspection.peek("celery", 1)  # type: ignore[attr-defined]
        assert json.loads(sent.envelope)["properties"]["delivery_info"]["routing_key"] == "celery"

    @pytest.mark.slow
    def test_what_is_parked_goes_too(self, broker: Broker) -> None:
        broker.park(3)
        self.migrate(broker, "-a", "-Q", "celery")
        assert len(broker.waiting(self.TO)) == 250
        assert broker.printed("queues", "parked") == "Nothing is parked.\n"

    def test_to_itself(self, broker: Broker) -> None:
        assert broker.run("migrate", "sqlite:///one.db", "sqlite:///one.db")[0] == 2
