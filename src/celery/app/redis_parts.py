"""Application. Where the Redis result backend is, if its URL leaves it to the settings ([compat.12])."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["completed"]


def completed(url: str, conf: Any) -> str:
    """The URL with the parts that it lacks taken from the settings; one of a socket, or of another scheme, as it is."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("redis", "rediss"):
        return url
    where, question, query = rest.partition("?")
    place, _, path = where.partition("/")
    credentials, at, address = place.rpartition("@")
    host, port = address, ""
    if ":" in address.rpartition("]")[2]:
        host, _, port = address.rpartition(":")
    if not at and conf.redis_password:
        credentials = f"{quote(conf.redis_username or '', safe='')}:{quote(conf.redis_password, safe='')}"
    host, port = host or conf.redis_host or "localhost", port or str(conf.redis_port or 6379)
    path = path or str(conf.redis_db or 0)
    return f"{scheme}://{credentials}{'@' if credentials else ''}{host}:{port}/{path}{question}{query}"
