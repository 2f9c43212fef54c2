"""A monitor in a thread of the test's own process: it writes down the events that it hears."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tests.running import PATIENCE, wait_until

if TYPE_CHECKING:
    from typing import Self

    from celery import Celery


class Ear:
    """Hears events of an app's broker for as long as the block lasts."""

    def __init__(self, app: Celery, routing_key: str = "#") -> None:
        self._app = app
        self.events: list[dict[str, Any]] = []
        self._receiver = app.events.Receiver(None, {"*": self.events.append}, routing_key)
        self._listens = threading.Event()
        self._receiver.on_consume_ready = lambda *_, **__: self._listens.set()
        self._thread = threading.Thread(target=self._receiver.capture, name="ear")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listens.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._app.events.Dispatcher().send("ear-stops")  # so that it looks at once
        self._thread.join(PATIENCE)
        self.events[:] = [event for event in self.events if event["type"] != "ear-stops"]
        assert not self._thread.is_alive()

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["type"] == type]

    def types(self, uuid: str | None = None) -> list[str]:
        return [event["type"] for event in list(self.events) if uuid is None or event.get("uuid") == uuid]

    def wait_for(self, type: str, n: int = 1) -> list[dict[str, Any]]:
        """Until so many of that type have come; all of them."""
        wait_until(lambda: len(self.of(type)) >= n, f"{n} of {type}; heard {self.types()}")
        return self.of(type)
