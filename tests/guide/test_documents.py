"""Every python, pycon and console block of README and docs/ runs, page by page, or says why not.

A page is a session: files (`title="…"`) are written to a folder of its own, commands run there, workers keep running
until the page ends, and there is one Python prompt. A block that is not run has `<!-- not run: reason -->` above it.
"""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.guide.blocks import Block, blocks
from tests.running import ROOT, Background, Prompt, environment, missing_lines, shell

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Languages whose blocks run; the others that a page may use show what cannot be run.
RUN = {"python", "pycon", "console"}
SHOWN = {"text", "toml", "ini", "json", ""}


def pages() -> list[Path]:
    return [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


def test_no_other_languages() -> None:
    odd = [
        f"{page.name}:{b.line}: {b.language}" for page in PAGES for b in blocks(page) if b.language not in RUN | SHOWN
    ]
    assert not odd, odd


@pytest.mark.process
@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()])
def test_page(page: Path, tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        for block in blocks(page):
            if block.language in RUN and not block.not_run:
                session.run(block)
        session.stop_workers()


class Session:
    """A reader who does what a page says, in a folder of his own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = environment(folder)
        self._stack = ExitStack()
        self._prompt: Prompt | None = None
        self._workers: list[Background] = []

    def run(self, block: Block) -> None:
        if block.language == "console":
            for command, output in block.commands():
                self.command(command, output)
        elif block.title:
            self.write(block)
        else:
            self.type(block.text)

    def write(self, block: Block) -> None:
        path = self.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text + "\n")

    def command(self, command: str, output: str) -> None:
        command = command.partition("  #")[0].strip()
        if re.search(r"celery .*\bworker\b", command) and not re.search("--(help|detach)|multi", command):
            worker = self._stack.enter_context(Background(command, self.folder, self.variables))
            worker.wait_for(r" ready\.$")
            self._workers.append(worker)
            return
        printed = shell(command, self.folder, self.variables)
        missing = missing_lines(output, printed)
        assert not missing, f"`{command}` did not print {missing}, but:\n{printed}"

    def type(self, text: str) -> None:
        if self._prompt is None:
            self._prompt = self._stack.enter_context(Prompt(self.folder, self.variables))
        for answer in self._prompt.enter(text):
            answer.check()

    def stop_workers(self) -> None:
        """SIGTERM for each; all end well."""
        for worker in self._workers:
            assert worker.stop(signal.SIGTERM) == 0, worker.output

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
