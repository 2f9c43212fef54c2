"""Entrance. The pytest plugin: `pytest_plugins = ("celery.contrib.pytest",)` (`[test.1]` to `[test.6]`).

Fixtures that make something (an app, a worker), and fixtures of settings for a project to override. Session-scoped
ones take session-scoped overrides.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from celery.contrib.testing.app import TestApp, setup_default_app
from celery.contrib.testing.worker import start_worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from celery import Celery
    from celery.contrib.testing.worker import TestWorkController

__all__ = [
    "NO_WORKER", "celery_app", "celery_class_tasks", "celery_config", "celery_enable_logging", "celery_includes",
    "celery_parameters", "celery_session_app", "celery_session_worker", "celery_worker", "celery_worker_parameters",
    "celery_worker_pool", "depends_on_current_app", "pytest_configure", "use_celery_app_trap",
]  # fmt: skip

#: Set in the environment where workers run elsewhere: the worker fixtures then start none, and are None (`[env.7]`).
NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker `celery`."""
    config.addinivalue_line("markers", "celery(**overrides): settings of celery_app for this test, class or module")


@contextmanager
def _app(config: Mapping[str, Any], parameters: Mapping[str, Any], logging: bool, trap: bool) -> Iterator[Celery]:
    app = TestApp(config=config, enable_logging=logging, set_as_current=False, **parameters)
    with setup_default_app(app, use_trap=trap):
        yield app


# ------------------------------------------------------------------------------------------------- to be overridden


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Override this: settings of the apps."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Override this: keyword arguments that the apps are made with, such as `task_cls`."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Override this: keyword arguments of `start_worker`, such as `queues` or `shutdown_timeout`."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """Override this: the pool of the workers."""
    return "solo"


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Override this: modules to import before a worker starts."""
    return ()


@pytest.fixture(scope="session")
def celery_class_tasks() -> list[Any]:
    """Override this: task classes to register with the session's app."""
    return []


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Override this: true has the workers set up logging as Celery does, beside pytest's."""
    return False


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Override this: true makes every use of an implicit current app an error."""
    return False


# ------------------------------------------------------------------------------------------------------ to be used


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for one test, on a broker and a backend in memory; not the current one. The marker `celery` changes it."""
    marker = request.node.get_closest_marker("celery")
    config = {**celery_config, **(marker.kwargs if marker else {})}
    with _app(config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        yield app


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celery]:
    """An app for all tests of the session, current and default for as long (unless there is the trap)."""
    with _app(celery_config, celery_parameters, celery_enable_logging, use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture
def celery_worker(
    request: pytest.FixtureRequest,
    celery_app: Celery,
    celery_includes: Sequence[str],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController | None]:
    """A worker of `celery_app` for one test, in a thread."""
    with _worker(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_session_worker(
    request: pytest.FixtureRequest,
    celery_session_app: Celery,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController | None]:
    """A worker of `celery_session_app` for all tests of the session, in a thread."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _worker(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@contextmanager
def _worker(
    app: Celery, includes: Sequence[str], pool: str, parameters: Mapping[str, Any]
) -> Iterator[TestWorkController | None]:
    if NO_WORKER:
        yield None
        return
    for module in includes:
        app.loader.import_task_module(module)
    with start_worker(app, **{"pool": pool, **parameters}) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Celery) -> None:
    """Makes `celery_app` the current app."""
    celery_app.set_current()
