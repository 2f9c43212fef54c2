"""`celery.contrib.sphinx`, `celery.contrib.django.task` and `celery.contrib.rdb` ([contrib.3] to [contrib.5])."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from celery.contrib import rdb
from tests.running import PATIENCE, environment, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = '''
"""A project."""
from celery import Celery
app = Celery("proj", broker="memory://")


@app.task
def add(x, y=1):
    """Add two numbers."""
    return x + y


@app.task(bind=True)
def bound(self, name: str):
    """Know yourself."""


@app.task
def silent(x):
    return x


def plain(a):
    """No task."""
'''


@pytest.mark.process
def test_sphinx_documents_tasks(tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(PROJECT)
    (tmp_path / "conf.py").write_text(
        "import sys\nsys.path.insert(0, '.')\nextensions = ['celery.contrib.sphinx']\ncelery_task_prefix = '(job)'\n"
    )
    (tmp_path / "index.rst").write_text(
        "All\n===\n\n.. automodule:: proj\n   :members:\n\nOne\n===\n\n.. py:module:: other\n\n.. autotask:: proj.add\n"
        "   :no-index:\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "text", ".", "out"], cwd=tmp_path, env=environment(tmp_path),
        text=True, capture_output=True, timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "index.txt").read_text()
    assert text.count("(job) proj.add(x, y=1)") == 2, text + done.stderr
    assert text.count("Add two numbers.") == 2
    assert "(job) proj.bound(name)" in text
    assert "proj.plain(a)" in text
    assert "(job) proj.plain" not in text
    assert "silent" not in text


@pytest.mark.slow
def test_django_tasks_wait_for_the_commit(tmp_path: Path) -> None:
    script = """
        import django
        from django.conf import settings
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()
        from django.db import transaction
        from celery import Celery
        from celery.contrib.django.task import DjangoTask

        app = Celery("dj", broker="memory://dj", task_cls=DjangoTask)

        @app.task
        def add(x, y):
            return x + y

        depth = lambda: app.assembly.broker.depth("celery")
        assert add.delay_on_commit(1, 2) is None
        assert depth() == 1
        with transaction.atomic():
            assert add.delay_on_commit(1, y=2) is None
            add.apply_async_on_commit((1, 2), task_id="mine")
            assert depth() == 1
        assert depth() == 3
        try:
            with transaction.atomic():
                add.delay_on_commit(1, 2)
                raise KeyError
        except KeyError:
            pass
        assert depth() == 3
        assert "mine" in [app.assembly.broker.inspection.peek("celery", 9)[2].envelope.decode().split('"id":"')[1][:4]]
        print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment(tmp_path), text=True,
        capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr


class Talk:
    """A client of a debugger that a thread waits in."""

    def __init__(self, debugged: threading.Thread, out: StringIO) -> None:
        debugged.start()
        wait_until(lambda: "Waiting for somebody" in out.getvalue(), "the debugger listens")
        host, port = out.getvalue().split("telnet ")[1].split()[:2]
        self._line = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._file = self._line.makefile("r")
        self.port = int(port)

    def say(self, command: str) -> None:
        self._line.sendall(command.encode() + b"\n")

    def hear(self, text: str) -> None:
        heard = ""
        while text not in heard:
            came = self._file.read(1)
            assert came, heard
            heard += came

    def close(self) -> None:
        self._file.close()
        self._line.close()


class TestDebugger:
    @pytest.fixture(autouse=True)
    def _streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The debugger takes and gives back the process's own."""
        monkeypatch.setattr(rdb, "_current", [None])

    @pytest.mark.parametrize("goodbye", ["c", "cont", "continue", "q", "quit", "exit"])
    def test_a_session(self, goodbye: str) -> None:
        out, results = StringIO(), list[int]()

        def debugged() -> None:
            x = 20
            rdb._current[0] = rdb.Rdb(port=23_456, out=out)
            rdb.set_trace()
            results.append(x + 1)

        thread = threading.Thread(target=debugged, daemon=True)
        before = sys.stdin, sys.stdout
        talk = Talk(thread, out)
        talk.hear("(Pdb)")
        talk.say("x = 41")
        talk.hear("(Pdb)")
        talk.say("p x * 2")
        talk.hear("82")
        talk.say(goodbye)
        thread.join(PATIENCE)
        talk.close()
        assert results == [42]
        assert (sys.stdin, sys.stdout) == before
        assert "has gone" in out.getvalue()
        assert rdb._current == [None]

    def test_the_next_free_port(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            maker = rdb.Rdb.__new__(rdb.Rdb)
            sock, host, found = maker.get_avail_port("127.0.0.1", port, 100, 0)
            sock.close()
            assert (host, found > port) == ("127.0.0.1", True)
            with pytest.raises(OSError, match="no port is free from"):
                maker.get_avail_port("127.0.0.1", port, 1, 0)

    def test_names(self) -> None:
        assert (rdb.DEFAULT_PORT, rdb.CELERY_RDB_PORT, rdb.CELERY_RDB_HOST) == (6899, 6899, "127.0.0.1")
        assert Celery("x", set_as_current=False) is not None
