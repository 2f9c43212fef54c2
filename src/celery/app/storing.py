"""Application. The result backend that the settings name: its adapter, opened with everything that they say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import codecs
from celery.app.adapters import BACKENDS, adapter, longer, scheme_of, seconds, usable_urls
from celery.app.redis_parts import completed, redis_options
from celery.ports import BackendConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.ports import ResultBackend

__all__ = ["open_backend"]


def open_backend(app: Celery) -> ResultBackend | None:
    """The adapter of the setting `result_backend`; None if it names none. Raises `ImproperlyConfigured`."""
    conf = app.conf
    urls = usable_urls(conf.result_backend, "result_backend")
    if not urls or urls in ("disabled", "disabled://"):
        return None
    scheme = scheme_of(urls)
    factory = adapter(BACKENDS, scheme, "result_backend", "result backend")
    options = dict(conf.result_backend_transport_options or {})
    if "redis" in BACKENDS[scheme]:
        options = {**redis_options(conf), **options}
    config = BackendConfig(
        url=completed(urls, conf),
        options=options,
        expires=seconds(conf.result_expires),
        key_prefix=options.get("global_keyprefix") or "",
        ssl=conf.redis_backend_use_ssl or False,
        failure_expires=seconds(conf.result_failure_expires, 0.0),
        chord_expires=longer(seconds(conf.result_expires), seconds(conf.result_chord_expires, 0.0)),
        pool_limit=conf.redis_max_connections or 10,
        state_of=_state_of(conf),
        content=codecs.encode({}, conf.result_serializer)[:2],
        persistent=bool(conf.result_persistent),
    )
    if scheme == "rpc":  # its messages go through the app's broker
        over_broker: ResultBackend = factory(config, app.assembly.broker, lambda: app.oid)
        return over_broker
    store: ResultBackend = factory(config)
    return store


def _state_of(conf: Any) -> Callable[[bytes], str] | None:
    serializer: str = conf.result_serializer
    if serializer == "json":
        return None
    from celery.documents import states_by

    accepted = conf.result_accept_content or conf.accept_content or ("json",)
    return states_by(serializer, codecs.accept_types(accepted))
