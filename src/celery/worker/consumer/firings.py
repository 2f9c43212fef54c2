"""Flow. Chords whose members have all arrived: their bodies are sent, by whichever worker finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.ports import Sending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.outcome import Arrival
    from celery.ports import Barrier, Broker, Clock, Firing, Full, Joining, ResultBackend

__all__ = ["Firings"]

#: Seconds between two looks for barriers that were filled by a worker that did not live to fire them.
_LOOK_EVERY = 5.0


class Firings:
    """Fires full barriers.

    Where the consumer can do it together with the store, the body is sent in the step that takes the barrier away:
    once, however many workers try. Some barriers send it themselves (`ports.Sending`). Elsewhere it is sent first and
    the barrier goes afterwards: a kill in between sends it again, under the same id.
    """

    def __init__(
        self,
        joined: Joining | None,
        broker: Broker,
        store: ResultBackend,
        closing: Callable[[Full], Firing],
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._store = store
        self._barriers: Barrier = store.barriers  # type: ignore[attr-defined]
        self._sending: Joining | Sending | None = joined
        if joined is None and isinstance(self._barriers, Sending):
            self._sending = self._barriers
        self._closing = closing
        self._clock = clock
        self._look_at = 0.0
        #: The next `tend` looks for what others have left.
        self.looking = False
        #: Those to be fired.
        self.full: list[Full] = []

    def arrive(self, arrivals: Sequence[Arrival]) -> None:
        """Tell the store, where that is a step of its own."""
        self.full += self._barriers.arrive(arrivals)

    def look(self) -> None:
        """Called several times a second."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self.looking, self._look_at = True, now + _LOOK_EVERY

    def tend(self) -> None:
        """Fire what is full. Raises `OperationalError`; what is left is fired by the next call."""
        if self.looking:
            self.full += self._barriers.full()
            self.looking = False
        while self.full:
            firing = self._closing(self.full[0])
            self.full += self._fire(firing)
            del self.full[0]
            if firing.kept:  # a kill before this leaves it until it expires
                self._store.groups.delete_group(firing.kept)  # type: ignore[attr-defined]

    def _fire(self, firing: Firing) -> Sequence[Full]:
        if self._sending is not None:
            return self._sending.fire([firing])
        if firing.records:
            self._store.save(firing.records)
        if firing.publications:
            self._broker.publish(firing.publications)
        found = self._barriers.arrive(firing.arrivals) if firing.arrivals else []
        self._barriers.fired(firing.barrier, failed=firing.failed)
        return found
