"""Application. `Request`: a message that a worker has taken on, for those who look at it (`[worker.30]`, `[task.59]`).

The engine itself works with `Held`. A request is made of one when somebody looks: a receiver of `task_received`, a
reader of `celery.worker.state`, or a task that has a request class of its own.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

from celery import codecs
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry
from celery.message import MalformedMessage, read_body
from celery.worker import state
from celery.worker.admission import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.message import Message
    from celery.worker.consumer.deliveries import Held

__all__ = ["Received", "Request", "create_request_cls", "request_of"]

logger = logging.getLogger("celery.worker.request")


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Somebody else settles it."""


class Received:
    """A message of ours with the attributes of a kombu message, as listeners expect it."""

    def __init__(self, message: Message, queue: str = "") -> None:
        self.headers = message.headers
        self.properties = message.properties
        self.body = b""
        try:
            self.body = message.body
        except MalformedMessage:
            logger.debug("The body of %s[%s] cannot be read", message.task, message.id)
        self.content_type = message.content_type
        self.content_encoding = message.content_encoding
        self.delivery_tag = message.properties.get("delivery_tag")
        self.delivery_info = {
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "priority": message.priority,
            "redelivered": message.redelivered,
        }
        if queue:
            self.delivery_info["queue"] = queue

    def __repr__(self) -> str:
        return f"<Message: {self.headers.get('task')}[{self.headers.get('id')}] {self.delivery_info!r}>"


class Request:
    """One call of a task, in the worker's main process.

    What it asks for by `acknowledge` and `reject` goes to `on_ack(logger, connection_errors)` and
    `on_reject(logger, connection_errors, requeue)`; for requests of an engine, that is the engine.
    """

    acknowledged = False
    time_start: float | None = None
    worker_pid: int | None = None
    time_limits: tuple[float | None, float | None] = (None, None)
    #: The engine's own note of it; None for requests that were made by hand.
    held: Held | None = None
    _decoded = False

    def __init__(
        self,
        message: Any,
        on_ack: Callable[..., Any] = _nothing,
        hostname: str | None = None,
        eventer: Any = None,
        app: Celery | None = None,
        connection_errors: Any = None,
        request_dict: dict[str, Any] | None = None,
        task: Any = None,
        on_reject: Callable[..., Any] = _nothing,
        body: Any = None,
        headers: dict[str, Any] | None = None,
        decoded: bool = False,
        utc: bool = True,
        maybe_make_aware: Any = None,
        maybe_iso8601: Any = None,
        **opts: Any,
    ) -> None:
        """`message` is a kombu message or a `Received`; `body` and `headers` replace its own, `decoded` says that the
        body is `(args, kwargs, embed)`. Raises `InvalidTaskError` for a message without task or with a wrong date."""
        headers = message.headers if headers is None else headers
        self._message = message
        self._request_dict = {**headers, **(request_dict or {})}
        self._body = message.body if body is None else body
        self._decoded, self._utc = decoded, utc
        self._app, self._task = app, task
        self._hostname, self._eventer = hostname, eventer
        self._connection_errors = connection_errors or ()
        self._on_ack, self._on_reject = on_ack, on_reject
        try:
            self.id = self.task_id = headers["id"]
            self._type = headers["task"]
        except KeyError as exc:
            raise InvalidTaskError(f"expected a task message with a {exc} header, got none") from exc
        self.name = self.task_name = headers.get("shadow") or self._type
        limits = headers.get("timelimit")
        self.time_limits = limits if limits else (None, None)
        self._eta, self._expires = _date(headers.get("eta"), "eta"), _date(headers.get("expires"), "expires")
        self._properties = dict(message.properties or {})
        self._delivery_info = _delivery_info(message)
        self._payload_read: Any = None

    # -- what the message says ---------------------------------------------------------------------------------------

    @property
    def app(self) -> Any:
        return self._app

    @property
    def task(self) -> Any:
        """The task; raises `NotRegistered` if there is none of its name here."""
        if self._task is None and self._app is not None:
            self._task = self._app.tasks[self._type]
        return self._task

    @property
    def message(self) -> Any:
        return self._message

    @property
    def type(self) -> str:
        """The task's name, whatever the call is shown as."""
        return str(self._type)

    @property
    def request_dict(self) -> dict[str, Any]:
        return self._request_dict

    @property
    def body(self) -> Any:
        return self._body

    @property
    def _payload(self) -> Any:
        """`(args, kwargs, embed)`. Raises `DecodeError` or `ContentDisallowed`."""
        if self._payload_read is None:
            body = self._body
            if not self._decoded:
                if compression := self._request_dict.get("compression"):
                    body = codecs.decompress(body, compression)
                accept = None if self._app is None else codecs.accept_types(self._app.conf.accept_content)
                body = codecs.decode(body, self.content_type, self.content_encoding, accept)
            self._payload_read = read_body(body)
        return self._payload_read

    @property
    def args(self) -> Any:
        return self._payload[0]

    @property
    def kwargs(self) -> Any:
        return self._payload[1]

    @property
    def errbacks(self) -> Any:
        return self._payload[2].get("errbacks")

    @property
    def chord(self) -> Any:
        return self._payload[2].get("chord")

    @property
    def argsrepr(self) -> str:
        return str(self._request_dict.get("argsrepr") or "")

    @property
    def kwargsrepr(self) -> str:
        return str(self._request_dict.get("kwargsrepr") or "")

    @property
    def content_type(self) -> str:
        return str(self._message.content_type)

    @property
    def content_encoding(self) -> str:
        return str(self._message.content_encoding)

    @property
    def delivery_info(self) -> dict[str, Any]:
        return self._delivery_info

    @property
    def reply_to(self) -> Any:
        return self._properties.get("reply_to")

    @property
    def correlation_id(self) -> Any:
        return self._properties.get("correlation_id")

    @property
    def root_id(self) -> Any:
        return self._request_dict.get("root_id")

    @property
    def parent_id(self) -> Any:
        return self._request_dict.get("parent_id")

    @property
    def group(self) -> Any:
        return self._request_dict.get("group")

    @property
    def group_index(self) -> Any:
        return self._request_dict.get("group_index")

    @property
    def groups(self) -> Any:
        return self._request_dict.get("groups") or []

    @property
    def stamped_headers(self) -> Any:
        return self._request_dict.get("stamped_headers") or []

    @property
    def stamps(self) -> Any:
        stamps = self._request_dict.get("stamps") or {}
        return {header: stamps.get(header, []) for header in self.stamped_headers}

    @property
    def replaced_task_nesting(self) -> int:
        return int(self._request_dict.get("replaced_task_nesting") or 0)

    @property
    def ignore_result(self) -> bool:
        return bool(self._request_dict.get("ignore_result"))

    @property
    def eta(self) -> dt.datetime | None:
        return self._eta

    @property
    def expires(self) -> dt.datetime | None:
        return self._expires

    @property
    def utc(self) -> bool:
        return self._utc

    @property
    def tzlocal(self) -> Any:
        """The app's zone."""
        return None if self._app is None else self._app.timezone

    # -- where it is -------------------------------------------------------------------------------------------------

    @property
    def hostname(self) -> str | None:
        return self._hostname

    @property
    def eventer(self) -> Any:
        return self._eventer

    @eventer.setter
    def eventer(self, eventer: Any) -> None:
        self._eventer = eventer

    @property
    def connection_errors(self) -> Any:
        return self._connection_errors

    @property
    def on_ack(self) -> Callable[..., Any]:
        return self._on_ack

    @on_ack.setter
    def on_ack(self, callback: Callable[..., Any]) -> None:
        self._on_ack = callback

    @property
    def on_reject(self) -> Callable[..., Any]:
        return self._on_reject

    @on_reject.setter
    def on_reject(self, callback: Callable[..., Any]) -> None:
        self._on_reject = callback

    @property
    def store_errors(self) -> bool:
        """Whether a failure is kept (`[task.42]`)."""
        return bool(not self.task.ignore_result or self.task.store_errors_even_if_ignored)

    def revoked(self) -> bool:
        """Whether it is not to be run."""
        return self.id in state.revoked or self.maybe_expire()

    def maybe_expire(self) -> bool:
        """Whether it is too late to run it."""
        return self._expires is not None and dt.datetime.now(dt.UTC) > self._expires

    # -- settling ----------------------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Be done with the message. Once."""
        if not self.acknowledged:
            self._on_ack(logger, self._connection_errors)
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        """Refuse the message, or give it back. Once."""
        if not self.acknowledged:
            self._on_reject(logger, self._connection_errors, requeue)
            self.acknowledged = True

    # -- what happens to it ------------------------------------------------------------------------------------------

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:
        """A process has begun to run it."""
        self.worker_pid = pid
        self.time_start = time_accepted
        state.task_accepted(self)
        if not self.task.acks_late:
            self.acknowledge()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit has passed (`[limit.1]`, `[limit.2]`). The log lines and the record are the engine's."""
        if soft:
            return
        state.task_ready(self)
        if self.task.acks_late:
            if self.task.acks_on_timeout:
                self.acknowledge()
            else:
                self.reject(requeue=True)

    def on_success(self, failed__retval__runtime: tuple[Any, Any, Any], **kwargs: Any) -> Any:
        """It came to an outcome: `(failed, what it returned or the ExceptionInfo, seconds)`."""
        failed, value, _ = failed__retval__runtime
        if failed:
            if isinstance(value.exception, (SystemExit, KeyboardInterrupt)):
                raise value.exception
            return self.on_failure(value, return_ok=True)
        state.task_ready(self, successful=True)
        if self.task.acks_late:
            self.acknowledge()
        return None

    def on_retry(self, exc_info: Any) -> None:
        """It is to be run again; that message is under way."""
        if self.task.acks_late:
            self.acknowledge()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """It did not succeed: an exception, `Retry`, `Ignore` and `Reject` among them. The record is the engine's."""
        state.task_ready(self)
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(exc_info.exception, MemoryError):
            raise MemoryError(f"Process got: {exc_info.exception}")
        if isinstance(exc_info.exception, Reject):
            self.reject(requeue=exc_info.exception.requeue)
        elif isinstance(exc_info.exception, Ignore):
            self.acknowledge()
        elif isinstance(exc_info.exception, Retry):
            self.on_retry(exc_info)
        elif self.task.acks_late and not self._waits_for_timeout(exc):
            if self.task.acks_on_failure:
                self.acknowledge()
            else:
                self.reject(requeue=False)

    def _waits_for_timeout(self, exc: Any) -> bool:
        """`on_timeout` and the engine have their own rules for runs that were ended from outside."""
        return type(exc).__name__ in ("TimeLimitExceeded", "WorkerLostError")

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell monitors, if there is anybody to tell through."""
        if self._eventer is not None and self._eventer.enabled and self.task.send_events:
            self._eventer.send(type, uuid=self.id, **fields)

    # -- being shown -------------------------------------------------------------------------------------------------

    def info(self, safe: bool = False) -> dict[str, Any]:
        """All of it as a dict; `safe`: arguments as text, for whoever must not decode them."""
        return {
            "id": self.id,
            "name": self.name,
            "args": self.argsrepr if safe else self.args,
            "kwargs": self.kwargsrepr if safe else self.kwargs,
            "type": self._type,
            "hostname": self._hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": self._delivery_info,
            "worker_pid": self.worker_pid,
        }

    def humaninfo(self) -> str:
        return f"{self.name}[{self.id}]"

    def __str__(self) -> str:
        eta = f" ETA:[{self._eta}]" if self._eta else ""
        expires = f" expires:[{self._expires}]" if self._expires else ""
        return " ".join(filter(None, (self.humaninfo(), eta, expires)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.argsrepr} {self.kwargsrepr}>"


def _date(value: Any, name: str) -> dt.datetime | None:
    if value is None:
        return None
    try:
        return dt.datetime.fromtimestamp(moment(value), dt.UTC)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidTaskError(f"invalid {name} value {value!r}: {exc}") from exc


def _delivery_info(message: Any) -> dict[str, Any]:
    info, properties = message.delivery_info or {}, message.properties or {}
    return {
        "exchange": info.get("exchange"),
        "routing_key": info.get("routing_key"),
        "priority": properties.get("priority", info.get("priority")),
        "redelivered": info.get("redelivered", False),
    }


def create_request_cls(
    base: type[Request],
    task: Any,
    pool: Any,
    hostname: str | None,
    eventer: Any,
    ref: Any = None,
    revoked_tasks: Any = state.revoked,
    task_ready: Any = state.task_ready,
    trace: Any = None,
    app: Any = None,
) -> type[Request]:
    """`base` for the calls of one task: what they have in common need not be given again."""
    of = {"task": task, "hostname": hostname, "eventer": eventer, "app": app or task.app}

    def __init__(self: Request, message: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        base.__init__(self, message, *args, **{**of, **kwargs})

    return type("Request", (base,), {"__init__": __init__, "__module__": base.__module__, "__doc__": base.__doc__})


def request_of(held: Held, app: Any, hostname: str | None, cls: type[Request] = Request) -> Request:
    """The request of what an engine holds, as it is now."""
    request = cls(Received(held.message, held.delivery.queue), app=app, hostname=hostname)
    request.held = held
    request.acknowledged = held.acknowledged
    request.time_start = held.began_at
    return request
