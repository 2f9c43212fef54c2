"""Domain. How often and when to try again: the policy of publishing, and the arithmetic of back-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PublishPolicy"]

_NAMES = ("max_retries", "interval_start", "interval_step", "interval_max", "retry_errors")


class PublishPolicy(Struct, frozen=True):
    """`task_publish_retry_policy` (`[call.7]`): waits of start, start + step, … seconds, at most `interval_max`."""

    #: None: for ever.
    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 1.0
    #: Only these exception types are tried again; None: whatever the broker calls a connection error.
    retry_errors: tuple[type[BaseException], ...] | None = None

    @classmethod
    def of(cls, *layers: Mapping[str, Any] | None) -> PublishPolicy:
        """Merge policies, later ones over earlier ones. Raises TypeError for a name that no policy has."""
        merged: dict[str, Any] = {}
        for layer in layers:
            merged.update(layer or {})
        unknown = sorted(set(merged) - set(_NAMES) - {"errback"})
        if unknown:
            raise TypeError(f"retry_policy: expected keys among {', '.join(_NAMES)}; got {', '.join(unknown)}")
        merged.pop("errback", None)
        if merged.get("retry_errors") is not None:
            merged["retry_errors"] = tuple(merged["retry_errors"])
        return cls(**merged)

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each further try; ends when the tries are used up."""
        wait = self.interval_start
        tried = 0
        while self.max_retries is None or tried < self.max_retries:
            yield min(wait, self.interval_max)
            wait += self.interval_step
            tried += 1
