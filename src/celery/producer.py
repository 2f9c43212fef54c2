"""Flow. A call becomes a message on a queue.

`Producer.send` reads as the walk does: ids and parents, route, lay out, tell the receivers of `before_task_publish`,
encode, publish with the retry policy, tell that it was published.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import time
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from msgspec import Struct, field

from celery import wire
from celery.haste import Haste
from celery.message import Form, Message, Repeated, headers_v2
from celery.options import as_eta, as_expiry, check_call, listed
from celery.ports import Gathered, Publication
from celery.retry import PublishPolicy
from celery.routing import DESTINATION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.ports import Broker, Clock
    from celery.routing import Route

__all__ = ["Address", "Call", "Gathered", "Observer", "Producer", "PublishDefaults", "Router", "Sketch", "new_id"]

logger = logging.getLogger("celery.producer")

#: Seconds after which the settings' retry policy begins no further try: to connect may take four more.
_PATIENCE = 5.0
_SCALARS = frozenset({str, int, float, bool, type(None)})
#: `repr` of plain arguments is their safe repr, up to this length.
_SHORT = 1024


class Call(Struct, eq=False):
    """One call of a task, before it is a message. `options` are `apply_async`'s, the task's own already under them."""

    name: str
    args: Any
    kwargs: Any
    options: dict[str, Any]
    task: Any = None


class PublishDefaults(Struct, frozen=True):
    """The settings that publishing depends on, read once."""

    serializer: str = "json"
    compression: str | None = None
    protocol: int = 2
    delivery_mode: int = 2
    priority: int | None = None
    inherit_parent_priority: bool = False
    retry: bool = True
    retry_policy: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds that a caller waits for all of it, at the most; None: as long as it takes.
    within: float | None = None
    utc: bool = True
    timezone: dt.tzinfo = dt.UTC
    origin: str = ""


class Sketch(Struct, eq=False):
    """A message laid out but not yet encoded: what `before_task_publish` sees."""

    call: Call
    route: Route
    options: dict[str, Any]
    body: tuple[Any, Any, dict[str, Any]]
    headers: dict[str, Any]
    properties: dict[str, Any]
    #: A copy, for observers to change; None where neither the call nor an observer asks for one.
    retry_policy: dict[str, Any] | None = None


class Observer(Protocol):
    """Whoever listens to publishing, behind gates: silence costs attribute reads."""

    @property
    def before(self) -> Sequence[Any]: ...

    @property
    def after(self) -> Sequence[Any]: ...

    def publishing(self, sketch: Sketch) -> None:
        """May change headers, properties and the policy in place (`[call.28]`)."""

    def published(self, *sketches: Sketch) -> None: ...


class Carrier(Protocol):
    """Another way of publishing, which a call may ask for (`producer=`, `connection=`) or somebody insist on."""

    @property
    def receivers(self) -> Any:
        """True while every message has to go this way."""

    def carry(self, sketch: Sketch, body: Any, headers: dict[str, Any]) -> None:
        """Publish it: `body` and `headers` as they travel, not yet encoded."""


class Router(Protocol):
    """Decides where calls go (`[route.8]` to `[route.11]`)."""

    #: Task → route and added options, where these depend on the name alone.
    remembered: dict[str, tuple[Route, dict[str, Any]]]

    def route_for(
        self, name: str, options: dict[str, Any], args: Any, kwargs: Any, task: Any
    ) -> tuple[Route, dict[str, Any]]:
        """The route, and the options that are left. Raises `QueueNotFound`."""


class Address(Protocol):
    """Where replies to this thread go."""

    @property
    def text(self) -> str: ...


#: Options that say something to this process or are laid out elsewhere; every other one becomes a message property.
_NOT_PROPERTIES = frozenset(
    """
    add_to_parent chain chord compression confirm_timeout connection correlation_id countdown declare
    delivery_mode eta exchange exchange_type expires group_id group_index headers ignore_result immediate
    link link_error mandatory origin parent_id priority producer publisher queue replaced_task_nesting reply_to
    result_cls retries retry retry_policy root_id route_name router routing_key serializer shadow soft_time_limit
    stamped_headers task_id task_type time_limit timeout
    """.split()
)


_NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_Kept: TypeAlias = "tuple[dict[str, Any], tuple[Route, dict[str, Any]], Form]"

#: Options that want kombu's way of publishing (`[call.23]`, `[call.24]`).
_BROUGHT = ("connection", "declare", "producer", "publisher")
#: Options that change neither headers nor properties here: what tasks carry from the settings.
_SILENT = frozenset({"add_to_parent", "compression", "delivery_mode", "ignore_result", "serializer"})


def new_id() -> str:
    """A random (version 4) UUID as text; three times as fast as `str(uuid.uuid4())`."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


class Producer:
    """Turns calls into messages and hands them to the broker. Thread-safe."""

    def __init__(
        self,
        broker: Broker,
        *,
        router: Router,
        encode: Callable[[Any, str | None], tuple[str, str, bytes]],
        encode_call: Callable[[tuple[Any, Any, dict[str, Any]], str | None], tuple[str, str, bytes]],
        compress: Callable[[bytes, str], tuple[bytes, str]],
        represent: Callable[[Any], str],
        running: Any,
        parent: Callable[[], Any],
        address: Address,
        defaults: PublishDefaults,
        clock: Clock,
        observer: Observer | None = None,
        carrier: Carrier | None = None,
        insisting: Any = None,
    ) -> None:
        """`parent` gives the request of the task that a worker runs here, or None; it is asked only while `running`
        has a `top`. `insisting`: a gate, open while every message has to be carried by `carrier`."""
        self._broker = broker
        self._router = router
        self._encode = encode
        self._encode_call = encode_call
        self._compress = compress
        self._represent = represent
        self._running = running
        self._parent = parent
        self._address = address
        self._defaults = defaults
        self._clock = clock
        self._observer = observer
        self._before = tuple(observer.before) if observer is not None else ()
        self._after = tuple(observer.after) if observer is not None else ()
        self._carrier = carrier
        self._listening: tuple[Any, ...] = (*self._before, *self._after)
        self._insisting = tuple(gate for gate in (carrier, insisting) if gate is not None)
        self._listening = (*self._listening, *self._insisting)
        self._policy = PublishPolicy.of(defaults.retry_policy)
        #: The same, if anything is tried again at all.
        self._own_policy = self._policy if defaults.retry else None
        self._haste = None if defaults.within is None else Haste(defaults.within)
        #: To the broker: some messages, and how to try again (None: not at all).
        self._publish = self._try_publishing if self._haste is None else self._hasten
        #: Task → the options and the route that its form was made with, and the form.
        self._forms: dict[str, _Kept] = {}

    def send(self, call: Call) -> Message:
        """Publish one call. Raises kombu's `OperationalError` when the retry policy is used up (`[call.8]`),
        `EncodeError` for arguments that the serializer refuses, ValueError for numbers out of range (`[call.6]`)."""
        publication = self._formed(call)
        if publication is not None:
            self._publish((publication,), self._own_policy)
            return publication.message
        sketch = self.lay_out(call)
        self.tell(sketch)
        message = self._hand_over(sketch)
        self.told(sketch)
        return message

    def told(self, *sketches: Sketch) -> None:
        """Receivers hear of a message that was sent."""
        if self._observer is not None and any(gate.receivers for gate in self._after):
            self._observer.published(*sketches)

    def _hand_over(self, sketch: Sketch) -> Message:
        """To the broker, with the call's retry policy; or another way, if the call or somebody else says so."""
        options, carrier = sketch.options, self._carrier
        if carrier is not None and (
            any(gate.receivers for gate in self._insisting) or any(options.get(name) is not None for name in _BROUGHT)
        ):
            carrier.carry(sketch, *self._payload(sketch))
            return self.encode(sketch).message
        publication = self.encode(sketch)
        self._publish((publication,), self._policy_of(sketch) if options.get("retry", self._defaults.retry) else None)
        return publication.message

    def _payload(self, sketch: Sketch) -> tuple[Any, dict[str, Any]]:
        """Body and headers as they travel in the protocol that the settings choose."""
        _make_own(sketch)
        if self._defaults.protocol == 1:
            body = wire.body_v1(sketch.headers, *sketch.body, self._defaults.utc)
            return body, dict(sketch.options.get("headers") or {})
        return sketch.body, sketch.headers

    def _formed(self, call: Call) -> Publication | None:
        """The plain case: positional arguments, no options beyond the task's own, nobody listening, no parent.

        Such messages of one task differ only in id and arguments, so they are filled into a form. None for any other.
        """
        if call.kwargs or self._running.top is not None or type(call.args) is not tuple:
            return None
        kept, task = self._forms.get(call.name), call.task
        for gate in self._listening:
            if gate.receivers:
                return None
        if (
            kept is None
            or kept[0] != call.options
            or kept[1] is not self._router.remembered.get(call.name)
            or (task is not None and kept[2].kin.ignore_result is not bool(task.ignore_result))
        ):
            if not _SILENT.issuperset(call.options) or not self._is_formal(call.options):
                return None
            kept = self._make_form(call)
            if kept is None:
                return None
        _, (route, _), form = kept
        _, _, body = self._encode_call((call.args, call.kwargs, _NO_EMBED), "json")
        message = Message.formed(form, new_id(), body, self._text(call.args), self._address.text)
        return Publication(message, route)

    def _is_formal(self, options: Mapping[str, Any]) -> bool:
        """Whether calls with these options are JSON of protocol 2, not compressed."""
        get, defaults = options.get, self._defaults
        serializer = get("serializer") or defaults.serializer
        return serializer == "json" and defaults.protocol == 2 and not get("compression", defaults.compression)

    def _make_form(self, call: Call) -> _Kept | None:
        """Lay out a message of this kind with marks where the next ones differ. None where routes depend on more."""
        task_id, argsrepr, reply_to, tag, body = (new_id() for _ in range(5))
        sketch = self.lay_out(Call(call.name, (), {}, {**call.options, "task_id": task_id}, call.task))
        known = self._router.remembered.get(call.name)
        if known is None or known[1]:
            return None
        sketch.headers["argsrepr"] = argsrepr
        sketch.properties["reply_to"] = reply_to
        kin = self.encode(sketch, body.encode()).message
        kept = (dict(call.options), known, Form(kin, task_id, body.encode(), argsrepr, reply_to, tag))
        self._forms[call.name] = kept
        return kept

    def gather(self, call: Call, gathered: Gathered) -> Message:
        """Everything of `send` but the sending: for messages that are published when a run is settled.

        Where somebody insists on carrying what is published, it is sent at once, as ever.
        """
        call.options.pop("producer", None)
        if self._carrier is not None and any(gate.receivers for gate in self._insisting):
            return self.send(call)
        sketch = self.lay_out(call)
        self.tell(sketch)
        # What follows from a run crosses to the main process as an envelope: that has task and id in protocol 2 alone.
        publication = self.encode(sketch, protocol=2 if gathered.relayed else None)
        gathered.publications.append(publication)
        if gathered.relayed:  # it is sent by another process, which nobody here will hear of
            self.told(sketch)
        elif self._after:
            gathered.untold.append(sketch)
        return publication.message

    def send_gathered(self, gathered: Gathered) -> None:
        """Publish what a caller has gathered, then tell of it. Raises as `publish` does."""
        self.publish(gathered.publications)
        if gathered.untold:
            self.told(*gathered.untold)

    def tell(self, sketch: Sketch) -> None:
        """Receivers hear of a message that is about to be sent, and may change it."""
        for gate in self._before:
            if gate.receivers and self._observer is not None:
                _make_own(sketch)
                sketch.retry_policy = {**self._defaults.retry_policy, **(sketch.options.get("retry_policy") or {})}
                self._observer.publishing(sketch)
                break

    def lay_out(self, call: Call) -> Sketch:
        """Ids and parents, route, headers, body and properties of a call."""
        args, kwargs = call.args, call.kwargs
        options = call.options
        if options:
            check_call(options)
        routed = options.get("route_name") or call.name  # a map goes where its task would
        known = self._router.remembered.get(routed)
        if known is not None and not known[1] and DESTINATION.isdisjoint(options):
            route = known[0]
        else:
            route, options = self._router.route_for(routed, options, args, kwargs, call.task)
        task_id = options.get("task_id") or new_id()
        if type(task_id) is not str or type(call.name) is not str or not call.name:
            task_id = _checked(call.name, task_id)
        properties: dict[str, Any] = {"correlation_id": task_id, "reply_to": self._address.text}
        root_id, parent_id, priority = task_id, None, self._defaults.priority
        if self._running.top is not None and (parent := self._parent()) is not None:
            root_id, parent_id = parent.root_id or parent.id, parent.id
            if self._defaults.inherit_parent_priority:
                priority = (parent.delivery_info or {}).get("priority", priority)
        headers = headers_v2(
            call.name,
            task_id,
            options=options,
            root_id=root_id,
            parent_id=parent_id,
            argsrepr=self._text(args),
            kwargsrepr="{}" if not kwargs else self._represent(kwargs),
            origin=self._defaults.origin,
        )
        if call.task is not None and "ignore_result" not in call.options:  # else the call decides, or the worker's task
            headers["ignore_result"] = bool(call.task.ignore_result)
        if options and not _SILENT.issuperset(options):
            self._lay_out_options(options, headers, properties)
            priority = options.get("priority", priority)
        if priority is not None:
            properties["priority"] = priority
        get = options.get
        embed = {
            "callbacks": listed(link) if (link := get("link")) else None,
            "errbacks": listed(link) if (link := get("link_error")) else None,
            "chain": get("chain"),
            "chord": get("chord"),
        }
        return Sketch(call, route, options, (args, kwargs, embed), headers, properties)

    def _text(self, args: Any) -> str:
        """The safe repr of the arguments (`[wire.6]`): plain and short ones need no care."""
        if _SCALARS.issuperset(map(type, args)):
            text = repr(args)
            if len(text) <= _SHORT and "\\" not in text and '"' not in text:
                return text
        return self._represent(args)

    def _lay_out_options(self, options: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """What a call's options change in headers and properties."""
        get = options.get
        if "countdown" in options or "eta" in options:
            headers["eta"] = as_eta(options, self._now)
        if get("expires") is not None:
            headers["expires"] = self._expires(options, properties)
        for name in ("root_id", "parent_id", "origin"):
            if get(name):
                headers[name] = options[name]
        for name in ("argsrepr", "kwargsrepr"):
            if get(name) is not None:
                headers[name] = options[name]
        for name in ("correlation_id", "reply_to"):
            if get(name) is not None:
                properties[name] = options[name]
        if not _NOT_PROPERTIES.issuperset(options):
            stamps = get("stamped_headers") or ()
            properties |= {k: v for k, v in options.items() if k not in _NOT_PROPERTIES and k not in stamps}
        custom = get("headers")
        if custom:
            headers.update(custom)

    def encode(self, sketch: Sketch, ready: bytes | None = None, protocol: int | None = None) -> Publication:
        """A laid out message becomes bytes; `ready`: its body, where that is known; `protocol`: not the settings'."""
        get = sketch.options.get
        defaults, headers, properties, route = self._defaults, sketch.headers, sketch.properties, sketch.route
        serializer = get("serializer") or defaults.serializer
        message_headers = headers
        if (protocol or defaults.protocol) == 1:
            payload, message_headers = self._payload(sketch)
            content_type, content_encoding, body = self._encode(payload, serializer)
        else:
            content_type, content_encoding, body = self._encode_call(sketch.body, serializer)
        if ready is not None:
            body = ready
        method = get("compression", defaults.compression)
        if method:
            body, message_headers["compression"] = self._compress(body, method)
        mode = get("delivery_mode")
        properties["delivery_mode"] = defaults.delivery_mode if mode is None else 1 if mode in (1, "transient") else 2
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

    def publish(self, publications: Sequence[Publication]) -> None:
        """Hand prepared messages to the broker, trying again as the settings say."""
        self._publish(publications, self._own_policy)

    def _hasten(self, publications: Sequence[Publication], policy: PublishPolicy | None) -> None:
        assert self._haste is not None
        self._haste.do(lambda: self._try_publishing(publications, policy), f"publishing {_ids(publications)}")

    def _try_publishing(self, publications: Sequence[Publication], policy: PublishPolicy | None) -> None:
        begin = self._clock.monotonic()
        try:
            self._broker.publish(publications)
        except Exception as exc:
            if policy is None or not _is_operational(exc):
                raise
            self._try_again(publications, policy, exc, begin)

    def _policy_of(self, sketch: Sketch) -> PublishPolicy:
        if sketch.retry_policy is not None:
            return PublishPolicy.of(sketch.retry_policy)
        own = sketch.options.get("retry_policy")
        return PublishPolicy.of(self._defaults.retry_policy, own) if own else self._policy

    def _try_again(
        self, publications: Sequence[Publication], policy: PublishPolicy, failure: Exception, begin: float
    ) -> None:
        """As the policy says. The ids stay the same, so a repeat can be told.

        A server that is silent costs each try its whole timeout: the policy of the settings is given up once
        `_PATIENCE` seconds have passed, so that a caller waits about ten in all; one that the call brings is kept to.
        Either is given up when the caller has gone.
        """
        patience = inf if policy is not self._policy else _PATIENCE
        if self._haste is not None:
            patience = min(patience, self._haste.seconds)
        for wait in policy.waits():
            if policy.retry_errors is not None and not isinstance(failure, policy.retry_errors):
                break
            if self._clock.monotonic() - begin + wait > patience:
                break
            logger.debug("publishing %s failed (%s); trying again in %.1f s", _ids(publications), failure, wait)
            time.sleep(wait)
            try:
                self._broker.publish(publications)
                return
            except Exception as exc:
                if not _is_operational(exc):
                    raise
                failure = exc
        raise failure

    def _expires(self, options: Mapping[str, Any], properties: dict[str, Any]) -> str:
        """ISO text for the header; the seconds left go into `properties["expiration"]` (`[call.5]`)."""
        text, left = as_expiry(options["expires"], self._now)
        if left < 0:
            logger.warning(
                "%s expires in the past (%s): it will be revoked, not run", options.get("task_id") or "task", text
            )
        properties["expiration"] = max(left, 0)
        return text

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.time(), self._defaults.timezone)


def _ids(publications: Sequence[Publication]) -> str:
    """Of some messages, for people."""
    ids = [publication.message.id for publication in publications]
    return " ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _make_own(sketch: Sketch) -> None:
    """For whoever may change the body, or write it in a way of their own: what messages share is copied."""
    embed = sketch.body[2]
    if type(embed.get("chord")) is Repeated:
        embed["chord"] = dict(embed["chord"])


def _checked(name: Any, task_id: Any) -> str:
    """Raises TypeError for a name that no task can have; an id of another type is sent as its text."""
    if not name or not isinstance(name, str):
        raise TypeError(f"expected the name of a task as text, got {name!r}")
    return str(task_id)


def _is_operational(exc: BaseException) -> bool:
    """kombu's `OperationalError`, asked without importing kombu where nobody has raised it."""
    return any(
        kind.__name__ == "OperationalError" and kind.__module__ == "kombu.exceptions" for kind in type(exc).__mro__
    )
