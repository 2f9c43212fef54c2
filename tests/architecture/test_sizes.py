"""Modules, functions and signatures stay small; exceptions are listed with their reason."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.architecture import allowed
from tests.architecture.source import Function, Module, modules, nesting, parameters
from tests.architecture.test_floors import report

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # they parse the whole package

MODULE_LINES = 400
MEDIAN_MODULE_LINES = 110
FUNCTION_LINES = 50
NESTING = 3
PARAMETERS = 8


def judge(sizes: dict[str, int], limit: int, exceptions: dict[str, str], advice: str) -> None:
    wrong = [f"{name}: {size}" for name, size in sizes.items() if size > limit and name not in exceptions]
    wrong += [f"allowed.py: no longer needed: {name}" for name in exceptions if sizes.get(name, 0) <= limit]
    assert not wrong, report(wrong, f"At most {limit}. {advice}")


def test_modules_are_short() -> None:
    sizes = {m.where: len(m.code_lines) for m in modules()}
    judge(sizes, MODULE_LINES, allowed.LONG_MODULES, "Split by duty; a table of data may be listed.")


def test_half_of_the_modules_are_very_short() -> None:
    assert median(len(m.code_lines) for m in modules()) <= MEDIAN_MODULE_LINES


@pytest.mark.parametrize(
    ("measure", "limit", "exceptions", "advice"),
    [
        pytest.param(Module.size, FUNCTION_LINES, allowed.LONG_FUNCTIONS, "Name its steps.", id="lines"),
        pytest.param(lambda _, f: nesting(f), NESTING, allowed.DEEP_FUNCTIONS, "Return early.", id="nesting"),
        pytest.param(lambda _, f: parameters(f), PARAMETERS, allowed.WIDE_FUNCTIONS, "Make a dataclass; public "
                     "signatures of Celery may be listed.", id="parameters"),
    ],
)  # fmt: skip
def test_functions_are_small(
    measure: Callable[[Module, Function], int], limit: int, exceptions: dict[str, str], advice: str
) -> None:
    sizes: dict[str, int] = {}
    for module in modules():
        for name, function in module.functions:
            key = f"{module.name}:{name}"  # overloads and property setters share a name: the largest counts
            sizes[key] = max(sizes.get(key, 0), measure(module, function))
    judge(sizes, limit, exceptions, advice)
