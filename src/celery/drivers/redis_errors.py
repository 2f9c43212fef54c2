"""Adapter. What a Redis server refuses, as an exception of its own: kombu's, its base, is loaded with the first one."""

from __future__ import annotations

import logging
import re
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name

from celery.exceptions import ImproperlyConfigured

__all__ = ["ServerReply", "additional_errors", "explained"]

logger = logging.getLogger("celery.backends.redis")

#: First word of a refusal → what it means, and what to do about it.
_MEANINGS = {
    "NOAUTH": "the server wants a password: write it into the URL, redis://:password@host, or redis://user:password@host",
    "WRONGPASS": "the server does not know this user with this password: compare the URL with its ACL (`ACL LIST`)",
    "NOPERM": "this user may not do that: give it the rules of docs/operate/brokers.md (`ACL SETUSER`)",
    "OOM": "the server has reached maxmemory and takes nothing new until tasks are finished: start more workers, "
    "or give it more memory (`CONFIG SET maxmemory`)",
    "READONLY": "it is a replica, or became one in a failover; the next attempt connects anew",
    "MISCONF": "the server cannot write its snapshot to disk, and takes nothing new until it can",
    "NOREPLICAS": "too few replicas are connected for min-replicas-to-write; it takes writes again when they are back",
    "LOADING": "the server is reading its data from disk; it answers when that is done",
    "MASTERDOWN": "it is a replica without its master",
    "BUSY": "a script runs on the server for too long (`SCRIPT KILL` ends it)",
}
#: What only nodes of a cluster say.
_CLUSTER = ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN")
CLUSTER = (
    "{shown} is a node of a Redis Cluster, which spreads keys over servers; queues, what is held of them and results "
    "have to lie together. Use a server of its own, with replicas and Sentinel for failover (docs/operate/brokers.md)"
)


class ServerReply(OperationalError):  # type: ignore[misc]  # kombu ships no types
    """The server answered with an error (out of memory, read-only replica, loading, no permission …)."""


def explained(text: str, shown: str) -> Exception:
    """The exception for an error reply of the server at `shown`, with what to do.

    A `ServerReply`, which is worth another attempt, or `ImproperlyConfigured` where none will ever succeed.
    """
    text = text.partition(", with args beginning with")[0]  # which may be anybody's arguments
    word = _word(text)
    if word in _CLUSTER or "cluster mode" in text or "non local key in a cluster" in text:
        return ImproperlyConfigured(CLUSTER.format(shown=shown))
    if "invalid password" in text or "called without any password" in text:  # AUTH with one word, and old servers
        word = "WRONGPASS"
    if "unknown command" in text.lower() and "eval" in text.lower():
        return ImproperlyConfigured(
            f"the Redis server at {shown} knows no scripts ({text}); without EVAL and EVALSHA messages cannot be taken "
            "safely: enable the commands"
        )
    if "DB index is out of range" in text:
        return ImproperlyConfigured(f"the Redis server at {shown} has no such database ({text}): choose a lower number")
    meaning = _MEANINGS.get(word, "")
    return ServerReply(f"Redis at {shown} answered: {text}" + (f" — {meaning}" if meaning else ""))


def _word(text: str) -> str:
    """What the server calls the error; old servers say of a script's only that there was one, and the rest behind."""
    if "executing the script can't" in text:
        return "NOPERM"
    found = re.match(r"ERR Error running script.* -([A-Z]+) ", text)
    return found[1] if found else text.partition(" ")[0]


def additional_errors(given: Any) -> tuple[type[Exception], ...]:
    """The option `additional_connection_errors`: exceptions that mean that the server is away, by class or dotted name,
    one or several (`[backend.10]`). What is none is named in a warning, and passed over."""
    found = []
    for each in given if isinstance(given, list | tuple) else [] if given is None else [given]:
        try:
            meant = symbol_by_name(each)
        except (ImportError, AttributeError, ValueError) as exc:
            logger.warning("additional_connection_errors: %r cannot be imported, and is passed over: %r", each, exc)
            continue
        if isinstance(meant, type) and issubclass(meant, Exception):
            found.append(meant)
        else:
            logger.warning("additional_connection_errors: expected an exception's class or dotted name, got %r", each)
    return tuple(found)
