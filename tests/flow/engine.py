"""What the engine's tests stand on: real memory adapters, the solo pool, and a runner of plain functions."""

from __future__ import annotations

import json
import threading
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.backends.memory import MemoryBackend
from celery.brokers.memory import MemoryBroker
from celery.concurrency.solo import SoloPool
from celery.lifecycle import Latch
from celery.message import MalformedMessage, Message
from celery.outcome import Failure, Record, Success
from celery.ports import BackendConfig, BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from celery.worker.admission import TaskPolicy
from celery.worker.consumer.engine import Engine, EngineParts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.outcome import Outcome
    from celery.ports import Delivery
    from celery.worker.admission import Refuse

DEADLINE = 10.0


def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Wait for a condition; returns its value."""
    end = time.monotonic() + deadline
    tick = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        tick.wait(0.002)
    return value


def document(state: str, result: Any) -> bytes:
    return json.dumps({"status": state, "result": result}).encode()


class Functions:
    """A runner: task name → function of the message, giving the outcome."""

    def __init__(self) -> None:
        self.by_name: dict[str, Callable[[Message], Outcome]] = {"add": self.add, "fail": self.fail}
        self.ran: list[str] = []
        self.calls: list[str] = []

    def start(self, index: int) -> None:
        self.calls.append(f"start {index}")

    def run(self, message: Message) -> Outcome:
        self.ran.append(message.id)
        return self.by_name[message.task](message)

    def flush(self) -> None:
        pass

    def stop(self) -> None:
        self.calls.append("stop")

    def add(self, message: Message) -> Outcome:
        args, _, _ = json.loads(message.body)
        return Success(record=Record(message.id, "SUCCESS", document("SUCCESS", sum(args))))

    def fail(self, message: Message) -> Outcome:
        return Failure(record=Record(message.id, "FAILURE", document("FAILURE", "no")), reason="no")


class Notes:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.received_ids: list[str] = []
        self.refusals: list[tuple[Delivery, Refuse]] = []
        self.expired_ids: list[str] = []
        self.revoked_ids: list[str] = []
        self.unknown_ids: list[tuple[str, float]] = []
        self.limits: list[tuple[str, str, float]] = []
        self.cuts: list[tuple[str, bool]] = []
        self.terminations: list[tuple[str, int]] = []
        self.losses: list[tuple[str, BaseException]] = []
        self.told: list[str] = []
        self.troubles: list[tuple[BaseException, float]] = []

    gates = (Latch(True),)

    def received(self, messages: Sequence[Message]) -> None:
        self.received_ids += [message.id for message in messages]

    def refused(self, delivery: Delivery, refusal: Refuse) -> None:
        self.refusals.append((delivery, refusal))

    def unknown(self, message: Message, seconds: float) -> None:
        self.unknown_ids.append((message.id, seconds))

    def dropped(self, message: Message, why: str) -> None:
        (self.expired_ids if why == "expired" else self.revoked_ids).append(message.id)

    def cut_short(self, message: Message, *, goes_back: bool) -> None:
        self.cuts.append((message.id, goes_back))

    def soft_limit(self, message: Message, limit: float) -> None:
        self.limits.append(("soft", message.id, limit))

    def hard_limit(self, message: Message, limit: float) -> None:
        self.limits.append(("hard", message.id, limit))

    def terminated(self, message: Message, signum: int) -> None:
        self.terminations.append((message.id, signum))

    def lost(self, message: Message, exc: BaseException, *, goes_back: bool = False) -> None:
        self.losses.append((message.id, exc))

    def tried_again(self, message: Message, exc: BaseException) -> None:
        self.told.append(f"tried again {message.id}")

    def connecting_failed(self, exc: BaseException, attempt: int, limit: int | None, seconds: float) -> None:
        self.told.append(f"connecting failed {attempt}/{limit}, again in {seconds}")

    def connected(self) -> None:
        self.told.append("connected")

    def ready(self) -> None:
        self.told.append("ready")

    def trouble(self, exc: BaseException, seconds: float) -> None:
        self.troubles.append((exc, seconds))

    def recovered(self) -> None:
        self.told.append("recovered")

    def flush(self) -> None:
        pass


def read_nothing_else(raw: bytes) -> Message:
    raise MalformedMessage(f"expected a task message, got {raw!r}")


class House:
    """A broker, a store, a runner and an engine over them, all of one test."""

    def __init__(self, url: str | None = None, **parts: Any) -> None:
        self.url = url or f"memory://{uuid.uuid4()}"
        self.broker: Any = MemoryBroker(BrokerConfig(self.url))
        self.store: Any = MemoryBackend(BackendConfig(self.url))
        self.runner = Functions()
        self.notes = Notes()
        self.policies = {
            "add": TaskPolicy("add"),
            "fail": TaskPolicy("fail"),
            "late": TaskPolicy("late", acks_late=True),
            "careful": TaskPolicy("careful", acks_late=True, reject_on_worker_lost=True),
        }
        self.parts = parts
        self.error: BaseException | None = None

    def engine(self) -> Engine:
        given = {
            "broker": self.broker,
            "store": self.store,
            "pool": SoloPool(self.runner),
            "queues": [spec("q")],
            "policies": self.policies.get,
            "accept": frozenset(["application/json"]),
            "read_other": read_nothing_else,
            "verdict": self.verdict,
            "observer": self.notes,
        }
        return Engine(EngineParts(**{**given, **self.parts}))  # type: ignore[arg-type]

    def verdict(self, message: Message, state: str, exc: BaseException) -> Record:
        return Record(message.id, state, document(state, f"{type(exc).__name__}: {exc}"))

    def send(self, task: str, *args: Any, queue: str = "q", **headers: Any) -> str:
        message = self.message(task, *args, queue=queue, **headers)
        MemoryBroker(BrokerConfig(self.url)).publish([Publication(message, Route("", queue, spec(queue)))])
        return message.id

    def message(self, task: str, *args: Any, queue: str = "q", **rest: Any) -> Message:
        content_type = rest.pop("content_type", "application/json")
        headers = {"task": task, "id": str(uuid.uuid4()), **rest}
        body = json.dumps([args, {}, {}]).encode()
        return Message(headers, body, content_type=content_type, routing_key=queue)

    def result(self, task_id: str) -> dict[str, Any]:
        found = self.store.wait([task_id], DEADLINE)
        assert found, f"no result of {task_id}"
        return json.loads(found[task_id])

    def depth(self, queue: str = "q") -> int:
        return MemoryBroker(BrokerConfig(self.url)).depth(queue)

    @contextmanager
    def running(self, engine: Engine | None = None) -> Iterator[Engine]:
        engine = engine or self.engine()

        def run() -> None:
            try:
                engine._parts.pool.start()
                engine.run()
            except BaseException as exc:  # noqa: BLE001 - shown by the test
                self.error = exc

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield engine
        finally:
            engine.stop()
            thread.join(DEADLINE)
            assert not thread.is_alive(), "the engine did not stop"


def spec(name: str) -> QueueSpec:
    return QueueSpec(name, routing_key=name)
