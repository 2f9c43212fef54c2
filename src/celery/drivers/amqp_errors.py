"""Adapter. What an AMQP server refuses, as exceptions of ours that say what to do."""

from __future__ import annotations

import re
import socket
import ssl as tls

from amqp.exceptions import AccessRefused, NotAllowed
from kombu.exceptions import OperationalError

from celery.exceptions import ImproperlyConfigured

__all__ = ["MissingQueue", "closed", "refused"]

_EMBEDDED = "To use the embedded broker, which needs no server: app.conf.broker_url = 'sqlite:///' (or -b sqlite:///)."
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<what>\w+) '(?P<name>.*)' in vhost '[^']*': "
    r"received (?P<received>.*?) but current is (?P<current>.*)"
)


class MissingQueue(OperationalError):  # type: ignore[misc]  # kombu ships no types
    """There is no such queue, or no such exchange."""


def refused(exc: BaseException, shown: str) -> OperationalError | ImproperlyConfigured:
    """The exception for a connection that could not be opened."""
    text = str(exc)
    if isinstance(exc, AccessRefused) or "ACCESS_REFUSED" in text:
        return ImproperlyConfigured(
            f"the broker at {shown} does not know this user with this password, or lets it in from its own host only "
            "(as it does with guest): compare broker_url with its users"
        )
    if isinstance(exc, NotAllowed) or "NOT_ALLOWED" in text:
        return ImproperlyConfigured(
            f"the broker at {shown} does not let this user into that virtual host, or has none of that name ({text}): "
            "the path of the URL names it, `//` the one that is called `/`"
        )
    if isinstance(exc, tls.SSLCertVerificationError):
        return ImproperlyConfigured(
            f"the certificate of the broker at {shown} is not trusted: {text}. See broker_use_ssl"
        )
    if isinstance(exc, socket.gaierror | ConnectionRefusedError) or not text:
        return OperationalError(
            f"Cannot reach the broker at {shown}: {text or type(exc).__name__}. "
            f"Start it, or correct broker_url (or CELERY_BROKER_URL). {_EMBEDDED}"
        )
    return OperationalError(f"Cannot reach the broker at {shown}: {text}")


def closed(arguments: bytes, shown: str) -> OperationalError | ImproperlyConfigured:
    """The exception for a connection or channel that the server has closed with these arguments."""
    code = int.from_bytes(arguments[:2], "big")
    text = arguments[3 : 3 + arguments[2]].decode("utf-8", "replace")
    found = _INEQUIVALENT.search(text)
    if found is not None:
        received, current = (found[key].removeprefix("the value ") for key in ("received", "current"))
        return ImproperlyConfigured(
            f"{found['what']} {found['name']!r} exists at {shown} with other arguments: {found['argument']} is "
            f"{current} there, and {received} here. Declare it here as it is there, or delete it there once it is "
            f"empty (`rabbitmqctl delete_queue`), or use another name"
        )
    if code == 404:
        return MissingQueue(f"{shown} says: {text}")
    if code in (403, 405, 530) or (code == 406 and "unknown delivery tag" not in text and "timeout" not in text):
        return ImproperlyConfigured(f"{shown} refuses: {text}")
    return OperationalError(f"{shown} closed the connection: {text} ({code})")
