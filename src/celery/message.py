"""Domain. A message: one call of a task, travelling.

The portable form of a message is its *envelope*: the JSON document that kombu's virtual transports put on a queue
(`[wire.19]`): ``{"body", "content-encoding", "content-type", "headers", "properties"}`` with a base64 body. Redis,
SQLite and memory keep it as it is, and it is also what crosses into a pool's child, so a message read from a queue is
forwarded without being encoded again. AMQP brokers build it from their frames only when it must cross a pipe.

Reading is lazy on purpose: the main process of a worker needs a handful of headers (`Head`) and never the body.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["Form", "MalformedMessage", "Message", "Repeated", "headers_v2", "mark_redelivered", "read_body"]


class MalformedMessage(ValueError):
    """What came is not a task message; says what was expected and what came. The raw bytes stay with the delivery."""


class Repeated(dict[str, Any]):
    """What many messages carry, the body of a chord: it is encoded once. Not to be changed after that."""

    #: As JSON, once it was encoded; b"" if it cannot be taken over as it is.
    text: bytes | None = None

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class _Head(msgspec.Struct):
    """The headers that decide what happens to a message before it is run."""

    task: str | None = None
    id: str | None = None
    eta: str | None = None
    expires: str | float | None = None
    retries: int | None = None
    timelimit: list[float | None] | None = None
    shadow: str | None = None
    ignore_result: bool | None = None


class _DeliveryInfo(msgspec.Struct):
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: bool | None = None


class _Properties(msgspec.Struct):
    delivery_info: _DeliveryInfo = msgspec.field(default_factory=_DeliveryInfo)
    priority: int | None = None
    body_encoding: str | None = None


class _Envelope(msgspec.Struct):
    body: str
    headers: _Head = msgspec.field(default_factory=_Head)
    properties: _Properties = msgspec.field(default_factory=_Properties)
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")


class _Whole(msgspec.Struct):
    body: str
    headers: dict[str, Any] = msgspec.field(default_factory=dict)
    properties: dict[str, Any] = msgspec.field(default_factory=dict)
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_whole = msgspec.json.Decoder(_Whole).decode
_write = msgspec.json.Encoder().encode
#: What reading raises for bytes that are no envelope.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: In place of a body's encoding: it is no body, but says what is wrong.
_BROKEN = "broken"
_NO_LIMITS = (None, None)
_NOTHING: dict[str, Any] = {}


class Message:
    """One call of a task. Immutable by convention once published or received.

    `headers` are protocol 2's (`[wire.2]`), custom ones merged in; `properties` AMQP's; `body` the encoded arguments
    (`[args, kwargs, embed]`), compressed if `headers["compression"]` says so. `task` and `id` are never empty.
    """

    __slots__ = (
        "_body", "_body_encoding", "_envelope", "_form", "_headers", "_properties", "content_encoding", "content_type",
        "eta", "exchange", "expires", "id", "ignore_result", "priority", "redelivered", "retries", "routing_key",
        "shadow", "task", "timelimit",
    )  # fmt: skip

    task: str
    id: str
    #: ISO 8601 text with offset, or None.
    eta: str | None
    #: ISO 8601 text with offset (or, from other languages, a number of seconds since the epoch), or None.
    expires: str | float | None
    retries: int
    #: (hard, soft) in seconds, `[wire.3]`.
    timelimit: tuple[float | None, float | None]
    shadow: str | None
    #: What the call said (`[call.17]`); None: nothing, so the task decides.
    ignore_result: bool | None
    #: 0 to 255; what it means is the broker's affair (`[route.16]`, `[route.17]`).
    priority: int
    #: True if some worker held this message before.
    redelivered: bool
    exchange: str
    routing_key: str
    content_type: str
    content_encoding: str

    def __init__(
        self,
        headers: dict[str, Any],
        body: bytes,
        *,
        properties: dict[str, Any] | None = None,
        content_type: str = "application/json",
        content_encoding: str = "utf-8",
        exchange: str = "",
        routing_key: str = "",
        redelivered: bool = False,
        named: tuple[str, str] | None = None,
    ) -> None:
        """Make a message from its parts. Raises `MalformedMessage` if `task` or `id` is missing from the headers.

        `named` gives task and id where the headers do not hold them (protocol 1).
        """
        self._form: tuple[Form, str, str] | None = None
        self._envelope: bytes | None = None
        self._headers: dict[str, Any] | None = headers
        self._properties: dict[str, Any] | None = {} if properties is None else properties
        self._body: bytes | str = body
        self._body_encoding: str | None = None
        get = headers.get
        self.task, self.id = named or (get("task") or _missing("task"), get("id") or _missing("id"))
        self.eta = get("eta")
        self.expires = get("expires")
        self.retries = get("retries") or 0
        limits = get("timelimit")
        self.timelimit = _pair(limits) if limits else _NO_LIMITS
        self.shadow = get("shadow")
        self.ignore_result = get("ignore_result")
        self.priority = self._properties.get("priority") or 0
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered

    @classmethod
    def formed(cls, form: Form, task_id: str, body: bytes, argsrepr: str, reply_to: str) -> Message:
        """A message that differs from its form in nothing but these."""
        self = cls.__new__(cls)
        kin = form.kin
        self._form = (form, argsrepr, reply_to)
        self._envelope = self._headers = self._properties = self._body_encoding = None
        self._body = body
        self.task, self.id = kin.task, task_id
        self.eta = self.expires = self.shadow = None
        self.retries = 0
        self.timelimit = kin.timelimit
        self.ignore_result = kin.ignore_result
        self.priority = kin.priority
        self.content_type, self.content_encoding = kin.content_type, kin.content_encoding
        self.exchange, self.routing_key = kin.exchange, kin.routing_key
        self.redelivered = False
        return self

    @classmethod
    def from_envelope(cls, envelope: bytes) -> Message:
        """Read a kombu envelope. Raises `MalformedMessage`, saying what was expected and what came.

        A protocol 1 message (`[wire.13]`, no `task` header) raises it too: `wire` turns those into protocol 2.
        """
        try:
            seen = _read_envelope(envelope)
        except _UNREADABLE as exc:
            raise MalformedMessage(f"expected a kombu message envelope (JSON), got {_peek(envelope)}: {exc}") from exc
        head, properties = seen.headers, seen.properties
        self = cls.__new__(cls)
        self._form = None
        self._envelope = envelope
        self._headers = self._properties = None
        self._body = seen.body
        self._body_encoding = properties.body_encoding
        self.task = head.task or _missing("task")
        self.id = head.id or _missing("id")
        self.eta = head.eta
        self.expires = head.expires
        self.retries = head.retries or 0
        limits = head.timelimit
        self.timelimit = _pair(limits) if limits else _NO_LIMITS
        self.shadow = head.shadow
        self.ignore_result = head.ignore_result
        self.priority = properties.priority or 0
        self.content_type = seen.content_type or "application/data"
        self.content_encoding = seen.content_encoding or "binary"
        self.exchange = properties.delivery_info.exchange or ""
        self.routing_key = properties.delivery_info.routing_key or ""
        self.redelivered = bool(properties.delivery_info.redelivered)
        return self

    @classmethod
    def whole(cls, envelope: bytes) -> Message:
        """Read all of a kombu envelope at once, for whoever runs the message; `from_envelope` reads what decides.

        Raises `MalformedMessage`.
        """
        try:
            seen = _read_whole(envelope)
        except _UNREADABLE as exc:
            raise MalformedMessage(f"expected a kombu message envelope (JSON), got {_peek(envelope)}: {exc}") from exc
        headers, properties = seen.headers, seen.properties
        get = headers.get
        info = properties.get("delivery_info") or _NOTHING
        self = cls.__new__(cls)
        self._form = None
        self._envelope = envelope
        self._headers, self._properties = headers, properties
        self._body = seen.body
        self._body_encoding = properties.get("body_encoding")
        self.task = get("task") or _missing("task")
        self.id = get("id") or _missing("id")
        self.eta = get("eta")
        self.expires = get("expires")
        self.retries = get("retries") or 0
        limits = get("timelimit")
        self.timelimit = _pair(limits) if limits else _NO_LIMITS
        self.shadow = get("shadow")
        self.ignore_result = get("ignore_result")
        self.priority = properties.get("priority") or 0
        self.content_type = seen.content_type or "application/data"
        self.content_encoding = seen.content_encoding or "binary"
        self.exchange = info.get("exchange") or ""
        self.routing_key = info.get("routing_key") or ""
        self.redelivered = bool(info.get("redelivered"))
        return self

    @property
    def headers(self) -> dict[str, Any]:
        """All headers, standard and custom."""
        if self._headers is None:
            self._read_whole()
        assert self._headers is not None
        return self._headers

    @property
    def properties(self) -> dict[str, Any]:
        """AMQP properties: `correlation_id`, `reply_to`, `delivery_mode`, `priority`, `expiration` …"""
        if self._properties is None:
            self._read_whole()
        assert self._properties is not None
        return self._properties

    @property
    def body(self) -> bytes:
        """The encoded (and possibly compressed) arguments. Raises `MalformedMessage` if the base64 is broken."""
        if isinstance(self._body, str):
            if self._body_encoding == _BROKEN:
                raise MalformedMessage(self._body)
            if self._body_encoding == "base64":
                try:
                    self._body = b64decode(self._body)
                except ValueError as exc:
                    raise MalformedMessage(f"expected a base64 message body: {exc}") from exc
            else:
                self._body = self._body.encode("utf-8", "surrogatepass")
        return self._body

    @property
    def filled(self) -> tuple[Form, str, str] | None:
        """The form that it was filled into, its argsrepr and its reply address; None: it was laid out by itself."""
        return self._form

    @property
    def reply_to(self) -> str:
        """Where an rpc reply goes (`[wire.23]`); "" if nowhere."""
        address = self.properties.get("reply_to")
        return address if isinstance(address, str) else ""

    @property
    def deaths(self) -> int:
        """How often the process died that had this message (`ports.Blaming`). Kept in its delivery info."""
        if not self.redelivered:
            return 0
        info = self.properties.get("delivery_info")
        count = info.get("deaths") if isinstance(info, dict) else 0
        return count if isinstance(count, int) else 0

    def to_envelope(self, delivery_tag: str = "") -> bytes:
        """The kombu envelope (`[wire.19]`); the very bytes that came, where the message was read from one.

        `delivery_tag` goes into the properties of a new envelope. Real workers keep what they hold under it, so a
        retry must not have that of the message that it retries.
        """
        if self._envelope is None:
            if self._form is not None:
                form, argsrepr, reply_to = self._form
                self._envelope = form.fill(self.id, self.body, argsrepr, reply_to, delivery_tag or self.id)
                return self._envelope
            self._envelope = self._write_envelope(delivery_tag or f"{self.id}.{self.retries}")
        return self._envelope

    def _write_envelope(self, delivery_tag: str) -> bytes:
        assert self._properties is not None
        info: dict[str, Any] = {"exchange": self.exchange, "routing_key": self.routing_key}
        if self.redelivered:
            info["redelivered"] = True
        rest = _write(
            {
                "content-encoding": self.content_encoding,
                "content-type": self.content_type,
                "headers": self._headers,
                "properties": {
                    **self._properties,
                    "delivery_info": info,
                    "priority": self._properties.get("priority", 0),
                    "body_encoding": "base64",
                    "delivery_tag": delivery_tag,
                },
            }
        )
        # Joined, not encoded with the rest: that would copy a body of many MB into text and too large a buffer.
        return b"".join((b'{"body":"', b64encode(self.body), b'",', memoryview(rest)[1:]))

    def _read_whole(self) -> None:
        """What decides has been read before; if the rest cannot be, there is as good as no body, and whoever asks for
        it is told."""
        try:
            whole = _read_whole(self.to_envelope())
        except _UNREADABLE as exc:
            self._headers, self._properties = {"task": self.task, "id": self.id}, {}
            self._body = f"expected a kombu message envelope (JSON), got one that is broken inside: {exc}"
            self._body_encoding = _BROKEN
        else:
            self._headers, self._properties = whole.headers, whole.properties

    def __repr__(self) -> str:
        return f"<Message: {self.task}[{self.id}]>"


def mark_redelivered(envelope: bytes, deaths: int = 0) -> bytes:
    """The envelope with `redelivered` and `deaths` set in its delivery info; what is none is given back as it is."""
    try:
        document = json.loads(envelope)
        info = document["properties"].setdefault("delivery_info", {})
        info["redelivered"] = True
        info.pop("deaths", None)
        if deaths:
            info["deaths"] = deaths
        return json.dumps(document).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return envelope


class Form:
    """The envelope of messages of one kind, which differ only in id, arguments and addresses.

    It is made from a whole message of that kind, so what it writes is what that one would have been; filling in costs a
    third of laying out and encoding anew.
    """

    __slots__ = ("_text", "kept", "kin", "marks")

    def __init__(self, kin: Message, task_id: str, body: bytes, argsrepr: str, reply_to: str, tag: str) -> None:
        """`kin`: a message whose id, body, argsrepr and reply address are these, which occur nowhere else in it."""
        self.kin = kin
        #: Id, argsrepr and reply address of the one that it was made from.
        self.marks = (task_id, argsrepr, reply_to)
        #: For a broker that does not write envelopes: what it has made of this form.
        self.kept: Any = None
        text = kin.to_envelope(tag).replace(b"%", b"%%")
        holes = ((b64encode(body), b"b"), (task_id.encode(), b"i"), (_write(argsrepr), b"a"))
        for mark, name in (*holes, (reply_to.encode(), b"r"), (tag.encode(), b"t")):
            assert mark in text
            text = text.replace(mark, b"%%(%b)b" % name)
        self._text = text

    def fill(self, task_id: str, body: bytes, argsrepr: str, reply_to: str, tag: str) -> bytes:
        """An envelope; ids and addresses are plain text that JSON need not escape."""
        return self._text % {
            b"b": b2a_base64(body, newline=False),  # what `b64encode` calls
            b"i": task_id.encode(),
            b"a": _write(argsrepr),
            b"r": reply_to.encode(),
            b"t": tag.encode(),
        }


def _missing(name: str) -> str:
    raise MalformedMessage(f"expected a task message with a {name!r} header, got none")


def _pair(limits: Any) -> tuple[float | None, float | None]:
    return (limits[0], limits[1]) if len(limits) == 2 else _NO_LIMITS


def _peek(data: bytes) -> str:
    return f"{len(data)} bytes beginning {bytes(data[:40])!r}"


def headers_v2(
    name: str,
    task_id: str,
    *,
    options: Mapping[str, Any],
    root_id: str,
    parent_id: str | None,
    argsrepr: str,
    kwargsrepr: str,
    origin: str,
    eta: str | None = None,
    expires: str | None = None,
) -> dict[str, Any]:
    """All headers of protocol 2, in Celery's order (`[wire.2]`), custom ones merged in last (`[call.16]`)."""
    get = options.get
    headers: dict[str, Any] = {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": get("shadow"),
        "eta": eta,
        "expires": expires,
        "group": get("group_id"),
        "group_index": get("group_index"),
        "retries": get("retries") or 0,
        "timelimit": [get("time_limit"), get("soft_time_limit")],
        "root_id": root_id,
        "parent_id": parent_id,
        "argsrepr": argsrepr,
        "kwargsrepr": kwargsrepr,
        "origin": origin,
        "ignore_result": get("ignore_result"),
        "replaced_task_nesting": get("replaced_task_nesting") or 0,
        "stamped_headers": get("stamped_headers"),
        "stamps": {},
    }
    if stamped := headers["stamped_headers"]:
        headers["stamps"] = {stamp: options[stamp] for stamp in stamped if stamp in options}
    return headers


def read_body(payload: Any) -> tuple[Any, dict[str, Any], Mapping[str, Any]]:
    """Split a decoded protocol 2 body into args, kwargs and embed. Raises `MalformedMessage` for any other shape."""
    if isinstance(payload, list | tuple) and len(payload) == 3:
        args, kwargs, embed = payload
        if type(kwargs) is dict and type(embed) is dict and type(args) is list:  # as JSON has it
            return args, kwargs, embed
        if isinstance(kwargs, Mapping) and isinstance(embed, Mapping) and isinstance(args, list | tuple):
            return args, dict(kwargs), embed
    raise MalformedMessage(f"expected a body of [args, kwargs, embed], got {type(payload).__name__}: {payload!r:.200}")
