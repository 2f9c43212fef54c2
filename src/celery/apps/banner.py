"""Application. What a worker shows when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["StartupInfo", "banner"]

_ART = (
    " --------------",
    "--- ***** -----",
    "-- ******* ----",
    "- *** --- * ---",
    "- ** ----------",
    "- ** ----------",
    "- ** ----------",
    "- ** ----------",
    "- *** --- * ---",
    "-- ******* ----",
    "--- ***** -----",
    " --------------",
)
_WIDTH = 16


@dataclass(slots=True, kw_only=True)
class StartupInfo:
    """All that is shown."""

    hostname: str
    version: str
    platform: str
    when: str
    app: str
    transport: str
    results: str
    concurrency: str
    events: bool
    #: Whether the broker carries notices: commands, replies and events.
    notices: bool = True
    #: One line each.
    queues: list[str] = field(default_factory=list)


def banner(info: StartupInfo, *, art: bool = True) -> str:
    """The banner in Celery's shape (`[worker.1]`); without `art` only its words."""
    if info.notices:
        events = "ON" if info.events else "OFF (enable -E to monitor tasks in this worker)"
    else:
        events = "OFF, and no remote control (this broker has no fanout)"
    words = [
        f"{info.hostname} v{info.version}",
        "",
        f"{info.platform} {info.when}",
        "",
        "[config]",
        f".> app:         {info.app}",
        f".> transport:   {info.transport}",
        f".> results:     {info.results}",
        f".> concurrency: {info.concurrency}",
        f".> task events: {events}",
        "",
        "[queues]",
    ]
    if not art:
        return "\n".join([*words, *info.queues]) + "\n"
    lines = [f"{drawn} {word}" for drawn, word in zip(_ART, words, strict=True)]
    pad = " " * _WIDTH
    return "\n".join([" ", *lines, *(pad + queue for queue in info.queues), pad]) + "\n"
