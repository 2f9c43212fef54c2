"""Application. Where the Redis result backend is, if its URL leaves it to the settings ([compat.12])."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["completed", "redis_options"]

#: Setting → connection option of the same meaning ([backend.9]).
_OPTIONS = {
    "redis_socket_connect_timeout": "socket_connect_timeout",
    "redis_retry_on_timeout": "retry_on_timeout",
    "redis_backend_health_check_interval": "health_check_interval",
    "redis_client_name": "client_name",
    "redis_backend_credential_provider": "credential_provider",
}


def redis_options(conf: Any) -> dict[str, Any]:
    """Connection options of the Redis result backend that the settings give.

    Two of Celery's defaults are not ours, and count only where somebody has set them: an answer is waited for 120
    seconds there, and a line that was cut is not noticed (`redis_socket_keepalive`).
    """
    options = {option: value for name, option in _OPTIONS.items() if (value := conf.get(name)) is not None}
    for name in ("redis_socket_timeout", "redis_socket_keepalive"):
        if conf.value_set_for(name):
            options[name.removeprefix("redis_")] = conf.get(name)
    return options


def completed(url: str, conf: Any) -> str:
    """The URL with the parts that it lacks taken from the settings; one of a socket, or of another scheme, as it is.

    Several with `;` between are completed one by one.
    """
    return ";".join(_completed(each, conf) for each in url.split(";"))


def _completed(url: str, conf: Any) -> str:
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
