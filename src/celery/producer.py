"""Flow. A call becomes a message on a queue.

`Producer.send` reads as the walk does: ids and parents, route, lay out, tell the receivers of `before_task_publish`,
encode, publish with the retry policy, tell that it was published.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from celery import wire
from celery.message import Message, headers_v2
from celery.ports import Publication
from celery.retry import PublishPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.ports import Broker, Clock
    from celery.routing import Route

__all__ = ["Call", "Observer", "Producer", "PublishDefaults", "new_id"]

logger = logging.getLogger("celery.producer")

_MIN_SECONDS = -(2**31)


@dataclass(slots=True)
class Call:
    """One call of a task, before it is a message. `options` are `apply_async`'s, the task's own already under them."""

    name: str
    args: Any
    kwargs: Any
    options: dict[str, Any]
    task: Any = None


@dataclass(frozen=True, slots=True)
class PublishDefaults:
    """The settings that publishing depends on, read once."""

    serializer: str = "json"
    compression: str | None = None
    protocol: int = 2
    delivery_mode: int = 2
    priority: int | None = None
    inherit_parent_priority: bool = False
    retry: bool = True
    retry_policy: Mapping[str, Any] = field(default_factory=dict)
    utc: bool = True
    timezone: dt.tzinfo = dt.UTC
    origin: str = ""


class Observer(Protocol):
    """Whoever listens to publishing."""

    def publishing(self, sketch: Sketch) -> None:
        """May change headers, properties and the policy in place (`[call.28]`)."""

    def published(self, sketch: Sketch) -> None: ...


@dataclass(slots=True)
class Sketch:
    """A message laid out but not yet encoded: what `before_task_publish` sees."""

    call: Call
    route: Route
    body: tuple[Any, Any, dict[str, Any]]
    headers: dict[str, Any]
    properties: dict[str, Any]
    retry_policy: dict[str, Any]


#: Options that say something to this process or are laid out elsewhere; every other one becomes a message property.
_NOT_PROPERTIES = frozenset(
    """
    add_to_parent argsrepr chain chord compression confirm_timeout connection correlation_id countdown declare
    delivery_mode eta exchange exchange_type expires group_id group_index headers ignore_result immediate kwargsrepr
    link link_error mandatory origin parent_id priority producer publisher queue replaced_task_nesting reply_to
    result_cls retries retry retry_policy root_id route_name router routing_key serializer shadow soft_time_limit
    stamped_headers task_id task_type time_limit timeout
    """.split()
)


def new_id() -> str:
    """A random (version 4) UUID as text; three times as fast as `str(uuid.uuid4())`."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


class Producer:
    """Turns calls into messages and hands them to the broker. Thread-safe."""

    def __init__(
        self,
        broker: Callable[[], Broker],
        *,
        route: Callable[[Call], tuple[Route, dict[str, Any]]],
        encode: Callable[[Any, str | None], tuple[str, str, bytes]],
        compress: Callable[[bytes, str], tuple[bytes, str]],
        represent: Callable[[Any], str],
        parent: Callable[[], Any],
        reply_to: Callable[[], str],
        defaults: PublishDefaults,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._broker = broker
        self._route = route
        self._encode = encode
        self._compress = compress
        self._represent = represent
        self._parent = parent
        self._reply_to = reply_to
        self._defaults = defaults
        self._clock = clock
        self._observer = observer
        self._policy = PublishPolicy.of(defaults.retry_policy)

    def send(self, call: Call) -> Message:
        """Publish one call. Raises kombu's `OperationalError` when the retry policy is used up (`[call.8]`),
        `EncodeError` for arguments that the serializer refuses, ValueError for numbers out of range (`[call.6]`)."""
        sketch = self.lay_out(call)
        if self._observer is not None:
            self._observer.publishing(sketch)
        publication = self.encode(sketch)
        self.publish([publication], sketch)
        if self._observer is not None:
            self._observer.published(sketch)
        return publication.message

    def prepare(self, call: Call) -> Publication:
        """Everything of `send` but the sending: for messages that are published when a run is settled."""
        sketch = self.lay_out(call)
        if self._observer is not None:
            self._observer.publishing(sketch)
        return self.encode(sketch)

    def lay_out(self, call: Call) -> Sketch:
        """Ids and parents, route, headers, body and properties of a call."""
        route, options = self._route(call)
        get = options.get
        task_id = get("task_id") or new_id()
        parent = self._parent()
        root_id, parent_id, priority = get("root_id"), get("parent_id"), get("priority", self._defaults.priority)
        if parent is not None:
            root_id = root_id or parent.root_id or parent.id
            parent_id = parent_id or parent.id
            if self._defaults.inherit_parent_priority and get("priority") is None:
                priority = (parent.delivery_info or {}).get("priority", priority)
        properties: dict[str, Any] = {
            "correlation_id": get("correlation_id") or task_id,
            "reply_to": get("reply_to") or self._reply_to(),
        }
        eta = expires = argsrepr = kwargsrepr = None
        callbacks = errbacks = chain = chord = None
        if options:
            eta = self._eta(options)
            expires = self._expires(options, properties)
            argsrepr, kwargsrepr = get("argsrepr"), get("kwargsrepr")
            callbacks, errbacks = _as_list(get("link")), _as_list(get("link_error"))
            chain, chord = get("chain"), get("chord")
            stamps = get("stamped_headers") or ()
            properties |= {k: v for k, v in options.items() if k not in _NOT_PROPERTIES and k not in stamps}
        if priority is not None:
            properties["priority"] = priority
        headers = headers_v2(
            call.name,
            task_id,
            options=options,
            root_id=root_id or task_id,
            parent_id=parent_id,
            argsrepr=argsrepr if argsrepr is not None else self._represent(call.args),
            kwargsrepr=kwargsrepr if kwargsrepr is not None else self._represent(call.kwargs) if call.kwargs else "{}",
            origin=get("origin") or self._defaults.origin,
            eta=eta,
            expires=expires,
        )
        embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": chord}
        policy = {**self._defaults.retry_policy, **(get("retry_policy") or {})}
        call.options = options
        return Sketch(call, route, (call.args, call.kwargs, embed), headers, properties, policy)

    def encode(self, sketch: Sketch) -> Publication:
        """A laid out message becomes bytes."""
        get = sketch.call.options.get
        defaults, headers, properties, route = self._defaults, sketch.headers, sketch.properties, sketch.route
        payload: Any = sketch.body
        message_headers = headers
        if defaults.protocol == 1:
            payload = wire.body_v1(headers, *sketch.body, defaults.utc)
            message_headers = dict(get("headers") or {})
        content_type, content_encoding, body = self._encode(payload, get("serializer") or defaults.serializer)
        method = get("compression", defaults.compression)
        if method:
            body, message_headers["compression"] = self._compress(body, method)
        properties["delivery_mode"] = _delivery_mode(get("delivery_mode"), defaults.delivery_mode)
        if "expiration" in properties:
            properties["expiration"] = str(int(properties["expiration"] * 1000))
        message = Message(
            message_headers,
            body,
            properties=properties,
            content_type=content_type,
            content_encoding=content_encoding,
            exchange=route.exchange,
            routing_key=route.routing_key,
            named=(headers["task"], headers["id"]),
        )
        return Publication(message, route)

    def publish(self, publications: list[Publication], sketch: Sketch | None = None) -> None:
        """Hand to the broker, trying again as the policy says. The ids stay the same, so a repeat can be told."""
        from_call = sketch.call.options if sketch is not None else {}
        broker = self._broker()
        try:
            broker.publish(publications)
            return
        except Exception as exc:
            if not _is_operational(exc) or not from_call.get("retry", self._defaults.retry):
                raise
            policy = self._policy if sketch is None else PublishPolicy.of(sketch.retry_policy)
            failure = exc
        for wait in policy.waits():
            if policy.retry_errors is not None and not isinstance(failure, policy.retry_errors):
                break
            logger.debug("publishing failed (%s); trying again in %.1f s", failure, wait)
            time.sleep(wait)
            try:
                broker.publish(publications)
                return
            except Exception as exc:
                if not _is_operational(exc):
                    raise
                failure = exc
        raise failure

    def _eta(self, options: Mapping[str, Any]) -> str | None:
        countdown = options.get("countdown")
        if countdown:
            _check_range("countdown", countdown)
            return (self._now() + dt.timedelta(seconds=countdown)).isoformat()
        eta = options.get("eta")
        return eta.isoformat() if isinstance(eta, dt.datetime) else eta

    def _expires(self, options: Mapping[str, Any], properties: dict[str, Any]) -> str | None:
        """ISO text for the header; the seconds left go into `properties["expiration"]` (`[call.5]`)."""
        expires = options.get("expires")
        if expires is None:
            return None
        if isinstance(expires, str):
            expires = dt.datetime.fromisoformat(expires)
        if isinstance(expires, dt.datetime):
            aware = expires if expires.tzinfo else expires.replace(tzinfo=dt.UTC)
            left = (aware - self._now()).total_seconds()
        else:
            _check_range("expires", expires)
            left = expires
            expires = self._now() + dt.timedelta(seconds=expires)
        if left < 0:
            logger.warning(
                "%s expires in the past (%s): it will be revoked, not run", options.get("task_id") or "task", expires
            )
        properties["expiration"] = max(left, 0)
        return expires.isoformat()

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.time(), self._defaults.timezone)


def _as_list(signatures: Any) -> list[Any] | None:
    if not signatures:
        return None
    return list(signatures) if isinstance(signatures, list | tuple) else [signatures]


def _check_range(name: str, seconds: float) -> None:
    if seconds < _MIN_SECONDS:
        raise ValueError(f"{name} is out of range: {seconds!r}")


def _delivery_mode(mode: Any, default: int) -> int:
    if mode is None:
        return default
    return 1 if mode in (1, "transient") else 2


def _is_operational(exc: BaseException) -> bool:
    """kombu's `OperationalError`, asked without importing kombu where nobody has raised it."""
    return any(
        kind.__name__ == "OperationalError" and kind.__module__ == "kombu.exceptions" for kind in type(exc).__mro__
    )
