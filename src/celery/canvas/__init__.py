"""Application. Calls as values: signatures, which may be kept, sent and made to follow each other."""

from __future__ import annotations

from celery.canvas.signatures import Signature, maybe_signature, signature

__all__ = ["Signature", "maybe_signature", "maybe_subtask", "signature", "subtask"]

subtask = signature
maybe_subtask = maybe_signature
