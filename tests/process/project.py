"""A folder with an app, a client of it, and workers: what tests of the whole program share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from tests.running import Background, environment

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Project", "lines"]


def lines(note: Path) -> int:
    """How many lines a task has written there."""
    return len(note.read_text().splitlines()) if note.exists() else 0


class Project:
    """`source` becomes the module `proj`, whose app is on `url` (a file in the folder, unless given: `URL` there)."""

    def __init__(self, folder: Path, source: str, url: str | None = None, **variables: str) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/celery.sqlite3"
        (folder / "proj.py").write_text(f"URL = {self.url!r}\n{source}")
        self.variables = environment(folder, **variables)
        self.app = Celery("proj", broker=self.url, backend=self.url, set_as_current=False)

    def worker(self, options: str = "-c 1") -> Background:
        return Background(f"celery -A proj worker {options}", self.folder, self.variables)

    def ready(self, options: str = "-c 1") -> Background:
        worker = self.worker(options if "-l " in options else f"-l INFO {options}")
        worker.wait_for(r"ready\.$")
        return worker

    def send(self, name: str, *args: object, **options: Any) -> Any:
        return self.app.send_task(f"proj.{name}", args, **options)

    def depth(self) -> int:
        depth: int = self.app.assembly.broker.depth("celery")  # type: ignore[attr-defined]
        return depth

    def note(self, name: str = "note") -> Path:
        return self.folder / name
