"""The app's lesser promises: hooks, pools, fixups, reports, names of scripts (area `app`), broken settings (`conf`)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from kombu.exceptions import OperationalError

from celery import Celery, Task, signals
from celery.exceptions import AlwaysEagerIgnored, CDeprecationWarning
from tests.compat.apps import app, state

__all__ = ["app", "state"]


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )


class Fixup:
    """Writes down which apps were made."""

    made: list[str] = []  # noqa: RUF012

    def __init__(self, app):
        self.made.append(app.main)

    def autodiscover_tasks(self):
        return ["json", "email"]


# --------------------------------------------------------------------------------------------------------- several apps


@pytest.mark.process
def test_falling_back_raises_under_celery_trace_app():
    code = (
        "from celery.app import app_or_default\ntry: app_or_default()\nexcept Exception as e: print(type(e).__name__)"
    )
    assert python("-c", code, CELERY_TRACE_APP="1").stdout == "RuntimeError\n"
    assert python("-c", code).stdout == ""


def test_apps_share_nothing(state):
    first, second = Celery("first", broker="memory://1"), Celery("second", broker="memory://2")
    first.task(name="mine", shared=False)(lambda: 1)
    first.conf.task_default_queue = "q"
    first.clock.forward()
    assert "mine" in first.tasks
    assert "mine" not in second.tasks
    assert (first.conf.task_default_queue, second.conf.task_default_queue) == ("q", "celery")
    assert (first.clock.value, second.clock.value) == (1, 0)
    assert first.pool is not second.pool
    first.send_task("x", queue="q2")
    assert first.assembly.broker.depth("q2") == 1
    assert second.assembly.broker.depth("q2") == 0


def test_classes_of_parts_can_be_chosen(state):
    class Mine(Celery):
        task_cls = "tests.compat.test_app_parts:Greeting"
        log_cls = "celery.app.log:Logging"
        amqp_cls = "celery.app.amqp:AMQP"

    made = Mine("x")
    assert issubclass(made.Task, Greeting)
    assert made.task(name="t")(lambda: 1).greeting == "hello"
    assert issubclass(Mine("y", task_cls=Task).Task, Task)
    assert not issubclass(Mine("y", task_cls=Task).Task, Greeting)
    assert (type(made.log).__name__, type(made.amqp).__name__) == ("Logging", "AMQP")
    assert made.Task.app is made
    assert made.task(base=Other, name="o")(lambda: 1).greeting == "other"


class Greeting(Task):
    abstract = True
    greeting = "hello"


class Other(Greeting):
    abstract = True
    greeting = "other"


def test_parts_are_made_once(app):
    for part in ("amqp", "backend", "loader", "log", "clock", "annotations", "Task", "AsyncResult"):
        assert getattr(app, part) is getattr(app, part)


def test_fixups_are_called_with_the_app(state):
    Fixup.made.clear()
    made = Celery("one", fixups=["tests.compat.test_app_parts:Fixup", Fixup])
    assert Fixup.made == ["one", "one"]
    made.autodiscover_tasks(related_name="decoder", force=True)
    assert made.loader.task_modules == {"json.decoder"}


# ------------------------------------------------------------------------------------------------------------ tasks


def test_a_registered_class_takes_the_place_of_another(app):
    class First(Task):
        name = "same"

        def run(self):
            return 1

    class Second(First):
        def run(self):
            return 2

    app.register_task(First())
    app.register_task(Second)
    assert app.tasks["same"]() == 2
    assert app.tasks.pop("same")
    with pytest.raises(KeyError):
        app.tasks.pop("same")


def test_arguments_are_not_checked_where_that_is_off(app, state):
    def declare(made, **options):
        return made.task(name="t", shared=False, **options)(lambda x: x)

    lenient = Celery("lenient", broker="memory://", strict_typing=False)
    assert declare(lenient).delay().id
    assert declare(Celery("x", broker="memory://"), typing=False).delay().id
    with pytest.raises(TypeError):
        declare(Celery("y", broker="memory://")).delay()


def test_what_is_sent_by_name_is_published_even_if_tasks_run_eagerly(app):
    app.conf.update(task_always_eager=True, broker_url="memory://by-name")
    with pytest.warns(AlwaysEagerIgnored, match="send_task"):
        result = app.send_task("unknown")
    assert type(result) is app.AsyncResult
    assert app.assembly.broker.depth("celery") == 1


@pytest.mark.process
@pytest.mark.parametrize(("main", "expected"), [("", "__main__.f"), ("'named'", "named.f")])
@pytest.mark.parametrize("words", [["{path}"], ["-m", "script"]])
def test_tasks_of_a_script_bear_the_apps_name(tmp_path, main, expected, words):
    script = tmp_path / "script.py"
    script.write_text(f"from celery import Celery\napp = Celery({main})\n@app.task\ndef f(): pass\nprint(f.name)\n")
    ran = python(*[word.format(path=script) for word in words], PYTHONPATH=f"{tmp_path}:{os.environ['PYTHONPATH']}"
                 if os.environ.get("PYTHONPATH") else f"{tmp_path}:{os.getcwd()}/src")  # fmt: skip
    assert ran.stdout.strip() == expected


def test_a_second_periodic_task_without_a_name_is_told(app, caplog):
    task = app.task(name="t")(lambda x: x)
    app.add_periodic_task(1.0, task.s(1))
    app.add_periodic_task(2.0, task.s(1))
    assert app.conf.beat_schedule[repr(task.s(1))]["schedule"] == 2.0
    assert "t(1)" in caplog.text


# --------------------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("url", ["redis://a;redis://b", ["redis://a", "redis://b"]])
def test_several_urls_are_failed_over_to(state, url):
    with Celery("x", broker=url).connection() as connection:
        assert connection.hostname == "a"
        assert connection.alt == ["redis://a", "redis://b"]


def test_urls_to_read_and_to_write_may_differ(state):
    made = Celery("x", broker="redis://a", broker_write_url="redis://w", broker_read_url="redis://r")
    assert made.connection_for_read().hostname == "r"
    assert made.connection_for_write().hostname == made.connection().hostname == "w"


def test_pools_are_bounded_and_waiting_ends(state):
    made = Celery("x", broker="memory://", broker_pool_limit=1, broker_pool_acquire_timeout=0.01)
    with made.producer_or_acquire(), pytest.raises(OperationalError, match="broker_pool_limit"):
        made.producer_or_acquire().__enter__()


@pytest.mark.parametrize("limit", [0, None])
def test_pools_may_be_off(state, limit):
    made = Celery("x", broker="memory://")
    made.conf.broker_pool_limit = limit
    with made.producer_or_acquire() as one, made.producer_or_acquire() as two:
        assert one is not two


def test_a_forked_child_has_other_pools(app):
    before = app.pool
    pid = os.fork()
    if pid == 0:
        os._exit(app.pool is before)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ------------------------------------------------------------------------------------------------------------ the rest


def test_the_report_names_versions_and_hides_secrets(state):
    report = Celery(
        "x", broker="memory://", broker_password="hunter2", backend="redis://u:sesame@h", api_token="t0p"
    ).bugreport()  # fmt: skip
    for word in ("celery:5.8.0+next", "kombu:", "py:3.", "transport:memory", "loader", "celery.loaders.app.AppLoader"):
        assert word in report
    for secret in ("hunter2", "sesame", "t0p"):
        assert secret not in report


def test_the_clock_is_lamports(app):
    assert (app.clock.forward(), app.clock.forward(), app.clock.adjust(10), app.clock.value) == (1, 2, 11, 11)


def test_without_utc_the_zone_is_the_local_one(app, state):
    app.conf.enable_utc = False
    assert not app.uses_utc_timezone()
    assert app.now().utcoffset() is not None
    assert str(Celery("y", config_source={"TIME_ZONE": "Asia/Tokyo"}).timezone) == "Asia/Tokyo"


GREEN = """
import sys, types
said = []
eventlet, gevent = types.ModuleType("eventlet"), types.ModuleType("gevent")
eventlet.monkey_patch = lambda *a, **k: said.append("eventlet")
eventlet.debug = types.ModuleType("eventlet.debug")
eventlet.debug.hub_blocking_detection = lambda on, seconds: said.append(seconds)
gevent.monkey = types.ModuleType("gevent.monkey")
gevent.monkey.patch_all = lambda *a, **k: said.append("gevent")
sys.modules.update({"eventlet": eventlet, "eventlet.debug": eventlet.debug, "gevent": gevent})
sys.modules["gevent.monkey"] = gevent.monkey
import celery
celery.maybe_patch_concurrency(["celery", *sys.argv[2:]], patches=None if sys.argv[1] == "yes" else {})
loaded = [name for name in sys.modules if name.startswith(("kombu", "celery.app"))]
print(said, loaded)
"""


@pytest.mark.parametrize(
    ("words", "patch", "said"),
    [
        ("worker -P gevent", "yes", "['gevent']"),
        ("worker -Pgevent", "yes", "['gevent']"),
        ("worker --pool=eventlet", "yes", "['eventlet', 2.5]"),
        ("worker --pool gevent", "no", "[]"),
        ("worker -P prefork", "yes", "[]"),
    ],
)
def test_green_pools_patch_before_anything_is_imported(words, patch, said):
    assert python("-c", GREEN, patch, *words.split(), EVENTLET_NOBLOCK="2.5").stdout == f"{said} []\n"


@pytest.mark.parametrize("name", ["broken_attribute", "broken_attribute.py"])
def test_whatever_is_wrong_in_a_module_of_settings_is_told(app, tmp_path, monkeypatch, name):
    (tmp_path / "broken_attribute.py").write_text("import os\nos.no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app.config_from_object(name)
    with pytest.raises(ImportError, match="no_such_thing"):
        _ = app.conf.task_serializer
    app.config_from_object(name, silent=True)
    assert app.conf.task_serializer == "json"


def test_a_module_of_settings_that_misses_another_is_told(app, tmp_path, monkeypatch):
    (tmp_path / "broken_import.py").write_text("import no_such_package_inside\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app.config_from_object("broken_import")
    with pytest.raises(ImportError, match="no_such_package_inside"):
        _ = app.conf.task_serializer


def test_old_names_are_read_and_warn(state):
    made = Celery("x", config_source={"CELERY_TASK_SERIALIZER": "yaml", "CELERYD_CONCURRENCY": 3})
    assert (made.conf.task_serializer, made.conf.worker_concurrency) == ("yaml", 3)
    with pytest.warns(CDeprecationWarning) as told:
        made.conf.maybe_warn_deprecated_settings()
    assert [str(warning.message).split("'")[1] for warning in told] == ["CELERYD_CONCURRENCY", "CELERY_TASK_SERIALIZER"]


@pytest.mark.process
def test_the_worker_takes_settings_after_its_options(tmp_path):
    (tmp_path / "projx.py").write_text(
        textwrap.dedent(
            """
            from celery import Celery, signals
            app = Celery("projx", broker="memory://")
            @signals.worker_init.connect
            def show(sender, **_):
                raise SystemExit(f"{app.conf.task_default_queue} {app.conf.worker_prefetch_multiplier}")
            """
        )
    )
    words = "-m celery -A projx worker -P solo task_default_queue=mine worker.prefetch_multiplier=9"
    ran = python(*words.split(), PYTHONPATH=f"{tmp_path}:{os.getcwd()}/src")
    assert ran.stderr.endswith("] mine 9\n")


def test_import_modules_is_sent_by_the_app(app):
    heard = []
    signals.import_modules.connect(lambda sender, **_: heard.append(sender), weak=False, dispatch_uid="heard")
    try:
        app.loader.import_default_modules()
    finally:
        signals.import_modules.disconnect(dispatch_uid="heard")
    assert heard == [app]


def test_a_forked_child_of_the_pool_is_told_to_the_app(app):
    heard = []
    app.on_after_fork.connect(lambda sender, **_: heard.append(sender), weak=False)
    runner = app.assembly.runner("w@h")
    pid = os.fork()
    if pid == 0:
        runner.start(0)
        os._exit(0 if heard == [app] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    runner.start(0)  # nobody was forked
    assert heard == []
