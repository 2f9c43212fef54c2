"""Compatibility. The heart of a worker, where plugins look for it."""

from __future__ import annotations

from celery.worker.heartbeat import Heart

__all__ = ["Heart"]
