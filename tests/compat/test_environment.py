"""What the environment says: URLs, switches that are read at import, hints to child processes ([env.1] to [env.6])."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, platforms
from celery.apps.signals import SignalLadder
from celery.utils import log
from tests.running import PATIENCE, environment

if TYPE_CHECKING:
    from pathlib import Path

READS = """
import json
from celery.apps import worker
from celery.bin import worker as command
from celery.utils import log, term, time, timer2
from celery.worker import state

print(json.dumps({
    "revokes": [state.REVOKES_MAX, state.REVOKE_EXPIRES],
    "successful": [state.SUCCESSFUL_MAX, state.SUCCESSFUL_EXPIRES],
    "debug": time.C_REMDEBUG, "timer": timer2.TIMER_DEBUG, "fork": command.C_FAKEFORK, "mp": log.MP_LOG,
    "pictures": term.supports_images(),
}))
"""
SWITCHES = {
    "CELERY_WORKER_REVOKES_MAX": "7",
    "CELERY_WORKER_REVOKE_EXPIRES": "1.5",
    "CELERY_WORKER_SUCCESSFUL_MAX": "8",
    "CELERY_WORKER_SUCCESSFUL_EXPIRES": "2.5",
    "C_REMDEBUG": "1",
    "TIMER_DEBUG": "1",
    "C_FAKEFORK": "1",
    "MP_LOG": "1",
    "ITERM_PROFILE": "Default",
}


def run(program: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in environment(folder).items() if name not in SWITCHES}
    return subprocess.run(
        [sys.executable, *program], env={**clean, **variables}, cwd=folder, stdin=subprocess.DEVNULL, text=True,
        capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_switches_are_read_at_import(tmp_path: Path) -> None:
    assert json.loads(run(["-c", READS], tmp_path).stdout) == {
        "revokes": [50000, 10800.0], "successful": [1000, 10800.0], "debug": False, "timer": None, "fork": None,
        "mp": False, "pictures": False,
    }  # fmt: skip
    assert json.loads(run(["-c", READS], tmp_path, **SWITCHES).stdout) == {
        "revokes": [7, 1.5], "successful": [8, 2.5], "debug": "1", "timer": "1", "fork": "1", "mp": "1",
        "pictures": True,
    }  # fmt: skip


def test_a_limit_that_is_no_number_is_named(tmp_path: Path) -> None:
    done = run(["-c", "import celery.worker.state"], tmp_path, CELERY_WORKER_REVOKES_MAX="many")
    assert "CELERY_WORKER_REVOKES_MAX: expected a number in the environment, got 'many'" in done.stderr


def test_urls_beat_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("environment", broker="memory://set", backend="cache+memory://", set_as_current=False)
    app.conf.broker_read_url, app.conf.broker_write_url = "memory://set-read", "memory://set-write"
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "sqlite:///r.db")
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://e")
    conf = app.conf
    assert (conf.broker_url, conf.result_backend) == ("memory://e", "sqlite:///r.db")
    assert (conf.broker_read_url, conf.broker_write_url) == ("memory://set-read", "memory://set-write")
    monkeypatch.setenv("CELERY_BROKER_READ_URL", "memory://e-read")
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "memory://e-write")
    assert (conf.broker_read_url, conf.broker_write_url) == ("memory://e-read", "memory://e-write")


@pytest.mark.process
def test_loader_and_module_of_settings(tmp_path: Path) -> None:
    (tmp_path / "settings_here.py").write_text("task_default_queue = 'from-module'\n")
    (tmp_path / "loader_here.py").write_text(
        "from celery.loaders.app import AppLoader\nclass Mine(AppLoader):\n    pass\n"
    )
    program = "from celery import Celery\napp = Celery()\nprint(type(app.loader).__name__, app.conf.task_default_queue)"
    done = run(["-c", program], tmp_path, CELERY_LOADER="default", CELERY_CONFIG_MODULE="settings_here")
    assert done.stdout == "Loader from-module\n"
    assert run(["-c", program], tmp_path, CELERY_LOADER="loader_here.Mine").stdout == "Mine celery\n"


class _Worker:
    """What the ladder asks of a worker."""

    def __init__(self) -> None:
        self.hostname, self.exitcode, self.terminated, self.engine_has_thread = "w@h", None, 0, True
        self.app = Celery(set_as_current=False)

    def terminate(self, in_sighandler: bool = False) -> None:
        self.terminated += 1


@pytest.mark.parametrize(("value", "cold"), [("SIGQUIT", True), ("SIGINT", False), (None, False)])
def test_term_may_stand_for_quit(monkeypatch: pytest.MonkeyPatch, value: str | None, cold: bool) -> None:
    monkeypatch.delenv("REMAP_SIGTERM", raising=False)
    if value is not None:
        monkeypatch.setenv("REMAP_SIGTERM", value)
    worker: Any = _Worker()
    ladder = SignalLadder(worker)
    before = signal.getsignal(signal.SIGTERM)
    ladder.install()
    try:
        assert (signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGQUIT)) is False or cold
        if cold:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (worker.terminated, worker.exitcode) == (1, 1)
    finally:
        ladder.uninstall()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_fake_fork_stays_in_the_foreground(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from celery import Celery\napp = Celery('made', broker='memory://made', include=['no_such_module'])\n"
    )
    program = ["-m", "celery", "-A", "made", "worker", "--detach"]
    done = run(program, tmp_path, C_FAKEFORK="1")
    assert done.returncode == 1
    assert "The worker cannot start: No module named 'no_such_module'" in done.stderr
    assert "did not start" not in done.stderr
    behind = run(program, tmp_path)
    assert behind.returncode == 1
    assert "did not start" in behind.stderr


def test_process_titles_can_be_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    package = type(sys)("setproctitle")
    package.__dict__["setproctitle"] = titles.append
    monkeypatch.setitem(sys.modules, "setproctitle", package)
    monkeypatch.setenv("NOSETPS", "1")
    assert platforms.set_process_title("celery", "x") == "[celery] x"
    assert not titles
    monkeypatch.delenv("NOSETPS")
    platforms.set_process_title("celery", "x")
    assert titles == ["[celery] x"]


@pytest.mark.process
@pytest.mark.parametrize(("wanted", "level"), [(False, "ERROR"), ("1", "INFO")])
def test_the_logger_of_pools_speaks_if_asked(
    tmp_path: Path, wanted: str | bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import logging\nfrom celery import Celery\nCelery().log.setup('INFO')\n"
        "print(logging.getLevelName(logging.getLogger('multiprocessing').level))\n"
    )
    done = run(["-c", program], tmp_path, **({"MP_LOG": str(wanted)} if wanted else {}))
    assert done.stdout == f"{level}\n"
    assert isinstance(log.MP_LOG, (bool, str))


@pytest.mark.process
def test_children_are_told_how_to_log(tmp_path: Path) -> None:
    program = (
        "import os\nfrom celery import Celery\nCelery().log.setup('INFO', 'w.log')\n"
        "print([os.environ['_MP_FORK_LOG' + name + '_'] for name in ('LEVEL', 'FILE', 'FORMAT')])\n"
    )
    told = run(["-c", program], tmp_path).stdout
    assert told == f"['20', 'w.log', {Celery().conf.worker_log_format!r}]\n"
