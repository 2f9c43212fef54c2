"""Application. The worker's own memory, for those who look for leaks: samples of its size, and drawings of objects."""

from __future__ import annotations

import os
import tempfile
from collections import deque

try:
    import psutil  # type: ignore[import-untyped,unused-ignore]
except ImportError:
    psutil = None

__all__ = ["draw", "dump", "sample"]

#: Samples that are kept.
_KEPT = 1000
_samples: deque[str] = deque(maxlen=_KEPT)
_UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB"))


def sample() -> str | None:
    """The resident memory of this process as text, such as "31.42MB"; kept for `dump`. None without psutil."""
    if psutil is None:
        return None
    size = psutil.Process(os.getpid()).memory_info().rss
    shown = next((f"{size / unit:.2f}{name}" for unit, name in _UNITS if size >= unit), f"{size}b")
    _samples.append(shown)
    return shown


def dump(count: int = 10) -> str:
    """So many of the samples so far, spread over all of them, and the size now; the samples are forgotten."""
    lines = []
    if _samples:
        kept = list(_samples)
        count = max(1, min(int(count), len(kept)))
        lines = ["- rss (samples):", *(f"-    > {kept[index * len(kept) // count]}," for index in range(count))]
        _samples.clear()
    if psutil is None:
        return "\n".join([*lines, "- rss: (psutil not installed)."]) + "\n"
    now = sample()
    _samples.clear()
    return "\n".join([*lines, f"- rss (end): {now}."]) + "\n"


def draw(count: int, depth: int, type_name: str) -> str:
    """Draw what refers to so many of the newest objects of this type; returns the picture's path.

    Raises `ImportError` without the package objgraph.
    """
    try:
        import objgraph  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as exc:
        raise ImportError("Requires the objgraph library") from exc
    found = objgraph.by_type(type_name)[-int(count) :]
    with tempfile.NamedTemporaryFile(prefix="cobjg", suffix=".png", delete=False) as picture:
        objgraph.show_backrefs(found, max_depth=int(depth), highlight=lambda one: one in found, filename=picture.name)
    return picture.name
