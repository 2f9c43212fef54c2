"""Adapter. Redis as a wire: where the server is, and one connection to it that sends packed commands and reads replies.

Written on `hiredis` and a plain socket: a command costs one system call each way and a few microseconds of Python, and
nothing heavier has to be imported before the first message is sent. Works for Redis 6.0 and later.
"""

from __future__ import annotations

import _socket
import os
import re
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from celery import exceptions
from celery.exceptions import ImproperlyConfigured
from celery.waits import wait_readable

try:
    import hiredis
except ImportError as exc:
    raise ImproperlyConfigured("redis:// needs the hiredis package: pip install 'celery[redis]'") from exc

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["READ_DEADLINE", "Command", "Endpoint", "Link", "is_stale", "refused"]

#: A command's name and arguments, not packed yet.
Command: TypeAlias = "tuple[str | bytes | int | float, ...]"

#: Seconds within which a server that accepted a command must begin to answer, unless `socket_timeout` says otherwise:
#: a call that publishes to a silent server ends within ten.
READ_DEADLINE = 9.0
#: Seconds without an answer after which a connection is doubted, and for which a new one is asked whether the server
#: lives; and seconds that the first one has if it does.
_PATIENCE, _PROBE, _GRACE = 4.0, 2.0, 0.25
_BUFFER = 1 << 15
_NOTHING = object()
#: As bytes from a tuple; the package declares its types more narrowly than it works.
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)


class Endpoint:
    """Where a Redis server is and how to be let in: a URL and transport options, understood once (`[redis.18-20]`).

    `redis://[user[:password]@]host[:port][/db]`, `rediss://…` for TLS, `redis+socket:///path[?virtual_host=db]`.
    Options may also stand in the URL's query. Raises `ImproperlyConfigured` for a URL that cannot be right.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any] | None = None, tls: Any = False, connect_timeout: float = 4.0
    ) -> None:
        try:
            scheme, host, port, user, password, path, query = _parts(url)
        except ValueError:  # its text may hold a piece of the password; nor can the URL be sanitized by its parts
            shown = re.sub(r"//.*@", "//**@", url)
            raise ImproperlyConfigured(
                f"expected redis://[user:password@]host[:port][/db] with a port up to 65535, got {shown}: "
                "in a password write / as %2F, # as %23, ? as %3F and @ as %40"
            ) from None
        given: dict[str, Any] = {**(options or {}), **query}
        self._url = url
        self.path: str | None = None
        if scheme in {"redis+socket", "socket", "unix"}:
            self.path = "/" + (path or "").lstrip("/")
            path = str(given.get("virtual_host", given.get("db", 0)))
        self.host: str = host or "localhost"
        self.port = int(port or 6379)
        self.db = _database(path or given.get("db") or given.get("virtual_host") or 0, self)
        self.user: str = user or given.get("username") or ""
        self.password: str = password or given.get("password") or ""
        self.provider: Any = _provider(given.get("credential_provider"))
        self.prefix: str = given.get("global_keyprefix") or ""
        self.connect_timeout = float(given.get("socket_connect_timeout") or connect_timeout or 4.0)
        self.timeout = float(given.get("socket_timeout") or READ_DEADLINE)
        #: Seconds of it after which a connection is doubted; a timeout that was asked for is kept to as it is.
        self.patience = self.timeout if given.get("socket_timeout") else _PATIENCE
        self.client_name: str = given.get("client_name") or ""
        self.keepalive = bool(given.get("socket_keepalive", True))
        self.keepalive_options: Mapping[int, int] = given.get("socket_keepalive_options") or {}
        asked = tls or {name: value for name, value in given.items() if name.startswith("ssl_")}
        self.tls = _tls_context(asked) if scheme == "rediss" or tls else None

    @property
    def shown(self) -> str:
        """The URL without its password: for logs, errors and reprs."""
        from kombu.utils.url import maybe_sanitize_url

        return str(maybe_sanitize_url(self._url))

    def same_server(self, other: Endpoint) -> bool:
        """True if both are one database of one server, so that one script may touch the keys of both."""
        mine, theirs = ((e.path, e.host, e.port, e.db, e.user, e.password, e.provider) for e in (self, other))
        return mine == theirs

    def connect(self, protocol: int = 2, timeout: float | None = None) -> Link:
        """Open a connection that speaks RESP `protocol`. Raises `OperationalError`, without the password.

        `timeout`: seconds that it waits for answers; None: as the options say.
        """
        plain: socket.socket | None = None
        try:
            plain = self._open()
            link = Link(plain, self, timeout)
            link.greet(protocol)
        except (OSError, exceptions.OperationalError) as exc:
            if plain is not None:
                plain.close()
            raise exceptions.OperationalError(f"cannot use the Redis server at {self.shown}: {exc}") from exc
        return link

    def answers(self, within: float) -> bool:
        """Whether the server answers over a new connection, within so many seconds once it is connected."""
        try:
            link = self.connect(timeout=within)
        except exceptions.OperationalError:
            return False
        try:
            link.exchange([("PING",)])
        except exceptions.OperationalError:
            return False
        finally:
            link.close()
        return True

    def _open(self) -> socket.socket:
        if self.path is not None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(self.connect_timeout)
            try:
                made.connect(self.path)
            except BaseException:
                made.close()
                raise
        else:
            made = socket.create_connection((self.host, self.port), self.connect_timeout)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.keepalive:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self.keepalive_options.items():
                    made.setsockopt(socket.IPPROTO_TCP, option, value)
            if self.tls is not None:
                try:
                    made = self.tls.wrap_socket(made, server_hostname=self.host)
                except BaseException:
                    made.close()
                    raise
        return made

    def credentials(self) -> tuple[str, ...]:
        """Arguments of AUTH: (), (password,) or (user, password)."""
        if self.provider is not None:
            return tuple(self.provider.get_credentials())
        if self.user and self.password:
            return (self.user, self.password)
        return (self.password,) if self.password else ()

    def __repr__(self) -> str:
        return f"<Endpoint: {self.shown}>"


class Link:
    """One connection to a server. One thread at a time; a link that failed in any way is closed and stays so."""

    __slots__ = (
        "_buffer", "_decrypted", "_endpoint", "_reader", "_rest", "_socket", "_timeout", "_why", "declared", "pid",
        "pushes", "silent", "usable_until", "version",
    )  # fmt: skip

    def __init__(self, connected: socket.socket, endpoint: Endpoint, timeout: float | None = None) -> None:
        self._timeout = endpoint.timeout if timeout is None else timeout
        patience = endpoint.patience if timeout is None else timeout
        #: Seconds to wait for an answer once it was looked whether this connection is silent or the server.
        self._rest = self._timeout - patience
        #: What was found out then.
        self._why = ""
        #: It was lost because nothing came.
        self.silent = False
        _bound_waits(connected, patience)
        self._socket = connected
        #: How many decrypted bytes wait, which only TLS sockets know.
        self._decrypted: Callable[[], int] | None = getattr(connected, "pending", None)
        self._endpoint = endpoint
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._buffer = memoryview(bytearray(_BUFFER))
        self.pid = os.getpid()
        #: Push messages (RESP3) that came while replies were read, oldest first.
        self.pushes: list[list[Any]] = []
        #: Queues that were declared over this link.
        self.declared: set[str] = set()
        #: When (monotonic) the link must be looked at before it is trusted again.
        self.usable_until = 0.0
        self.version = (6, 0)

    def greet(self, protocol: int) -> None:
        """Authenticate, choose protocol and database, name the connection: one round trip."""
        endpoint = self._endpoint
        commands: list[Command] = []
        if credentials := endpoint.credentials():
            commands.append(("AUTH", *credentials))
        if protocol != 2:
            commands.append(("HELLO", protocol))
        if endpoint.db:
            commands.append(("SELECT", endpoint.db))
        if endpoint.client_name:
            commands.append(("CLIENT", "SETNAME", endpoint.client_name))
        if not commands:
            return
        for reply in self.exchange(commands):
            if isinstance(reply, dict):
                self.version = _version(reply)

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, read as many replies. Raises `ServerReply` for the first that is an error, after reading all."""
        replies = self.attempt(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise refused(f"Redis at {self._endpoint.shown} answered: {reply}")
        return replies

    def attempt(self, commands: Sequence[Command]) -> list[Any]:
        """Like `exchange`, but error replies are returned in their places. Raises `OperationalError` if the line fails.

        Whatever interrupts it, a signal's exception included, closes the link: its replies would no longer match.
        """
        try:
            if len(commands) == 1:
                self._socket.sendall(_pack(commands[0]))
            else:
                self._socket.sendall(b"".join(map(_pack, commands)))
            replies = [self._reply() for _ in commands]
            if self._reader.has_data():  # push messages that came in the same read
                self._take_pushes()
            return replies
        except (OSError, hiredis.ProtocolError) as exc:
            self.close()
            raise self._lost(exc) from exc
        except BaseException:
            self.close()
            raise

    def send(self, commands: Sequence[Command]) -> None:
        """Send without reading; the replies come out of `receive`.

        A failure ends the line but leaves the descriptor, so that another thread that polls it wakes, and closes it.
        """
        try:
            self._socket.sendall(b"".join(map(_pack, commands)))
        except OSError as exc:
            self.abort()
            raise self._lost(exc) from exc
        except BaseException:
            self.abort()
            raise

    def receive(self) -> list[Any]:
        """Replies and push messages that are here or come with one read. Call it when the socket is readable."""
        reader, got = self._reader, []
        try:
            self._fill()
            while (item := reader.gets()) is not _NOTHING:
                got.append(item)
        except (OSError, hiredis.ProtocolError) as exc:
            self.close()
            raise self._lost(exc) from exc
        return got

    def collect_pushes(self) -> list[list[Any]]:
        """Push messages that are here by now; never blocks. Only between exchanges."""
        while self.readable():
            self.pushes.extend(self.receive())
        taken, self.pushes = self.pushes, []
        return taken

    def readable(self) -> bool:
        """True if a read would not block."""
        return self.pending() or wait_readable([self._socket.fileno()], 0.0) != []

    def pending(self) -> bool:
        """True if decrypted bytes wait above the socket, which no poll can see."""
        return self._decrypted is not None and self._decrypted() > 0

    @property
    def shown(self) -> str:
        """The server's address, without the password."""
        return self._endpoint.shown

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def abort(self) -> None:
        """End the line; who polls the descriptor wakes."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close; in a forked child only the child's copy."""
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()  # a link that nobody holds has no other way to be closed

    def _reply(self) -> Any:
        gets = self._reader.gets
        while True:
            reply = gets()
            if reply is _NOTHING:
                self._fill()
            elif type(reply) is hiredis.PushNotification:
                self.pushes.append(reply)
            else:
                return reply

    def _take_pushes(self) -> None:
        while (item := self._reader.gets()) is not _NOTHING:
            self.pushes.append(item)

    def _fill(self) -> None:
        try:
            count = self._socket.recv_into(self._buffer)
        except (BlockingIOError, TimeoutError):
            if not self._rest:
                raise
            count = self._wait_on()
        if not count:
            raise ConnectionResetError("the server closed the connection")
        self._reader.feed(self._buffer, 0, count)  # type: ignore[arg-type]  # any buffer will do

    def _wait_on(self) -> int:
        """Nothing came for a while. A server that answers a new connection has nothing more to say on this one: it
        takes commands in the order in which they come. One that does not may be busy or frozen: to send anew would be
        to send twice."""
        left = time.monotonic() + self._rest
        if self._endpoint.answers(min(_PROBE, self._rest)):
            self._why = f" over a connection of which the other end is gone: none within {_PATIENCE:g} s"
            left = time.monotonic() + _GRACE
        if not self.pending() and not wait_readable([self._socket.fileno()], left - time.monotonic()):
            raise TimeoutError
        return self._socket.recv_into(self._buffer)

    def _lost(self, exc: BaseException) -> exceptions.OperationalError:
        self.silent = isinstance(exc, (TimeoutError, BlockingIOError))
        what = str(exc)
        if self.silent:
            what = f"no answer{self._why or f' within {self._timeout:g} s'}"
        return exceptions.OperationalError(f"lost the Redis server at {self._endpoint.shown}: {what}")


def _bound_waits(connected: socket.socket, timeout: float) -> None:
    """Let no read or write of `connected` last longer than `timeout` seconds.

    The kernel keeps the time for a plain socket, which saves a poll before every call; Python does for TLS and for the
    sockets of gevent and eventlet, which are none of its own.
    """
    if os.name == "posix" and isinstance(connected, _socket.socket) and not hasattr(connected, "pending"):
        seconds, fraction = divmod(timeout, 1.0)
        span = struct.pack("@ll", int(seconds), int(fraction * 1e6))
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
    else:
        connected.settimeout(timeout)


def is_stale(link: Link) -> bool:
    """True if an idle link must not be used: another process's, closed, or something (an end) is to be read on it."""
    if link.pid != os.getpid() or link.closed:
        return True
    return time.monotonic() > link.usable_until and link.readable()


def refused(text: str) -> Exception:
    """A `ServerReply` that says so."""
    from celery.drivers.redis_errors import ServerReply

    return ServerReply(text)


def _parts(url: str) -> tuple[str, str, int | None, str, str, str, dict[str, str]]:
    """Scheme, host, port, user, password, path without its first slash, query; a bare scheme is a URL too."""
    split = urlsplit(url if "://" in url else f"{url}://")
    host, user, password = (unquote(part or "") for part in (split.hostname, split.username, split.password))
    if "@" in split.path:
        raise ValueError("a / in the password")
    path = unquote(split.path.removeprefix("/"))
    return split.scheme, host, split.port, user, password, path, dict(parse_qsl(split.query))


def _version(hello: dict[Any, Any]) -> tuple[int, int]:
    major, minor = hello.get(b"version", b"6.0").split(b".")[:2]
    return (int(major), int(minor))


def _database(given: Any, endpoint: Endpoint) -> int:
    text = str(given).strip("/") or "0"
    if not text.isdigit():
        raise ImproperlyConfigured(
            f"expected a database number after the host in {endpoint.shown}, got {text!r}: write /0, /1 …"
        )
    return int(text)


def _provider(given: Any) -> Any:
    """A credential provider: an object, its class, or the dotted name of the class (`[redis.19]`)."""
    if isinstance(given, str):
        from kombu.utils.imports import symbol_by_name

        given = symbol_by_name(given)
    return given() if isinstance(given, type) else given


def _tls_context(asked: Any) -> ssl.SSLContext:
    """A context from `ssl_cert_reqs, ssl_ca_certs, ssl_ca_path, ssl_certfile, ssl_keyfile …`; verifies by default."""
    import ssl

    verify = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
    given = {name.removeprefix("ssl_"): value for name, value in (asked if isinstance(asked, dict) else {}).items()}
    required = given.get("cert_reqs", ssl.CERT_REQUIRED)
    if isinstance(required, str):
        name = required.lower().removeprefix("cert_")
        if name not in verify:
            raise ImproperlyConfigured(f"expected ssl_cert_reqs as none, optional or required, got {required!r}")
        required = verify[name]
    context = ssl.create_default_context(cafile=given.get("ca_certs"), capath=given.get("ca_path"))
    named = str(given.get("check_hostname", required == ssl.CERT_REQUIRED)).lower() in {"true", "1", "yes"}
    context.check_hostname = named and required != ssl.CERT_NONE
    context.verify_mode = ssl.VerifyMode(required or ssl.CERT_NONE)
    if certificate := given.get("certfile"):
        context.load_cert_chain(certificate, given.get("keyfile"), given.get("password"))
    if ciphers := given.get("ciphers"):
        context.set_ciphers(ciphers)
    return context
