"""Adapter. Redis as a wire: where the server is, and one connection to it that sends packed commands and reads replies.

Written on `hiredis` and a plain socket: a command costs one system call each way and a few microseconds of Python, and
nothing heavier has to be imported before the first message is sent. Works for Redis 6.0 and later.
"""

from __future__ import annotations

import _socket
import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from celery import exceptions
from celery.drivers.redis_url import credential_provider, database, number, parse, truth
from celery.exceptions import ImproperlyConfigured
from celery.waits import wait_readable

try:
    import hiredis
except ImportError as exc:
    raise ImproperlyConfigured("redis:// needs the hiredis package: pip install 'celery[redis]'") from exc

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from celery.drivers.redis_url import Address

__all__ = ["READ_DEADLINE", "Command", "Endpoint", "Link", "explained", "is_stale", "open_endpoint"]

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
#: The kernel asks a silent peer after 10 seconds, and gives it up after 25: a line that was cut is noticed without a
#: command of ours.
_KEEPALIVE = {
    getattr(socket, name): seconds
    for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
#: How answers begin after which nothing can be done over a connection.
_SHUT = ("NOAUTH", "WRONGPASS", "LOADING", "MASTERDOWN")
#: What stands in answers that another server will not give.
_REPLICA = ("READONLY", "MASTERDOWN")
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
        address = parse(url)
        given: dict[str, Any] = {**(options or {}), **address.query}
        path: Any = address.path
        self.path: str | None = None
        if address.scheme in {"redis+socket", "socket", "unix"}:
            self.path = "/" + path.lstrip("/")
            path = str(given.get("virtual_host", given.get("db", 0)))
        self.host: str = address.host or "localhost"
        self.port = int(address.port or 6379)
        self.user: str = address.user or given.get("username") or ""
        self.password: str = address.password or given.get("password") or ""
        self.shown = _shown(address, self)
        self.db = database(path or given.get("db") or given.get("virtual_host") or 0, self.shown)
        self.provider: Any = credential_provider(given.get("credential_provider"))
        #: See `additional_errors`.
        self.additional: Any = given.get("additional_connection_errors")
        self.prefix: str = given.get("global_keyprefix") or ""
        self._take_patience(given, connect_timeout)
        self.client_name: str = given.get("client_name") or ""
        self.keepalive = truth(given.get("socket_keepalive", True))
        self.keepalive_options: Mapping[int, int] = given.get("socket_keepalive_options") or _KEEPALIVE
        self.tls = self._tls(address.scheme, given, tls)
        #: Set by whoever has the choice between several.
        self.leave: Callable[[Endpoint], None] | None = None

    def _take_patience(self, given: Mapping[str, Any], connect_timeout: float) -> None:
        self.connect_timeout = number(
            "socket_connect_timeout", given.get("socket_connect_timeout"), connect_timeout or 4.0
        )
        self.timeout = number("socket_timeout", given.get("socket_timeout"), READ_DEADLINE)
        #: Seconds of it after which a connection is doubted; a timeout that was asked for is kept to as it is.
        self.patience = self.timeout if given.get("socket_timeout") else _PATIENCE
        #: Seconds for which an idle link is trusted without asking the server whether it is there; 0: for ever.
        self.health_check_interval = number("health_check_interval", given.get("health_check_interval"), 25.0)
        #: Seconds after which a credential provider is asked again.
        self.reauth_check_interval = number("reauth_check_interval", given.get("reauth_check_interval"), 10.0)
        #: Whether a command whose answer did not come is sent once more over a new link.
        self.retry_on_timeout = truth(given.get("retry_on_timeout"))

    def _tls(self, scheme: str, given: Mapping[str, Any], asked: Any) -> ssl.SSLContext | None:
        named = {name: value for name, value in given.items() if name.startswith("ssl_")}
        if scheme != "rediss" and not asked:
            if named:
                raise ImproperlyConfigured(
                    f"{', '.join(sorted(named))} given for {self.shown}, which does not use TLS: write rediss://"
                )
            return None
        from celery.drivers.redis_tls import tls_context

        return tls_context({**(asked if isinstance(asked, dict) else {}), **named})

    @property
    def identity(self) -> Any:
        """Equal for what is one database of one server."""
        return (self.path, self.host, self.port, self.db, self.user, self.password, self.provider)

    def same_server(self, other: Endpoint) -> bool:
        """True if both are one database of one server, so that one script may touch the keys of both."""
        return bool(self.identity == other.identity)

    def connect(self, protocol: int = 2, timeout: float | None = None) -> Link:
        """Open a connection that speaks RESP `protocol` if the server does.

        `timeout`: seconds that it waits for answers; None: as the options say. Raises `OperationalError`,
        `ImproperlyConfigured` for what will never work; neither shows the password.
        """
        return self.connect_to(self.host, self.port, protocol, timeout)

    def connect_to(self, host: str, port: int, protocol: int, timeout: float | None) -> Link:
        """The same, to a server that somebody else has named."""
        plain: socket.socket | None = None
        try:
            plain = self._open(host, port)
            link = Link(plain, self, timeout)
            link.greet(protocol)
        except BaseException as exc:
            if plain is not None:
                plain.close()
            if isinstance(exc, OSError | exceptions.OperationalError):
                shown = self.shown if (host, port) == (self.host, self.port) else f"{host}:{port}"
                raise exceptions.OperationalError(
                    f"cannot use the Redis server at {shown}: {self._reason(exc)}"
                ) from exc
            raise
        return link

    def doubt(self) -> None:
        """The server takes no writes: the next connection should go elsewhere, if there is a choice."""
        if self.leave is not None:
            self.leave(self)

    def _reason(self, exc: BaseException) -> str:
        if self.tls is None and isinstance(exc, exceptions.OperationalError) and "Protocol error" in str(exc):
            return f"{exc} — it does not speak Redis' protocol; if it speaks TLS, write rediss://"
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            return f"{exc} — name the authority that signed it with ssl_ca_certs"
        if "WRONG_VERSION_NUMBER" in str(exc) or "handshake operation timed out" in str(exc):
            return f"{exc} — if it does not speak TLS on this port, write redis://"
        return str(exc)

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

    def _open(self, host: str, port: int) -> socket.socket:
        if self.path is not None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(self.connect_timeout)
            try:
                made.connect(self.path)
            except BaseException:
                made.close()
                raise
            return made
        made = socket.create_connection((host, port), self.connect_timeout)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.keepalive:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self.keepalive_options.items():
                    made.setsockopt(socket.IPPROTO_TCP, option, value)
            return made if self.tls is None else self.tls.wrap_socket(made, server_hostname=host)
        except BaseException:
            made.close()
            raise

    def _provided(self) -> tuple[str, ...]:
        try:
            return tuple(self.provider.get_credentials())
        except Exception as exc:
            if self.additional is None or not _is_additional(exc, self.additional):
                raise
            raise exceptions.OperationalError(f"no credentials to be had for {self.shown}: {exc!r}") from exc

    def credentials(self) -> tuple[str, ...]:
        """Arguments of AUTH: (), (password,) or (user, password)."""
        if self.provider is not None:
            return self._provided()
        if self.user and self.password:
            return (self.user, self.password)
        return (self.password,) if self.password else ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.shown}>"


def open_endpoint(
    url: str,
    options: Mapping[str, Any] | None = None,
    tls: Any = False,
    connect_timeout: float = 4.0,
    strategy: Any = "round-robin",
) -> Endpoint:
    """The endpoint for one URL, or for several with `;` between: servers of one kind, or Sentinels.

    `strategy`: in which order a list of servers is gone through (`[broker.2]`). Connects to nothing.
    """
    urls = [part.strip() for part in url.split(";") if part.strip()] or [url]
    if len(urls) == 1 and not url.startswith("sentinel:"):
        return Endpoint(urls[0], options, tls, connect_timeout)
    from celery.drivers.redis_failover import open_several

    return open_several(urls, options, tls, connect_timeout, strategy)


class Link:
    """One connection to a server. One thread at a time; a link that failed in any way is closed and stays so."""

    __slots__ = (
        "_buffer", "_decrypted", "_endpoint", "_reader", "_rest", "_socket", "_timeout", "_why", "checked_until",
        "credentials", "credentials_until", "declared", "pid", "protocol", "pushes", "silent", "usable_until",
        "version",
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
        #: When (monotonic) the server must be asked whether it is still there; 0: never.
        self.checked_until = 0.0
        self.version = (6, 0)
        #: What the server agreed to speak.
        self.protocol = 2
        #: What it was told at the last AUTH.
        self.credentials: tuple[str, ...] = ()
        #: When (monotonic) it is to be asked whether there are others by now.
        self.credentials_until = 0.0

    def greet(self, protocol: int) -> None:
        """Authenticate, choose protocol and database, name the connection: one round trip.

        A server that knows no other protocol, or lets this user choose none, is spoken to in the old one.
        """
        endpoint = self._endpoint
        commands: list[Command] = []
        self.credentials = endpoint.credentials()
        self.credentials_until = time.monotonic() + endpoint.reauth_check_interval
        if self.credentials:
            commands.append(("AUTH", *self.credentials))
        if protocol != 2:
            commands.append(("HELLO", protocol))
        if endpoint.db:
            commands.append(("SELECT", endpoint.db))
        if endpoint.client_name:
            commands.append(("CLIENT", "SETNAME", endpoint.client_name))
        if not commands:
            return
        for command, reply in zip(commands, self.attempt(commands), strict=True):
            if isinstance(reply, hiredis.ReplyError):
                if command[0] in ("AUTH", "SELECT") or str(reply).startswith(_SHUT):
                    raise self.refusal(str(reply))
            elif isinstance(reply, dict):
                self._recognize(reply)

    def _recognize(self, hello: dict[Any, Any]) -> None:
        self.protocol = int(hello.get(b"proto", 2))
        self.version = _version(hello)
        if hello.get(b"mode") == b"cluster":
            raise explained("CLUSTERDOWN cluster mode", self._endpoint.shown)

    def answers(self, within: float) -> bool:
        """True if the server answers a ping in so many seconds; otherwise the link is closed."""
        self.send([("PING",)])
        if self.pending() or wait_readable([self._socket.fileno()], within):
            try:
                self._reply()
            except (OSError, hiredis.ProtocolError):
                pass  # the line has ended
            else:
                return True
        self.close()
        return False

    def renew_credentials(self) -> None:
        """Authenticate again if the endpoint's credential provider has others by now (`[redis.19]`)."""
        now = time.monotonic()
        if now < self.credentials_until:
            return
        self.credentials_until = now + self._endpoint.reauth_check_interval
        credentials = self._endpoint.credentials()
        if credentials and credentials != self.credentials:
            self.exchange([("AUTH", *credentials)])
            self.credentials = credentials

    def refusal(self, text: str) -> Exception:
        """The exception for an error reply. A server that has become a replica is left: the link is closed."""
        if any(word in text for word in _REPLICA):
            self.close()
            self._endpoint.doubt()
        return explained(text, self._endpoint.shown)

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, read as many replies. Raises `ServerReply` for the first that is an error, after reading all."""
        replies = self.attempt(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise self.refusal(str(reply))
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


def _is_additional(exc: Exception, given: Any) -> bool:
    from celery.drivers.redis_errors import additional_errors

    return isinstance(exc, additional_errors(given))


def explained(text: str, shown: str) -> Exception:
    """See `redis_errors.explained`."""
    from celery.drivers import redis_errors

    return redis_errors.explained(text, shown)


def _version(hello: dict[Any, Any]) -> tuple[int, int]:
    major, minor = hello.get(b"version", b"6.0").split(b".")[:2]
    return (int(major), int(minor))


def _shown(address: Address, endpoint: Endpoint) -> str:
    """The URL without its password: for logs, errors and reprs."""
    if endpoint.path is not None:
        return f"{address.scheme}://{endpoint.path}"
    user = f"{address.user}:**@" if address.password else f"{address.user}@" if address.user else ""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{address.scheme}://{user}{host}:{endpoint.port}/{address.path}"
