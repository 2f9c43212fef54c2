"""Adapter. State documents: what a result backend keeps of a task, as bytes and back (`[state.1]` to `[state.8]`).

A document is `{"status", "result", "traceback", "children", "date_done", "task_id", …}` in the result serializer's
format. Exceptions are kept as data, and come back as the exception they were where its class is already imported.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import codecs
from celery.exceptions import SecurityError
from celery.states import READY_STATES
from celery.utils.serialization import get_pickleable_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from celery.ports import ResultBackend

__all__ = [
    "Documents",
    "Reading",
    "decode",
    "decompressed",
    "encode",
    "exception_from_data",
    "exception_to_data",
    "final_by",
]

#: Not yaml: kombu writes it with PyYAML's safe dumper, which refuses exceptions.
_COMPRESSED = b"\x00celery-compressed\x00"
_PICKLES = frozenset({"pickle"})
_KNOWN = frozenset({"json", "pickle", "yaml", "msgpack"})
#: Modules whose exceptions `celery.exceptions` gives too: known to every program, though loaded when first asked for.
_ALWAYS_KNOWN = frozenset({"billiard.exceptions", "celery.utils.serialization", "kombu.exceptions"})
_DEFAULT_FIELDS = ("SUCCESS", "FAILURE", "REVOKED")


class Documents:
    """Writes state documents for one app's settings."""

    def __init__(self, serializer: str = "json", *, extended: bool = False) -> None:
        """`extended`: keep name, arguments, worker, retries and queue too (`result_extended`)."""
        self._serializer = serializer
        self._extended = extended
        self._splice = serializer == "json" and not extended
        #: The second that was written last, and its text: most records share it.
        self._second: tuple[int, str] = (0, "")

    def success(self, value: Any, request: Any) -> bytes:
        """A return value. Raises kombu's `EncodeError` if the serializer refuses it (`[task.54]`)."""
        if self._splice and not request._children and request.group is None and codecs.is_plain(value):
            return self._spliced(value, request)
        return self.write("SUCCESS", _plain_result(value), request)

    def failure(self, exc: BaseException, request: Any, traceback: str | None, state: str = "FAILURE") -> bytes:
        """An exception, as FAILURE, RETRY or REVOKED."""
        return self.write(state, exception_to_data(exc, self._serializer), request, traceback)

    def write(
        self, state: str, result: Any, request: Any, traceback: str | None = None, task_id: str | None = None
    ) -> bytes:
        """Any state: `result` is its metadata (`[task.47]`). `task_id`: of another task than the request's."""
        document: dict[str, Any] = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": _children(request),
            "date_done": self._now() if state in _DEFAULT_FIELDS else None,
        }
        if request is not None:
            if request.group is not None:
                document["group_id"] = request.group
            if request.parent_id is not None:
                document["parent_id"] = request.parent_id
            if self._extended:
                document.update(_extended(request))
        document["task_id"] = task_id or (None if request is None else request.id)
        return encode(document, self._serializer)

    def _now(self) -> str:
        """`datetime.now(UTC).isoformat()`, at a third of the cost."""
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        known, text = self._second
        if known != second:
            text = dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{rest // 1000:06d}+00:00"

    def _spliced(self, value: Any, request: Any) -> bytes:
        """The usual case at a tenth of the cost: only the value is encoded, the rest of the text is known."""
        parent = b"" if request.parent_id is None else b'"parent_id": %b, ' % codecs.dumps(request.parent_id)
        return (
            b'{"status": "SUCCESS", "result": %b, "traceback": null, "children": [], "date_done": "%b", %b'
            b'"task_id": %b}' % (codecs.dumps(value), self._now().encode(), parent, codecs.dumps(request.id))
        )


def encode(document: dict[str, Any], serializer: str = "json") -> bytes:
    """A document as bytes. Raises kombu's `EncodeError`."""
    return codecs.encode(document, serializer)[2]


def decode(meta: bytes, serializer: str = "json", accept: Collection[str] | None = None) -> dict[str, Any]:
    """A document from bytes; `result` is an exception instance where the state says so (`[state.6]`).

    Raises kombu's `DecodeError` or `ContentDisallowed`.
    """
    if meta.startswith(_COMPRESSED):
        meta = decompressed(meta)
    document: dict[str, Any] = codecs.decode_from(meta, serializer, accept)
    if document.get("status") in ("FAILURE", "RETRY", "REVOKED"):
        document["result"] = exception_from_data(document.get("result"))
    return document


def final_by(serializer: str, accept: Collection[str] | None) -> Callable[[bytes], bool] | None:
    """Tells final documents of a serializer of the user's own; None for kombu's four, which need no decoding.

    What cannot be read counts as final: whoever reads it next is told why.
    """
    if serializer in _KNOWN:
        return None

    def is_final(meta: bytes) -> bool:
        try:
            return decode(meta, serializer, accept).get("status") in READY_STATES
        except Exception:  # noqa: BLE001 - a decoder may raise anything
            return True

    return is_final


def decompressed(meta: bytes) -> bytes:
    """Undo `result_compression`, whatever the settings here are (`[state.11]`)."""
    if not meta.startswith(_COMPRESSED):
        return meta
    mime, _, body = meta[len(_COMPRESSED) :].partition(b"\x00")
    return codecs.decompress(body, mime.decode("ascii"))


class Reading:
    """Documents of a store as values: what a waiting `AsyncResult` asks."""

    def __init__(self, store: ResultBackend, serializer: str, accept: Collection[str] | None) -> None:
        self._store = store
        self._serializer = serializer
        self._accept = accept

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, dict[str, Any]]:
        """See `ResultBackend.wait`."""
        found = self._store.wait(ids, timeout)
        return {task_id: decode(meta, self._serializer, self._accept) for task_id, meta in found.items()}


def exception_to_data(exc: BaseException, serializer: str = "json") -> Any:
    """An exception as the serializer can hold it: data, or a picklable exception for pickle."""
    if serializer in _PICKLES:
        return get_pickleable_exception(exc)
    kind = type(exc)
    return {
        "exc_type": kind.__qualname__,
        "exc_message": [_serialisable(argument, serializer) for argument in exc.args],
        "exc_module": kind.__module__,
    }


def exception_from_data(data: Any) -> BaseException | None:
    """The exception that `exception_to_data` wrote. Imports nothing of the user's: only modules already loaded are
    searched, and the few that are known to every program.

    A class that is not there becomes a generated one of that name in `celery.exceptions`; a constructor that refuses
    its arguments gives an `Exception` with the text. Raises `SecurityError` if the name is no exception's.
    """
    if not data or isinstance(data, BaseException):
        return data or None
    if not isinstance(data, dict) or "exc_type" not in data:
        raise ValueError(f"expected an exception as {{'exc_type', 'exc_message', 'exc_module'}}, got {data!r:.200}")
    name, module, message = data["exc_type"], data.get("exc_module"), data.get("exc_message")
    kind = _find_exception(name, module, message)
    arguments = message if isinstance(message, list | tuple) else () if message is None else (message,)
    try:
        made = kind(*arguments)
    except Exception:  # noqa: BLE001 - any constructor may refuse what was only its message
        return Exception(f"{kind}({message!r})")
    return made if isinstance(made, BaseException) else Exception(f"{kind}({message!r})")


def _find_exception(name: str, module: str | None, message: Any) -> type[BaseException]:
    found: Any = sys.modules.get(module or "celery.exceptions")
    if found is None and module in _ALWAYS_KNOWN:
        found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return _generated(name)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise SecurityError(f"Expected an exception class, got {module}.{name} with payload {message!r}")
    return found


def _generated(name: str) -> type[BaseException]:
    return type(name.rpartition(".")[2], (Exception,), {"__module__": "celery.exceptions"})


def _serialisable(argument: Any, serializer: str) -> Any:
    try:
        codecs.encode(argument, serializer)
    except Exception:  # noqa: BLE001 - whatever an encoder raises, the text is what we can keep
        return _safe_repr(argument)
    return argument


def _safe_repr(argument: Any) -> str:
    try:
        return repr(argument)
    except Exception as exc:  # noqa: BLE001 - a hostile __repr__ must not lose the failure
        return f"<unrepresentable {type(argument).__name__}: {type(exc).__name__}>"


def _plain_result(value: Any) -> Any:
    as_tuple = getattr(type(value), "as_tuple", None)
    return value.as_tuple() if as_tuple is not None and hasattr(value, "maybe_throw") else value


def _children(request: Any) -> list[Any] | None:
    if request is None:
        return None
    children = request.children
    return [child.as_tuple() for child in children] if children else []


def _extended(request: Any) -> dict[str, Any]:
    info = request.delivery_info or {}
    fields = {
        "name": request.task,
        "args": request.args,
        "kwargs": request.kwargs,
        "worker": request.hostname,
        "retries": request.retries,
        "queue": info.get("routing_key"),
    }
    if request.stamped_headers:
        fields["stamped_headers"] = request.stamped_headers
        fields.update(request.stamps or {})
    return fields
