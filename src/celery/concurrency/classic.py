"""Compatibility. The `TaskPool` of `celery.concurrency.solo`, `.thread`, `.gevent` and `.eventlet`, to derive from.

Named as they are, they stand for our own pools of the same kind; classes derived from them run behind the bridge.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.concurrency.base import BasePool, apply_target

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EventletTaskPool", "GeventTaskPool", "SoloTaskPool", "ThreadTaskPool"]


class SoloTaskPool(BasePool):
    """Calls the target at once, in the thread that asks for it."""

    native = "solo"
    body_can_be_buffer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_apply = apply_target  # type: ignore[method-assign]
        self.limit = 1

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "max-concurrency": 1,
            "processes": [os.getpid()],
            "max-tasks-per-child": None,
            "put-guarded-by-semaphore": True,
            "timeouts": (),
        }


class _ConcurrentTaskPool(BasePool):
    """Hands each call over to something that runs it beside the others."""

    def _hand_over(self, *call: Any) -> Any:
        """`call`: target, args, kwargs, callback, accept_callback."""
        raise NotImplementedError

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Any:
        return self._hand_over(target, args or (), kwargs or {}, callback, accept_callback)


class ApplyResult:
    """What a thread pool's `on_apply` returns: the call under way."""

    def __init__(self, future: Future[Any]) -> None:
        self.f = future
        self.get = future.result

    def wait(self, timeout: float | None = None) -> None:
        self.f.exception(timeout)


class ThreadTaskPool(_ConcurrentTaskPool):
    """Calls the target in a thread of an executor."""

    native = "threads"
    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(max_workers=self.limit)

    def on_stop(self) -> None:
        """Let those finish that run; what waits is cancelled (`[shutdown.9]`)."""
        self.executor.shutdown(cancel_futures=True)
        super().on_stop()

    def _hand_over(self, *call: Any) -> ApplyResult:
        return ApplyResult(self.executor.submit(apply_target, *call))

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "threads": len(self.executor._threads)}


class _GreenTaskPool(_ConcurrentTaskPool):
    """Calls the target in a greenlet, whose id is the `pid` that `terminate_job` takes."""

    signal_safe = False
    is_green = True
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: dict[int, Any] = {}

    def _start(self, function: Callable[..., None], *args: Any) -> Any:
        raise NotImplementedError

    def _hand_over(self, *call: Any) -> Any:
        greenlet = self._start(self._live, *call)
        self._running[id(greenlet)] = greenlet
        greenlet.link(lambda _: self._running.pop(id(greenlet), None))
        return greenlet

    def _live(self, target: Any, args: Any, kwargs: Any, callback: Any, accept_callback: Any) -> None:
        apply_target(target, args, kwargs, callback, accept_callback, getpid=self._id)

    def _id(self) -> int:
        raise NotImplementedError

    def grow(self, n: int = 1) -> None:
        self.limit = (self.limit or 0) + n

    def shrink(self, n: int = 1) -> None:
        self.limit = max(1, (self.limit or 1) - n)

    def terminate_job(self, pid: Any, signal: Any = None) -> None:
        greenlet = self._running.get(pid)
        if greenlet is not None:
            greenlet.kill()

    def _get_info(self) -> dict[str, Any]:
        running = len(self._running)
        return {
            **super()._get_info(),
            "running-threads": running,
            "free-threads": (self.limit or 0) - running,
        }


class GeventTaskPool(_GreenTaskPool):
    """Calls the target in a greenlet of gevent's."""

    native = "gevent"

    def _start(self, function: Callable[..., None], *args: Any) -> Any:
        import gevent

        return gevent.spawn(function, *args)

    def _id(self) -> int:
        import gevent

        return id(gevent.getcurrent())


class EventletTaskPool(_GreenTaskPool):
    """Calls the target in a greenlet of eventlet's, with the signals of `[signal.21]`."""

    native = "eventlet"

    def on_start(self) -> None:
        signals.eventlet_pool_started.send(sender=self)

    def on_stop(self) -> None:
        signals.eventlet_pool_preshutdown.send(sender=self)
        signals.eventlet_pool_postshutdown.send(sender=self)

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        signals.eventlet_pool_apply.send(sender=self, target=target, args=args, kwargs=kwargs)
        return super().on_apply(target, args, kwargs, *more, **options)

    def _start(self, function: Callable[..., None], *args: Any) -> Any:
        import eventlet

        return eventlet.spawn(function, *args)

    def _id(self) -> int:
        import eventlet

        return id(eventlet.getcurrent())


for _module, _cls in (
    ("solo", SoloTaskPool),
    ("thread", ThreadTaskPool),
    ("gevent", GeventTaskPool),
    ("eventlet", EventletTaskPool),
):
    _cls.__module__, _cls.__name__, _cls.__qualname__ = f"celery.concurrency.{_module}", "TaskPool", "TaskPool"
