"""Adapter. What state an encoded document tells of, however it is encoded and compressed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from celery.documents import decompressed
from celery.states import READY_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["is_ready", "state_told"]


class _Head(msgspec.Struct):
    status: str = ""


_read_head = msgspec.json.Decoder(_Head).decode
#: pickle, msgpack and yaml: the state stands a few bytes behind its name.
_STATUS = re.compile(rb"status.{1,15}?(" + "|".join(sorted(READY_STATES)).encode() + rb")", re.DOTALL)


def state_told(document: bytes, state_of: Callable[[bytes], str] | None = None) -> str:
    """The state; of formats other than JSON only final ones are known, and others are "".

    `state_of`: see `BackendConfig`.
    """
    if state_of is not None:
        return state_of(document)
    document = decompressed(document)
    if document[:1] == b"{":
        try:
            return _read_head(document).status
        except msgspec.MsgspecError:
            pass
    found = _STATUS.search(document)
    return "" if found is None else found[1].decode()


def is_ready(
    document: bytes, states: Collection[str] = READY_STATES, state_of: Callable[[bytes], str] | None = None
) -> bool:
    """True if a document's state is final (or one of `states`)."""
    return state_told(document, state_of) in states
