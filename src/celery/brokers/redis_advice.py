"""Adapter. What a worker says about Redis at its start: options that change nothing, and a server that may lose."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.brokers.option_advice import CONNECTING, Others, option_advice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery.drivers.redis_pool import LinkPool

__all__ = ["advise", "on_options", "on_server"]

logger = logging.getLogger("celery.brokers.redis")

#: Transport options that do what kombu's do.
_HONOURED = frozenset(
    """
    additional_connection_errors client_name credential_provider db fanout_patterns fanout_prefix global_keyprefix
    health_check_interval
    keyprefix_queue lease_timeout master_name max_connections min_other_sentinels password priority_steps
    queue_order_strategy reauth_check_interval retry_on_timeout sentinel_fanout_compat sentinel_kwargs sep
    socket_connect_timeout socket_keepalive socket_keepalive_options socket_timeout unacked_index_key unacked_key
    unacked_mutex_key unacked_restore_interval unacked_restore_limit username virtual_host visibility_timeout
    """.split()
)
_OTHERS: Others = {
    **CONNECTING,
    "ack_emulation": ((True,), "a message is always held for the worker that runs it, and given back if that dies"),
    "body_encoding": (("base64",), "bodies are always written in base64, which every kombu reads"),
    "deadletter_queue": ((None,), "a message that no queue is bound for is dropped"),
    "unacked_mutex_expire": ((300,), "abandoned messages are restored in one step, which needs no lock"),
    "unacked_restore_throttle": ((10,), "how often they are looked for is said by unacked_restore_interval"),
}


def advise(options: Mapping[str, Any], pool: LinkPool) -> None:
    """Log one warning for each thing worth knowing. Raises `OperationalError` if the server cannot be reached."""
    for line in (*on_options(options), *on_server(pool)):
        logger.warning("%s", line)


def on_options(options: Mapping[str, Any]) -> Iterator[str]:
    """A line for each transport option that is not known, or known but without effect (`[broker.9]`)."""
    asked = {name: value for name, value in options.items() if not name.startswith("ssl_")}
    return option_advice("Redis", asked, _HONOURED, _OTHERS)


def on_server(pool: LinkPool) -> Iterator[str]:
    """A line each if the server may throw messages away, or keeps them in memory only.

    Nothing where it does not let us ask (managed servers, ACL users without CONFIG).
    """
    names = ("maxmemory", "maxmemory-policy", "appendonly", "save")
    link = pool.take()
    try:
        replies = link.attempt([("CONFIG", "GET", name) for name in names])
    finally:
        pool.give_back(link)
    known = {
        name: reply[1].decode() for name, reply in zip(names, replies, strict=True)
        if isinstance(reply, list) and len(reply) == 2
    }  # fmt: skip
    policy = known.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and known.get("maxmemory") != "0":
        yield (
            f"Redis at {pool.endpoint.shown} throws keys away when its memory is full (maxmemory-policy {policy}), "
            "queues and results included: set maxmemory-policy noeviction (`CONFIG SET maxmemory-policy noeviction`)."
        )
    if known.get("appendonly") == "no" and known.get("save") == "":
        yield (
            f"Redis at {pool.endpoint.shown} keeps everything in memory only, and forgets all queues when it ends: set "
            "appendonly yes (`CONFIG SET appendonly yes`)."
        )
