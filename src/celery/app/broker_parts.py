"""Application. Broker URLs in parts: `broker_host`, `broker_port`, `broker_user` … of old ([compat.11])."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["amqp_options", "whole_url"]

_PARTS = ("broker_transport", "broker_host", "broker_port", "broker_user", "broker_password", "broker_vhost")
_EMBEDDED = ("memory", "sqlite")


def whole_url(url: str, conf: Any) -> str:
    """The URL with the parts that it lacks taken from the settings; a transport that is set wins over the URL's.

    A URL of an embedded broker stays as it is, and so does any where none of the parts is set.
    """
    transport, port, user, password, vhost = (conf.get(part) for part in _PARTS if part != "broker_host")
    scheme, separator, rest = url.partition("://")
    if not any(conf.get(part) for part in _PARTS) or (separator and scheme in _EMBEDDED):
        return url
    if not separator:
        scheme, rest = "", url  # a host, or nothing
    if isinstance(transport, type):
        transport = f"{transport.__module__}:{transport.__qualname__}"
    scheme = transport or scheme or "amqp"
    if scheme in _EMBEDDED:
        return f"{scheme}://"
    where, question, query = rest.partition("?")
    place, _, path = where.partition("/")
    credentials, at, address = place.rpartition("@")
    if not at and (user or password):
        credentials = f"{quote(user or '', safe='')}:{quote(password or '', safe='')}"
    if port and ":" not in address.rpartition("]")[2]:
        address = f"{address or 'localhost'}:{port}"
    if not path and vhost:
        path = quote(vhost, safe="") if scheme.startswith(("amqp", "pyamqp")) else vhost.lstrip("/")
    return f"{scheme}://{credentials}{'@' if credentials else ''}{address or 'localhost'}/{path}{question}{query}"


def amqp_options(conf: Any, scheme: str) -> dict[str, Any]:
    """Settings that AMQP adapters take for options, if that is what the scheme is for: the heartbeat only if somebody
    has chosen one, since ours is short enough to find out dead lines in time (`[broker.7]`)."""
    if "amqp" not in scheme:
        return {}
    options: dict[str, Any] = {
        "login_method": conf.get("broker_login_method"),
        "pool_acquire_timeout": conf.get("broker_pool_acquire_timeout"),
        "delayed_queue_type": conf.get("broker_native_delayed_delivery_queue_type"),
    }
    if conf.value_set_for("broker_heartbeat"):
        options["heartbeat"] = conf.broker_heartbeat or 0
    return options
