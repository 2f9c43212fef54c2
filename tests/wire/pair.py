"""One project, `mixed.py`, that this project and the real Celery run side by side on RabbitMQ."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.running import ROOT, Background, environment
from tests.wire import golden

if TYPE_CHECKING:
    from pathlib import Path


class Pair:
    """The project in a folder, workers of each side, and programs that call its tasks."""

    def __init__(self, folder: Path, source: str, client: str, **variables: str) -> None:
        (folder / "mixed.py").write_text(source)
        (folder / "client.py").write_text(client)
        self.folder = folder
        path = f"{folder}:{golden.SCRIPTS}"
        self._sides = {
            "ours": (sys.executable, environment(folder, PYTHONPATH=f"{ROOT / 'src'}:{path}", **variables)),
            "theirs": (golden.REFERENCE, golden.reference_environment(folder, PYTHONPATH=path, **variables)),
        }

    def worker(self, side: str, queues: str = "", *, talking: bool = False) -> Background:
        """From the queue that bears its side's name, unless others are given. `talking`: with remote control, events,
        heart, gossip and mingle."""
        python, variables = self._sides[side]
        quiet = " --without-mingle --without-gossip --without-heartbeat" if side == "theirs" else ""
        if talking:
            quiet, variables = " -E", {**variables, "ALL": "1"}
        command = f"{python} -m celery -A mixed worker -l INFO -c 1 -P solo -Q {queues or side} -n {side}@rabbit{quiet}"
        return Background(command, self.folder, {**variables, "C_FORCE_ROOT": "1"})

    def run(self, side: str, *arguments: str) -> str:
        """What a Python program of that side prints."""
        python, variables = self._sides[side]
        ran = subprocess.run(
            [python, *arguments], cwd=self.folder, env=variables, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def send(self, side: str, *arguments: str) -> dict[str, Any]:
        """What `client.py` has found."""
        found: dict[str, Any] = json.loads(self.run(side, "client.py", *arguments).splitlines()[-1])
        return found
