"""The measuring tools measure what they say."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.architecture.source import Function, Module, nesting, parameters

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = '''"""Flow. A sample."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery import states
from celery.message import Message
from . import ports

if TYPE_CHECKING:
    from celery import outcome


def f(self, a, *, b, **rest):  # a comment
    """Two lines
    of docstring."""
    import json

    for x in a:
        if x:
            with b:
                pass
        elif b:
            return json

    def inner():
        while a:
            pass
'''


@pytest.fixture
def sample(tmp_path: Path) -> Module:
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)
    return Module("celery.sample", path)


def function(module: Module) -> Function:
    return dict(module.functions)["f"]


def test_floor(sample: Module) -> None:
    assert sample.floor == "Flow"


def test_imports(sample: Module) -> None:
    found = {i.target: (i.inside, i.typing_only) for i in sample.imports}
    assert found == {
        "__future__": ("", False), "os": ("", False), "typing": ("", False), "celery.states": ("", False),
        "celery.message": ("", False), "celery.ports": ("", False), "celery.outcome": ("", True), "json": ("f", False),
    }  # fmt: skip


def test_sizes(sample: Module) -> None:
    f = function(sample)
    assert sample.size(f) == 11
    assert nesting(f) == 3
    assert parameters(f) == 2
    assert [name for name, _ in sample.functions] == ["f", "f.inner"]


def test_elif_is_no_deeper_than_if() -> None:
    flat = "if a:\n pass\nelif b:\n pass\nelif c:\n pass\nelse:\n pass"
    assert nesting(ast.parse(flat)) == 1
    assert nesting(ast.parse("if a:\n pass\nelse:\n if b:\n  pass\n c")) == 2
