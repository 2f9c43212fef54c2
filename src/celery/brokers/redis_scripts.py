"""Adapter. The scripts of a Redis consumer and its keeper; who only publishes needs none of them."""

from __future__ import annotations

from pathlib import Path

from celery.drivers.redis_scripts import Script

__all__ = [
    "CANCEL", "CENSUS", "DEFER", "DUE", "EXHUME", "FENCE", "FETCH", "FIRE", "QUIET", "REJECT", "RESTORE", "SETTLE",
    "STRIKE", "SWEEP", "TICK",
]  # fmt: skip

_LUA = Path(__file__).parent / "lua"


def _broker_script(name: str, *shared: Path) -> Script:
    """A script of `lua/` after the functions that it shares with others."""
    return Script(_LUA / "entries.lua", *shared, _LUA / f"{name}.lua")


FETCH = Script(_LUA / "fetch.lua")
FENCE = Script(_LUA / "fence.lua")
TICK = Script(_LUA / "tick.lua")
QUIET = Script(_LUA / "quiet.lua")
STRIKE = Script(_LUA / "strike.lua")
CENSUS, CANCEL = Script(_LUA / "census.lua"), Script(_LUA / "cancel.lua")
DUE, DEFER, RESTORE, SWEEP = map(_broker_script, ("due", "defer", "restore", "sweep"))
_GRAVES = _LUA / "graves.lua"
REJECT, EXHUME = _broker_script("reject", _GRAVES), _broker_script("exhume", _GRAVES)
_RESULTS = _LUA.parent.parent / "backends" / "lua"
SETTLE = _broker_script("settle", _GRAVES, _RESULTS / "record.lua", _RESULTS / "barrier.lua")
FIRE = Script(_RESULTS / "record.lua", _RESULTS / "barrier.lua", _RESULTS / "fire.lua")
