"""Adapter. How well a Redis server is set up for queues and results: for `celery check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.ports import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery.drivers.redis_pool import LinkPool

__all__ = ["examine", "server_time"]

#: The oldest whose commands we use.
_OLDEST = (6, 0)
#: Part of `maxmemory` beyond which it is worth a word.
_NEARLY_FULL = 0.8
_SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "save")


def examine(pool: LinkPool) -> list[Finding]:
    """Ask the server. Raises `OperationalError` if it does not answer. What it does not let us ask is left out."""
    link = pool.take()
    try:
        replies = link.attempt([("PING",), ("INFO",), *(("CONFIG", "GET", name) for name in _SETTINGS)])
    finally:
        pool.give_back(link)
    if isinstance(replies[0], Exception):
        raise link.refusal(str(replies[0]))
    info = _info(replies[1]) if isinstance(replies[1], bytes) else {}
    for name, reply in zip(_SETTINGS, replies[2:], strict=True):
        if isinstance(reply, list) and len(reply) == 2:
            info[name] = reply[1].decode()
    info.setdefault("maxmemory-policy", info.get("maxmemory_policy", "noeviction"))
    return [*_version(info), *_role(info), *_memory(info), *_persistence(info)]


def server_time(pool: LinkPool) -> float:
    """Wall-clock seconds since the epoch, of the server."""
    seconds, microseconds = pool.run([("TIME",)])[0]
    return int(seconds) + int(microseconds) / 1e6


def _info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _version(info: Mapping[str, str]) -> Iterator[Finding]:
    text = info.get("redis_version")
    if text is None:
        yield Finding("good", "it answers, and does not let us ask more (INFO is not permitted)")
        return
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version < _OLDEST:
        yield Finding("bad", f"{name} {text} is too old: 6.0 or newer is needed")
    else:
        yield Finding("good", f"{name} {info.get('valkey_version', text)} answers")


def _role(info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("role") == "slave":
        yield Finding(
            "bad", "this server is a replica, which takes no writes: name its master, or all of its Sentinels"
        )
    if info.get("loading") == "1":
        yield Finding("bad", "it is still loading its data from disk: wait until it has")


def _memory(info: Mapping[str, str]) -> Iterator[Finding]:
    policy, most = info["maxmemory-policy"], _number(info.get("maxmemory"))
    if most and policy != "noeviction":
        yield Finding(
            "doubtful",
            f"it throws keys away when its memory is full (maxmemory-policy {policy}), queues and results included: "
            "CONFIG SET maxmemory-policy noeviction",
        )
    elif policy != "noeviction":
        yield Finding(
            "doubtful",
            f"maxmemory-policy is {policy}: as soon as somebody sets maxmemory it throws queues away: "
            "CONFIG SET maxmemory-policy noeviction",
        )
    else:
        yield Finding("good", "it throws no keys away (maxmemory-policy noeviction)")
    used = _number(info.get("used_memory"))
    if most and used > most * _NEARLY_FULL:
        yield Finding(
            "doubtful",
            f"its memory is nearly full ({used >> 20} of {most >> 20} MiB): once it is, nothing can be sent. Raise "
            "maxmemory, or let results expire sooner (result_expires)",
        )


def _persistence(info: Mapping[str, str]) -> Iterator[Finding]:
    appendonly, save = info.get("appendonly"), info.get("save")
    if info.get("aof_enabled") == "1" or appendonly == "yes":
        yield Finding("good", "it writes each change to disk (appendonly yes)")
    elif save == "":
        yield Finding(
            "doubtful",
            "it keeps everything in memory only, and forgets all queues when it ends: CONFIG SET appendonly yes",
        )
    elif save is not None:
        yield Finding(
            "doubtful",
            f"it writes to disk now and then (save {save}), and forgets what was sent since when it ends: "
            "CONFIG SET appendonly yes",
        )
    for what in ("rdb_last_bgsave_status", "aof_last_write_status"):
        if info.get(what, "ok") != "ok":
            yield Finding("bad", f"its last write to disk has failed ({what}: {info[what]}): see the server's log")


def _number(text: Any) -> int:
    return int(text) if text and str(text).isdigit() else 0
