"""Adapter. Redis behind several addresses: a list of servers, one of them in use, or Sentinels that know the master."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import hiredis

from celery import exceptions
from celery.drivers.failover import failover_order
from celery.drivers.redis import Endpoint
from celery.drivers.redis_url import number, parse
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from celery.drivers.redis import Link

__all__ = ["open_several"]

_SENTINEL_PORT = 26379
#: Seconds between questions to Sentinels that name no master, or one that is none any more.
_ASK_AGAIN = 0.2


def open_several(
    urls: Sequence[str], options: Mapping[str, Any] | None, tls: Any, connect_timeout: float, strategy: Any
) -> Endpoint:
    """See `open_endpoint`: Sentinels if the first URL is one, else a failover list."""
    if urls[0].partition("://")[0] == "sentinel":
        return SentinelEndpoint(urls, options or {}, tls, connect_timeout)
    return FailoverEndpoint([Endpoint(each, options, tls, connect_timeout) for each in urls], urls, strategy)


class FailoverEndpoint(Endpoint):
    """One of several servers: the one used last, and when it cannot be used, the next one that can.

    What lies on a server stays there: this is for several ways to the same data (proxies, a replica that is promoted).
    """

    def __init__(self, endpoints: Sequence[Endpoint], urls: Sequence[str], strategy: Any) -> None:
        vars(self).update(vars(endpoints[0]))  # prefix, patience and options are the same for all
        self.shown = ";".join(endpoint.shown for endpoint in endpoints)
        self._endpoints = dict(zip(urls, endpoints, strict=True))
        self._order: Iterator[str] = failover_order(strategy)(list(urls))
        self._lock = threading.Lock()
        self._current = endpoints[0]
        for endpoint in endpoints:
            endpoint.leave = self._leave
        if strategy in (None, "round-robin"):
            next(self._order)  # which is where we begin

    @property
    def identity(self) -> Any:
        """Two lists may be at different places: equal to nothing but itself."""
        return id(self)

    def connect(self, protocol: int = 2, timeout: float | None = None) -> Link:
        """Open a connection to the server in use, or to the next that answers. Raises `OperationalError`."""
        failures: dict[Endpoint, exceptions.OperationalError] = {}
        for _ in range(4 * len(self._endpoints)):  # an order of chance may come to the same one again
            current = self._current
            if current not in failures:
                try:
                    return current.connect(protocol, timeout)
                except exceptions.OperationalError as exc:
                    failures[current] = exc
            if len(failures) == len(self._endpoints):
                break
            self._leave(current)
        *_, last = failures.values()
        raise exceptions.OperationalError(f"none of {len(failures)} Redis servers can be used; last: {last}") from last

    def _leave(self, endpoint: Endpoint) -> None:
        with self._lock:
            if endpoint is self._current:
                self._current = self._endpoints[next(self._order)]


class SentinelEndpoint(Endpoint):
    """The master that Sentinels name, asked at each connection: `sentinel://host[:26379][/db];sentinel://…`.

    User, password, database and TLS are those of the first URL and its options; `sentinel_kwargs` holds what the
    Sentinels themselves want, `master_name` is theirs for the master ([broker.11], [backend.14]).
    """

    def __init__(self, urls: Sequence[str], options: Mapping[str, Any], tls: Any, connect_timeout: float) -> None:
        super().__init__(urls[0], options, tls, connect_timeout)
        given = {**options, **parse(urls[0]).query}
        self.master_name: str = given.get("master_name") or ""
        if not self.master_name:
            raise ImproperlyConfigured(
                f"{self.shown}: expected the name under which the Sentinels know the master: set "
                "broker_transport_options (or result_backend_transport_options) to {'master_name': 'mymaster'}"
            )
        self.least_others = int(number("min_other_sentinels", given.get("min_other_sentinels"), 0))
        own = dict(given.get("sentinel_kwargs") or {})
        own_tls = own.pop("ssl", False) and ({n: v for n, v in own.items() if n.startswith("ssl_")} or True)
        if not own_tls:
            own = {name: value for name, value in own.items() if not name.startswith("ssl_")}
        self._sentinels = [Endpoint(_sentinel_url(url), own, own_tls, self.connect_timeout) for url in urls]
        self.shown = ";".join([self.shown, *(sentinel.shown for sentinel in self._sentinels[1:])])

    @property
    def identity(self) -> Any:
        """Equal for the same master behind the same Sentinels."""
        places = frozenset((sentinel.host, sentinel.port) for sentinel in self._sentinels)
        return (places, self.master_name, self.db, self.user, self.password, self.provider)

    def connect(self, protocol: int = 2, timeout: float | None = None) -> Link:
        """Open a connection to the master; while a failover goes on, asks again for up to `connect_timeout` seconds.

        Raises `OperationalError`.
        """
        deadline = time.monotonic() + self.connect_timeout
        while True:
            try:
                return self._connect_to_master(protocol, timeout)
            except exceptions.OperationalError:
                if time.monotonic() + _ASK_AGAIN > deadline:
                    raise
            time.sleep(_ASK_AGAIN)

    def _connect_to_master(self, protocol: int, timeout: float | None) -> Link:
        failures = []
        for sentinel in list(self._sentinels):
            try:
                host, port = self._ask(sentinel)
                link = self.connect_to(host, port, protocol, timeout)
                self._check_role(link, host, port)
            except exceptions.OperationalError as exc:
                failures.append(str(exc))
            else:
                if sentinel is not self._sentinels[0]:  # the others are asked if this one fails
                    self._sentinels = [sentinel, *(other for other in self._sentinels if other is not sentinel)]
                return link
        raise exceptions.OperationalError(
            f"no master {self.master_name!r} for {self.shown}: {'; '.join(dict.fromkeys(failures))}"
        )

    def _ask(self, sentinel: Endpoint) -> tuple[str, int]:
        """The address of the master, as one Sentinel knows it."""
        link = sentinel.connect()
        try:
            reply = link.attempt([("SENTINEL", "MASTER", self.master_name)])[0]
        finally:
            link.close()
        if isinstance(reply, hiredis.ReplyError):
            raise exceptions.OperationalError(f"the Sentinel at {sentinel.shown} answered: {reply}")
        state = dict(zip(reply[::2], reply[1::2], strict=True))
        flags = state[b"flags"].decode().split(",")
        others = int(state.get(b"num-other-sentinels", 0))
        if "s_down" in flags or "o_down" in flags or "disconnected" in flags:
            raise exceptions.OperationalError(f"the Sentinel at {sentinel.shown} sees the master down")
        if others < self.least_others:
            raise exceptions.OperationalError(
                f"the Sentinel at {sentinel.shown} knows {others} others, fewer than min_other_sentinels="
                f"{self.least_others}"
            )
        return state[b"ip"].decode(), int(state[b"port"])

    def _check_role(self, link: Link, host: str, port: int) -> None:
        """A Sentinel may name a server that has been a replica for a moment already. Unknown where ROLE is refused."""
        try:
            role = link.attempt([("ROLE",)])[0]
        except BaseException:
            link.close()
            raise
        if not isinstance(role, hiredis.ReplyError) and role[0] != b"master":
            link.close()
            raise exceptions.OperationalError(f"the server at {host}:{port} is no master yet, or no more")


def _sentinel_url(url: str) -> str:
    """Only host and port: user, password and database in the URL are the master's."""
    address = parse(url)
    host = f"[{address.host}]" if ":" in address.host else address.host or "localhost"
    return f"redis://{host}:{address.port or _SENTINEL_PORT}/"
