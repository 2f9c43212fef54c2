"""Application. The dumper: each event as a line of text (`[event.20]`)."""

from __future__ import annotations

import datetime as dt
import sys
from typing import IO, TYPE_CHECKING, Any

from kombu.utils.functional import LRUCache

from celery.app import app_or_default
from celery.events.capturing import capture_for_ever

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Dumper", "evdump"]

#: Types that have a word of their own.
_WORDS = {"worker-online": "started", "worker-offline": "shutdown", "worker-heartbeat": "heartbeat"}
#: So many tasks are known by name; the ones not heard of for the longest time go.
_TASKS = 0xFFF


def humanize_type(type: str) -> str:
    """An event type in plain words."""
    return _WORDS.get(type.lower()) or type.lower().replace("-", " ")


class Dumper:
    """Writes events as lines to `out`."""

    def __init__(self, out: IO[str] = sys.stdout) -> None:
        self.out = out
        #: Task id → how it was called, from the events that say so.
        self._calls: Any = LRUCache(limit=_TASKS)

    def say(self, msg: str) -> None:
        """Write a line at once."""
        print(msg, file=self.out, flush=True)

    def on_event(self, ev: Mapping[str, Any]) -> None:
        """Write an event: node, time (UTC), what, and its other fields by name."""
        fields = dict(ev)
        when = dt.datetime.fromtimestamp(fields.pop("timestamp"), dt.UTC)
        type, hostname = fields.pop("type").lower(), fields.pop("hostname")
        if not type.startswith("task-"):
            self.say(f"{hostname} [{_shown(when)}] {humanize_type(type)}: {_listed(fields)}")
            return
        uuid = fields.pop("uuid", None)
        if type in ("task-received", "task-sent"):
            call = f"{fields.pop('name')}({uuid}) args={fields.pop('args')} kwargs={fields.pop('kwargs')}"
            self._calls[uuid] = call
        else:
            call = self._calls.get(uuid, "")
        self.format_task_event(hostname, _shown(when), type, call, fields)

    def format_task_event(self, hostname: str, timestamp: Any, type: str, task: str, event: Mapping[str, Any]) -> None:
        """Write a task's event; `task`: how it was called, if that is known."""
        self.say(f"{hostname} [{timestamp}] {humanize_type(type)}: {task} {_listed(event)}")


def evdump(app: Any = None, out: IO[str] = sys.stdout) -> None:
    """Write every event to `out`, until interrupted. Raises `SystemExit` then."""
    app = app_or_default(app)
    dumper = Dumper(out=out)
    dumper.say("-> evdump: starting capture...")

    def lost(exc: BaseException, seconds: float) -> None:
        dumper.say(f"-> evdump: lost the broker: {exc}. Trying again in {seconds:.0f} s...")

    try:
        capture_for_ever(app, {"*": dumper.on_event}, lost)
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(0) from None


def _shown(when: dt.datetime) -> str:
    return when.isoformat(" ", "microseconds")


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={fields[name]}" for name in sorted(fields))
