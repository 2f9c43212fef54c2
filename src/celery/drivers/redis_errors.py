"""Adapter. What a Redis server refuses, as an exception of its own: kombu's, its base, is loaded with the first one."""

from __future__ import annotations

from kombu.exceptions import OperationalError

__all__ = ["ServerReply"]


class ServerReply(OperationalError):  # type: ignore[misc]  # kombu ships no types
    """The server answered with an error (out of memory, read-only replica, loading, no permission …)."""
