"""Compatibility. `celery.backends.redis`: the backend's wide class, with the client and the keys that others reach for.

Results themselves go through the adapter; the client (redis-py) is made when somebody asks for it ([backend.8]).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from celery.app.redis_parts import completed, redis_options
from celery.backends.base import KeyValueStoreBackend
from celery.backends.face import StoreBackend
from celery.drivers.redis_errors import additional_errors
from celery.drivers.redis_url import credential_provider, parse
from celery.exceptions import BackendStoreError, ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["RedisBackend", "SentinelBackend"]

E_REDIS_MISSING = "You need to install the redis library in order to use the client of the Redis result backend."
#: What Redis takes as one value.
MAX_STR_VALUE_SIZE = 536_870_912
E_VALUE_TOO_LARGE = "value too large for Redis backend"


class RedisBackend(StoreBackend, KeyValueStoreBackend):
    """Results in Redis. `client` is redis-py's, on the same database; `get`, `set` … are its commands on whole keys."""

    supports_autoexpire = True
    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True
    #: Connections that `client` opens at most; None: no limit.
    max_connections: int | None = None
    _client: Any = None
    _away: tuple[type[Exception], ...] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_connections = kwargs.get("max_connections") or self.app.conf.redis_max_connections
        self.failure_expires = self.app.conf.result_failure_expires

    # -- the client --------------------------------------------------------------------------------------------------

    @property
    def redis(self) -> Any:
        """The package redis. Raises `ImproperlyConfigured` if it is not installed."""
        try:
            import redis
        except ImportError as exc:
            raise ImproperlyConfigured(f"{E_REDIS_MISSING} pip install 'celery[redis]'") from exc
        return redis

    @property
    def ConnectionPool(self) -> Any:  # noqa: N802 - a public name
        return self.redis.ConnectionPool

    @property
    def client(self) -> Any:
        """A client of redis-py, made once, to where the results are: with the same TLS, user and time limits."""
        if self._client is None:
            self._client = self._make_client(completed(self.url or "redis://", self.app.conf))
        return self._client

    def _make_client(self, url: str) -> Any:
        if url.startswith(("redis+socket://", "socket://")):
            url = "unix://" + url.partition("://")[2]
        options = self._client_options()
        if self.app.conf.redis_backend_use_ssl and url.startswith("redis://"):
            url = "rediss://" + url.removeprefix("redis://")
        return self.redis.Redis(connection_pool=self.ConnectionPool.from_url(url, **options))

    def _client_options(self) -> dict[str, Any]:
        conf = self.app.conf
        options = redis_options(conf)
        if "credential_provider" in options:
            options["credential_provider"] = credential_provider(options["credential_provider"])
        if self.max_connections is not None:
            options["max_connections"] = self.max_connections
        if isinstance(conf.redis_backend_use_ssl, dict):
            options.update(conf.redis_backend_use_ssl)
        return options

    # -- keys --------------------------------------------------------------------------------------------------------

    def get(self, key: Any) -> Any:
        return self.client.get(key)

    def mget(self, keys: Sequence[Any]) -> Any:
        return self.client.mget(keys)

    def set(self, key: Any, value: Any, expires: Any = None, **retry_policy: Any) -> Any:
        """Keep a value, and tell it on the channel of the same name ([rkeys.2]).

        `expires`: seconds; None: as `result_expires` says. Raises `BackendStoreError` for more than 512 MB.
        """
        if len(value) > MAX_STR_VALUE_SIZE:
            raise BackendStoreError(E_VALUE_TOO_LARGE)
        return self.ensure(self._set, (key, value, expires), **retry_policy)

    def _set(self, key: Any, value: Any, expires: Any = None) -> None:
        seconds = self.expires if expires is None else expires
        with self.client.pipeline() as pipe:
            pipe.set(key, value, ex=max(math.ceil(seconds), 1) if seconds else None)
            pipe.publish(key, value)
            pipe.execute()

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        failed = state in ("FAILURE",) and self.failure_expires is not None
        return self.set(key, value, self.failure_expires if failed else None)

    def incr(self, key: Any) -> Any:
        return self.client.incr(key)

    def expire(self, key: Any, value: Any) -> Any:
        return self.client.expire(key, value)

    def delete(self, key: Any) -> Any:
        return self.client.delete(key)

    # -- trying again ------------------------------------------------------------------------------------------------

    @property
    def retry_policy(self) -> Mapping[str, Any]:  # type: ignore[override]
        """How `ensure` tries again: Celery's defaults, and what the transport options say ([backend.10])."""
        options = self.app.conf.result_backend_transport_options or {}
        return {**StoreBackend.retry_policy, **(options.get("retry_policy") or {})}

    @property
    def connection_errors(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        """The errors that mean that the server is away, those of `additional_connection_errors` among them."""
        if self._away is None:
            options = self.app.conf.result_backend_transport_options or {}
            redis, more = self.redis, additional_errors(options.get("additional_connection_errors"))
            self._away = (OperationalError, OSError, redis.ConnectionError, redis.TimeoutError, *more)
        return self._away

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        if isinstance(exc, OperationalError):
            return True  # also where redis-py is not installed
        return isinstance(exc, self.connection_errors)

    def ensure(self, fun: Callable[..., Any], args: tuple[Any, ...], **policy: Any) -> Any:
        """Call it, again after connection errors, as the retry policy says; raises the last one."""
        rules = {**self.retry_policy, **policy}
        limit = rules.get("max_retries")
        pause, retries = float(rules.get("interval_start", 0)), 0
        while True:
            try:
                return fun(*args)
            except self.connection_errors as exc:
                if limit is not None and retries >= limit:
                    raise
                retries += 1
                self.on_connection_error(limit, exc, iter((pause,)), retries)
            self._sleep(pause)
            pause = min(pause + rules.get("interval_step", 1), rules.get("interval_max", 1))

    def on_connection_error(self, max_retries: Any, exc: Exception, intervals: Any, retries: int) -> Any:
        """Hears of each lost connection of `ensure`; returns the seconds until the next attempt."""
        return next(intervals)


class SentinelBackend(RedisBackend):
    """Results in the Redis server that Sentinels call the master ([backend.14])."""

    @property
    def sentinel(self) -> Any:
        """The module `redis.sentinel`."""
        import redis.sentinel

        return redis.sentinel

    def _make_client(self, url: str) -> Any:
        options = {**(self.app.conf.result_backend_transport_options or {})}
        addresses = [parse(each) for each in url.split(";")]
        first = addresses[0]
        connection = {
            **self._client_options(), "db": int(first.path or 0), "username": first.user or None,
            "password": first.password or None, "ssl": bool(self.app.conf.redis_backend_use_ssl),
        }  # fmt: skip
        sentinels = self.sentinel.Sentinel(
            [(address.host or "localhost", address.port or 26379) for address in addresses],
            min_other_sentinels=options.get("min_other_sentinels", 0),
            sentinel_kwargs=options.get("sentinel_kwargs") or {},
            **connection,
        )
        return sentinels.master_for(options.get("master_name"), self.redis.Redis)
