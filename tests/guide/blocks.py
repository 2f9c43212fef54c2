"""The fenced blocks of a Markdown document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```\s*(?P<language>[\w-]*)(?P<rest>.*)$")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?)(?: *\{[^}]*\})?$")
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+?) -->")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')


@dataclass(frozen=True)
class Block:
    #: The heading above it and its number there: "calling-tasks-3".
    name: str
    language: str
    text: str
    line: int
    #: File name, from `title="…"` of the fence.
    title: str = ""
    #: Why it is not run, from `<!-- not run: … -->` just above it.
    not_run: str = ""

    @property
    def first(self) -> str:
        return self.text.partition("\n")[0]

    def commands(self) -> list[tuple[str, str]]:
        """Of a console block: each command (continuation lines joined) with the output shown below it."""
        found: list[tuple[str, str]] = []
        for part in re.split(r"^\$ +", self.text.replace("\\\n", " "), flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((re.sub(r"\s+", " ", command).strip(), output))
        return found


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a document, in order."""
    found: list[Block] = []
    lines = path.read_text().splitlines()
    heading, count, number = "", 0, 0
    while number < len(lines):
        if title := _HEADING.match(lines[number]):
            heading, count = slug(title["title"]), 0
        elif fence := _FENCE.match(lines[number]):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            count += 1
            indent = len(fence["indent"])
            found.append(
                Block(
                    name=f"{heading}-{count}",
                    language=fence["language"],
                    text="\n".join(line[indent:] for line in lines[number + 1 : end]),
                    line=number + 1,
                    title=m["title"] if (m := _TITLE.search(fence["rest"])) else "",
                    not_run=_reason(lines[:number]),
                )
            )
            number = end
        number += 1
    return found


def _reason(above: list[str]) -> str:
    last = next((line for line in reversed(above) if line.strip()), "")
    marked = _NOT_RUN.search(last)
    return marked["reason"] if marked else ""


def slug(title: str) -> str:
    """A heading as the stem of names: words of letters and digits, joined by "-"."""
    plain = re.sub(r"\{[^}]*\}|<[^>]*>", "", title)
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower().replace("'", "").replace("\\", "")))
