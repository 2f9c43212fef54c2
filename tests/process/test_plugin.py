"""The pytest plugin in projects of its own: loading, environment, pools and logging by fixtures."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.running import environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

LOADED = 'import pytest\n\npytest_plugins = ("celery.contrib.pytest",)\n'


def run(folder: Path, conftest: str, tests: str, **variables: str) -> str:
    """What `pytest` prints; it must end well."""
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-W", "error", "--strict-markers"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fixture(name: str, value: str) -> str:
    return f'\n\n@pytest.fixture(scope="session")\ndef {name}():\n    return {value}\n'


def test_it_is_loaded_by_name_only(tmp_path: Path) -> None:
    tests = """
import pytest

def test_unknown(request):
    with pytest.raises(pytest.FixtureLookupError):
        request.getfixturevalue("celery_app")
"""
    assert "1 passed" in run(tmp_path, "", tests)


def test_no_worker(tmp_path: Path) -> None:
    tests = """
import threading

def test_none(celery_app, celery_worker, celery_session_worker):
    assert celery_worker is None
    assert celery_session_worker is None
    assert threading.active_count() == 1
    assert celery_app.send_task("anything").state == "PENDING"
"""
    assert "1 passed" in run(tmp_path, LOADED, tests, NO_WORKER="1")


def test_the_level_and_the_broker_of_the_environment(tmp_path: Path) -> None:
    tests = """
import logging
from celery.contrib.testing.worker import WORKER_LOGLEVEL

def test_level(celery_app, celery_worker, caplog):
    celery_app.tasks["celery.ping"].delay().get(timeout=10)
    assert WORKER_LOGLEVEL == "info"
    assert celery_worker.loglevel == logging.INFO
    assert any("celery.ping" in message for message in caplog.messages)
    assert celery_app.conf.broker_url == "memory://"  # TEST_BROKER is read by nothing, as in 5.7
"""
    assert "1 passed" in run(tmp_path, LOADED, tests, WORKER_LOGLEVEL="info", TEST_BROKER="redis://elsewhere")


def test_overrides(tmp_path: Path) -> None:
    conftest = LOADED + "".join(
        fixture(*override)
        for override in [
            ("celery_worker_pool", '"prefork"'),
            ("celery_worker_parameters", '{"concurrency": 2, "queues": ["celery", "side"], "hostname": "me@here"}'),
            ("celery_enable_logging", "True"),
        ]
    )
    tests = """
import logging, os
from celery.contrib.testing.app import UnitLogging

def test_worker(celery_app, celery_worker):
    assert not isinstance(celery_app.log, UnitLogging)
    assert celery_app.log.already_setup
    assert celery_app.log._has_handler(logging.getLogger("celery.task"))
    assert (celery_worker.hostname, celery_worker.concurrency) == ("me@here", 2)
    assert celery_worker.pool_cls == "prefork"
    assert celery_worker.logger_queue is not None
    ping = celery_app.tasks["celery.ping"]
    assert ping.apply_async(queue="side").get(timeout=10) == "pong"
"""
    assert "1 passed" in run(tmp_path, conftest, tests)


def test_module_level_apps_and_a_session_worker(tmp_path: Path) -> None:
    """Tasks of an app that the project makes itself run in the session's worker: both are on `memory://`."""
    (tmp_path / "project.py").write_text(
        """
from celery import Celery

app = Celery("project", broker="memory://", backend="cache+memory://", set_as_current=False)

@app.task
def double(x):
    return 2 * x
"""
    )
    tests = """
import pytest
from celery import current_app
from project import double

@pytest.mark.parametrize("n", range(3))
def test_double(celery_session_app, celery_session_worker, n):
    assert current_app.main == "celery.tests"
    assert double.delay(n).get(timeout=10) == 2 * n
"""
    assert "3 passed" in run(tmp_path, LOADED + fixture("celery_includes", '["project"]'), tests)
