"""The package as data: its modules, what they import and where, and the size of everything in them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "celery"

FLOORS = ("Domain", "Port", "Flow", "Adapter", "Application", "Entrance", "Compatibility")

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Import:
    """One imported module: ours by its full name, others by theirs."""

    target: str
    line: int
    #: Name of the function it stands in, or "" at module level.
    inside: str
    typing_only: bool


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def where(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def floor(self) -> str | None:
        """First word of the docstring, where it names a floor: "Domain. What …"."""
        first, dot, _ = (ast.get_docstring(self.tree) or "").partition(".")
        return first if dot and first in FLOORS else None

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """Numbers of the lines that hold code: no blanks, comments or docstrings."""
        written = (line.strip() for line in self.text.splitlines())
        lines = {number for number, line in enumerate(written, 1) if line and not line.startswith("#")}
        return frozenset(lines - self._docstring_lines())

    def _docstring_lines(self) -> set[int]:
        """Lines of bare strings: docstrings, and strings that stand alone."""
        bare = [n for n in _statements(self.tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
        strings = [n for n in bare if isinstance(n.value.value, str)]  # type: ignore[attr-defined]
        return {line for n in strings for line in range(n.lineno, (n.end_lineno or n.lineno) + 1)}

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports(self.tree.body, "", False))

    def _imports(self, statements: Iterable[ast.stmt], inside: str, typing_only: bool) -> Iterator[Import]:
        for child in statements:
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in self._targets(child):
                    yield Import(target, child.lineno, inside, typing_only)
            elif isinstance(child, Function):
                yield from self._imports(child.body, child.name, typing_only)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from self._imports(child.body, inside, True)
                yield from self._imports(child.orelse, inside, typing_only)
            else:
                yield from self._imports(statements_in(child), inside, typing_only)

    def _targets(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            parts = self.name.split(".")
            parts = parts[: len(parts) - node.level + self.is_package]
            base = ".".join([*parts, base] if base else parts)
        for alias in node.names:
            # `from celery.utils import time` imports the module where there is one, else a name of the package.
            full = f"{base}.{alias.name}"
            yield full if base.startswith("celery") and full in module_names() else base

    @cached_property
    def functions(self) -> tuple[tuple[str, Function], ...]:
        """Every function with its dotted name inside the module."""
        return tuple(_functions(self.tree, ""))

    def size(self, function: Function) -> int:
        """Code lines of a function, its decorators and docstring not counted."""
        return len(self.code_lines.intersection(range(function.lineno, (function.end_lineno or 0) + 1)))


def statements_in(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements that stand in one, of all its branches. Expressions hold none, and are most of a tree."""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            if isinstance(child, ast.stmt):
                yield child
            else:  # a handler of exceptions, a case
                yield from statements_in(child)


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    for child in statements_in(node):
        yield child
        yield from _statements(child)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in statements_in(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from _functions(child, f"{name}.")
        else:
            yield from _functions(child, prefix)


def nesting(node: ast.AST, depth: int = 0) -> int:
    """How deep blocks stand in each other; `elif` is no deeper than `if`, inner functions start anew."""
    deepest = depth
    for child in statements_in(node):
        if isinstance(child, _SCOPES):
            continue
        is_elif = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        deepest = max(deepest, nesting(child, depth + (isinstance(child, _BLOCKS) and not is_elif)))
    return deepest


def parameters(function: Function) -> int:
    """Parameters that a caller can give: `self` and `cls`, `*args` and `**kwargs` are not counted."""
    given = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len([name for i, name in enumerate(given) if not (i == 0 and name in {"self", "cls"})])


@cache
def module_names() -> frozenset[str]:
    return frozenset(_name(path) for path in PACKAGE.rglob("*.py"))


@cache
def modules() -> tuple[Module, ...]:
    return tuple(Module(_name(path), path) for path in sorted(PACKAGE.rglob("*.py")))


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
