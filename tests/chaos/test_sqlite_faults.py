"""SQLite files that are locked, full, read-only, damaged or too new: a clear error, and nothing accepted is lost."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from celery import Celery
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.conftest import MakeScene
    from tests.chaos.scene import Scene

    Book = Callable[[dict[str, str]], None]


def app_on(path: Path, **options: object) -> Celery:
    app = Celery("proj", broker=f"sqlite:///{path}", backend=f"sqlite:///{path}", set_as_current=False)
    app.conf.broker_transport_options = options
    return app


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file system of a few megabytes, and 0; where it may not be mounted, a folder, and how many pages to allow."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3584k", "tmpfs", folder], capture_output=True
    ).returncode
    yield folder, 200 if mounted else 0
    if not mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Bounds the pages of every database that this process opens from now on."""

    def limit(pages: int) -> None:
        def connect(*args: Any, **options: Any) -> sqlite3.Connection:
            db = plain(*args, **options)
            db.execute(f"PRAGMA max_page_count = {pages}")
            return db

        plain = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", connect)

    return limit


def fill(here: Scene) -> None:
    for n in range(2000):
        here.app.send_task("proj.late", (0.0,), task_id=f"t{n}", headers={"padding": "x" * 4000})
        here.ledger.sent[f"t{n}"] = time.monotonic()


def test_a_full_disk(
    small_disk: tuple[Path, int], limited: Callable[[int], None], scene: MakeScene, book: Book
) -> None:
    """What was accepted before is run once there is room again, and the worker that met the full disk goes on."""
    folder, pages = small_disk
    path = folder / "full.sqlite3"
    if pages:
        limited(pages)
    here = scene(f"sqlite:///{path}")
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * 1_500_000)
    told = f"{re.escape(str(path))}: the disk is full: free some space"
    with pytest.raises(OperationalError, match=told):
        fill(here)
    assert len(here.ledger.sent) > 10
    worker = here.worker("-c 1", ready=False)
    if not pages:
        worker.wait_for(told)
        ballast.unlink()
    began = time.monotonic()
    here.ledger.wait(60, [worker])
    recovery = time.monotonic() - began
    with here.sender() as sender:
        sender.send("proj.late", "after", 0.0)
    here.ledger.wait(60, [worker])
    here.until(lambda: here.settled() == set(here.ledger.sent), "every result is stored")
    assert "Traceback" not in worker.output
    book(here.ledger.row("sqlite, disk full", recovery, "the next call was refused"))


class Unprivileged:
    """What another user gets to see: root may do everything, so the call is made in a process that is not."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.folder.chmod(0o755)
        self.path = self.folder / "shared.sqlite3"

    def send(self) -> str:
        """Send a task; returns the error that was raised."""
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                if os.getuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                send(app_on(self.path), "by another")
            except BaseException as exc:  # noqa: BLE001 - it is what is asked for
                os.write(writer, f"{type(exc).__name__}: {exc}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader) as told:
            text = told.read()
        os.waitpid(pid, 0)
        return text


@pytest.fixture
def unprivileged() -> Iterator[Unprivileged]:
    made = Unprivileged()
    yield made
    made.folder.chmod(0o755)
    shutil.rmtree(made.folder)


def test_a_file_that_may_not_be_written_to(unprivileged: Unprivileged) -> None:
    path = unprivileged.path
    app = app_on(path)
    send(app, "first")
    app.close()
    path.chmod(0o444)
    error = unprivileged.send()
    assert error.startswith(f"ImproperlyConfigured: {path} cannot be written to: check the owner and mode"), error
    path.chmod(0o644)
    check_still_there(path)


def test_a_folder_that_may_not_be_written_to(unprivileged: Unprivileged) -> None:
    path = unprivileged.path
    app = app_on(path)
    send(app, "first")
    app.close()
    path.chmod(0o666)
    unprivileged.folder.chmod(0o555)
    error = unprivileged.send()
    assert error.startswith("ImproperlyConfigured: ")
    assert str(path) in error
    assert "directory" in error
    unprivileged.folder.chmod(0o755)
    check_still_there(path)


def test_a_folder_in_which_the_file_cannot_be_made(unprivileged: Unprivileged) -> None:
    unprivileged.folder.chmod(0o555)
    error = unprivileged.send()
    assert error.startswith(f"ImproperlyConfigured: {unprivileged.path} cannot be made (Permission denied)"), error


def check_still_there(path: Path) -> None:
    app = app_on(path)
    assert app.assembly.broker.depth("celery") == 1  # type: ignore[attr-defined]
    app.close()


def damaged(path: Path) -> None:
    """Noise in the pages that hold messages."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))


def no_database(path: Path) -> None:
    path.write_bytes(b"some text that somebody has put here" * 1000)


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (damaged, "is damaged: restore it from a backup, or move it away to begin with an empty one"),
        (no_database, "is no SQLite database: name another file, or move this one away"),
        (newer, r"was written by a newer celery \(file format 999, this one knows up to \d+\): upgrade this"),
    ],
)
def test_a_file_that_cannot_be_used(spoil: Callable[[Path], None], told: str, scene: MakeScene, tmp_path: Path) -> None:
    """`delay()` raises, and the worker ends with status 1; both name the file and say what to do; it stays as it is."""
    path = tmp_path / "spoiled.sqlite3"
    here = scene(f"sqlite:///{path}")
    for n in range(50):
        send(here.app, f"t{n}")
    here.app.close()
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(ImproperlyConfigured, match=f"{re.escape(str(path))} {told}"):
        send(app_on(path), "more")
    worker = here.worker("-c 1", ready=False)
    worker.wait_for(f"CRITICAL/MainProcess\\] Unrecoverable error: {re.escape(str(path))} {told}")
    assert worker.wait() == 1
    assert "Traceback" not in worker.output
    assert path.read_bytes() == before
