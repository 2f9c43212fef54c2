"""Domain. Small operations on text (`[util.9]`)."""

from __future__ import annotations

import io
import re
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from re import Match, Pattern

__all__ = (
    "abbr", "abbrtask", "dedent", "dedent_initial", "ensure_newlines", "ensure_sep", "fill_paragraphs", "indent",
    "join", "pluralize", "pretty", "remove_repeating", "remove_repeating_from_task", "simple_format", "str_to_list",
    "truncate",
)  # fmt: skip

RE_FORMAT = re.compile(r"%([%\w])")


def str_to_list(s: Any) -> Any:
    """The parts of a text between commas; what is no text passes."""
    return s.split(",") if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Without the first `n` spaces, if it begins with that many."""
    return s[n:] if s[:n] == " " * n else s


def dedent(s: str, sep: str = "\n") -> str:
    """Each line without its first four spaces, if it has them."""
    return sep.join(dedent_initial(line) for line in s.splitlines())


def fill_paragraphs(s: str, width: int, sep: str = "\n") -> str:
    """Each paragraph filled to `width`."""
    return sep.join(fill(paragraph, width) for paragraph in s.split(sep))


def join(l: Iterable[str | None], sep: str = "\n") -> str:  # noqa: E741 - Celery's name
    """Those that are not empty, joined."""
    return sep.join(part for part in l if part)


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """With at least `n` separators; what is missing is put at the end."""
    return s + sep * (n - s.count(sep))


def ensure_newlines(s: str, n: int = 2) -> str:
    """With at least `n` newlines."""
    return ensure_sep("\n", s, n)


def abbr(S: str | None, max: int, ellipsis: str | bool = "...") -> str:  # noqa: N803 - Celery's name
    """Cut to `max` characters, ellipsis included."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    if isinstance(ellipsis, str):
        return S[: max - len(ellipsis)] + ellipsis
    return S[:max]


def abbrtask(S: str | None, max: int) -> str:  # noqa: N803 - Celery's name
    """A task's name cut to about `max` characters, at the cost of its module: `proj.t[.]add`."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    module, _, name = S.rpartition(".")
    return f"{abbr(module, max - len(name) - 3, False)}[.]{name}"


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Each line after so many spaces; empty ones stay empty."""
    return sep.join(" " * indent + line if line else "" for line in t.split(sep))


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Cut to `maxlen` characters, at the end of a word if there is one, with a suffix beyond them."""
    if maxlen and len(s) >= maxlen:
        return s[:maxlen].rsplit(" ", 1)[0] + suffix
    return s


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """The word in the plural, unless `n` is 1."""
    return text + suffix if n != 1 else text


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """A value for reading: dicts and tuples on lines of their own."""
    from pprint import pformat

    if isinstance(value, dict):
        return f"{{{sep} {pformat(value, 4, nl_width)[1:]}"
    if isinstance(value, tuple):
        return f"{sep}{' ' * 4}{pformat(value, width=nl_width, **kw)}"
    return pformat(value, width=width, **kw)


def match_case(s: str, other: str) -> str:
    """In the case of `other`."""
    return s.upper() if other.isupper() else s.lower()


def simple_format(
    s: str | None,
    keys: Mapping[str, str | Callable[[], str]],
    pattern: Pattern[str] = RE_FORMAT,
    expand: str = r"\1",
) -> str | None:
    """With each `%x` replaced by `keys["x"]`, called if it can be. Raises `ValueError` for an unknown one."""
    if not s:
        return s
    keys = {"%": "%", **keys}

    def resolve(match: Match[str]) -> str:
        key = match.expand(expand)
        try:
            value = keys[key]
        except KeyError:
            raise ValueError(
                f"Unknown format %{key} in {s!r}: expected one of {', '.join('%' + known for known in keys)}. "
                f"A percent sign itself is written %% (and twice that where the text is expanded twice)"
            ) from None
        return str(value() if callable(value) else value)

    return pattern.sub(resolve, s)


def remove_repeating(substr: str, s: str) -> str:
    """With the first `substr` only."""
    before, found, after = s.partition(substr)
    return before + found + after.replace(substr, "") if found else s


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """The module of the task stays at its first mention only."""
    module = task_name.rpartition(".")[0]
    return remove_repeating(f"{module}.", s)


class WhateverIO(io.StringIO):
    """Takes bytes as well as text."""

    def __init__(self, v: bytes | str | None = None, *a: Any, **kw: Any) -> None:
        super().__init__(v.decode() if isinstance(v, bytes) else v or "", *a, **kw)

    def write(self, data: bytes | str) -> int:
        """Append."""
        return super().write(data.decode() if isinstance(data, bytes) else data)
