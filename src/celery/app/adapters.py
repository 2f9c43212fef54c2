"""Application. Adapters by the schemes of their URLs, and how settings that name them are read."""

from __future__ import annotations

import datetime as dt
import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from celery.ports import DeadLetterBounds
from celery.settings import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BACKENDS", "BROKERS", "adapter", "all_urls", "by_kombu", "dead_letter_bounds", "longer", "max_deaths",
    "publish_timeout", "scheme_of", "seconds", "usable_urls",
]  # fmt: skip

logger = logging.getLogger("celery.app.adapters")

#: URL scheme → adapter. The one table in which code is named by string: drivers are optional.
BROKERS: dict[str, str] = {
    "memory": "celery.brokers.memory:MemoryBroker",
    "sqlite": "celery.brokers.sqlite:SqliteBroker",
    "redis": "celery.brokers.redis:RedisBroker",
    "rediss": "celery.brokers.redis:RedisBroker",
    "redis+socket": "celery.brokers.redis:RedisBroker",
    "sentinel": "celery.brokers.redis:RedisBroker",
    "amqp": "celery.brokers.amqp:AmqpBroker",
    "amqps": "celery.brokers.amqp:AmqpBroker",
    "pyamqp": "celery.brokers.amqp:AmqpBroker",
    "librabbitmq": "celery.brokers.amqp:AmqpBroker",
}
#: Whatever else kombu has a transport for.
_BY_KOMBU = "celery.brokers.kombu:kombu_broker"
BACKENDS: dict[str, str] = {
    "memory": "celery.backends.memory:MemoryBackend",
    "cache+memory": "celery.backends.memory:MemoryBackend",
    "sqlite": "celery.backends.sqlite:SqliteBackend",
    "redis": "celery.backends.redis_store:RedisStore",
    "rediss": "celery.backends.redis_store:RedisStore",
    "redis+socket": "celery.backends.redis_store:RedisStore",
    "socket": "celery.backends.redis_store:RedisStore",
    "sentinel": "celery.backends.redis_store:RedisStore",
    "rpc": "celery.backends.rpc_store:RpcStore",
}
#: Schemes that do not exist → what was meant.
_HINTS = {
    "valkey": ": a Valkey server speaks Redis' protocol; write redis://",
    "valkeys": ": a Valkey server speaks Redis' protocol; write rediss://",
    "unix": ": write redis+socket:///path",
}
#: Adapters that can be given several URLs.
_SEVERAL = frozenset({"redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp", "librabbitmq"})


def adapter(table: Mapping[str, str], scheme: str, setting: str, what: str) -> Any:
    """The class of a scheme. Raises `ImproperlyConfigured` if it is unknown or its package is missing."""
    try:
        path = table[scheme]
    except KeyError:
        if table is BROKERS and by_kombu(scheme):
            path = _BY_KOMBU
        else:
            raise _unknown(table, scheme, setting, what) from None
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.startswith("celery"):
            raise
        raise ImproperlyConfigured(
            f"{setting}: the {scheme} {what} needs the package {exc.name!r}; install it with "
            f"`pip install 'celery[{'redis' if 'Redis' in path else scheme.partition('+')[0]}]'`"
        ) from exc


def by_kombu(scheme: str) -> bool:
    """Whether a broker with this scheme is one of kombu's, and none of ours."""
    if scheme in BROKERS:
        return False
    from celery.drivers.kombu import is_known

    return is_known(scheme)


def _unknown(table: Mapping[str, str], scheme: str, setting: str, what: str) -> ImproperlyConfigured:
    known, hint = sorted(table), _HINTS.get(scheme, "")
    others = ""
    if table is BROKERS and not hint:
        from celery.drivers.kombu import near

        hint, others = near(scheme, known), ", or one of kombu's transports"
    return ImproperlyConfigured(f"{setting}: expected a {what} among {', '.join(known)}{others}; got {scheme!r}{hint}")


def all_urls(url: Any) -> list[str]:
    """A setting may hold one URL, a list, or several with `;` between (failover, `[broker.2]`)."""
    given = url if isinstance(url, list | tuple) else [url]
    return [part.strip() for each in given for part in str(each or "").split(";") if part.strip()]


def usable_urls(url: Any, setting: str) -> str:
    """The URLs of a setting with `;` between; `host:port` takes the scheme of the first one.

    Only the first one, if its adapter knows one place only. Raises `ImproperlyConfigured` for URLs of several kinds.
    """
    urls = all_urls(url)
    if not urls:
        return ""
    scheme = scheme_of(urls[0])
    if setting == "broker_url" and by_kombu(scheme):
        return ";".join(urls)
    urls[1:] = [each if "://" in each else f"{scheme}://{each}" for each in urls[1:]]
    if len(urls) > 1 and scheme not in _SEVERAL:
        logger.warning("%s: %s:// has no failover; only the first of %d URLs is used", setting, scheme, len(urls))
        return urls[0]
    kinds = {scheme_of(each) for each in urls}
    mixed = len({"amqp" in kind for kind in kinds}) > 1
    if len(kinds) > 1 and (mixed or "sentinel" in kinds or kinds - _SEVERAL):
        raise ImproperlyConfigured(
            f"{setting}: expected every URL of a failover list to be of one kind; got "
            f"{', '.join(f'{kind}://' for kind in sorted(kinds))}"
        )
    return ";".join(urls)


def scheme_of(url: str) -> str:
    """What stands before `://`, or all of it."""
    return url.partition("://")[0] if "://" in url else url


def seconds(value: Any, never: float | None = None) -> float | None:
    """A setting as seconds; `never` stands for 0, None for None."""
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    return None if value is None else float(value) or never


def longer(first: float | None, second: float | None) -> float | None:
    """The longer of two times to keep something: None is for ever, and nothing was said by a `second` of None."""
    if first is None or second is None:
        return first
    return None if second == 0 else max(first, second)


def dead_letter_bounds(conf: Any) -> DeadLetterBounds:
    """How much a broker keeps of what is refused. Raises `ImproperlyConfigured` for less than nothing."""
    return DeadLetterBounds(
        int(_ours(conf, "dead_letter_max_count")),
        int(_ours(conf, "dead_letter_max_size")),
        float(_ours(conf, "dead_letter_max_age")),
    )


def publish_timeout(conf: Any) -> float | None:
    """Seconds that publishing may take; None: as long as it takes. Raises `ImproperlyConfigured` for less than 0."""
    number = seconds(conf.get("task_publish_timeout"))
    if number is not None and not 0 < number < float("inf"):
        raise ImproperlyConfigured(f"Setting task_publish_timeout: expected seconds above 0, or None; got {number!r}")
    return number


def max_deaths(conf: Any) -> int:
    """Deaths after which a message is parked; 0: never."""
    return int(_ours(conf, "task_max_deaths"))


def _ours(conf: Any, name: str) -> float:
    """A number that Celery has no setting for."""
    value = conf.get(name)
    number = seconds(BY_NAME[name].default if value is None else value, 0.0) or 0.0
    if number < 0:
        raise ImproperlyConfigured(f"Setting {name}: expected a number of at least 0, got {value!r}")
    return number
