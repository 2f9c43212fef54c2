"""Compatibility. How a backend of Celery's turns states into what it keeps, and back: the part that asks no storage."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import TYPE_CHECKING, Any

from celery import codecs, states
from celery.current import get_current_task
from celery.documents import compressed, decompressed, document_of, encode, exception_from_data, exception_to_data
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.app.base import Celery

__all__ = ["Encoding", "Meta"]

Meta = dict[str, Any]

_E_COMPRESSION = (
    "Unknown compression method {!r} configured in result_compression.\nAvailable methods are: {}.\nName one of them, "
    "or None to store results as they are."
)
_W_COMPRESSION = (
    "The {} result backend stores no compressed results: result_compression is ignored, and results are stored as "
    "they are."
)
_W_FAILURE_EXPIRES = (
    "The {} result backend keeps failures as long as any other result: result_failure_expires is ignored."
)


class Encoding:
    """Values, exceptions and settings of one app's results."""

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    #: Records outlive the connection that wrote them.
    persistent = True
    #: Failures can be kept for a time of their own.
    supports_failure_expires = False
    supports_result_compression = False

    def __init__(
        self,
        app: Celery,
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Iterable[str] | None = None,
        expires: Any = None,
        expires_type: Any = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        conf = app.conf
        self.app = app
        self.url = url
        self.serializer: str = serializer or conf.result_serializer
        accepted = accept if accept is not None else (conf.result_accept_content or conf.accept_content)
        self.accept = codecs.accept_types(accepted or ("json",))
        self.expires = self.prepare_expires(expires, expires_type)
        self.compression = self.prepare_compression(conf.result_compression)
        self._warn_of_failure_expires()

    def _warn_of_failure_expires(self) -> None:
        if self.app.conf.result_failure_expires is not None and not self.supports_failure_expires:
            warnings.warn(_W_FAILURE_EXPIRES.format(type(self).__name__), UserWarning, stacklevel=5)

    # -- documents ---------------------------------------------------------------------------------------------------

    def _encode(self, data: Any) -> tuple[str, str, Any]:
        """Content type, content encoding and payload."""
        content_type, content_encoding, payload = codecs.encode(data, self.serializer)
        return content_type, content_encoding, payload.decode() if content_encoding == "utf-8" else payload

    def encode(self, data: Any) -> Any:
        """A document in the result serializer's format: text where that is text, bytes where it is compressed."""
        if self.compression:
            return compressed(encode(data, self.serializer), self.compression)
        return self._encode(data)[2]

    def decode(self, payload: Any) -> Any:
        """A document from bytes or text, decompressed if need be; exceptions stay data. See `get_task_meta`."""
        if payload is None:
            return None
        plain = decompressed(payload.encode() if isinstance(payload, str) else bytes(payload))
        return codecs.decode_from(plain, self.serializer, self.accept)

    def decode_result(self, payload: Any) -> Meta:
        return self.meta_from_decoded(self.decode(payload))

    def meta_from_decoded(self, meta: Meta) -> Meta:
        """Turn a failure's data into its exception, in place."""
        if meta["status"] in self.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def _get_result_meta(
        self,
        result: Any,
        state: str,
        traceback: Any,
        request: Any,
        format_date: bool = True,
        encode: bool = False,
    ) -> Meta:
        """What is kept of a state, without the task's id ([state.1]). `format_date` False: the date as a date;
        `encode`: the result in the serializer's format within the document."""
        extended = bool(self.app.conf.result_extended)
        meta = document_of(state, self.encode(result) if encode else result, request, traceback, extended=extended)
        if not format_date and meta["date_done"] is not None:
            meta["date_done"] = dt.datetime.fromisoformat(meta["date_done"])
        return meta

    # -- results -----------------------------------------------------------------------------------------------------

    def encode_result(self, result: Any, state: str) -> Any:
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def prepare_value(self, result: Any) -> Any:
        """What is kept of a value: a result (of `delay()`) as a tuple, anything else as it is ([result.26])."""
        return result.as_tuple() if hasattr(result, "as_tuple") and hasattr(result, "maybe_throw") else result

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        return exception_to_data(exc, serializer or self.serializer)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        return exception_from_data(exc)

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """The children of the request (or of the task that runs here) as tuples."""
        if request is None:
            task = get_current_task()
            request = None if task is None else task.request
        return None if request is None else [child.as_tuple() for child in getattr(request, "children", None) or ()]

    # -- settings ----------------------------------------------------------------------------------------------------

    def prepare_expires(self, value: Any, type: Callable[[float], Any] | None = None) -> Any:
        """Seconds from a number or a timedelta; None stands for the setting `result_expires`."""
        chosen: dt.timedelta | float | None = self.app.conf.result_expires if value is None else value
        seconds: Any = chosen if chosen is None or isinstance(chosen, int | float) else chosen.total_seconds()
        return type(seconds) if seconds and type else seconds

    def prepare_persistent(self, enabled: bool | None = None) -> bool:
        if enabled is not None:
            return enabled
        return self.persistent if self.app.conf.result_persistent is None else self.app.conf.result_persistent

    def prepare_compression(self, compression: str | None) -> str | None:
        """The method to compress by; None where none is set, or (with a warning) where the storage takes none.

        Raises `ImproperlyConfigured` for an unknown method.
        """
        if not compression:
            return None
        if not self.supports_result_compression:
            warnings.warn(_W_COMPRESSION.format(type(self).__name__), UserWarning, stacklevel=5)
            return None
        try:
            codecs.compress(b"", compression)
        except KeyError as exc:
            from kombu.compression import encoders

            raise ImproperlyConfigured(_E_COMPRESSION.format(compression, ", ".join(sorted(encoders())))) from exc
        return compression
