"""Application. kombu's connections and pools, for whoever asks the app for them ([app.32], [app.33]).

Our own sending and consuming does not come here. kombu is imported when the first object of its is made.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celery.app.adapters import by_kombu, scheme_of
from celery.utils.objects import FallbackContext

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ["close", "connection", "connection_or_acquire", "pool", "producer_or_acquire", "producer_pool"]

_EMBEDDED = ("memory:", "sqlite:")
#: `broker_` settings that stand in for arguments that are not given.
_FROM_SETTINGS = {
    "ssl": "broker_use_ssl",
    "connect_timeout": "broker_connection_timeout",
    "login_method": "broker_login_method",
    "failover_strategy": "broker_failover_strategy",
    "userid": "broker_user",
    "password": "broker_password",
    "virtual_host": "broker_vhost",
    "port": "broker_port",
    "transport": "broker_transport",
}


def connection(app: Celery, url: Any, **given: Any) -> Any:
    """A kombu connection, unconnected; what is not given comes from the settings.

    The embedded brokers are reached through a transport of ours: kombu has none for SQLite, and its memory is another.
    """
    from kombu import Connection

    from celery.drivers.kombu import address

    conf = app.conf
    transport_options = {**(conf.broker_transport_options or {}), **(given.pop("transport_options") or {})}
    for argument, setting in _FROM_SETTINGS.items():
        if given[argument] is None:
            given[argument] = conf.get(setting)
    url = url or conf.broker_write_url
    if str(url).startswith(_EMBEDDED) and given["transport"] is None:
        return app.assembly.kombu_connection(transport_options=transport_options, **given)
    if isinstance(url, str):
        scheme = scheme_of(url)
        if by_kombu(scheme) and ("+" in scheme or ":" in scheme):  # as only we write it, perhaps
            found = address(url)
            url = found.pop("hostname")
            given |= {name: value for name, value in found.items() if value is not None}
        elif scheme == "librabbitmq":  # as ours, it needs no library of its own
            url = f"pyamqp{url.removeprefix(scheme)}"
    return Connection(url, transport_options=transport_options, **given)


def connection_or_acquire(app: Celery, connection: Any, pooled: bool) -> Any:
    """A context: what was given, else one from the pool, or a new one."""
    if pooled:
        return FallbackContext(connection, pool(app).acquire, block=True)
    return FallbackContext(connection, app.connection_for_write)


def producer_or_acquire(app: Celery, producer: Any) -> Any:
    """A context: what was given, else a producer from the pool."""
    return FallbackContext(producer, _acquire_producer, app)


def _acquire_producer(app: Celery) -> Any:
    """Raises `OperationalError` after `broker_pool_acquire_timeout` seconds."""
    from kombu.exceptions import LimitExceeded, OperationalError

    timeout = app.conf.get("broker_pool_acquire_timeout")
    try:
        return producer_pool(app).acquire(block=True, timeout=timeout)
    except LimitExceeded as exc:
        raise OperationalError(
            f"no producer came free within {timeout} seconds: raise broker_pool_limit "
            f"({app.conf.broker_pool_limit}) or broker_pool_acquire_timeout"
        ) from exc


def pool(app: Celery) -> Any:
    """kombu's pool of connections to where the app publishes; another one in a forked child."""
    return _pools(app)[0]


def producer_pool(app: Celery) -> Any:
    """kombu's pool of producers to where the app publishes."""
    return _pools(app)[1]


def _pools(app: Celery) -> tuple[Any, Any]:
    pid, found = app.__dict__.get("_pools", (0, None))
    if found is None or pid != os.getpid():  # the parent's sockets are the parent's
        from kombu.pools import ProducerPool

        limit = app.conf.broker_pool_limit or 0  # none: each one is new
        connections = app.connection_for_write().Pool(limit=limit)
        found = (connections, ProducerPool(connections, limit=limit))
        app.__dict__["_pools"] = (os.getpid(), found)
    made: tuple[Any, Any] = found
    return made


def close(app: Celery) -> None:
    """Close the app's pools, if this process has any."""
    pid, found = app.__dict__.pop("_pools", (0, None))
    if found is not None and pid == os.getpid():
        found[1].force_close_all()
        found[0].force_close_all()
