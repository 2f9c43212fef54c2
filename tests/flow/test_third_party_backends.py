"""Backends of others: a worker of ours stores in them, a client of ours reads them ([backend.3], [backend.4])."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.exceptions import BackendGetMetaError, BackendStoreError, ImproperlyConfigured
from celery.exceptions import TimeoutError as CeleryTimeoutError
from tests.compat import third_party
from tests.flow.engine import DEADLINE, until
from tests.flow.test_worker_embedded import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Shelf, Rows = third_party.Shelf, third_party.Rows
PATH = "tests.compat.third_party"


@pytest.fixture
def make() -> Iterator[Callable[..., Celery]]:
    made: list[Celery] = []

    def make_app(backend: Any, **settings: Any) -> Celery:
        app = Celery("third", broker=f"memory://{uuid.uuid4()}", set_as_current=False)
        app.conf.update(result_backend=backend, **settings)

        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="fail")
        def fail() -> None:
            raise KeyError("no")

        @app.task(name="spawn", bind=True)
        def spawn(self: Any) -> str:
            self.update_state(state="PROGRESS", meta={"n": 1})
            return str(add.delay(1, 1).id)

        made.append(app)
        return app

    yield make_app
    for app in made:
        app.close()
    for kept in (Shelf.shelf, Shelf.calls, Rows.rows, Rows.stored, Rows.cleanups, Rows.failures):
        kept.clear()


@pytest.mark.parametrize("name", ["Shelf", "Rows"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_worker_stores_and_a_client_reads(make: Callable[..., Celery], name: str, serializer: str) -> None:
    app = make(f"{PATH}:{name}", result_serializer=serializer, result_accept_content=[serializer])
    with Running(app):
        assert app.tasks["add"].delay(2, 3).get(timeout=DEADLINE) == 5
        failed = app.tasks["fail"].delay()
        with pytest.raises(KeyError, match="no"):
            failed.get(timeout=DEADLINE)
        spawned = app.tasks["spawn"].delay()
        child = spawned.get(timeout=DEADLINE)
        assert [result.id for result in spawned.children] == [child]
        assert app.AsyncResult(child).get(timeout=DEADLINE) == 2
    assert "KeyError: 'no'" in failed.traceback
    assert app.AsyncResult(failed.id).state == "FAILURE"
    assert failed.exists()
    assert not app.AsyncResult("nobody").exists()
    failed.forget()
    assert app.AsyncResult(failed.id).state == "PENDING"
    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult("nobody").get(timeout=0.02)
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        app.AsyncResult("nobody").get(timeout=0.02, on_message=print)


def test_the_request_travels_with_the_result(make: Callable[..., Celery]) -> None:
    app = make(f"{PATH}:Rows")
    with Running(app):
        result = app.tasks["add"].apply_async((2, 3), headers={"tenant": "t"}, root_id="r", parent_id="p")
        result.get(timeout=DEADLINE)
        until(lambda: Rows.cleanups, "process_cleanup")
    ((task_id, state, request, _),) = Rows.stored
    assert (task_id, state) == (result.id, "SUCCESS")
    assert (request.task, list(request.args), request.kwargs, request.retries) == ("add", [2, 3], {}, 0)
    assert (request.root_id, request.parent_id, request.id) == ("r", "p", result.id)
    assert request.hostname.startswith("celery@")
    assert request.delivery_info["routing_key"] == "celery"
    assert (request.argsrepr, request.kwargsrepr) == ("(2, 3)", "{}")


def test_what_is_stored_under_keys(make: Callable[..., Celery]) -> None:
    """[wireres.1]: text under Celery's keys, a success never overwritten; many are read at once."""
    app = make(f"{PATH}:Shelf", result_backend_transport_options={"global_keyprefix": "mine"})
    backend = app.backend
    assert backend.get_key_for_task("i") == b"mine_celery-task-meta-i"
    backend.store_result("a", {"x": 1}, "SUCCESS")
    backend.store_result("a", 2, "FAILURE")
    backend.mark_as_failure("b", KeyError("z"), "tb")
    assert Shelf.calls == ["set str", "set str"]
    assert dict(backend.get_many(["a", "b"])).keys() == {"a", "b"}
    with pytest.raises(CeleryTimeoutError, match=r"Operation timed out \(0\)"):
        list(backend.get_many(["a", "c"], timeout=0))
    assert [task_id for task_id, _ in backend.get_many(["a", "c"], interval=0.001, max_iterations=2)] == ["a"]
    backend.reload_task_result("b")
    assert backend.is_cached("b") is False  # result_cache_max is -1


def test_groups_pass_through(make: Callable[..., Celery]) -> None:
    backend = make(f"{PATH}:Rows").backend
    assert backend.restore_group("g") is None
    backend.save_group("g", "the group")
    backend.reload_group_result("g")
    assert backend.restore_group("g") == "the group"
    backend.delete_group("g")
    assert backend.get_group_meta("g") is None


@pytest.mark.slow
def test_errors_that_may_pass_are_tried_again(make: Callable[..., Celery]) -> None:
    app = make(f"{PATH}:Rows")
    Rows.failures += [ConnectionError("away"), ConnectionError("away")]
    with Running(app):
        assert app.tasks["add"].delay(1, 2).get(timeout=DEADLINE) == 3


def test_other_errors_stop_nothing(make: Callable[..., Celery]) -> None:
    app = make(f"{PATH}:Rows")
    Rows.failures.append(ValueError("never"))
    with Running(app):
        app.tasks["add"].delay(1, 2)
        assert app.tasks["add"].delay(3, 4).get(timeout=DEADLINE) == 7
    assert len(Rows.stored) == 1


@pytest.mark.parametrize("always", [True, False])
def test_the_retry_settings(make: Callable[..., Celery], always: bool) -> None:
    """[state.15]"""
    pauses: list[float] = []

    class Away(Rows):
        def _sleep(self, amount: float) -> None:
            pauses.append(amount)

        def _get_task_meta_for(self, task_id: str) -> Any:
            raise ConnectionError("away")

        def _store_result(self, *args: Any, **kwargs: Any) -> Any:
            raise ConnectionError("away")

    backend = make(
        Away,
        result_backend_always_retry=always,
        result_backend_max_retries=4,
        result_backend_base_sleep_between_retries_ms=100,
        result_backend_max_sleep_between_retries_ms=300,
    ).backend
    wanted: Any = BackendGetMetaError if always else ConnectionError
    with pytest.raises(wanted) as raised:
        backend.get_task_meta("i")
    assert not always or raised.value.task_id == "i"
    wanted = BackendStoreError if always else ConnectionError
    with pytest.raises(wanted) as raised:
        backend.store_result("i", 1, "SUCCESS")
    assert not always or (raised.value.task_id, raised.value.state) == ("i", "SUCCESS")
    assert len(pauses) == (8 if always else 0)
    limits = [0.1, 0.2, 0.3, 0.3] * 2
    assert all(0 <= pause <= limit for pause, limit in zip(pauses, limits, strict=False))


def test_names_from_the_setting_and_from_entry_points(make: Callable[..., Celery]) -> None:
    """[backend.3]"""
    app = make("shelf+what://ever", override_backends={"shelf": f"{PATH}:Shelf"})
    assert type(app.backend) is Shelf
    assert app.backend.url == "what://ever"
    with Running(app):
        assert app.tasks["add"].delay(1, 2).get(timeout=DEADLINE) == 3


def test_each_thread_has_its_own_unless_told_otherwise(make: Callable[..., Celery]) -> None:
    """[backend.37]"""
    for shared in (False, True):
        app = make(f"{PATH}:Rows", result_backend_thread_safe=shared)
        seen: list[Any] = [app.backend]
        thread = threading.Thread(target=lambda: seen.append(app.backend))  # noqa: B023
        thread.start()
        thread.join()
        assert app.backend is seen[0]
        assert (seen[0] is seen[1]) is shared


@pytest.mark.filterwarnings("default")
def test_what_it_cannot_do_is_said(make: Callable[..., Celery]) -> None:
    """[state.11] [new57.4]"""
    app = make(f"{PATH}:Shelf", result_compression="gzip", result_failure_expires=5)
    with pytest.warns(UserWarning) as warned:  # noqa: PT030 - two of them
        backend = app.backend
    said = " ".join(str(one.message) for one in warned)
    assert "Shelf" in said
    assert "result_compression is ignored" in said
    assert "result_failure_expires is ignored" in said
    backend.store_result("a", 1, "SUCCESS")
    assert Shelf.calls == ["set str"]
