"""Adapter. TLS to a Redis server, by the options that redis-py and Celery name (`[broker.5]`, `[backend.8]`)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["tls_context"]

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_NAMES = frozenset(
    "keyfile certfile cert_reqs ca_certs ca_path ca_data check_hostname password min_version ciphers".split()
)


def tls_context(asked: Any) -> ssl.SSLContext:
    """A context from `ssl_cert_reqs`, `ssl_ca_certs`, `ssl_certfile` … (the `ssl_` may be left out), or True.

    The server's certificate and name are verified unless the options say otherwise. Raises `ImproperlyConfigured` for
    options that are not known, not right or name files that cannot be read: connecting with less safety than was
    asked for is no way out.
    """
    given = {name.removeprefix("ssl_"): value for name, value in (asked if isinstance(asked, dict) else {}).items()}
    if unknown := sorted(given.keys() - _NAMES - {"ssl"}):
        raise ImproperlyConfigured(
            f"TLS to Redis: expected options among {', '.join(f'ssl_{name}' for name in sorted(_NAMES))}; "
            f"got {', '.join(f'ssl_{name}' for name in unknown)}"
        )
    verify = _verification(given.get("cert_reqs"))
    try:
        return _context(given, verify)
    except (OSError, ValueError) as exc:
        files = ", ".join(
            f"ssl_{name}={given[name]}" for name in ("ca_certs", "ca_path", "certfile", "keyfile") if given.get(name)
        )
        raise ImproperlyConfigured(f"TLS to Redis: cannot use {files or 'these options'}: {exc}") from exc


def _context(given: Mapping[str, Any], verify: ssl.VerifyMode) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=given.get("ca_certs"), capath=given.get("ca_path"), cadata=given.get("ca_data")
    )
    named = str(given.get("check_hostname", verify == ssl.CERT_REQUIRED)).lower() in {"true", "1", "yes"}
    context.check_hostname = named and verify != ssl.CERT_NONE
    context.verify_mode = verify
    if certificate := given.get("certfile"):
        context.load_cert_chain(certificate, given.get("keyfile"), given.get("password"))
    if least := given.get("min_version"):
        context.minimum_version = ssl.TLSVersion(least)
    if ciphers := given.get("ciphers"):
        context.set_ciphers(ciphers)
    return context


def _verification(given: Any) -> ssl.VerifyMode:
    if given is None:
        return ssl.CERT_REQUIRED
    if isinstance(given, str):
        name = given.lower().removeprefix("cert_")
        if name not in _VERIFY:
            raise ImproperlyConfigured(f"expected ssl_cert_reqs as none, optional or required, got {given!r}")
        return _VERIFY[name]
    return ssl.VerifyMode(given)
