"""SQLite files that are locked, full, read-only, damaged or too new: a clear error, and nothing accepted is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kombu.exceptions import OperationalError

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from tests.running import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.conftest import MakeScene
    from tests.chaos.scene import Scene

    Book = Callable[[dict[str, str]], None]


def app_on(path: Path, **options: object) -> Celery:
    app = Celery("proj", broker=f"sqlite:///{path}", backend=f"sqlite:///{path}", set_as_current=False)
    app.conf.broker_transport_options = options
    return app


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte. Where it cannot be mounted, the test makes do with a limit of the file's size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode
    yield folder
    if not mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def send(app: Celery, task_id: str, padding: str = "") -> None:
    app.send_task("proj.late", (0.0,), {"padding": padding} if padding else {}, task_id=task_id)


def test_a_locked_file_is_waited_for_and_then_told(tmp_path: Path) -> None:
    path = tmp_path / "locked.sqlite3"
    app = app_on(path, timeout=1.0)
    send(app, "first")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OperationalError, match=f"{re.escape(str(path))}: other processes kept it locked for too long"):
        send(app, "second")
    later = threading.Timer(0.3, other.rollback)
    later.start()
    send(app, "third")
    later.join()
    other.close()
    assert app.assembly.broker.depth("celery") == 2  # type: ignore[attr-defined]
    app.close()


def test_a_hundred_threads_on_a_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "locked.sqlite3"
    app = app_on(path)
    send(app, "first")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    errors: list[BaseException] = []
    slowest = []

    def call() -> None:
        began = time.monotonic()
        try:
            send(app, "more")
        except OperationalError as exc:
            errors.append(exc)
        slowest.append(time.monotonic() - began)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(errors) == 100
    assert max(slowest) < 15, "ten are promised"
    other.close()
    app.close()


def test_a_full_disk(small_disk: Path, scene: MakeScene, book: Book) -> None:
    """What was accepted before is run once there is room again, and the worker that met the full disk goes on."""
    path = small_disk / "full.sqlite3"
    here = scene(f"sqlite:///{path}")
    if not os.path.ismount(small_disk):
        pytest.fail("expected to be allowed to mount a small file system")
    ballast = small_disk / "ballast"
    worker = here.worker("-c 1")
    accepted = 0
    with here.sender() as sender:
        ballast.write_bytes(b"x" * 200_000)
        with pytest.raises(OperationalError, match=f"{re.escape(str(path))}: the disk is full: free some space"):
            for n in range(2000):
                here.app.send_task("proj.late", (0.02,), {}, task_id=f"t{n}", headers={"padding": "x" * 4000})
                here.ledger.sent[f"t{n}"] = time.monotonic()
                accepted += 1
        assert accepted > 10
        ballast.unlink()
        began = time.monotonic()
        here.ledger.wait(90, [worker])
        recovery = time.monotonic() - began
        sender.send("proj.late", "after", 0.0)
        here.ledger.wait(60, [worker])
    here.until(lambda: here.settled() == set(here.ledger.sent), "every result is stored")
    assert "Traceback" not in worker.output
    book(here.ledger.row("sqlite, disk full", recovery, "one call refused; the worker went on when there was room"))


def as_nobody(code: str, folder: Path) -> str:
    """Run Python as a user who is bound by modes of files, even where the tests are root."""
    demote = "import os; os.getuid() or (os.setgid(65534), os.setuid(65534)); "
    script = folder / "probe.py"
    script.write_text(demote + code)
    return shell(
        f"python {script}", folder, dict(os.environ, PATH=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")
    )  # type: ignore[attr-defined]


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """A folder that another user can reach."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def said(what: str, path: Path) -> str:
    """What `delay()` raises: the exception is printed by the child."""
    return what + str(path)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_written_to(what: str, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "ro.sqlite3"
    path.parent.mkdir()
    app = app_on(path)
    send(app, "first")
    app.close()
    if os.getuid() == 0:
        chattr(path if what == "file" else path.parent, on=True)
    else:
        (path if what == "file" else path.parent).chmod(stat.S_IRUSR | (stat.S_IXUSR if what == "folder" else 0))
    try:
        again = app_on(path)
        with pytest.raises((ImproperlyConfigured, OperationalError), match=re.escape(str(path))):
            send(again, "second")
        again.close()
    finally:
        if os.getuid() == 0:
            chattr(path if what == "file" else path.parent, on=False)
        else:
            (path if what == "file" else path.parent).chmod(stat.S_IRWXU)
    after = app_on(path)
    send(after, "third")
    assert after.assembly.broker.depth("celery") == 2  # type: ignore[attr-defined]
    after.close()


def chattr(path: Path, *, on: bool) -> None:
    subprocess.run(["chattr", "+i" if on else "-i", path], check=True)
