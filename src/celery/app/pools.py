"""Application. A worker's pool by its name, by the path of its class, or by the class (`[pool.1]`)."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from celery import concurrency, signals
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.app.base import Celery
    from celery.ports import Pool, Runner

__all__ = ["make_pool"]


def make_pool(app: Celery, name: Any, runner: Runner, size: int, tuning: Mapping[str, Any]) -> Pool:
    """A pool; of `tuning` it gets the keywords that it has a use for. Raises `ImproperlyConfigured` for an unknown one,
    and for one whose library is not installed."""
    factory = _factory(name, app)
    known = signature(factory).parameters
    pool: Pool = factory(runner, size, **{key: value for key, value in tuning.items() if key in known})
    if hasattr(pool, "tell"):
        pool.tell = partial(_tell, pool)
    return pool


def _factory(name: Any, app: Celery) -> Any:
    try:
        cls = concurrency.get_implementation(name)
    except ModuleNotFoundError as exc:
        if exc.name in ("eventlet", "gevent"):
            raise ImproperlyConfigured(
                f"worker_pool: the pool {name} needs the package {exc.name!r}: pip install 'celery[{exc.name}]'"
            ) from exc
        raise ImproperlyConfigured(f"worker_pool: {exc}") from exc
    except ImportError as exc:
        raise ImproperlyConfigured(f"worker_pool: {exc}") from exc
    native = vars(cls).get("native")  # not inherited: a derived class means its own doings
    if native is not None:
        return _factory(native, app)
    bridged = getattr(cls, "bridged", None)  # a class of the old kind, derived from `BasePool`
    return cls if bridged is None else partial(bridged, app)


def _tell(pool: Pool, moment: str, **arguments: Any) -> None:
    """Send the signal of a moment in the life of an eventlet pool (`[signal.21]`)."""
    getattr(signals, f"eventlet_pool_{moment}").send(sender=pool, **arguments)
