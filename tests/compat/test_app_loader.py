"""Loaders and autodiscovery (areas `loader`, `app`)."""

from __future__ import annotations

import sys

import pytest

from celery import Celery, signals
from celery.exceptions import NotConfigured
from celery.loaders import get_loader_cls
from celery.loaders.app import AppLoader
from celery.loaders.base import BaseLoader, autodiscover_tasks, find_related_module
from celery.loaders.default import Loader
from tests.compat.apps import app, state

__all__ = ["app", "state"]


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A package `pkgx` with `tasks`, `broken` and a class `apps.Config`; and a plain module `plainx`."""
    package = tmp_path / "pkgx"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text("")
    (package / "broken.py").write_text("import no_such_module_inside")
    (package / "apps.py").write_text("class Config: pass")
    (tmp_path / "plainx.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [
        name for name in sys.modules if name.split(".")[0] in ("pkgx", "plainx", "celeryconfig", "otherconfig")
    ]:
        del sys.modules[name]


def test_loader_choice(state, monkeypatch):
    assert get_loader_cls("app") is AppLoader
    assert get_loader_cls("default") is Loader
    assert get_loader_cls("celery.loaders.app:AppLoader") is AppLoader
    assert get_loader_cls(AppLoader) is AppLoader
    monkeypatch.setenv("CELERY_LOADER", "default")
    assert type(Celery("x").loader) is Loader


def test_related_modules(modules):
    assert find_related_module("pkgx", "tasks").__name__ == "pkgx.tasks"
    assert find_related_module("pkgx", "nothing") is None
    assert find_related_module("pkgx", None).__name__ == "pkgx"
    assert find_related_module("plainx", "tasks") is None
    assert find_related_module("pkgx.Config", "tasks").__name__ == "pkgx.tasks"
    with pytest.raises(ModuleNotFoundError, match="no_such_module_inside"):
        find_related_module("pkgx", "broken")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        find_related_module("no_such_package", "tasks")
    assert len(autodiscover_tasks(["pkgx", "pkgx"], "tasks")) == 1


def test_discovery_waits_for_the_import_of_modules(app, modules):
    asked = []

    def packages():
        asked.append(1)
        return ["pkgx"]

    app.autodiscover_tasks(packages)
    assert "pkgx.tasks" not in sys.modules
    assert not asked
    other = Celery("other", set_as_current=False)
    other.loader.import_default_modules()
    assert not asked
    app.loader.import_default_modules()
    assert "pkgx.tasks" in sys.modules
    assert app.loader.task_modules == {"pkgx.tasks"}


def test_forced_discovery_is_done_at_once(app, modules):
    app.autodiscover_tasks(["pkgx"], force=True)
    assert app.loader.task_modules == {"pkgx.tasks"}
    app.autodiscover_tasks(force=True)  # no fixup knows of packages
    app.autodiscover_tasks(["pkgx"], related_name="broken")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_inside"):
        app.loader.import_default_modules()


def test_imports_then_include(state, modules):
    made = Celery("x", include=["pkgx.tasks"], imports=("plainx",))
    assert made.loader.default_modules == ("plainx", "pkgx.tasks")
    made.loader.init_worker()
    assert made.loader.task_modules == {"plainx", "pkgx.tasks"}
    assert made.loader.worker_initialized


def test_worker_hooks(state):
    seen = []

    class Noted(BaseLoader):
        def on_worker_init(self):
            seen.append("init")

        def on_worker_shutdown(self):
            seen.append("shutdown")

        def on_worker_process_init(self):
            seen.append("process")

    loader = Noted(Celery("x"))
    loader.init_worker()
    loader.init_worker()
    loader.init_worker_process()
    loader.shutdown_worker()
    loader.on_task_init("id", None)
    loader.on_process_cleanup()
    assert seen == ["init", "process", "shutdown"]


def test_receivers_of_import_modules_are_heard(app):
    def failing(**kwargs):
        raise RuntimeError("from a receiver")

    signals.import_modules.connect(failing, sender=app)
    try:
        with pytest.raises(RuntimeError, match="from a receiver"):
            app.loader.import_default_modules()
    finally:
        signals.import_modules.disconnect(failing, sender=app)


def test_default_loader_reads_celeryconfig(state, modules, monkeypatch):
    monkeypatch.delenv("CELERY_CONFIG_MODULE", raising=False)
    (modules / "celeryconfig.py").write_text("task_default_queue = 'from-celeryconfig'")
    assert Celery("x", loader="default").conf.task_default_queue == "from-celeryconfig"
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "otherconfig")
    (modules / "otherconfig.py").write_text("task_default_queue = 'other'")
    assert Celery("y", loader="default").conf.task_default_queue == "other"


def test_default_loader_without_a_config(state, monkeypatch):
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "no_such_config_anywhere")
    monkeypatch.setenv("C_WNOCONF", "1")
    with pytest.warns(NotConfigured, match="no_such_config_anywhere"):
        assert Celery("x", loader="default").conf.task_default_queue == "celery"


@pytest.mark.parametrize(
    ("words", "namespace", "expected"),
    [
        (["task_always_eager=1"], "celery", {"task_always_eager": True}),
        ([".prefetch_multiplier=3", "worker.concurrency=(int)4"], "worker",
         {"worker_prefetch_multiplier": 3, "worker_concurrency": 4}),
        (["result_expires=4"], "worker", {"result_expires": 4.0}),
        (["broker_url=redis://x=y"], "celery", {"broker_url": "redis://x=y"}),
        (["task_routes=(dict){\"a\": 1}"], "celery", {"task_routes": {"a": 1}}),
        (["task_time_limit=4.5"], "celery", {"task_time_limit": 4.5}),
        (["imports=a,b"], "celery", {"imports": ("a", "b")}),
        (["timezone=Europe/Oslo"], "celery", {"timezone": "Europe/Oslo"}),
        (["my_own_key=text"], "celery", {"my_own_key": "text"}),
    ],
)  # fmt: skip
def test_settings_on_the_command_line(app, words, namespace, expected):
    assert app.loader.cmdline_config_parser(words, namespace) == expected


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("noequals", "expected key=value"),
        ("task_always_eager=maybe", "true or false"),
        ("worker.nope=3", "worker_nope"),
        ("result_expires=(nosuchtype)3", "nosuchtype"),
        ("result_expires=soon", "result_expires"),
    ],
)
def test_what_cannot_be_read_is_named(app, word, complaint):
    with pytest.raises(ValueError, match=complaint):
        app.loader.cmdline_config_parser([word])
