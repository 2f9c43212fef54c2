"""Live exchange with a real Celery 5.7 on one Redis: publish, consume, restore, inherit and wait, both ways.

`CELERY_REFERENCE_PYTHON` names a Python that has celery[redis] 5.7 installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.broker import take
from tests.servers import RedisServer

from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.message import Message
from celery.outcome import Record
from celery.ports import BackendConfig, BrokerConfig, Publication
from celery.routing import QueueSpec, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = os.environ.get("CELERY_REFERENCE_PYTHON", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python with Celery 5.7"),
]

DEADLINE = 40.0
APP = """
import os
from celery import Celery
app = Celery("theirs", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.broker_transport_options = {"visibility_timeout": 3}

@app.task(name="add")
def add(x, y):
    return x + y
"""
QUEUE = QueueSpec("celery", exchange="celery", routing_key="celery")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Reference:
    """The real Celery, in processes of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._environment = {"PATH": os.environ["PATH"], "URL": url, "HOME": str(folder)}
        self._workers: list[subprocess.Popen[bytes]] = []
        (folder / "theirs.py").write_text(APP)

    def run(self, code: str) -> str:
        command = [REFERENCE, "-c", f"from theirs import app, add\n{code}"]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def worker(self) -> None:
        options = ["-P", "solo", "-l", "INFO", "--without-mingle", "--without-gossip"]
        command = [REFERENCE, "-m", "celery", "-A", "theirs", "worker", *options]
        with (self._folder / "worker.log").open("ab") as log:
            started = subprocess.Popen(command, cwd=self._folder, env=self._environment, stdout=log, stderr=log)
        self._workers.append(started)

    def stop(self) -> None:
        while self._workers:
            worker = self._workers.pop()
            worker.kill()
            worker.wait()


@pytest.fixture
def theirs(tmp_path: Path, server: RedisServer) -> Iterator[Reference]:
    reference = Reference(tmp_path, server.url())
    yield reference
    reference.stop()


@pytest.fixture
def broker(server: RedisServer) -> Iterator[RedisBroker]:
    broker = RedisBroker(BrokerConfig(server.url(), {"visibility_timeout": 3, "lease_timeout": 1.5}))
    yield broker
    broker.close()


@pytest.fixture
def backend(server: RedisServer) -> Iterator[RedisStore]:
    backend = RedisStore(BackendConfig(server.url()))
    yield backend
    backend.close()


def call(id: str, *args: Any, priority: int = 0) -> Publication:
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers = {
        "lang": "py", "task": "add", "id": id, "root_id": id, "parent_id": None, "group": None, "retries": 0,
        "eta": None, "expires": None, "timelimit": [None, None], "argsrepr": repr(args), "kwargsrepr": "{}",
        "origin": "ours", "ignore_result": False,
    }  # fmt: skip
    properties = {"correlation_id": id, "reply_to": "x", "delivery_mode": 2, "priority": priority}
    body = json.dumps([args, {}, embed]).encode()
    return Publication(Message(headers, body, properties=properties, routing_key="celery"), Route("", "celery", QUEUE))


def until(condition: Any, what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.05)


def until_abandoned(server: RedisServer) -> None:
    """Until the visibility timeout of all that is reserved is over. Their worker looks for it as it starts."""

    def oldest() -> float:
        return float(server.call("ZREVRANGE", "unacked_index", 0, 0, "WITHSCORES")[1])

    until(lambda: oldest() < time.time() - 3.1, "the visibility timeout")


def value(document: bytes) -> Any:
    read = json.loads(document)
    assert read["status"] == "SUCCESS", read
    return read["result"]


def test_theirs_runs_ours_and_ours_waits(theirs: Reference, broker: RedisBroker, backend: RedisStore) -> None:
    broker.publish([call("a", 1, 2), call("b", 3, 4, priority=9)])
    theirs.worker()
    assert value(backend.wait(["a"], DEADLINE)["a"]) == 3
    assert value(backend.wait(["b"], DEADLINE)["b"]) == 7


def test_ours_takes_theirs_and_theirs_waits(theirs: Reference, broker: RedisBroker, backend: RedisStore) -> None:
    """Their process sends and waits; we fetch, answer and acknowledge in one step."""
    said: list[str] = []
    code = "print(add.apply_async((20, 22), priority=3).get(timeout=30))"
    thread = threading.Thread(target=lambda: said.append(theirs.run(code)))
    consumer = broker.consume([QUEUE])
    thread.start()
    (delivery,) = take(consumer, 1, deadline=DEADLINE)
    message = delivery.message
    assert message is not None
    assert (message.task, message.priority, message.redelivered) == ("add", 3, False)
    assert json.loads(message.body)[0] == [20, 22]
    backend.save([Record(message.id, "SUCCESS", _document(message.id, 42))])
    consumer.ack([delivery])
    consumer.close()
    thread.join(DEADLINE)
    assert said == ["42"]


def _document(id: str, result: Any) -> bytes:
    document = {"status": "SUCCESS", "result": result, "traceback": None, "children": [], "task_id": id}
    return json.dumps({**document, "date_done": "2026-01-01T00:00:00+00:00"}).encode()


def test_theirs_inherits_what_ours_parked(
    theirs: Reference, broker: RedisBroker, backend: RedisStore, server: RedisServer
) -> None:
    broker.publish([call("a", 1, 2)])
    consumer = broker.consume([QUEUE])
    due = time.time() + 2
    consumer.defer([(take(consumer, 1)[0], due)])
    consumer.close()
    theirs.worker()
    assert backend.wait(["a"], 0.5) == {}
    theirs.stop()
    until_abandoned(server)
    assert time.time() >= due
    theirs.worker()
    assert value(backend.wait(["a"], DEADLINE)["a"]) == 3
    until(lambda: server.call("HLEN", "unacked") == 0, "acknowledged")


def test_theirs_leaves_alone_what_ours_holds(
    theirs: Reference, broker: RedisBroker, backend: RedisStore, server: RedisServer
) -> None:
    """For longer than the visibility timeout: what is held is scored anew."""
    broker.publish([call("a", 1, 2)])
    consumer = broker.consume([QUEUE])
    held = take(consumer, 1)
    end = time.time() + 4
    until(lambda: time.time() > end, "the visibility timeout")
    theirs.worker()
    broker.publish([call("b", 1, 2)])
    assert backend.wait(["b"], DEADLINE)
    assert backend.load(["a"]) == [None]
    until(lambda: server.call("HKEYS", "unacked") == [held[0].tag], "only ours is left")
    consumer.ack(held)
    consumer.close()


def test_what_we_requeue_theirs_sees_redelivered(theirs: Reference, broker: RedisBroker, backend: RedisStore) -> None:
    """[wire.20]"""
    broker.publish([call("a", 1, 2)])
    consumer = broker.consume([QUEUE])
    consumer.reject(take(consumer, 1), requeue=True)
    consumer.close()
    code = """
with app.connection_for_read() as connection:
    message = connection.SimpleQueue("celery").get(timeout=10)
    print(message.delivery_info["redelivered"], message.headers["redelivered"], message.headers["id"])
"""
    assert theirs.run(code) == "True True a"
