"""A bench for runs: real tasks, calls and a real runner, without a worker's queue between."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.brokers.memory import MemoryConsumer
    from celery.message import Message


class Bench:
    """An app of its own, whose calls are taken off the queue and run here, one by one."""

    def __init__(self, **conf: Any) -> None:
        name = f"memory://{uuid.uuid4()}"
        self.app = Celery("bench", broker=name, backend=name, set_as_current=False)
        self.app.conf.update(conf)
        self._runner: Any = None

    def take(self) -> Message:
        consumer: MemoryConsumer = self.app.assembly.broker.consume([QueueSpec("celery")])  # type: ignore[assignment]
        (delivery,) = consumer.fetch(1, 0)
        consumer.ack([delivery])
        consumer.close()
        assert delivery.message is not None
        return delivery.message

    def run(self, task: Any, *args: Any, **options: Any) -> Any:
        task.apply_async(args, **options)
        return self.run_message(self.take())

    def run_message(self, message: Message) -> Any:
        if self._runner is None:
            self._runner = self.app.assembly.runner("w@here")
        return self._runner.run(message)

    def waiting(self) -> list[Message]:
        """The messages that wait on the queue; they are taken off it."""
        consumer: MemoryConsumer = self.app.assembly.broker.consume([QueueSpec("celery")])  # type: ignore[assignment]
        deliveries = consumer.fetch(100, 0)
        consumer.ack(deliveries)
        consumer.close()
        return [delivery.message for delivery in deliveries if delivery.message is not None]


def document(outcome: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(outcome.record.meta)
    return read


class Heard:
    """What receivers of these signals were sent, in order. A context manager."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._receivers: list[Any] = []

    def __enter__(self) -> Heard:
        for name in self.names:
            self._connect(name)
        return self

    def _connect(self, name: str) -> None:
        def receiver(sender: Any = None, signal: Any = None, **kwargs: Any) -> None:
            self.calls.append((name, {"sender": sender, **kwargs}))

        self._receivers.append(receiver)
        getattr(signals, name).connect(receiver)

    def __exit__(self, *_: object) -> None:
        for name, receiver in zip(self.names, self._receivers, strict=True):
            getattr(signals, name).disconnect(receiver)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter(self.calls)

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.calls]

    def of(self, name: str) -> dict[str, Any]:
        """What the only such signal said."""
        (found,) = [kwargs for called, kwargs in self.calls if called == name]
        return found
