"""`app.backend`, the old wide face of a result backend ([backend.1] to [backend.7], [state.1] to [state.14])."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pickle
import sys
import zlib
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed

from celery import Celery
from celery.app.backends import BACKEND_ALIASES, by_name, by_url
from celery.backends.base import Backend, BaseDictBackend, DisabledBackend, KeyValueStoreBackend
from celery.backends.face import StoreBackend
from celery.backends.redis import RedisBackend
from celery.exceptions import ChordError, ImproperlyConfigured, SecurityError, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.outcome import Record
from tests.compat.memory_apps import make_app


@pytest.fixture
def app() -> Any:
    return make_app()


@pytest.fixture
def backend(app: Any) -> Any:
    return app.backend


def stored(backend: Any, task_id: str) -> Any:
    (meta,) = backend.store.load([task_id])
    return None if meta is None else json.loads(meta)


class TestReading:
    def test_unknown(self, backend: Any) -> None:
        assert backend.get_task_meta("x") == {"status": "PENDING", "result": None}
        assert (backend.get_state("x"), backend.get_status("x"), backend.get_result("x")) == (
            "PENDING",
            "PENDING",
            None,
        )
        assert (backend.get_traceback("x"), backend.get_children("x")) == (None, None)
        assert not backend.task_result_exists("x")

    def test_known(self, backend: Any) -> None:
        backend.mark_as_failure("x", KeyError(1), "tb")
        assert (backend.get_state("x"), backend.get_traceback("x"), backend.get_children("x")) == (
            "FAILURE",
            "tb",
            None,
        )
        assert isinstance(backend.get_result("x"), KeyError)
        assert backend.task_result_exists("x")

    def test_only_accepted_content(self) -> None:
        app = make_app(result_serializer="pickle", result_accept_content=["json"])
        app.backend.store_result("x", 1, "SUCCESS")
        with pytest.raises(ContentDisallowed):
            app.backend.get_task_meta("x")

    @pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
    def test_serializers(self, serializer: str) -> None:
        app = make_app(result_serializer=serializer, result_accept_content=[serializer])
        app.backend.store_result("x", {"a": [1, None]}, "SUCCESS")
        assert app.AsyncResult("x").get() == {"a": [1, None]}
        app.backend.mark_as_failure("y", KeyError("z"))
        with pytest.raises(KeyError, match="z"):
            app.AsyncResult("y").get()

    def test_compressed_by_another_writer(self, app: Any, backend: Any) -> None:
        plain = json.dumps({"status": "SUCCESS", "result": 7}).encode()
        meta = b"\x00celery-compressed\x00application/x-gzip\x00" + zlib.compress(plain)
        backend.store.save([Record("x", "SUCCESS", meta)])
        assert app.AsyncResult("x").get() == 7
        assert backend.decode_result(meta)["result"] == 7

    @pytest.mark.parametrize(
        ("limit", "cached"), [(-1, []), (2, ["b", "c"]), (0, ["a", "b", "c"]), (None, ["a", "b", "c"])]
    )
    def test_cache(self, limit: int | None, cached: list[str]) -> None:
        backend = make_app(result_cache_max=limit).backend
        for task_id in "abc":
            backend.mark_as_done(task_id, task_id)
            backend.get_task_meta(task_id)
        backend.mark_as_failure("f", KeyError())
        backend.get_task_meta("f")
        assert [task_id for task_id in "abcf" if backend.is_cached(task_id)] == cached
        backend.store.forget(cached)
        assert [backend.get_state(task_id) for task_id in cached] == ["SUCCESS"] * len(cached)
        assert [backend.get_task_meta(task_id, cache=False)["status"] for task_id in cached] == ["PENDING"] * len(
            cached
        )
        if cached:
            backend.forget(cached[0])
            assert backend.get_state(cached[0]) == "PENDING"


class TestWriting:
    def test_the_document(self, app: Any, backend: Any) -> None:
        request = app.Context(id="own", group="g", parent_id="p", root_id="r")
        request.children.append(app.AsyncResult("child"))
        assert backend.store_result("x", {"a": 1}, "SUCCESS", request=request) == {"a": 1}
        document = stored(backend, "x")
        assert dt.datetime.fromisoformat(document.pop("date_done")).tzinfo is not None
        assert document == {
            "status": "SUCCESS",
            "result": {"a": 1},
            "traceback": None,
            "children": [[["child", None], None]],
            "group_id": "g",
            "parent_id": "p",
            "task_id": "x",
        }

    def test_without_a_request(self, backend: Any) -> None:
        backend.mark_as_started("x", pid=1)
        assert stored(backend, "x") == {
            "status": "STARTED",
            "result": {"pid": 1},
            "traceback": None,
            "children": None,
            "date_done": None,
            "task_id": "x",
        }

    def test_exceptions(self, backend: Any) -> None:
        data = {"exc_type": "KeyError", "exc_message": ["foo", 3], "exc_module": "builtins"}
        assert backend.mark_as_retry("x", KeyError("foo", 3), "tb") == data
        assert stored(backend, "x")["result"] == data
        backend.mark_as_revoked("x", "because")
        assert isinstance(backend.get_result("x"), TaskRevokedError)

    def test_success_is_final(self, backend: Any) -> None:
        backend.mark_as_done("x", 1)
        backend.mark_as_failure("x", KeyError())
        backend.mark_as_started("x")
        assert backend.get_state("x") == "SUCCESS"

    def test_need_not_be_stored(self, backend: Any) -> None:
        backend.mark_as_done("x", 1, store_result=False)
        backend.mark_as_failure("x", KeyError(), store_result=False)
        backend.mark_as_revoked("x", store_result=False)
        assert backend.mark_as_retry("x", KeyError(), store_result=False) is None
        assert not backend.task_result_exists("x")

    def test_fail_from_current_stack(self, backend: Any) -> None:
        with contextlib.suppress(KeyError):
            try:
                raise KeyError("here")
            finally:
                kept = backend.fail_from_current_stack("x")
        assert repr(kept) == "KeyError('here')"
        assert backend.get_state("x") == "FAILURE"
        assert "KeyError: 'here'" in backend.get_traceback("x")
        assert backend.fail_from_current_stack("y") is None

    def test_results_are_kept_as_tuples(self, app: Any, backend: Any) -> None:
        backend.store_result("x", app.AsyncResult("other"), "SUCCESS")
        assert stored(backend, "x")["result"] == [["other", None], None]


class TestWaiting:
    def test_wait_for(self, backend: Any) -> None:
        backend.mark_as_done("x", 1)
        assert backend.wait_for("x", timeout=1)["result"] == 1
        with pytest.raises(CeleryTimeoutError):
            backend.wait_for("y", timeout=0)

    def test_wait_for_pending(self, app: Any, backend: Any) -> None:
        backend.mark_as_failure("x", KeyError("z"))
        with pytest.raises(KeyError):
            backend.wait_for_pending(app.AsyncResult("x"), timeout=1)
        assert isinstance(backend.wait_for_pending(app.AsyncResult("x"), propagate=False), KeyError)

    def test_get_many(self, app: Any, backend: Any) -> None:
        backend.mark_as_done("a", 1)
        backend.mark_as_failure("b", KeyError())
        many = backend.get_many([app.AsyncResult("a"), "b", "c"], timeout=0)
        found = dict([next(many), next(many)])
        with pytest.raises(CeleryTimeoutError, match=r"Operation timed out \(0\)"):
            next(many)
        assert {task_id: meta["status"] for task_id, meta in found.items()} == {"a": "SUCCESS", "b": "FAILURE"}
        rounds: list[int] = []
        assert (
            list(backend.get_many(["c"], interval=0.001, on_interval=lambda: rounds.append(1), max_iterations=3)) == []
        )
        assert len(rounds) == 2

    def test_get_many_until_all_are_there(self, backend: Any) -> None:
        backend.mark_as_done("a", 1)
        order = []
        for task_id, _ in backend.get_many(["a", "b"], timeout=10):
            order.append(task_id)
            backend.mark_as_done("b", 2)
        assert order == ["a", "b"]


class TestEncoding:
    def test_documents(self, backend: Any) -> None:
        assert json.loads(backend.encode({"a": 1})) == {"a": 1}
        assert backend.decode(backend.encode({"a": 1})) == {"a": 1}
        failed = (
            '{"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_message": [1], "exc_module": "builtins"}}'
        )
        assert repr(backend.decode_result(failed)["result"]) == "KeyError(1)"

    def test_exceptions(self, backend: Any) -> None:
        data = backend.prepare_exception(KeyError(1))
        assert data == {"exc_type": "KeyError", "exc_message": [1], "exc_module": "builtins"}
        assert repr(backend.exception_to_python(data)) == "KeyError(1)"
        assert backend.encode_result(KeyError(1), "FAILURE") == data
        assert backend.encode_result(3, "SUCCESS") == 3

    def test_exceptions_are_looked_for_among_loaded_modules_only(self, backend: Any) -> None:
        def decoded(kind: str, module: str | None, *args: Any) -> Any:
            return backend.exception_to_python({"exc_type": kind, "exc_module": module, "exc_message": list(args)})

        assert (
            repr(decoded("JSONDecodeError", "json.decoder", "m", "doc", 0))
            == "JSONDecodeError('m: line 1 column 1 (char 0)')"
        )
        odd = decoded("Odd", "antigravity", "x")
        assert (type(odd).__name__, type(odd).__module__, odd.args) == ("Odd", "celery.exceptions", ("x",))
        assert "antigravity" not in sys.modules
        refused = decoded("JSONDecodeError", "json.decoder", "only one")
        assert type(refused) is Exception
        assert "only one" in str(refused)
        for harmful in ("system", "path", "path.join"):
            with pytest.raises(SecurityError, match="Expected an exception class"):
                decoded(harmful, "os", "true")

    def test_settings(self, backend: Any) -> None:
        assert backend.expires == 86400
        assert backend.prepare_expires(dt.timedelta(minutes=1)) == 60
        assert backend.prepare_expires(30, type=str) == "30"
        assert (backend.prepare_persistent(), backend.prepare_persistent(False)) == (True, False)
        assert backend.current_task_children() is None
        assert backend.on_task_call(None, "x") == {}

    def test_pickles_to_the_current_app(self, app: Any, backend: Any) -> None:
        app.set_current()
        restored = pickle.loads(pickle.dumps(backend))
        assert (type(restored), restored.url, restored.app) == (type(backend), backend.url, app)


NAMES = """
    store_result mark_as_started mark_as_done mark_as_failure mark_as_retry mark_as_revoked get_state get_status
    get_result get_traceback get_children get_task_meta reload_task_result task_result_exists forget save_group
    restore_group delete_group reload_group_result get_group_meta get_many wait_for wait_for_pending iter_native
    cleanup process_cleanup on_task_call on_chord_part_return apply_chord fallback_chord_unlock add_to_chord
    set_chord_size ensure_chords_allowed current_task_children encode decode encode_result decode_result
    prepare_exception exception_to_python prepare_value prepare_expires prepare_persistent as_uri is_cached
    chord_error_from_stack fail_from_current_stack
""".split()


class TestNames:
    @pytest.mark.parametrize("cls", [StoreBackend, RedisBackend, KeyValueStoreBackend, BaseDictBackend])
    def test_all_are_there(self, cls: type[Any]) -> None:
        """[backend.4]: for those who derive from them, or call them."""
        assert [name for name in NAMES if not callable(getattr(cls, name, None))] == []


class TestChords:
    """[backend.4]: what others call; chords of our own are counted in the step that settles a task."""

    def body(self, app: Any) -> Any:
        return app.signature("total", task_id="body", link=[])

    def test_of_a_chord_that_fails(self, app: Any, backend: Any) -> None:
        error = ChordError("Dependency x raised KeyError()")
        assert backend.chord_error_from_stack(self.body(app), error) is error
        assert repr(app.AsyncResult("body").result) == repr(error)
        assert app.AsyncResult("body").state == "FAILURE"

    def test_of_what_is_being_handled(self, app: Any, backend: Any) -> None:
        try:
            raise KeyError("oops")
        except KeyError:
            backend.chord_error_from_stack(self.body(app))
        assert repr(app.AsyncResult("body").result) == "KeyError('oops')"

    def test_those_who_do_not_count_say_so(self, app: Any) -> None:
        backend = BaseDictBackend(app)
        with pytest.raises(NotImplementedError, match="add_to_chord"):
            backend.add_to_chord("group", app.AsyncResult("x"))


class TestDisabled:
    @pytest.fixture
    def backend(self) -> Any:
        return Celery("t", broker="memory://", set_as_current=False).backend

    def test_is_what_there_is_without_a_backend(self, backend: Any) -> None:
        assert isinstance(backend, DisabledBackend)
        assert backend.as_uri() == "disabled://"

    def test_writing_does_nothing(self, backend: Any) -> None:
        assert backend.store_result("x", 1, "SUCCESS") is None
        backend.mark_as_done("x", 1)
        backend.mark_as_failure("x", KeyError())

    @pytest.mark.parametrize(
        "name", ["get_state", "get_status", "get_result", "get_traceback", "wait_for", "get_task_meta"]
    )
    def test_reading_says_what_to_do(self, backend: Any, name: str) -> None:
        with pytest.raises(NotImplementedError, match=r"No result backend is configured\.\nSet result_backend"):
            getattr(backend, name)("x")

    @pytest.mark.parametrize("read", [lambda r: r.get(), lambda r: r.state, lambda r: r.ready(), lambda r: r.forget()])
    def test_results_say_so_too(self, backend: Any, read: Any) -> None:
        with pytest.raises(NotImplementedError, match="No result backend is configured"):
            read(backend.app.AsyncResult("x"))

    def test_no_chords(self, backend: Any, app: Any) -> None:
        with pytest.raises(NotImplementedError, match="Starting chords requires a result backend"):
            backend.ensure_chords_allowed()
        app.backend.ensure_chords_allowed()


class TestLookUp:
    @pytest.mark.parametrize(
        "url", ["redis://localhost/0", "rediss://h", "sqlite:///x", "memory://", "cache+memory://"]
    )
    def test_ours_share_one_face(self, url: str) -> None:
        assert by_url(url) == (RedisBackend if url.startswith("redis") else StoreBackend, url)

    def test_names(self) -> None:
        assert by_name("redis") is RedisBackend
        assert issubclass(RedisBackend, StoreBackend)
        assert issubclass(StoreBackend, Backend)
        assert by_name(None) is by_name("disabled") is DisabledBackend
        assert by_url(None) == (DisabledBackend, None)
        assert by_name("celery.backends.base:DisabledBackend") is DisabledBackend
        assert by_name(DisabledBackend) is DisabledBackend
        assert BACKEND_ALIASES["redis"] == "celery.backends.redis:RedisBackend"

    def test_an_override_takes_the_rest_of_the_url(self) -> None:
        class Loader:
            override_backends = {"mine": f"{__name__}:Mine", "redis": f"{__name__}:Mine"}  # noqa: RUF012

        assert by_url("mine+sqlite:///x", Loader()) == (Mine, "sqlite:///x")
        assert by_url("redis://h", Loader()) == (Mine, "redis://h")

    @pytest.mark.parametrize(
        "name", ["zork", "zork://h", "zork+x://h", "no.such:Class", "celery.backends.base", "riak"]
    )
    def test_unknown_ones_say_what_is_known(self, name: str) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"Unknown result backend: .*expected one of .*redis"):
            by_url(name)

    def test_passwords_stay_secret(self, app: Any) -> None:
        backend = Backend(app, url="redis://user:secret@host:6379/1")
        assert backend.as_uri() == "redis://user:**@host:6379/1"
        assert backend.as_uri(include_password=True) == "redis://user:secret@host:6379/1"
        assert "secret" not in repr(backend)
        with pytest.raises(ImproperlyConfigured) as raised:
            by_url("zork://user:secret@host")
        assert "secret" not in str(raised.value)


class Mine(Backend):
    """A backend of somebody's own."""
