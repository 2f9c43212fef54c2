"""Application. Signals: who is interested connects a function, who has something to tell sends (`[signal.1]`)."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType
from typing import Any

__all__ = ("Signal",)

logger = logging.getLogger(__name__)

Receiver = Callable[..., Any]

#: Stands for "from any sender" in a receiver's key.
NONE_ID = id(None)
#: Of a code object: it takes `**kwargs`.
_VARKEYWORDS = 0x08
#: Seconds before a receiver that asked for it is tried again: 2, 4, 6 … 30.
_RETRY_STEP, _RETRY_MAX = 2.0, 30.0


class Signal:
    """Something that happens, and the functions to be called when it does.

    `receivers` is a list of (key, function or weak reference to it, retry); it is empty if and only if nobody is
    connected, so who sends often asks `if signal.receivers:` first. The list is replaced, never changed in place.
    """

    receivers: list[tuple[tuple[Any, Any], Any, bool]]

    def __init__(
        self, providing_args: Iterable[str] | None = None, use_caching: bool = False, name: str | None = None
    ) -> None:
        self.providing_args = set(providing_args or ())
        self.use_caching = use_caching
        self.name = name
        self.receivers = []
        # Re-entrant: a receiver may die, and so be taken out, in the middle of a connect in the same thread.
        self._lock = threading.RLock()

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect a function: `connect(fun, sender=None, weak=True, dispatch_uid=None, retry=False)`.

        Without `fun` it is a decorator. `sender`: be told of what this one sends only: the same object, or an equal
        string (a task name, for the signals that are sent with one, `[signal.2]`). A declared but not yet made task
        is connected once it is made. `weak` False keeps the function alive. `dispatch_uid` stands for the function:
        there is one connection for each uid and sender. `retry`: an error is logged and the function called again,
        after 2, 4, 6 … 30 seconds, until it succeeds. Returns the function. Raises `ValueError` if it does not
        accept keyword arguments.
        """
        if args and callable(args[0]):
            return self._connect(*args, **kwargs)

        def decorator(fun: Receiver) -> Receiver:
            return self._connect(fun, *args, **kwargs)

        return decorator

    def _connect(
        self, fun: Receiver, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
    ) -> Receiver:
        _require_keywords(fun)
        if hasattr(type(sender), "__evaluated__") and not sender.__evaluated__():
            sender.__then__(lambda: self._connect(fun, sender.__maybe_evaluate__(), weak, dispatch_uid, retry))
            # The promise must not be what keeps a weak receiver alive, nor let it die before its task is made.
            return fun
        key = _key(fun, sender, dispatch_uid)
        with self._lock:
            if all(known != key for known, _, _ in self.receivers):
                held = self._weaken(fun) if weak else fun
                self.receivers = [*self.receivers, (key, held, retry)]
        return fun

    def _weaken(self, fun: Receiver) -> Any:
        kind = weakref.WeakMethod if isinstance(fun, MethodType) else weakref.ref
        this = weakref.ref(self)

        def gone(reference: Any) -> None:
            signal = this()
            if signal is not None:
                signal._remove(lambda entry: entry[1] is reference)

        try:
            return kind(fun, gone)
        except TypeError:  # an object that takes no weak references
            return fun

    def _remove(self, matches: Callable[[tuple[Any, Any, bool]], bool]) -> bool:
        with self._lock:
            left = [entry for entry in self.receivers if not matches(entry)]
            removed = len(left) < len(self.receivers)
            if removed:
                self.receivers = left
            return removed

    def disconnect(
        self, receiver: Receiver | None = None, sender: Any = None, weak: bool | None = None, dispatch_uid: Any = None
    ) -> bool:
        """Undo a `connect` that had the same function (or uid) and sender. Says whether there was one.

        `weak` is not looked at.
        """
        key = _key(receiver, sender, dispatch_uid)
        return self._remove(lambda entry: entry[0] == key)

    def has_listeners(self, sender: Any = None) -> bool:
        """Would anybody be called, if `sender` sent?"""
        return bool(self._live(sender))

    def send(self, sender: Any, **named: Any) -> list[tuple[Receiver, Any]]:
        """Call all who are interested, in the order in which they connected.

        Returns each with what it returned, or with the exception that it raised, which is logged.
        """
        responses: list[tuple[Receiver, Any]] = []
        if not self.receivers:
            return responses
        for receiver, retry in self._live(sender):
            call = _Persistent(receiver) if retry else receiver
            try:
                response = call(signal=self, sender=sender, **named)
            except Exception as exc:
                logger.exception("Signal handler %r raised: %r", receiver, exc)
                response = exc
            responses.append((receiver, response))
        return responses

    send_robust = send

    def _live(self, sender: Any) -> list[tuple[Receiver, bool]]:
        wanted = _identity(sender)
        live = []
        for (_, wants), held, retry in self.receivers:
            if wants in (NONE_ID, wanted):
                receiver = held() if isinstance(held, weakref.ref) else held
                if receiver is not None:
                    live.append((receiver, retry))
        return live

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={sorted(self.providing_args)}>"


class _Persistent:
    """Calls a receiver until it succeeds."""

    def __init__(self, receiver: Receiver, sleep: Callable[[float], None] = time.sleep) -> None:
        self.receiver = receiver
        self.sleep = sleep

    def __call__(self, **named: Any) -> Any:
        pause = 0.0
        while True:
            try:
                return self.receiver(**named)
            except Exception:
                pause = min(pause + _RETRY_STEP, _RETRY_MAX)
                logger.exception(
                    "Could not process signal receiver %r. Retrying in %.2f seconds...", self.receiver, pause
                )
                self.sleep(pause)


def _identity(target: Any) -> Any:
    """What tells senders and receivers apart: strings by value, all else by identity."""
    if hasattr(type(target), "_get_current_object"):
        target = target._get_current_object()
    if isinstance(target, (str, bytes)):
        return target
    if isinstance(target, MethodType):
        return id(target.__self__), id(target.__func__)
    return id(target)


def _key(receiver: Receiver | None, sender: Any, dispatch_uid: Any) -> tuple[Any, Any]:
    return dispatch_uid or _identity(receiver), _identity(sender)


def _plainly_takes_keywords(fun: Receiver) -> bool:
    plain = fun.__func__ if isinstance(fun, MethodType) else fun
    if type(plain) is not FunctionType or not plain.__code__.co_flags & _VARKEYWORDS:
        return False
    return "__wrapped__" not in plain.__dict__ and "__signature__" not in plain.__dict__


def _require_keywords(fun: Receiver) -> None:
    if _plainly_takes_keywords(fun):
        return
    import inspect  # heavy, and wanted only for callables that are no plain functions

    try:
        parameters = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):  # written in C: nothing to look at
        return
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(
            f"Signal receiver must accept keyword arguments: got {fun!r}, which has no **kwargs; add them, "
            f"since signals are sent with arguments that later versions may add to"
        )
