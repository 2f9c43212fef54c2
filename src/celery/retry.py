"""Domain. How often and when to try again: the policies of publishing and of tasks, and the arithmetic of back-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["PublishPolicy", "RetryPolicy", "delay", "rebind"]

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


def delay(factor: int, retries: int, maximum: float, draw: Callable[[int], int] | None = None) -> int:
    """Whole seconds to wait after `retries` earlier ones: `factor`, doubled at each, at most `maximum` (`[task.33]`).

    `draw(n)` gives any whole number below n: with it the wait is any part of that, from 0 to the whole.
    """
    # The power is bounded first: after a thousand retries it would be a number of three hundred digits.
    seconds = max(0, int(min(maximum, factor * 2 ** min(max(retries, 0), 64))))
    return seconds if draw is None else draw(seconds + 1)


class RetryPolicy(Struct, frozen=True):
    """When a task is tried again by itself, and how long it waits before that (`[task.32]`, `[task.33]`)."""

    #: Exceptions that are retried; none: none.
    errors: tuple[type[BaseException], ...] = ()
    #: Exceptions among them that are not.
    exempt: tuple[type[BaseException], ...] = ()
    #: What `Task.retry` is given: `countdown`, `max_retries`, options of the call.
    arguments: Mapping[str, Any] = {}
    #: Seconds before the first retry; 0: no back-off.
    backoff: int = 0
    #: Seconds.
    backoff_max: float = 600
    #: Any part of the wait instead of the whole, so that many that failed at once do not come back at once.
    jitter: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RetryPolicy:
        """From options named as the attributes of tasks are. Raises TypeError for what is no exception class."""
        return cls(
            errors=_exceptions("autoretry_for", options.get("autoretry_for")),
            exempt=_exceptions("dont_autoretry_for", options.get("dont_autoretry_for")),
            arguments=dict(options.get("retry_kwargs") or {}),
            # True is 1; less than a second would never grow.
            backoff=int(max(1.0, float(options.get("retry_backoff") or 0))) if options.get("retry_backoff") else 0,
            backoff_max=options.get("retry_backoff_max", 600),
            jitter=bool(options.get("retry_jitter", True)),
        )

    def wait(self, retries: int, draw: Callable[[int], int]) -> int | None:
        """Seconds to wait, after `retries` earlier ones, where back-off is on; else None."""
        if not self.backoff:
            return None
        return delay(self.backoff, retries, self.backoff_max, draw if self.jitter else None)


def _exceptions(option: str, given: Any) -> tuple[type[BaseException], ...]:
    if given is None:
        return ()
    kinds = tuple(given) if isinstance(given, list | tuple | set | frozenset) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{option}: expected exception classes, got {kind!r}")
    return kinds


def rebind(
    names: Sequence[str | None],
    asked: tuple[Any, Mapping[str, Any]],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arguments of a retry: those given, and for what was not given those of the call (`[task.26]`).

    `names` are the parameters that positional arguments bind, None where they have no name to callers. Neither half
    may bind a parameter that the other one binds: the given half wins.
    """
    old_args, old_kwargs = asked
    if args is not None and kwargs is None:
        bound = set(names[: len(args)])
        return args, {name: value for name, value in old_kwargs.items() if name not in bound}
    if kwargs is not None and args is None:
        left = dict(kwargs)
        positions = enumerate(names[: len(old_args)])
        changed = {i: left.pop(name) for i, name in positions if name is not None and name in left}
        return tuple(changed.get(i, value) for i, value in enumerate(old_args)), left
    return old_args if args is None else args, old_kwargs if kwargs is None else kwargs
