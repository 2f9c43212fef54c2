"""Adapter. Asking queues for messages over AMQP: many requests in one round trip, an equal share of each queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.drivers.amqp_frames import method, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came

__all__ = ["Asking"]

#: Requests that are sent to a queue at first, and at most, before it is known how much there is.
_FIRST, _MOST = 8, 1024


class Asking:
    """How much to ask each queue for. One that had as much as it was asked for is asked for more the next time."""

    def __init__(self) -> None:
        self._hopes: dict[str, int] = {}
        self._turn = 0

    def begin(self) -> None:
        """What cannot be shared equally goes to another queue each time."""
        self._turn += 1

    def shares(self, names: Sequence[str], n: int) -> list[tuple[str, int]]:
        """How many of n to ask each of these queues for."""
        turn = self._turn % len(names)
        share, rest = divmod(n, len(names))
        shares = [(name, share + (place < rest)) for place, name in enumerate([*names[turn:], *names[:turn]])]
        return [(name, min(wanted, self._hopes.get(name, _FIRST))) for name, wanted in shares if wanted]

    def ask(self, link: Link, wanted: Iterable[tuple[str, int]]) -> Iterator[tuple[str, Came, int]]:
        """So many of each queue, or what there is: the queue, the message, and how many more it has."""
        link.send(b"".join(method(60, 70, b"\0\0" + short(name) + b"\0") * share for name, share in wanted))
        for name in [name for name, share in wanted for _ in range(share)]:
            came = link.answer({(60, 71), (60, 72)})
            if came.kind == (60, 71):
                yield name, came, int.from_bytes(came.arguments[-4:], "big")

    def learn(self, name: str, share: int, got: int) -> bool:
        """A queue was asked for its share, and so many came. Whether it may have more."""
        if got < share:
            self._hopes[name] = max(_FIRST, got)
            return False
        self._hopes[name] = min(_MOST, max(self._hopes.get(name, _FIRST), 2 * share))
        return True
