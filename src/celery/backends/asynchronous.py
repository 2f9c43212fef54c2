"""Compatibility. What third-party backends derive from whose storage tells of results: `celery.backends.asynchronous`.

Such a backend brings a `BaseResultConsumer` as its `result_consumer`. Whoever waits has it drained by a `Drainer`: in
his own thread, or under gevent and eventlet by one greenlet for all ([backend.35]). Backends of ours do without.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from queue import Empty
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from kombu.utils.compat import detect_environment

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.utils.collections import BufferMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery.backends.encoding import Meta

__all__ = ["AsyncBackendMixin", "BaseResultConsumer", "Drainer", "register_drainer"]

E_CELERY_RESTART_REQUIRED = (
    "The result backend stays away, and what is under way there is lost: start this program anew."
)
#: Documents that are kept of tasks that nobody has asked for yet.
MESSAGE_BUFFER_MAX = 8192
#: Seconds of one look for what the storage has told.
_STEP = 1.0

_D = TypeVar("_D", bound="type[Drainer]")
#: The classes by which results are drained, by the name of what the program runs in (`detect_environment`).
drainers: dict[str, type[Drainer]] = {}


def register_drainer(name: str) -> Callable[[_D], _D]:
    """Decorates the `Drainer` that is used where the program runs in `name`: `default`, `gevent`, `eventlet`."""

    def register(cls: _D) -> _D:
        drainers[name] = cls
        return cls

    return register


@register_drainer("default")
class Drainer:
    """Whoever waits looks himself."""

    def __init__(self, result_consumer: BaseResultConsumer) -> None:
        self.result_consumer = result_consumer

    def start(self) -> None:
        """Somebody is about to wait."""

    def stop(self) -> None:
        """The consumer is not used any more."""

    def drain_events_until(
        self,
        p: Any,
        timeout: float | None = None,
        interval: float = 1,
        on_interval: Callable[[], Any] | None = None,
        wait: Callable[..., Any] | None = None,
    ) -> Iterator[Any]:
        """Yield after each look until `p.ready`. `interval`: seconds of one look, after which `on_interval` is called.

        Raises the builtin `TimeoutError` (`socket.timeout`) when `timeout` seconds have passed; 0 looks once.
        """
        wait = wait or self.result_consumer.drain_events
        deadline = None if timeout is None else time.monotonic() + timeout
        while not p.ready:
            left = interval if deadline is None else min(interval, max(deadline - time.monotonic(), 0.0))
            with suppress(TimeoutError):
                yield self.wait_for(p, wait, timeout=left)
            if on_interval is not None:
                on_interval()
            if deadline is not None and time.monotonic() >= deadline and not p.ready:
                raise TimeoutError

    def wait_for(self, p: Any, wait: Callable[..., Any], timeout: float | None = None) -> Any:
        """Look once, for so many seconds at most. Raises the builtin `TimeoutError` if nothing came."""
        wait(timeout=timeout)


class greenletDrainer(Drainer):  # noqa: N801 - a public name
    """One greenlet looks for all that wait; the others sleep, and nobody holds up the loop."""

    #: Starts a greenlet; for subclasses.
    spawn: ClassVar[Any] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running = False
        self._failure: Exception | None = None
        #: Set after each look, and then another one takes its place.
        self._looked = self._event()

    def _event(self) -> Any:
        """Something to wait for, as `threading.Event`; for subclasses."""
        raise NotImplementedError

    def start(self) -> None:
        if not self._running:
            self._running, self._failure = True, None
            self.spawn(self.run)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Look until it is stopped; after an error whoever waits is told of it."""
        try:
            while self._running:
                with suppress(TimeoutError):
                    self.result_consumer.drain_events(timeout=_STEP)
                self._wake()
        except Exception as exc:  # noqa: BLE001 - raised where somebody waits
            self._failure = exc
        finally:
            self._running = False
            self._wake()

    def _wake(self) -> None:
        looked, self._looked = self._looked, self._event()
        looked.set()

    def wait_for(self, p: Any, wait: Callable[..., Any], timeout: float | None = None) -> Any:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self.start()
        if not p.ready:
            self._looked.wait(timeout=timeout)


@register_drainer("gevent")
class geventDrainer(greenletDrainer):  # noqa: N801 - a public name
    def spawn(self, func: Callable[[], Any]) -> Any:
        import gevent

        greenlet = gevent.spawn(func)
        gevent.sleep(0)
        return greenlet

    def _event(self) -> Any:
        from gevent.event import Event

        return Event()


@register_drainer("eventlet")
class eventletDrainer(greenletDrainer):  # noqa: N801 - a public name
    def spawn(self, func: Callable[[], Any]) -> Any:
        from eventlet import sleep, spawn

        greenlet = spawn(func)
        sleep(0)
        return greenlet

    def _event(self) -> Any:
        return _EventletEvent()


class _EventletEvent:
    """An event of eventlet's, which knows no timeout, as `threading.Event`."""

    def __init__(self) -> None:
        from eventlet.event import Event

        self._event = Event()

    def set(self) -> None:
        if not self._event.ready():
            self._event.send(True)

    def wait(self, timeout: float | None = None) -> bool:
        from eventlet.timeout import Timeout

        with Timeout(timeout, False):
            self._event.wait()
        return bool(self._event.ready())


class PendingResults(NamedTuple):
    """Results that somebody waits for, by id; `weak`: as long as he holds them."""

    concrete: dict[str, Any]
    weak: WeakValueDictionary[str, Any]

    def find(self, task_id: str) -> Any:
        """The result with that id, or None."""
        return self.concrete[task_id] if task_id in self.concrete else self.weak.get(task_id)

    def take(self, task_id: str) -> Any:
        """That result, for which nobody waits from now on."""
        weak = self.weak.pop(task_id, None)
        return self.concrete.pop(task_id, weak)


class _Awaited:
    """All the results that somebody waits for: what `drain_events_until` is to wait for."""

    def __init__(self, result: Any) -> None:
        self._left = list(_leaves(result))

    @property
    def ready(self) -> bool:
        self._left = [one for one in self._left if one._cache is None]
        return not self._left


def _leaves(result: Any) -> Iterator[Any]:
    """The results of tasks in a result, which may be one of several."""
    if hasattr(result, "results"):
        for one in result.results:
            yield from _leaves(one)
    else:
        yield result


class AsyncBackendMixin:
    """Waiting for what is told. Beside `Backend`; in its `__init__` the class sets `result_consumer`."""

    result_consumer: BaseResultConsumer

    @cached_property
    def _pending_results(self) -> PendingResults:
        return PendingResults({}, WeakValueDictionary())

    @cached_property
    def _pending_messages(self) -> BufferMap:
        return BufferMap(MESSAGE_BUFFER_MAX)

    @property
    def is_async(self) -> bool:
        """States are told, not looked for."""
        return True

    def iter_native(self, result: Any, no_ack: bool = True, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """`(id, document)` of the results that a result of several holds, as they come ([backend.36]); for a group
        among them its documents once all are there. Keywords as of `wait_for_pending`."""
        self._check_eager()
        self.add_pending_results(list(_leaves(result)))
        left = list(result.results)
        for _ in self._wait_for_pending(result, no_ack=no_ack, **kwargs):
            ready = [one for one in left if _Awaited(one).ready]
            left = [one for one in left if one not in ready]
            yield from map(_told, ready)
        yield from map(_told, left)

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:
        """Have the result know once its task is ready ([result.12]); `weak`: unless nobody else holds it by then."""
        if start_drainer:
            self.result_consumer.drainer.start()
        if result._cache is not None:
            return result
        try:
            self._maybe_resolve_from_buffer(result)
        except Empty:
            self._add_pending_result(result.id, result, weak)
        return result

    def _maybe_resolve_from_buffer(self, result: Any) -> None:
        """Raises `queue.Empty` if nothing came before somebody asked."""
        self.result_consumer._hand_over(result, self._pending_messages.take(result.id))

    def _add_pending_result(self, task_id: str, result: Any, weak: bool = False) -> None:
        if self._pending_results.find(task_id) is result:
            return
        other = self._pending_results.take(task_id)
        pending: Any = self._pending_results.weak if weak else self._pending_results.concrete
        pending[task_id] = result
        if other is None:
            self.result_consumer.consume_from(task_id)
        else:
            result.then(partial(_share, other))

    def add_pending_results(self, results: Iterable[Any], weak: bool = False) -> list[Any]:
        """`add_pending_result` for each."""
        self.result_consumer.drainer.start()
        return [self.add_pending_result(result, weak=weak, start_drainer=False) for result in results]

    def remove_pending_result(self, result: Any) -> Any:
        """The opposite of `add_pending_result`."""
        self._pending_results.take(result.id)
        self.on_result_fulfilled(result)
        return result

    def on_result_fulfilled(self, result: Any) -> None:
        """Nobody waits for the result any more."""
        self.result_consumer.cancel_for(result.id)

    def wait_for_pending(
        self, result: Any, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True, **kwargs: Any
    ) -> Any:
        """As `result.get(…)`. Keywords: `timeout`, `on_interval`, `on_message`; others are handed to the consumer.

        Raises `celery.exceptions.TimeoutError`.
        """
        self._check_eager()
        for _ in self._wait_for_pending(result, **kwargs):
            pass
        return result.maybe_throw(callback=callback, propagate=propagate)

    def _wait_for_pending(self, result: Any, **kwargs: Any) -> Iterator[Any]:
        return self.result_consumer._wait_for_pending(result, **kwargs)

    def _check_eager(self) -> None:
        ensure = getattr(self, "_ensure_not_eager", None)
        if ensure is not None:
            ensure()


def _share(other: Any, result: Any) -> None:
    """Another object waits for the same task."""
    other._remember(result._cache)


def _told(result: Any) -> tuple[str, Any]:
    documents = [leaf._cache for leaf in _leaves(result)]
    return result.id, documents if hasattr(result, "results") else documents[0]


class BaseResultConsumer:
    """Hears what the storage tells of tasks. Subclasses bring `start`, `drain_events`, `consume_from` and `cancel_for`,
    and call `on_state_change` with each document."""

    #: The errors after which a connection is made anew.
    _connection_errors: tuple[type[BaseException], ...] = ()

    def __init__(self, backend: Any, app: Any, accept: Any, pending_results: Any, pending_messages: Any) -> None:
        self.backend = backend
        self.app = app
        self.accept = accept
        self._pending_results = pending_results
        self._pending_messages = pending_messages
        #: Called with each document while somebody waits who wants to hear them.
        self.on_message: Callable[[Meta], Any] | None = None
        #: Where old consumers put what came, by result.
        self.buckets: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self.drainer = drainers[detect_environment()](self)

    # -- for subclasses ----------------------------------------------------------------------------------------------

    def start(self, initial_task_id: str, **kwargs: Any) -> Any:
        """Connect; the first task that somebody waits for is known."""
        raise NotImplementedError

    def stop(self) -> Any:
        """Part."""

    def drain_events(self, timeout: float | None = None) -> Any:
        """Take in what has been told. Raises the builtin `TimeoutError` if nothing was for so many seconds."""
        raise NotImplementedError

    def consume_from(self, task_id: str) -> Any:
        """Somebody waits for that task."""
        raise NotImplementedError

    def cancel_for(self, task_id: str) -> Any:
        """Nobody waits for that task any more."""
        raise NotImplementedError

    def on_after_fork(self) -> Any:
        """In a child: connections are the parent's."""

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Somebody is about to wait for that result."""

    def _reconnect(self) -> Any:
        """Connect anew."""

    # -- for those who wait ------------------------------------------------------------------------------------------

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """After an error of the connection within, connect anew. Raises RuntimeError if that fails as well."""
        try:
            yield
        except self._connection_errors:
            try:
                self._reconnect()
            except self._connection_errors as exc:
                raise RuntimeError(E_CELERY_RESTART_REQUIRED) from exc

    def _after_fork(self) -> None:
        self.buckets.clear()
        self.on_message = None
        self.on_after_fork()

    def drain_events_until(
        self, p: Any, timeout: float | None = None, on_interval: Callable[[], Any] | None = None
    ) -> Iterator[Any]:
        """See `Drainer.drain_events_until`."""
        return self.drainer.drain_events_until(p, timeout=timeout, on_interval=on_interval)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Yields after each look. Raises `celery.exceptions.TimeoutError`."""
        self.on_wait_for_pending(result, timeout=timeout, **kwargs)
        before, self.on_message = self.on_message, on_message
        try:
            yield from self.drain_events_until(_Awaited(result), timeout=timeout, on_interval=on_interval)
        except TimeoutError as exc:
            raise CeleryTimeoutError("The operation timed out.") from exc
        finally:
            self.on_message = before

    # -- what came ---------------------------------------------------------------------------------------------------

    def on_out_of_band_result(self, message: Any) -> None:
        """A message that came by another way (kombu's)."""
        self.on_state_change(message.payload, message)

    def on_state_change(self, meta: Meta, message: Any) -> None:
        """A document has come. A final one goes to the result that waits for it, or is kept until somebody asks."""
        if self.on_message is not None:
            self.on_message(meta)
        if meta["status"] not in states.READY_STATES:
            return
        task_id = meta["task_id"]
        result = self._pending_results.take(task_id)
        if result is None:
            self._pending_messages.put(task_id, meta)
        else:
            self._hand_over(result, meta)

    def _hand_over(self, result: Any, meta: Meta) -> None:
        """As it is stored, an exception is a description of it."""
        result._remember(self.backend.meta_from_decoded(meta))
