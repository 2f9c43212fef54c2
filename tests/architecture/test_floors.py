"""Imports only go down: each module names its floor, and nothing reaches up, around or in through the back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.architecture import allowed
from tests.architecture.source import FLOORS, Import, Module, modules

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.slow  # they parse the whole package

#: What each floor may import (the docstring of the package's DESIGN: domain, port, flow, adapter, application …).
MAY_IMPORT: dict[str, frozenset[str]] = {
    "Domain": frozenset({"Domain"}),
    "Port": frozenset({"Domain", "Port"}),
    "Flow": frozenset({"Domain", "Port", "Flow"}),
    "Adapter": frozenset({"Domain", "Port", "Adapter"}),
    "Application": frozenset({"Domain", "Port", "Flow", "Adapter", "Application"}),
    "Entrance": frozenset(FLOORS) - {"Compatibility"},
    "Compatibility": frozenset(FLOORS),
}
#: The one module that hands compatibility bridges on.
ASSEMBLY = "celery.app.assembly"
#: Names loaded on first use, and the version: the application floor may ask it for those.
FRONT_DOOR = "celery"


def report(problems: Iterable[str], advice: str) -> str:
    lines = sorted(set(problems))
    return "\n".join([f"{len(lines)} found. {advice}", *lines])


def ours() -> dict[str, Module]:
    return {module.name: module for module in modules()}


def inner(module: Module) -> list[Import]:
    """Imports of our own modules that happen at run time."""
    return [i for i in module.imports if i.target.split(".")[0] == "celery" and not i.typing_only]


def test_every_module_names_its_floor() -> None:
    nameless = [m.where for m in modules() if m.floor is None]
    assert not nameless, report(nameless, f"Begin the docstring with one of {', '.join(FLOORS)} and a full stop.")


def test_imports_only_go_down() -> None:
    everything, used, wrong = ours(), set(), []
    for module in modules():
        for found in inner(module):
            target = everything.get(found.target)
            if target is None:
                wrong.append(f"{module.where}:{found.line}: no such module: {found.target}")
            elif (module.name, found.target) in allowed.UPWARD:
                used.add((module.name, found.target))
            elif module.floor and target.floor and not _may(module, target):
                wrong.append(f"{module.where}:{found.line}: {module.floor} imports {target.floor} {found.target}")
    wrong += [f"allowed.UPWARD: no longer needed: {entry}" for entry in allowed.UPWARD.keys() - used]
    assert not wrong, report(wrong, "Move the code to its floor, or hand the thing in from above.")


def _may(module: Module, target: Module) -> bool:
    if target.floor == "Compatibility" and module.name == ASSEMBLY:
        return True
    if target.name == FRONT_DOOR and module.floor == "Application":
        return True
    return target.floor in MAY_IMPORT[module.floor or ""]


def test_the_flow_does_not_read_settings() -> None:
    wrong = [f"{m.where}:{i.line}" for m in modules() if m.floor == "Flow" for i in inner(m)
             if i.target in {"celery.settings", "celery.app.utils", "celery.app.defaults"}]  # fmt: skip
    assert not wrong, report(wrong, "The flow gets what it needs in its constructor.")


def test_the_domain_is_pure() -> None:
    used, wrong = set(), []
    for module in modules():
        for found in module.imports if module.floor == "Domain" else ():
            name = found.target.split(".")[0]
            if found.typing_only or name not in allowed.IMPURE:
                continue
            if (module.name, name) in allowed.IMPURE_ALLOWED:
                used.add((module.name, name))
            else:
                wrong.append(f"{module.where}:{found.line}: imports {name}")
    wrong += [f"allowed.IMPURE_ALLOWED: no longer needed: {e}" for e in allowed.IMPURE_ALLOWED.keys() - used]
    assert not wrong, report(wrong, "Domain: no I/O, threads, clock, environment or logging.")


def test_each_driver_has_its_room() -> None:
    wrong = [f"{m.where}:{i.line}: imports {i.target}" for m in modules() for i in m.imports
             if (rooms := allowed.DRIVERS.get(i.target.split(".")[0])) and not i.typing_only
             and not m.name.startswith(rooms)]  # fmt: skip
    assert not wrong, report(wrong, "A driver is imported in its own adapter and nowhere else.")


def test_imports_inside_functions_are_listed() -> None:
    used: set[str | tuple[str, str]] = set()
    wrong = []
    for module in modules():
        for found in module.imports:
            if not found.inside or found.typing_only or found.inside == "__getattr__":  # a module's front door
                continue
            package, entry = found.target.split(".")[0], (module.name, found.target)
            if package in allowed.LATE_PACKAGES or entry in allowed.LATE_IMPORTS:
                used |= {package, entry}
            else:
                wrong.append(f"{module.where}:{found.line}: {found.inside}() imports {found.target}")
    unused = [*(allowed.LATE_PACKAGES.keys() - used), *(allowed.LATE_IMPORTS.keys() - used)]
    wrong += [f"allowed.py: no longer needed: {entry}" for entry in unused]
    assert not wrong, report(wrong, "Import at the top; if it must be late, list it with its reason in allowed.py.")


def test_there_are_no_import_cycles() -> None:
    graph = {m.name: {i.target for i in inner(m) if not i.inside and i.target != m.name} for m in modules()}
    knots = [" → ".join(sorted(knot)) for knot in _knots(graph)]
    assert not knots, report(knots, "These modules import each other.")


def _knots(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected parts of more than one module."""
    reach = {name: _reachable(name, graph) for name in graph}
    knots: list[set[str]] = []
    for name in graph:
        knot = {other for other in reach[name] if name in reach.get(other, ())}
        if len(knot) > 1 and knot not in knots:
            knots.append(knot)
    return knots


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph.get(name, ()))
    return seen
