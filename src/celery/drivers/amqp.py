"""Adapter. A connection to an AMQP server: py-amqp opens it (login, TLS, tuning), and frames go over its socket.

Everything happens on one channel. What the server closes, for whatever reason, closes the connection: whoever uses it
next opens another.
"""

from __future__ import annotations

import os
import socket
import ssl as tls
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import amqp
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from celery.drivers.amqp_errors import closed, refused
from celery.drivers.amqp_frames import CHANNEL, HEARTBEAT, Came, Reader, method
from celery.drivers.failover import failover_order
from celery.exceptions import ImproperlyConfigured
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from celery.ports import BrokerConfig
    from celery.routing import QueueSpec

__all__ = ["LOGIN_OPTIONS", "Endpoint", "Link"]

#: Transport options that py-amqp logs in with; they count more than the URL, as in kombu.
LOGIN_OPTIONS = frozenset(
    """
    authentication client_properties connect_timeout locale login_method login_response password read_timeout
    socket_settings userid virtual_host write_timeout
    """.split()
)

#: Seconds that a server may take over an answer, or to take what is sent to it.
_PATIENCE = 30.0
#: Seconds that it may take to read what was published before a connection is closed.
_READ_WITHIN = 5.0


class Endpoint:
    """Where the servers are, and how to log in there."""

    def __init__(self, config: BrokerConfig) -> None:
        urls = [url for url in config.url.split(";") if url]
        self.shown = ";".join(str(maybe_sanitize_url(url)) for url in urls)
        self._config = config
        self._tries = len(urls)
        self._order = iter(failover_order(config.failover)(list(urls)))
        self._current = next(self._order)
        self._moving = threading.Lock()

    def connect(self, *, heartbeat: float = 0.0) -> Link:
        """Open a connection to the first server that answers. Raises `OperationalError`; see `refused`.

        `heartbeat`: seconds after which both sides may expect a sign of life.
        """
        error: Exception | None = None
        for _ in range(self._tries):
            url = self._current
            try:
                return self._connect(url, heartbeat)
            except (OperationalError, ImproperlyConfigured) as exc:
                error = error or exc
                self._leave(url)
        assert error is not None
        raise error

    def _leave(self, url: str) -> None:
        """The next one's turn, for everybody, unless somebody has moved on already."""
        with self._moving:
            if self._current is url:
                self._current = next(self._order, url)

    def _connect(self, url: str, heartbeat: float) -> Link:
        parts = urlsplit(url)
        shown = str(maybe_sanitize_url(url))
        secure = self._config.ssl or parts.scheme == "amqps"
        given = self._config.options
        options = {name: given[name] for name in LOGIN_OPTIONS if given.get(name) is not None}
        try:
            login = {
                "host": f"{_bracketed(parts.hostname or 'localhost')}:{parts.port or (5671 if secure else 5672)}",
                "userid": unquote(parts.username or "guest"),
                "password": unquote(parts.password if parts.password is not None else "guest"),
                "virtual_host": unquote(parts.path[1:]) or "/",
                "ssl": _verifying(self._config.ssl, parts.hostname or "localhost") if secure else False,
                "connect_timeout": self._config.connect_timeout,
                "heartbeat": heartbeat,
                **options,
            }
            login["read_timeout"] = options.get("read_timeout") or max(login["connect_timeout"], 5.0)
            connection = amqp.Connection(**login)
            connection.connect()
        except (amqp.exceptions.AMQPError, OSError, tls.SSLError) as exc:
            raise refused(exc, shown) from exc
        except (ValueError, NotImplementedError) as exc:
            raise ImproperlyConfigured(f"broker_login_method: {shown} cannot be logged in to that way: {exc}") from exc
        link = Link(connection, shown, options.get("read_timeout"), options.get("write_timeout"))
        try:
            link.call(method(20, 10, b"\0"), {(20, 11)})
        except BaseException:
            link.close()
            raise
        return link


def _verifying(ssl: Any, host: str) -> dict[str, Any]:
    """`broker_use_ssl` as py-amqp takes it. Certificate and name are verified unless it says otherwise."""
    options = dict(ssl) if isinstance(ssl, Mapping) else {}
    options.setdefault("cert_reqs", tls.CERT_REQUIRED)
    if options["cert_reqs"] != tls.CERT_NONE:
        options.setdefault("server_hostname", host)
    return options


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Link:
    """One connection. One thread uses it, and another may send heartbeats."""

    def __init__(
        self, connection: Any, shown: str, read_timeout: float | None = None, write_timeout: float | None = None
    ) -> None:
        """`read_timeout`, `write_timeout`: seconds that the server may take over an answer, and to take what is sent to
        it, at the most; None: as long as whoever uses the connection says."""
        self._connection = connection  # so that its socket stays open
        self._line: socket.socket = connection.sock
        self._most = read_timeout or _PATIENCE, write_timeout or _PATIENCE
        self._is_plain = not isinstance(self._line, tls.SSLSocket)
        self._asked = 0.0
        self.patience = _PATIENCE
        with suppress(OSError):  # py-amqp's read timeout is for the login
            self._line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
        self._reader = Reader()
        self._sending = threading.Lock()
        #: A TLS session is not to be read from while another thread writes.
        self._receiving = nullcontext() if self._is_plain else self._sending
        self.shown = shown
        self.pid = os.getpid()
        self.closed = False
        self.frame_max: int = connection.frame_max or 131072
        #: Seconds, as both sides agreed; 0: none.
        self.heartbeat: float = connection.heartbeat or 0
        #: What the server can do beyond the protocol (`connection.start`).
        self.capabilities: frozenset[str] = frozenset(
            name for name, granted in (connection.server_capabilities or {}).items() if granted
        )
        #: What came and nobody has taken yet.
        self.inbox: deque[Came] = deque()
        #: Why the server takes no messages now; "" if it does.
        self.blocked = ""
        #: Queues that were declared over it, by name, and exchanges; None: it is there, and was not described.
        self.declared: dict[str, QueueSpec | None] = {}
        #: Messages that were published since confirms were asked for; None: nobody has.
        self.published: int | None = None
        #: Something was published that nobody has confirmed: the server may not have read it yet.
        self.unheard = False
        self.heard_at = time.monotonic()

    def fileno(self) -> int:
        return self._line.fileno()

    @property
    def patience(self) -> float:
        """Seconds that the server may take over an answer, or to take what is sent to it."""
        return self._patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        if seconds != self._asked:
            self._asked = seconds
            self._patience, self._taken_within = min(seconds, self._most[0]), min(seconds, self._most[1])
            with suppress(OSError):  # closed: whoever sends over it is told
                self._line.settimeout(0 if self._is_plain else self._taken_within)

    def send(self, data: bytes) -> None:
        """Raises `OperationalError`; then the connection is closed."""
        try:
            with self._sending:
                self._write(data)
        except (OSError, ValueError) as exc:
            self.hang_up()
            blocked = f"; it had stopped taking messages: {self.blocked}" if self.blocked else ""
            raise OperationalError(f"lost the connection to {self.shown} while sending: {exc}{blocked}") from exc

    def _write(self, data: bytes) -> None:
        """Nearly always the system takes it all at once. Only what it does not take is waited for: with a timeout a
        socket looks first whether it is ready, and each time the interpreter may go to another thread for long."""
        if self._is_plain:
            with suppress(BlockingIOError):
                sent = self._line.send(data)
                if sent == len(data):
                    return
                data = data[sent:]
            self._line.settimeout(self._taken_within)
        self._line.sendall(data)
        if self._is_plain:
            self._line.settimeout(0)

    def beat(self) -> None:
        """Say that we are alive."""
        with suppress(OperationalError):
            self.send(HEARTBEAT)

    def call(self, data: bytes, answers: Collection[tuple[int, int]], timeout: float | None = None) -> Came:
        """Send, and wait for one of these methods; the rest of what comes stays in `inbox`.

        Raises `OperationalError` if the connection fails or no answer comes, and what a refusal means.
        """
        self.send(data)
        return self.answer(answers, timeout)

    def answer(self, answers: Collection[tuple[int, int]], timeout: float | None = None) -> Came:
        """The next of these methods; the rest stays in `inbox`. Raises as `call`."""
        seconds = self._patience if timeout is None else timeout
        came = self.heard(answers, seconds)
        if came is None:
            self.hang_up()
            blocked = f"; it had stopped taking messages: {self.blocked}" if self.blocked else ""
            raise OperationalError(f"{self.shown} did not answer for {seconds:g} s{blocked}")
        return came

    def heard(self, answers: Collection[tuple[int, int]], timeout: float) -> Came | None:
        """As `answer`; None if nothing came in time."""
        deadline = time.monotonic() + timeout
        looked = 0
        while True:
            for place in range(looked, len(self.inbox)):
                if self.inbox[place].kind in answers:
                    found = self.inbox[place]
                    del self.inbox[place]
                    return found
            looked = len(self.inbox)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            self.wait(remaining)

    def wait(self, timeout: float, until_readable: Sequence[int] = ()) -> list[int]:
        """Wait for the server or one of the descriptors; takes in what the server sent. Returns those descriptors.

        May return early: a silent server is found out while somebody waits, however long he would.
        """
        if self.heartbeat:
            timeout = min(timeout, self.heartbeat / 2)
        pending = getattr(self._line, "pending", None)
        waiting = pending is not None and bool(pending())
        try:
            mine = self._line.fileno()
            ready = wait_readable((mine, *until_readable), 0.0 if waiting else timeout)
        except (OSError, ValueError) as exc:
            self.hang_up()
            raise OperationalError(f"lost the connection to {self.shown}: {exc}") from exc
        if waiting or mine in ready:
            self._receive()
        elif self.heartbeat and time.monotonic() - self.heard_at > 2 * self.heartbeat:
            self.hang_up()
            raise OperationalError(f"{self.shown} gave no sign of life for {2 * self.heartbeat:g} s")
        return [each for each in ready if each != mine]

    def _receive(self) -> None:
        try:
            with self._receiving:
                data = self._line.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self.heard_at = time.monotonic()
            for came in self._reader.feed(data):
                self._take(came)
        except (BlockingIOError, tls.SSLWantReadError, tls.SSLWantWriteError):
            pass
        except (OSError, ValueError) as exc:
            self.hang_up()
            raise OperationalError(f"lost the connection to {self.shown}: {exc}") from exc

    def _take(self, came: Came) -> None:
        if came.kind == (10, 60):
            self.blocked = came.arguments[1:].decode("utf-8", "replace") or "blocked"
        elif came.kind == (10, 61):
            self.blocked = ""
        elif came.kind == (10, 50) or (came.kind == (20, 40) and came.channel == CHANNEL):
            with suppress(OperationalError):
                self.send(method(10, 51, channel=0) if came.kind[0] == 10 else method(20, 41))
            self.hang_up()
            raise closed(came.arguments, self.shown)
        else:
            if came.kind == (20, 40):
                self.send(method(20, 41, channel=came.channel))
            self.inbox.append(came)

    def is_stale(self) -> bool:
        """Whether the server has closed it, or said something since, which over an idle connection is the same."""
        try:
            while wait_readable((self._line.fileno(),), 0.0):
                self.wait(0.0)
        except (OperationalError, ImproperlyConfigured, OSError, ValueError):
            return True
        return self.closed

    def hang_up(self) -> None:
        """Let go of the connection without a word."""
        self.closed = True
        with suppress(OSError):
            self._line.close()

    def close(self) -> None:
        """Part in good order. In a forked child the connection stays the parent's.

        The server answers once it has read all that was sent before: what was published without confirms is waited for,
        or it would be lost with the connection.
        """
        if not self.closed and self.pid == os.getpid():
            patience = _READ_WITHIN if self.unheard else 1.0
            with suppress(OperationalError, ImproperlyConfigured):
                self.call(method(10, 50, struct.pack(">HBHH", 200, 0, 0, 0), channel=0), {(10, 51)}, patience)
        self.hang_up()
