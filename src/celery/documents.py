"""Adapter. State documents: what a result backend keeps of a task, as bytes and back (`[state.1]` to `[state.8]`).

A document is `{"status", "result", "traceback", "children", "date_done", "task_id", …}` in the result serializer's
format. Exceptions are kept as data, and come back as the exception they were where its class is already imported.
"""

from __future__ import annotations

import datetime as dt
import pickle
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import codecs
from celery.exceptions import SecurityError
from celery.failures import arguments_of, bounded, encodable, is_small, names_of, repr_of
from celery.states import FAILURE
from celery.utils.serialization import UnpickleableExceptionWrapper, get_pickleable_exception, get_pickled_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from celery.pending import Pending
    from celery.ports import ResultBackend

__all__ = [
    "COMPRESSED", "Documents", "Reading", "compressed", "decode", "decompressed", "document_of", "encode",
    "exception_from_data", "exception_to_data", "states_by",
]  # fmt: skip

#: What stands before a compressed document, followed by the MIME type and a NUL (`[state.11]`).
COMPRESSED = b"\x00celery-compressed\x00"
#: Not yaml: kombu writes it with PyYAML's safe dumper, which refuses exceptions.
_PICKLES = frozenset({"pickle"})
_KNOWN = frozenset({"json", "pickle", "yaml", "msgpack"})
#: Serializers that can hold lone surrogates.
_SURROGATES = frozenset({"json", "pickle"})
#: Modules whose exceptions `celery.exceptions` gives too: known to every program, though loaded when first asked for.
_ALWAYS_KNOWN = frozenset({"billiard.exceptions", "celery.utils.serialization", "kombu.exceptions"})
_DEFAULT_FIELDS = ("SUCCESS", "FAILURE", "REVOKED")
#: Bytes that the arguments of an exception come to at most, and how many of them are kept.
_ARGUMENTS_LIMIT, _ARGUMENTS = 16_384, 64
#: Bytes of a traceback.
_TRACEBACK_LIMIT = 24_576
#: What a foreign backend may want to know of the call that a record is of (`Documents.carry`).
_CARRIED = (
    "id", "task", "args", "kwargs", "argsrepr", "kwargsrepr", "root_id", "parent_id", "group", "group_index",
    "hostname", "retries", "origin", "shadow", "reply_to", "correlation_id", "delivery_info", "properties",
    "meth", "headers", "stamped_headers", "stamps", "ignore_result",
)  # fmt: skip


class Documents:
    """Writes state documents for one app's settings."""

    def __init__(
        self,
        serializer: str = "json",
        *,
        extended: bool = False,
        compression: str | None = None,
        carry: bool = False,
    ) -> None:
        """`extended`: keep name, arguments, worker, retries and queue too (`result_extended`). `compression`: by which
        method (`[state.11]`). `carry`: under "request", what a foreign backend may ask of the call."""
        self._serializer = serializer
        self._extended = extended
        self._compression = compression
        self._carry = carry
        self._splice = serializer == "json" and not extended and not carry and not compression
        self._now = _clock.now

    def success(self, value: Any, request: Any) -> bytes:
        """A return value. Raises kombu's `EncodeError` if the serializer refuses it (`[task.54]`)."""
        if self._splice and not request._children and request.group is None and codecs.is_plain(value):
            return self._spliced(value, request)
        return self.write("SUCCESS", _plain_result(value), request)

    def failure(self, exc: BaseException, request: Any, traceback: str | None, state: str = "FAILURE") -> bytes:
        """An exception, as FAILURE, RETRY or REVOKED. Raises nothing: what cannot be kept is kept as text."""
        text = None if traceback is None else bounded(str(traceback), _TRACEBACK_LIMIT)
        if text is not None and self._serializer not in _SURROGATES:
            text = encodable(text)
        try:
            return self.write(state, exception_to_data(exc, self._serializer), request, text)
        except BaseException:  # noqa: BLE001 - an exception's class, or what surrounds it, may do anything
            plain = Documents(self._serializer, compression=self._compression, carry=self._carry)
            data = _as_text(exc, self._serializer)
            return plain.write(state, data, _Bare(request), text, None if request is None else request.id)

    def part(self, task_id: str, state: str, value: Any) -> bytes:
        """What a chord's barrier keeps of a member: `[1, id, state, result]` (`[rkeys.4]`).

        Raises kombu's `EncodeError` for a value that the serializer refuses.
        """
        data = exception_to_data(value, self._serializer) if isinstance(value, BaseException) else _plain_result(value)
        return codecs.encode([1, task_id, state, data], self._serializer)[2]

    def group(self, result: Any) -> bytes:
        """What is kept of a group: its result as a tuple (`[state.12]`)."""
        return codecs.encode({"result": result.as_tuple()}, self._serializer)[2]

    def write(
        self, state: str, result: Any, request: Any, traceback: str | None = None, task_id: str | None = None
    ) -> bytes:
        """Any state: `result` is its metadata (`[task.47]`). `task_id`: of another task than the request's."""
        document = document_of(state, result, request, traceback, extended=self._extended, date=self._now)
        document["task_id"] = task_id or (None if request is None else request.id)
        if self._carry:
            document["request"] = _carried(request, self._serializer)
        meta = encode(document, self._serializer)
        return compressed(meta, self._compression) if self._compression else meta

    def _spliced(self, value: Any, request: Any) -> bytes:
        """The usual case at a tenth of the cost: only the value is encoded, the rest of the text is known."""
        parent = b"" if request.parent_id is None else b'"parent_id": %b, ' % codecs.dumps(request.parent_id)
        return (
            b'{"status": "SUCCESS", "result": %b, "traceback": null, "children": [], "date_done": "%b", %b'
            b'"task_id": %b}' % (codecs.dumps(value), self._now().encode(), parent, codecs.dumps(request.id))
        )


class _Clock:
    """The present as text, at a third of the cost of `datetime.now(UTC).isoformat()`."""

    def __init__(self) -> None:
        #: The second that was written last, and its text: most records share it.
        self._second: tuple[int, str] = (0, "")

    def now(self) -> str:
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        known, text = self._second
        if known != second:
            text = dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{rest // 1000:06d}+00:00"


_clock = _Clock()


class _Bare:
    """What is left of a request where its arguments may be what cannot be kept."""

    children = ()
    group = parent_id = delivery_info = stamped_headers = None

    def __init__(self, request: Any) -> None:
        self.id = getattr(request, "id", None)
        self.task = getattr(request, "task", None)


def document_of(
    state: str,
    result: Any,
    request: Any,
    traceback: Any,
    *,
    extended: bool,
    date: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """The document of a state, all but the task's id (`[state.1]`)."""
    document: dict[str, Any] = {
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": _children(request),
        "date_done": (date or _clock.now)() if state in _DEFAULT_FIELDS else None,
    }
    if request is not None:
        group, parent_id = getattr(request, "group", None), getattr(request, "parent_id", None)
        if group is not None:
            document["group_id"] = group
        if parent_id is not None:
            document["parent_id"] = parent_id
        if extended:
            document.update(_extended(request))
    return document


def encode(document: dict[str, Any], serializer: str = "json") -> bytes:
    """A document as bytes. Raises kombu's `EncodeError`."""
    return codecs.encode(document, serializer)[2]


def decode(meta: bytes, serializer: str = "json", accept: Collection[str] | None = None) -> dict[str, Any]:
    """A document from bytes; `result` is an exception instance where the state says so (`[state.6]`).

    Raises kombu's `DecodeError` or `ContentDisallowed`.
    """
    if meta.startswith(COMPRESSED):
        meta = decompressed(meta)
    document: dict[str, Any] = codecs.decode_from(meta, serializer, accept)
    if document.get("status") in ("FAILURE", "RETRY", "REVOKED"):
        document["result"] = exception_from_data(document.get("result"))
    return document


def states_by(serializer: str, accept: Collection[str] | None) -> Callable[[bytes], str] | None:
    """Tells the state of documents of a serializer of the user's own; None for kombu's four, which need no decoding.

    What cannot be read is a failure: whoever reads it next is told why.
    """
    if serializer in _KNOWN:
        return None

    def state_of(meta: bytes) -> str:
        try:
            return str(codecs.decode_from(decompressed(meta), serializer, accept)["status"])
        except Exception:  # noqa: BLE001 - a decoder may raise anything
            return FAILURE

    return state_of


def compressed(meta: bytes, method: str) -> bytes:
    """An encoded document as `result_compression` stores it (`[state.11]`)."""
    body, mime = codecs.compress(meta, method)
    return b"%b%b\x00%b" % (COMPRESSED, mime.encode("ascii"), body)


def decompressed(meta: bytes) -> bytes:
    """Undo `result_compression`, whatever the settings here are (`[state.11]`)."""
    if not meta.startswith(COMPRESSED):
        return meta
    mime, _, body = meta[len(COMPRESSED) :].partition(b"\x00")
    return codecs.decompress(body, mime.decode("ascii"))


class Reading:
    """Documents of a store as values: what a waiting `AsyncResult` asks."""

    def __init__(
        self, store: ResultBackend, serializer: str, accept: Collection[str] | None, pending: Pending | None = None
    ) -> None:
        """`pending`: records that are to be saved before they can be missed."""
        self._store = store
        self._pending = pending
        self._serializer = serializer
        self._accept = accept

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, dict[str, Any]]:
        """See `ResultBackend.wait`."""
        if self._pending is not None and self._pending.records:
            self._pending.reveal(ids)
        found = self._store.wait(ids, timeout)
        return {task_id: decode(meta, self._serializer, self._accept) for task_id, meta in found.items()}


def exception_to_data(exc: BaseException, serializer: str = "json") -> Any:
    """An exception as the serializer can hold it: data, or a picklable exception for pickle. Never long."""
    if serializer in _PICKLES:
        return _picklable(exc)
    module, name = names_of(type(exc))
    return {"exc_type": name, "exc_message": _arguments(exc, serializer), "exc_module": module}


def _picklable(exc: BaseException) -> BaseException:
    try:
        found = get_pickleable_exception(exc)
        if len(pickle.dumps(found)) <= _ARGUMENTS_LIMIT * 2:
            return found
    except BaseException:  # noqa: BLE001, S110 - a user's `__reduce__` may raise anything at all
        pass
    wrapper: BaseException = _as_text(exc, "pickle")
    return wrapper


def _as_text(exc: BaseException, serializer: str) -> Any:
    """Names and text of an exception of which nothing else can be kept."""
    module, name = names_of(type(exc))
    text = repr_of(exc)
    if serializer in _PICKLES:
        return UnpickleableExceptionWrapper(module, name, (text,), text)
    return {"exc_type": name, "exc_message": [text], "exc_module": module}


def _arguments(exc: BaseException, serializer: str) -> list[Any]:
    given = arguments_of(exc)
    kept: list[Any] = []
    left = _ARGUMENTS_LIMIT
    for argument in given[:_ARGUMENTS]:
        value, size = _serialisable(argument, serializer, left)
        kept.append(value)
        left = max(left - size, 64)
    if len(given) > _ARGUMENTS:
        kept.append(f"… {len(given) - _ARGUMENTS} more arguments")
    return kept


def _serialisable(argument: Any, serializer: str, limit: int) -> tuple[Any, int]:
    """The argument, or text that stands for it where the serializer refuses it or it is too long; and its size."""
    if type(argument) is str and len(argument) > limit:
        return encodable(bounded(argument, limit)), limit
    if is_small(argument, limit):
        try:
            content_type, encoding, data = codecs.encode(argument, serializer)
            if serializer != "json":  # yaml writes what it cannot read
                codecs.decode(data, content_type, encoding, (content_type,))
            size = len(data)
        except BaseException:  # noqa: BLE001 - whatever an encoder raises, the text is what we can keep
            size = limit + 1
        if size <= limit:
            return argument, size
    text = repr_of(argument, min(limit, 1024))
    return text, len(text)


def exception_from_data(data: Any) -> BaseException | None:
    """The exception that `exception_to_data` wrote. Imports nothing of the user's: only modules already loaded are
    searched, and the few that are known to every program.

    A class that is not there becomes a generated one of that name in `celery.exceptions`; a constructor that refuses
    its arguments gives an `Exception` with the text. Raises `SecurityError` if the name is no exception's.
    """
    if not data or isinstance(data, BaseException):
        return get_pickled_exception(data) if data else None
    if not isinstance(data, dict) or "exc_type" not in data:
        raise ValueError(f"expected an exception as {{'exc_type', 'exc_message', 'exc_module'}}, got {data!r:.200}")
    name, module, message = str(data["exc_type"]), data.get("exc_module"), data.get("exc_message")
    kind = _find_exception(name, module, message)
    arguments = message if isinstance(message, list | tuple) else () if message is None else (message,)
    try:
        made = kind(*arguments)
    except BaseException:  # noqa: BLE001 - any constructor may refuse what was only its message
        made = None
    if issubclass(type(made), BaseException):
        return made
    return Exception(f"<class '{'.'.join(names_of(kind))}'>({message!r})")


def _find_exception(name: str, module: str | None, message: Any) -> type[BaseException]:
    found: Any = sys.modules.get(module or "celery.exceptions")
    if found is None and module in _ALWAYS_KNOWN:
        found = import_module(module)
    for part in name.split("."):
        try:
            found = getattr(found, part, None)
        except Exception:  # noqa: BLE001 - a module's or a metaclass's __getattr__ may raise anything
            found = None
        if found is None:
            return _generated(name)
    if not (issubclass(type(found), type) and issubclass(found, BaseException)):
        raise SecurityError(f"Expected an exception class, got {module}.{name} with payload {message!r}")
    kind: type[BaseException] = found
    return kind


def _generated(name: str) -> type[BaseException]:
    plain = encodable(name.rpartition(".")[2][:300] or "Exception").replace("\0", "\\0")
    return type(plain, (Exception,), {"__module__": "celery.exceptions"})


def _plain_result(value: Any) -> Any:
    as_tuple = getattr(type(value), "as_tuple", None)
    return value.as_tuple() if as_tuple is not None and hasattr(value, "maybe_throw") else value


def _children(request: Any) -> list[Any] | None:
    if request is None:
        return None
    children = getattr(request, "children", None)
    return [child.as_tuple() for child in children] if children else []


def _extended(request: Any) -> dict[str, Any]:
    info = getattr(request, "delivery_info", None) or {}
    fields = {
        "name": getattr(request, "task", None),
        "args": getattr(request, "args", None),
        "kwargs": getattr(request, "kwargs", None),
        "worker": getattr(request, "hostname", None),
        "retries": getattr(request, "retries", None),
        "queue": info.get("routing_key"),
    }
    if getattr(request, "stamped_headers", None):
        fields["stamped_headers"] = request.stamped_headers
        fields.update(request.stamps or {})
    return fields


def _carried(request: Any, serializer: str) -> dict[str, Any]:
    """The fields of a request that have values and that the serializer takes."""
    fields = {}
    for name in _CARRIED:
        value = getattr(request, name, None)
        if value is None:
            continue
        try:
            codecs.encode(value, serializer)
        except Exception:  # noqa: BLE001, S112 - whatever an encoder raises, the field is left out
            continue
        fields[name] = value
    return fields
