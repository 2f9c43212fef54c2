"""Adapter. URLs of Redis servers and the options beside them, read without kombu (`[redis.18-20]`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Address", "credential_provider", "database", "number", "parse", "shown", "truth"]


class Address(Struct, frozen=True):
    """The parts of a URL. Holds the password: never printed."""

    scheme: str
    host: str
    port: int | None
    user: str
    password: str
    #: Without its first slash.
    path: str
    query: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Address: {self.scheme}://{self.host}>"


def parse(url: str) -> Address:
    """The parts; a bare scheme is a URL too. Raises `ImproperlyConfigured`, without the password."""
    try:
        split = urlsplit(url if "://" in url else f"{url}://")
        host, user, password = (unquote(part or "") for part in (split.hostname, split.username, split.password))
        if "@" in split.path:
            raise ValueError("a / in the password")
        path = unquote(split.path.removeprefix("/"))
        return Address(split.scheme, host, split.port, user, password, path, dict(parse_qsl(split.query)))
    except ValueError:  # its text may hold a piece of the password; nor can the URL be sanitized by its parts
        raise ImproperlyConfigured(
            f"expected redis://[user:password@]host[:port][/db] with a port up to 65535, got {shown(url)}: "
            "in a password write / as %2F, # as %23, ? as %3F and @ as %40"
        ) from None


def shown(url: str) -> str:
    """A URL, right or wrong, without anything that may be a password."""
    return re.sub(r"(password=)[^&;]*", r"\1**", re.sub(r"//[^;]*@", "//**@", url))


def database(given: Any, where: str) -> int:
    """The number of a database. Raises `ImproperlyConfigured` for anything else."""
    text = str(given).strip("/") or "0"
    if not text.isdigit():
        raise ImproperlyConfigured(
            f"expected a database number after the host in {where}, got {text!r}: write /0, /1 …"
        )
    return int(text)


def truth(given: Any) -> bool:
    """An option that is on or off; in a URL's query it is text."""
    return str(given).strip().lower() not in {"", "0", "false", "no", "off", "none"}


def number(name: str, given: Any, default: float) -> float:
    """An option in seconds, or how many; None: the default. Raises `ImproperlyConfigured` if it is no number."""
    if given is None or given == "":
        return default
    try:
        return float(given)
    except (TypeError, ValueError):
        raise ImproperlyConfigured(f"expected {name} as a number, got {given!r}") from None


def credential_provider(given: Any) -> Any:
    """A credential provider: an object, its class, or the dotted name of the class (`[redis.19]`)."""
    if isinstance(given, str):
        from kombu.utils.imports import symbol_by_name

        given = symbol_by_name(given)
    return given() if isinstance(given, type) else given
