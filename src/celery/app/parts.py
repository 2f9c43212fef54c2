"""Application. The parts of an app that are heavy, or import the app themselves: one table of where they are."""

from __future__ import annotations

from typing import Any

from celery.utils.imports import symbol_by_name

__all__ = ["PARTS", "part"]

#: Parts that are found when they are first asked for.
PARTS = {
    "Assembly": "celery.app.assembly:Assembly",
    "AsyncResult": "celery.result:AsyncResult",
    "GroupResult": "celery.result:GroupResult",
    "ResultSet": "celery.result:ResultSet",
    "Context": "celery.current:Context",
    "WorkController": "celery.worker:WorkController",
    "Worker": "celery.apps.worker:Worker",
    "by_url": "celery.app.backends:by_url",
    "bugreport": "celery.app.utils:bugreport",
    "clock": "kombu.clocks:LamportClock",
    "command": "celery.bin.celery:celery",
    "chord": "celery.canvas:chord",
    "chunks": "celery.canvas:chunks",
    "group": "celery.canvas:group",
    "result_from_tuple": "celery.result:result_from_tuple",
    "add_to_chord": "celery.app.replacing:add_to_chord",
    "hand_over": "celery.app.replacing:hand_over",
    "plain": "celery.canvas.plain:plain",
    "replace": "celery.app.replacing:replace",
    "signature": "celery.canvas:signature",
    "timezone": "celery.utils.time:timezone",
    "xmap": "celery.canvas:xmap",
    "xstarmap": "celery.canvas:xstarmap",
}


def part(name: str) -> Any:
    """The part; raises ImportError if what it needs is not installed."""
    return symbol_by_name(PARTS[name])
