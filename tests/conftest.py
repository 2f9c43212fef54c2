"""For all tests: nothing from the caller's environment, no apps or shared tasks from the test before, no hurry."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from celery import _state
from celery.app import builtins
from celery.contrib.testing import tasks
from tests.servers import RabbitServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ("celery.contrib.pytest",)

KEPT = {"CELERY_REFERENCE_PYTHON"}  # where the real Celery lives, for wire tests

for name in [n for n in os.environ if n.startswith(("CELERY", "C_STRICT", "C_WARN", "C_FORCE_ROOT")) and n not in KEPT]:
    del os.environ[name]

# Programs that tests start are to find the package compiled, whatever the caller wants of his own: without that, each
# spends a second of a processor on it; and each process of pytest twenty on the tests themselves.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that runs the tests in the background has them ignore Ctrl-C, and so the programs that they start.
with suppress(ValueError):  # not in the main thread
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("unhurried", deadline=None, max_examples=500 if os.environ.get("FUZZ") else 20)
# For `make quick`: the same few examples each time.
settings.register_profile("quick", deadline=None, max_examples=5, derandomize=True, database=None)
settings.load_profile("unhurried")


#: What every app has; modules of tests may declare more when they are imported.
assert builtins and tasks  # noqa: PT018 - imported for what they declare
BUILTINS = dict(_state._on_app_finalizers)


@pytest.fixture(autouse=True)
def _apps_of_their_own() -> Iterator[None]:
    """Each test begins without a current app, and without shared tasks of others: those join every later app."""
    default, current = _state.default_app, _state._tls.current_app
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(BUILTINS)
    _state.set_default_app(None)
    _state._set_current_app(None)
    kept = {name: logging.getLogger(name) for name in ("celery", "celery.task")}
    before = {name: (log.level, log.propagate, log.disabled, list(log.handlers)) for name, log in kept.items()}
    yield
    for name, log in kept.items():
        log.level, log.propagate, log.disabled, log.handlers[:] = before[name]
    _state.set_default_app(default)
    _state._set_current_app(current)


gc.disable()  # until all is collected: what is imported stays, and looking through it takes a third of the time


def pytest_collection_finish() -> None:
    """What has been imported by now stays: collections need not look at it, and some tests ask for many. Those that
    nobody asks for are rarer than Python's: a parsed module alone is ten times 700 objects, none of them garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    """All goes with the process: Python need not look through it once more, which takes seconds."""
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules that are left out as a whole by `-m "not …"` are not even imported."""
    asked = config.option.markexpr
    if collection_path.suffix != ".py" or not re.fullmatch(r"not \w+( and not \w+)*", asked):
        return None
    marks = re.search(r"^pytestmark = (\[[^]]*\]|.*)", collection_path.read_text(), re.MULTILINE)
    found = set(re.findall(r"pytest\.mark\.(\w+)", marks[1] if marks else ""))
    return True if found.intersection(re.findall(r"not (\w+)", asked)) else None


_vhosts = itertools.count()


@pytest.fixture(scope="session")
def rabbit_session() -> Iterator[RabbitServer]:
    """A RabbitMQ node. It is heavy: who uses it shares it, in the xdist groups "rabbit-adapters" and "rabbit" (whole
    workers and programs)."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbit_url(rabbit_session: RabbitServer) -> Iterator[str]:
    """Of a virtual host with nothing in it."""
    name = f"test-{next(_vhosts)}"
    yield rabbit_session.make_vhost(name)
    rabbit_session.drop_vhost(name)
