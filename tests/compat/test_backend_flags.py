"""What a result backend says of itself, and what comes of it ([backend.5])."""

from __future__ import annotations

from typing import Any

import pytest

from celery import Celery, states
from celery.backends.asynchronous import AsyncBackendMixin
from celery.backends.base import Backend, BaseBackend, KeyValueStoreBackend
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.backends.rpc import RPCBackend
from tests.compat.third_party import Shelf

FLAGS = (
    "supports_native_join", "supports_autoexpire", "supports_result_compression", "supports_failure_expires",
    "persistent",
)  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "set_ones"),
    [
        (Backend, {"persistent"}),
        (BaseBackend, {"persistent"}),
        (KeyValueStoreBackend, {"persistent"}),
        (RedisBackend, set(FLAGS)),
        (SentinelBackend, set(FLAGS)),
        (RPCBackend, {"supports_native_join", "supports_autoexpire"}),
    ],
)
def test_flags_are_celerys(cls: Any, set_ones: set[str]) -> None:
    assert {name for name in FLAGS if getattr(cls, name)} == set_ones
    assert cls.READY_STATES == states.READY_STATES
    assert cls.UNREADY_STATES == states.UNREADY_STATES
    assert cls.EXCEPTION_STATES == states.EXCEPTION_STATES
    assert cls.subpolling_interval is None
    assert getattr(cls, "implements_incr", False) is False


def test_results_survive_a_restart_of_the_broker_if_asked_for() -> None:
    for asked in (False, True):
        app = Celery("rpc", broker="amqp://", backend="rpc://", result_persistent=asked, set_as_current=False)
        assert app.backend.persistent is asked


def test_who_is_told_and_who_looks() -> None:
    assert AsyncBackendMixin().is_async
    for url, told in (("redis://", True), ("memory://", True), ("disabled://", False)):
        app = Celery("flags", broker="memory://", backend=url, set_as_current=False)
        assert app.backend.is_async is told


class Counting(Shelf):
    """It can count, and says so; nothing has to be cleaned up."""

    implements_incr = True
    supports_autoexpire = True
    supports_native_join = True
    asked: list[str]

    def incr(self, key: Any) -> int:
        self.shelf[key] = self.shelf.get(key, 0) + 1
        return int(self.shelf[key])

    def iter_native(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append("all at once")
        return super().iter_native(*args, **kwargs)


@pytest.mark.parametrize("native", [True, False])
def test_a_group_is_asked_for_at_once_if_that_can_be_done(native: bool) -> None:
    app = Celery("flags", broker="memory://", backend=f"{__name__}:Counting", set_as_current=False)
    backend: Any = app.backend
    backend.asked, backend.supports_native_join = [], native
    results = app.ResultSet([app.AsyncResult(str(n), backend=backend) for n in range(3)])
    for n in range(3):
        backend.store_result(str(n), n, states.SUCCESS)
    assert results.get(timeout=10) == [0, 1, 2]
    assert backend.asked == (["all at once"] if native else [])
    Shelf.shelf.clear()


@pytest.mark.parametrize(("setting", "flag"), [("result_failure_expires", "supports_failure_expires")])
def test_a_setting_that_a_backend_cannot_keep_to_is_told_of(setting: str, flag: str) -> None:
    app = Celery("flags", broker="memory://", set_as_current=False, **{setting: 60})
    with pytest.warns(UserWarning, match=setting):
        Shelf(app)
    able = type("Able", (Shelf,), {flag: True})
    able(app)


def test_compression_only_where_it_is_understood() -> None:
    app = Celery("flags", broker="memory://", result_compression="gzip", set_as_current=False)
    able = type("Able", (Shelf,), {"supports_result_compression": True})
    assert able(app).compression == "gzip"
    with pytest.warns(UserWarning, match="result_compression"):
        assert Shelf(app).compression is None
