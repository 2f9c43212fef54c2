"""Application. Calls as values: signatures, which may be kept, sent and made to follow each other."""

from __future__ import annotations

from celery.canvas.chains import _chain
from celery.canvas.chords import _chord, chord
from celery.canvas.groups import group
from celery.canvas.mapping import chunks, xmap, xstarmap
from celery.canvas.pipes import chain
from celery.canvas.signatures import Signature, maybe_signature, signature
from celery.canvas.stamping import StampingVisitor

__all__ = [
    "Signature", "StampingVisitor", "_chain", "_chord", "chain", "chord", "chunks", "group", "maybe_signature",
    "maybe_subtask", "signature", "subtask", "xmap", "xstarmap",
]  # fmt: skip

subtask = signature
maybe_subtask = maybe_signature

# Their public home: tracebacks and `help()` show it, and pickled signatures name it ([canvas.17]).
for _made in (
    Signature,
    StampingVisitor,
    _chain,
    _chord,
    chain,
    chunks,
    group,
    maybe_signature,
    signature,
    xmap,
    xstarmap,
):
    _made.__module__ = __name__
