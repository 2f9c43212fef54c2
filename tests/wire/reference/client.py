"""A client of the fleet: reads lines of JSON (Python source), answers each with a line of JSON.

An expression is answered with its value, anything else with null; what it raised, with {"error": …}.
"""

from __future__ import annotations

import ast
import datetime as dt
import json
import sys
from typing import Any

import fleet

names: dict[str, Any] = {**vars(fleet), "fleet": fleet}


def said(value: Any) -> Any:
    """As JSON has it; other types are written out."""
    return json.loads(json.dumps(value, default=repr))


def describe(task_id: str, timeout: float = 20) -> dict[str, Any]:
    """All that a client reads of a finished task."""
    result = fleet.app.AsyncResult(task_id)
    try:
        value = result.get(timeout=timeout, propagate=False)
    except Exception as exc:  # noqa: BLE001 - the answer is compared
        return {"error": f"{type(exc).__name__}: {exc}"}
    raised = None
    try:
        result.get(timeout=timeout)
    except Exception as exc:  # noqa: BLE001
        raised = f"{type(exc).__module__}.{type(exc).__qualname__}: {exc}"
    return {
        "state": result.state,
        "value": [type(value).__name__, value.args if isinstance(value, BaseException) else value],
        "raised": raised,
        "traceback": result.traceback,
        "successful": result.successful(),
        "failed": result.failed(),
        "children": [child.id for child in result.children or []],
        "date_done": None if result.date_done is None else [str(result.date_done.utcoffset()), result.ready()],
    }


def answer(source: str) -> Any:
    *before, last = ast.parse(source).body
    exec(compile(ast.Module(before, []), "<line>", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "<line>", "eval"), names)
    exec(compile(ast.Module([last], []), "<line>", "exec"), names)
    return None


def soon(aware: bool) -> dt.datetime:
    """In 0.7 seconds, in UTC, saying so or not."""
    date = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=0.7)  # noqa: UP017
    return date if aware else date.replace(tzinfo=None)


names |= {"describe": describe, "soon": soon}
for line in sys.stdin:
    try:
        reply = {"value": said(answer(json.loads(line)))}
    except Exception as exc:  # noqa: BLE001
        reply = {"error": f"{type(exc).__name__}: {exc}"}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
