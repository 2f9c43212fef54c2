"""Flow. What is done with messages that others have taken over while this worker was frozen or cut off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery.ports import Fenced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.ports import Consumer, Pool
    from celery.worker.consumer.deliveries import Held
    from celery.worker.consumer.suspects import Suspects
    from celery.worker.consumer.waiting import WaitingRoom

__all__ = ["Fence"]

logger = logging.getLogger("celery.worker.consumer")


class Fence:
    """Drops what is lost and has not begun: it runs elsewhere, and its run here would change nothing.

    What runs goes on, since nobody can say what it has done; its settlement is passed over by the broker.
    """

    def __init__(self, fenced: Fenced, pool: Pool) -> None:
        self._fenced = fenced
        self._pool = pool

    @classmethod
    def of(cls, consumer: Consumer, pool: Pool) -> Fence | None:
        """None: nobody takes anything from this consumer."""
        return cls(consumer, pool) if isinstance(consumer, Fenced) else None

    def look(self, held: Mapping[int, Held], ready: list[Held], suspects: Suspects, waiting: WaitingRoom) -> None:
        """Drop what is lost. What the pool has of it comes back as `returned`, and is dropped then.

        Raises `OperationalError`; then the next look finds it.
        """
        lost = self._fenced.lost()
        if not lost:
            return
        ready[:] = [one for one in ready if not one.delivery.lost]
        suspects.forget_lost()
        waiting.forget_lost()
        if any(one.delivery.lost and not one.begun for one in held.values()):
            self._pool.take_back()
        logger.warning(
            "The lease of this worker ran out (it was frozen, or cut off from the broker), and other workers have "
            "taken over %d of its messages. What had not begun here is dropped; what runs goes on, and its end changes "
            "nothing.",
            len(lost),
        )
