"""Port. What a worker tells of the messages that come to it, before and after they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.lifecycle import Gate
    from celery.message import Message
    from celery.ports import Delivery
    from celery.worker.admission import Refuse

__all__ = ["Observer"]


class Observer(Protocol):
    """Hears what happens in a worker's main process, in its engine's thread. Everything here is quick."""

    @property
    def gates(self) -> Sequence[Gate]:
        """`received` is called while one of these is open: telling nobody should cost nothing."""

    def received(self, messages: Sequence[Message]) -> None:
        """These were taken on: they will be run, now or when they are due."""

    def refused(self, delivery: Delivery, refusal: Refuse) -> None:
        """This cannot be run here; it is kept as a dead letter where the broker has a place for it."""

    def expired(self, message: Message) -> None:
        """This came too late and is dropped."""

    def lost(self, message: Message, exc: BaseException) -> None:
        """The process that ran this died."""

    def connecting_failed(self, exc: BaseException, attempt: int, limit: int | None, seconds: float) -> None:
        """The broker did not answer at start; it is tried again in `seconds`."""

    def connected(self) -> None: ...

    def ready(self) -> None:
        """Messages are being taken from now on."""

    def trouble(self, exc: BaseException, seconds: float) -> None:
        """Taking or settling failed; it is tried again in `seconds`. What runs keeps running."""

    def recovered(self) -> None: ...

    def flush(self) -> None:
        """Write out what was told: the engine is about to hand work on, or to wait."""
