"""The app: what its methods promise, as Celery 5.7 keeps it (area `app`)."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import types
import weakref
from datetime import UTC

import pytest

import celery
from celery import Celery, _state, current_app, current_task
from celery.app import app_or_default, default_app
from celery.app.base import App
from celery.app.search import find_app
from celery.exceptions import ImproperlyConfigured
from tests.compat.apps import app, state

__all__ = ["app", "state"]


class CustomApp(Celery):
    def gen_task_name(self, name, module):
        return f"custom.{name}"


class OldProtocolApp(Celery):
    def __reduce_args__(self):
        return super().__reduce_args__()


# --------------------------------------------------------------------------------------------- making and finding apps


def test_making_an_app_reads_and_connects_nothing(state):
    made = Celery("x", broker="nosuch://transport", config_source="no_such_module", include=["no.such.module"], foo=3)
    assert not made.configured
    assert made._preconf == {"broker_url": "nosuch://transport", "include": ["no.such.module"], "foo": 3}


def test_arguments_outrank_the_source(state):
    made = Celery("x", broker="memory://", config_source={"broker_url": "redis://", "task_default_queue": "q"})
    assert (made.conf.broker_url, made.conf.task_default_queue) == ("memory://", "q")


def test_newest_app_is_current_in_its_thread_and_the_default_app_in_others(state):
    first = Celery("first")
    second = Celery("second")
    assert current_app._get_current_object() is second
    first.set_current()
    assert current_app.main == "first"
    second.set_default()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(current_app._get_current_object()))
    thread.start()
    thread.join()
    assert seen == [second]
    assert default_app.main == "second"


def test_a_default_app_is_made_where_there_is_none(state, monkeypatch):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    assert current_app.main == "default"
    assert type(current_app.loader).__module__ == "celery.loaders.default"
    assert _state.get_current_app() is _state.default_app


def test_app_or_default_under_tracing(state):
    mine = Celery("mine", set_as_current=False)
    assert app_or_default(mine) is mine
    celery.app.enable_trace()
    try:
        with pytest.raises(RuntimeError):
            app_or_default()
        assert app_or_default(mine) is mine
    finally:
        celery.app.disable_trace()
    assert app_or_default().main == "default"


@pytest.mark.process
@pytest.mark.parametrize(("variable", "code"), [("C_STRICT_APP", 1), ("C_WARN_APP", 0)])
def test_leaks_to_the_current_app_are_found(variable, code):
    ran = subprocess.run(
        [sys.executable, "-c", "from celery import current_app; current_app.main"],
        env={**os.environ, variable: "1"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == code
    assert variable in ran.stderr


def test_register_app_is_looked_up_when_an_app_is_made(state, monkeypatch):
    seen = []
    monkeypatch.setattr(_state, "_register_app", seen.append)
    made = Celery("x")
    assert seen == [made]


@pytest.mark.slow
def test_apps_are_weakly_held_and_take_attributes(state):
    made = Celery("x", set_as_current=False)
    made.__datadog_patch = True
    reference = weakref.ref(made)
    assert made in _state._get_active_apps()
    del made
    gc.collect()
    assert reference() is None


def test_closing_forgets_the_app_and_its_pools(app):
    with app as same:
        assert same is app
        connections = app.pool
        assert app.pool is connections
    assert app not in _state._get_active_apps()
    assert app.pool is not connections


def test_names_of_parts_may_be_dotted_and_arguments_win(state):
    class Mine(Celery):
        loader_cls = "celery.loaders.default:Loader"
        registry_cls = "celery.app.registry:TaskRegistry"

    assert type(Mine("x").loader).__name__ == "Loader"
    assert type(Mine("x", loader="app").loader).__name__ == "AppLoader"
    assert type(Mine("x").tasks).__name__ == "TaskRegistry"
    assert App is Celery


def test_oids_are_stable_and_a_thread_has_its_own(app):
    assert app.oid == app.oid
    assert app.thread_oid == app.thread_oid
    seen = []
    thread = threading.Thread(target=lambda: seen.append((app.oid, app.thread_oid)))
    thread.start()
    thread.join()
    assert seen[0][0] == app.oid
    assert seen[0][1] != app.thread_oid


def test_a_forked_child_has_other_oids(app):
    before = (app.oid, app.thread_oid)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, f"{app.oid} {app.thread_oid}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        there = pipe.read().split()
    assert not set(before) & set(there)


# ------------------------------------------------------------------------------------------------------- configuration


def test_settings_are_read_when_first_asked_for(app):
    app.config_from_object({"task_default_queue": "q"})
    app.conf.task_serializer = "yaml"
    assert not app.configured
    assert (app.conf.task_default_queue, app.conf.task_serializer) == ("q", "yaml")
    assert app.configured


def test_another_source_replaces_the_first_but_not_what_was_set(app):
    app.conf.task_serializer = "pickle"
    app.config_from_object({"task_serializer": "yaml", "task_default_queue": "q"})
    assert (app.conf.task_serializer, app.conf.task_default_queue) == ("pickle", "q")
    app.config_from_object({"timezone": "Europe/Oslo"})
    assert (app.conf.task_serializer, app.conf.task_default_queue) == ("pickle", "celery")
    assert str(app.timezone) == "Europe/Oslo"


def test_missing_module_surfaces_on_first_use_unless_silent(app):
    app.config_from_object("no_such_module_anywhere")
    with pytest.raises(ImportError, match="no_such_module_anywhere"):
        _ = app.conf.task_serializer
    app.config_from_object("no_such_module_anywhere", silent=True)
    assert app.conf.task_serializer == "json"


def test_forced_reading_raises_at_once(app):
    with pytest.raises(ImportError):
        app.config_from_object("no_such_module_anywhere", force=True)


def test_file_name_for_a_module_name_gets_a_hint(app):
    with pytest.raises(ImportError, match=r"did you mean the module 'celeryconfig_nowhere'"):
        app.config_from_object("celeryconfig_nowhere.py", force=True)


def test_config_from_module_attribute(app, monkeypatch):
    module = types.ModuleType("conf_for_test")
    module.settings = {"task_default_queue": "attribute"}
    monkeypatch.setitem(sys.modules, "conf_for_test", module)
    for name in ("conf_for_test:settings", "conf_for_test.settings"):
        app.config_from_object(name, force=True)
        assert app.conf.task_default_queue == "attribute"


def test_config_from_envvar(app, monkeypatch):
    module = types.ModuleType("conf_for_test")
    module.task_default_queue = "from-env"
    monkeypatch.setitem(sys.modules, "conf_for_test", module)
    with pytest.raises(ImproperlyConfigured, match="NOT_SET_ANYWHERE"):
        app.config_from_envvar("NOT_SET_ANYWHERE")
    assert app.config_from_envvar("NOT_SET_ANYWHERE", silent=True) is False
    monkeypatch.setenv("MY_CONFIG", "conf_for_test")
    app.config_from_envvar("MY_CONFIG", force=True)
    assert app.conf.task_default_queue == "from-env"


def test_config_from_cmdline(app):
    app.config_from_cmdline(["task_always_eager=no", ".prefetch_multiplier=3", "result.expires=(float)4.5"], "worker")
    assert app.conf.task_always_eager is False
    assert app.conf.worker_prefetch_multiplier == 3
    assert app.conf.result_expires == 4.5


def test_defaults_lie_below_what_was_set_and_may_come_late(state):
    made = Celery("x", task_default_queue="mine", config_source={"task_serializer": "source"})
    made.add_defaults({"task_default_queue": "theirs", "task_serializer": "yaml"})
    made.add_defaults(lambda: {"foo": 1})
    assert (made.conf.task_default_queue, made.conf.task_serializer, made.conf.foo) == ("mine", "yaml", 1)
    made.add_defaults({"bar": 2})
    assert made.conf.bar == 2


def test_hooks_and_signals_of_configuration(state):
    class Prepared(Celery):
        def prepare_config(self, c):
            return {**c, "task_default_queue": "prepared"}

    made, heard = Prepared("x", config_source={"task_serializer": "yaml"}), []
    made.on_configure.connect(lambda **kw: heard.append(("before", made.configured)), weak=False)
    made.on_after_configure.connect(lambda source, **kw: heard.append(("after", source.task_serializer)), weak=False)
    assert made.conf.task_default_queue == "prepared"
    assert heard == [("before", False), ("after", "yaml")]


def test_either(app):
    assert app.either("broker_url", None, "x") == "x"
    assert app.either("broker_url", None) == "memory://"
    assert app.either("no_such_setting") is None


def test_time_zones(app):
    assert app.uses_utc_timezone()
    assert app.now().tzinfo is not None
    app.conf.timezone = "Europe/Oslo"
    assert str(app.timezone) == "Europe/Oslo"
    assert not app.uses_utc_timezone()
    assert abs((app.now().astimezone(UTC) - app.now()).total_seconds()) < 5


# ---------------------------------------------------------------------------------------------------------- pickling


@pytest.mark.parametrize("cls", [Celery, CustomApp, OldProtocolApp])
def test_pickled_apps_come_back_and_do_not_become_current(state, cls):
    made = cls("proj", broker="memory://", foo=3)
    made.conf.task_serializer = "yaml"
    other = pickle.loads(pickle.dumps(made))
    assert type(other) is cls
    assert (other.main, other.conf.broker_url, other.conf.foo) == ("proj", "memory://", 3)
    assert other.conf.task_serializer == "yaml"
    assert current_app._get_current_object() is made


def test_subclasses_with_the_app_are_found_again_by_name(app):
    result = app.AsyncResult("some-id")
    assert type(result).app is app
    assert pickle.loads(pickle.dumps(result)).id == "some-id"
    assert app.AsyncResult is app.AsyncResult


# -------------------------------------------------------------------------------------------------------- find_app


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes modules of a package and makes them importable for one test."""

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/", 1) if name.startswith("projx__") else name)
            path = path.with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "projx"]:
        del sys.modules[name]


APP = "from celery import Celery\n{} = Celery('found', set_as_current=False)\n"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"projx": APP.format("app")}, "projx"),
        ({"projx": APP.format("celery")}, "projx"),
        ({"projx": APP.format("anything")}, "projx"),
        ({"projx": APP.format("other")}, "projx:other"),
        ({"projx____init__": "", "projx__celery": APP.format("app")}, "projx"),
        ({"projx____init__": "", "projx__celery": APP.format("mine")}, "projx"),
        ({"projx____init__": "", "projx__celery": APP.format("app")}, "projx.celery"),
        ({"projx____init__": "", "projx__celery": APP.format("app")}, "projx.celery:app"),
        ({"projx____init__": APP.format("mine"), "projx__tasks": ""}, "projx"),
        ({"projx____init__": "from . import app", "projx__app": "", "projx__celery": APP.format("app")}, "projx"),
    ],
)
def test_find_app(state, package, files, name):
    package(**files)
    assert find_app(name).main == "found"
    from celery.app.utils import find_app as same

    assert same is find_app


def test_find_app_says_what_is_missing(state, package):
    package(projx____init__="", projx__celery="import no_such_module_inside")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_inside"):
        find_app("projx")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        find_app("no_such_package_anywhere")
    package(projx="x = 1")


def test_find_app_without_an_app(state, package):
    package(projx="x = 1")
    with pytest.raises(AttributeError, match="expected a Celery app"):
        find_app("projx")


# ----------------------------------------------------------------------------------------------------- kombu's objects


def test_connections_take_arguments_before_settings(app):
    app.conf.broker_transport_options = {"a": 1, "b": 1}
    with app.connection(transport_options={"b": 2}, connect_timeout=9) as connection:
        assert connection.transport_options == {"a": 1, "b": 2}
        assert connection.connect_timeout == 9
    assert app.connection().connect_timeout == app.conf.broker_connection_timeout
    assert app.connection_for_read("redis://elsewhere").hostname == "elsewhere"
    assert "secret" not in repr(app.connection("amqp://me:secret@host//"))
    assert app.broker_connection().transport.driver_type == "memory"


def test_connections_and_producers_are_pooled(app):
    with app.connection_or_acquire() as first:
        assert app.connection_or_acquire(first).provided is first
    with app.default_connection(pool=False) as own:
        assert own is not first
    with app.producer_or_acquire() as producer:
        assert hasattr(producer, "publish")
    with app.default_producer(producer) as same:
        assert same is producer


# ----------------------------------------------------------------------------------------------------- front door


def test_importing_the_package_loads_hardly_anything():
    code = "import sys; before = set(sys.modules); import celery; print(*sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = ran.stdout.split()
    assert [name for name in loaded if name.startswith("celery")] == ["celery"]
    assert not {"kombu", "typing", "re", "dataclasses", "inspect"} & set(loaded)


@pytest.mark.process
def test_an_app_with_a_task_loads_no_kombu():
    code = (
        "import sys; from celery import Celery\napp = Celery('x', broker='memory://')\n"
        "@app.task\ndef add(x): return x\nassert add.name and add(1)\n"
        "print([m for m in ('kombu', 'billiard', 'vine', 'amqp', 'redis', 'click') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


def test_names_of_the_front_door(app):
    for name in celery.__all__:
        assert getattr(celery, name) is not None or name == "current_task"
    assert set(celery.__all__) <= set(dir(celery))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = celery.no_such_name
    assert celery.VERSION[:2] == (5, 8)
    assert celery.version_info.major == 5
    assert celery.VERSION_BANNER.startswith(celery.__version__)
    assert not current_task


def test_old_module_paths_answer_for_the_current_app(app):
    from celery import execute, registry

    assert registry.tasks is app.tasks
    assert execute.send_task == app.send_task
    assert celery.registry is registry
    for gone in ("task", "decorators", "conf"):
        with pytest.raises(AttributeError):
            getattr(celery, gone)


def test_apps_can_be_copied(app):
    assert copy.copy(app).main == "proj"


def test_worker_main_wants_the_worker(app):
    with pytest.raises(ValueError, match="worker"):
        app.worker_main(["status"])


def test_periodic_tasks_wait_for_the_settings(app):
    @app.task
    def add(x, y):
        return x + y

    key = app.add_periodic_task(3.0, add.s(1, 2), expires=10)
    named = app.add_periodic_task(4.0, add.s(), args=(3, 4), name="four")
    assert (key, named) == (repr(add.s(1, 2)), "four")
    assert app.conf.beat_schedule[key] == {
        "schedule": 3.0, "task": add.name, "args": (1, 2), "kwargs": {}, "options": {"expires": 10},
    }  # fmt: skip
    assert app.conf.beat_schedule["four"]["args"] == (3, 4)
    app.add_periodic_task(5.0, add.s(1, 2))
    assert app.conf.beat_schedule[key]["schedule"] == 5.0
