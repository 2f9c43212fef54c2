"""Application. The worker's mailbox: hears commands in a thread of its own, has the panel obey, and answers."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from kombu.matcher import match

from celery import codecs
from celery.app.commands import mailbox_settings
from celery.exceptions import ImproperlyConfigured, WorkerTerminate
from celery.platforms import EX_OK
from celery.ports import Broadcasting, Notice
from celery.waits import drain, poke, wait_readable
from celery.worker.consumer.consumer import state_for
from celery.worker.control import Panel
from celery.worker.parts import left

if TYPE_CHECKING:
    from celery.ports import Listener
    from celery.worker.worker import WorkController

__all__ = ["Pidbox", "gPidbox", "wanted_by"]

logger = logging.getLogger("celery.worker.control")

#: Seconds between two tries to hear again, at first and at most.
_PAUSE, _PAUSE_MOST = 0.5, 10.0
#: Seconds between two looks at whether the listener is well.
_HEAR = 5.0
#: Seconds that the start waits at most, so that whoever sees the worker ready can reach it.
_READY_WITHIN = 5.0
#: Whoever asks for the end is not answered (`[control.33]`).
_UNANSWERED = frozenset({"shutdown"})
#: Clocks above this are no clocks; a hostile one would spoil those of all workers.
_CLOCK_MOST = 1 << 62


def wanted_by(worker: WorkController) -> bool:
    """Whether this worker is to have a mailbox, and can (`[control.39]`)."""
    if not worker.app.conf.worker_enable_remote_control:
        return False
    return isinstance(worker.app.assembly.broker_for_read, Broadcasting)


class Pidbox:
    """A part that lets the worker be commanded from afar (`[wirectl.2]`).

    Its thread does nothing else: the worker answers while its engine, its solo task or its connection is busy, and
    while it stops. With greenlet pools the thread is a greenlet. It ends with the worker.
    """

    name = "Control"

    def __init__(self, worker: WorkController) -> None:
        """Raises `ImproperlyConfigured` for queues that are to be durable and exclusive."""
        app = worker.app
        self._worker = worker
        self._clock = app.clock
        self._listens_at: Any = app.assembly.broker_for_read
        self._answers_by: Any = app.assembly.broker
        self._settings = mailbox_settings(app.conf)
        self._state = state_for(worker)
        self._thread: threading.Thread | None = None
        self._tried = threading.Event()
        self._stopping = False
        self._readable = self._writable = -1

    # -- the part ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen; returns when commands reach the worker, or cannot for now."""
        self._readable, self._writable = os.pipe()
        for fd in (self._readable, self._writable):
            os.set_blocking(fd, False)
        self._stopping = False
        self._tried.clear()
        self._thread = threading.Thread(target=self._run, name="celery-control", daemon=True)
        self._thread.start()
        self._tried.wait(_READY_WITHIN)

    def stop(self, deadline: float | None) -> None:
        """End the thread; a command that is being obeyed is waited for, for a while."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        poke(self._writable)
        if thread is threading.current_thread():
            return
        thread.join(left(deadline, _READY_WITHIN))
        if thread.is_alive():
            if deadline is None:  # else the broker is silent, and whoever listens to it is left behind without a word
                logger.warning("A remote command still runs; its thread is left behind")
            return
        os.close(self._readable)
        os.close(self._writable)

    # -- its thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _PAUSE
        while not self._stopping:
            listener: Listener | None = None
            try:
                listener = self._listens_at.listen([self._settings.node(self._worker.hostname)])
                if pause > _PAUSE:
                    logger.info("Remote commands are heard again")
                pause = _PAUSE
                self._tried.set()
                self._hear(listener)
            except (OperationalError, ImproperlyConfigured) as exc:  # the engine says it too, and what to do
                if pause == _PAUSE:
                    logger.warning("Remote commands cannot be heard for now: %s", exc)
                pause = self._rest(pause)
            except Exception:
                logger.exception("Remote commands cannot be heard for now")
                pause = self._rest(pause)
            finally:
                self._tried.set()
                if listener is not None:
                    self._leave(listener)

    def _rest(self, pause: float) -> float:
        wait_readable([self._readable], pause)
        return min(pause * 2, _PAUSE_MOST)

    def _leave(self, listener: Listener) -> None:
        with suppress(OperationalError):  # then the broker takes the mailbox away by itself
            listener.close()

    def _hear(self, listener: Listener) -> None:
        while not self._stopping:
            for notice in listener.hear(_HEAR, [self._readable]):
                self.receive(notice)
        drain(self._readable)

    def receive(self, notice: Notice) -> None:
        """Obey a command that came, and answer if it wants that. What cannot be read is told of and passed over."""
        try:
            command = self._read(notice)
        except Exception as exc:  # noqa: BLE001 - anybody can send anything
            logger.error("A remote command cannot be read, and is passed over: %r", exc)
            return
        if command is None:
            return
        method, arguments, reply_to, ticket = command
        logger.debug("remote command %s(%r), to be answered to %r, ticket %r", method, arguments, reply_to, ticket)
        try:
            reply = self.obey(method, arguments)
        except SystemExit as exc:
            self._end_worker(exc)
            return
        if reply_to is not None and method not in _UNANSWERED:
            self._answer(reply, reply_to, ticket)

    def _read(self, notice: Notice) -> tuple[str, dict[str, Any], tuple[str, str] | None, Any] | None:
        """Method, arguments, where the reply goes and the ticket of a command to us; None if it is for others.

        Raises whatever the decoder raises, and TypeError for what is no command.
        """
        body = codecs.decode(notice.body, notice.content_type, notice.content_encoding, self._settings.accept)
        self._adjust_clock(notice.headers.get("clock"))
        if not isinstance(body, Mapping):
            raise TypeError(f"expected a command as a mapping, got {body!r:.200}")
        if not self._is_meant(body.get("destination"), body.get("pattern"), body.get("matcher")):
            return None
        method, arguments, reply_to = body.get("method"), body.get("arguments") or {}, body.get("reply_to") or None
        if not isinstance(method, str) or not isinstance(arguments, Mapping):
            raise TypeError(f"expected a method and its arguments, got {method!r:.100} and {arguments!r:.100}")
        place: tuple[str, str] | None = None
        if reply_to is not None:
            place = reply_to["exchange"], reply_to["routing_key"]
            if not all(isinstance(name, str) for name in place):
                raise TypeError(f"expected the exchange and routing key of the reply as text, got {reply_to!r:.200}")
        return method, {str(name): value for name, value in arguments.items()}, place, body.get("ticket")

    def _is_meant(self, destination: Any, pattern: Any, matcher: Any) -> bool:
        """`[wirectl.8]`."""
        hostname = self._worker.hostname
        if destination:
            return hostname in destination
        if pattern and matcher:
            return bool(match(hostname, pattern, matcher))
        return True

    def _adjust_clock(self, clock: Any) -> None:
        if isinstance(clock, int) and 0 < clock < _CLOCK_MOST:
            self._clock.adjust(clock)

    def obey(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """What the command gives, or `{"error": …}` (`[wirectl.7]`). Raises SystemExit if the worker is to end."""
        try:
            return Panel.data[method](self._state, **arguments)
        except KeyError as exc:
            if method not in Panel.data:
                logger.error("There is no remote command %r", method)
            else:
                logger.exception("The remote command %s failed", method)
            return {"error": repr(exc)}
        except Exception as exc:
            logger.exception("The remote command %s failed", method)
            return {"error": repr(exc)}

    def _answer(self, reply: Any, reply_to: tuple[str, str], ticket: Any) -> None:
        try:
            content = codecs.encode({self._worker.hostname: reply}, self._settings.serializer)
        except Exception as exc:
            logger.exception("The reply to a remote command cannot be written")
            content = codecs.encode({self._worker.hostname: {"error": repr(exc)}}, self._settings.serializer)
        content_type, content_encoding, body = content
        headers = {"ticket": ticket, "clock": self._clock.forward()}
        exchange, key = reply_to
        notice = Notice(exchange, "direct", key, body, content_type, content_encoding, headers, {"delivery_mode": 1})
        try:
            self._answers_by.tell([notice])
        except OperationalError as exc:
            logger.warning("The reply to a remote command is lost: %s", exc)

    def _end_worker(self, exc: SystemExit) -> None:
        """A command has asked for the end of this worker, and of no other in this process."""
        if isinstance(exc, WorkerTerminate):
            self._worker.terminate(in_sighandler=True)
        else:
            self._worker.stop(in_sighandler=True, exitcode=exc.code if isinstance(exc.code, int) else EX_OK)


#: The name for greenlet pools: their threads are greenlets already.
gPidbox = Pidbox  # noqa: N816 - its public name
