"""Compatibility. Publishing through a kombu producer: a call's own, or ours where somebody replaced its methods.

Our own publishing needs no kombu. But monitoring packages put wrappers in the place of `kombu.Producer.publish` and
`_publish`, and calls may bring a `producer=` or `connection=`; both get the message in the shape that Celery gives it:
`publish` by keywords, `_publish` by positions.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery
    from celery.producer import Sketch

__all__ = ["KombuSeam"]


#: Methods of `AMQP` that subclasses override to change publishing.
_HOOKS = ("as_task_v1", "as_task_v2", "create_task_message", "send_task_message", "task_protocols")
#: Options of a call that belong to its message, and those that belong to sending it.
_TO_MAKE = (
    "countdown", "eta", "expires", "retries", "group_id", "chord", "chain", "time_limit", "soft_time_limit",
    "stamped_headers", "replaced_task_nesting",
)  # fmt: skip
_TO_SEND = frozenset(
    """compression confirm_timeout connection declare delivery_mode exchange exchange_type headers priority queue
    retry retry_policy routing_key serializer timeout""".split()
)


class KombuSeam:
    """Carries messages through kombu. One for each app; thread-safe."""

    def __init__(self, app: Celery, own: type[Any], publish: Callable[[Any], None]) -> None:
        """`own`: the class of `app.amqp` that changes nothing."""
        self._app = app
        #: True: a subclass of `AMQP` changes how messages are made or sent (`[util.15]`), so all go this way.
        self.receivers = any(getattr(type(app.amqp), name) is not getattr(own, name) for name in _HOOKS)
        self._publish = publish
        self._local = threading.local()

    def carry(self, sketch: Sketch, body: Any, headers: dict[str, Any]) -> None:
        """Publish a laid out message. Raises kombu's `OperationalError` after the retries of its policy."""
        if self.receivers:
            self._carry_by_hand(sketch)
        else:
            self.publish(sketch, body, headers)

    def _carry_by_hand(self, sketch: Sketch) -> None:
        """As a subclass of `AMQP` has it: it makes the message, or sends it, or both."""
        amqp, options, headers = self._app.amqp, {**sketch.options, **sketch.call.options}, sketch.headers
        producer = options.pop("producer", None) or options.pop("publisher", None) or self._own_producer()
        names = ("root_id", "parent_id", "origin", "ignore_result", "argsrepr", "kwargsrepr", "group_index", "shadow")
        given = {name: headers[name] for name in names} | {"reply_to": sketch.properties.get("reply_to")}
        given |= {name: options[name] for name in _TO_MAKE if name in options}
        given |= {"callbacks": sketch.body[2]["callbacks"], "errbacks": sketch.body[2]["errbacks"]}
        args, kwargs = sketch.call.args, sketch.call.kwargs
        message = amqp.create_task_message(headers["id"], sketch.call.name, args, kwargs, **given)
        kept = {name: value for name, value in options.items() if name in _TO_SEND}
        amqp.send_task_message(producer, sketch.call.name, message, **kept)

    def publish(self, sketch: Sketch, body: Any, headers: dict[str, Any]) -> None:
        """Call `publish` of the call's producer or ours, by keywords. Raises as `carry`."""
        get = sketch.options.get
        producer: Any = get("producer") or get("publisher")
        amqp, conf = self._app.amqp, self._app.conf
        policy = {**(conf.task_publish_retry_policy or {}), **(sketch.retry_policy or get("retry_policy") or {})}
        with ExitStack() as stack:
            if producer is None and get("connection") is not None:
                producer = stack.enter_context(amqp.Producer(get("connection"), auto_declare=False))
            queue = sketch.route.queue
            declared = [] if queue is None or not queue.declare else [amqp.kombu_queue(queue)]
            mode = get("delivery_mode")
            (producer or self._own_producer()).publish(
                body,
                exchange=sketch.route.exchange,
                routing_key=sketch.route.routing_key,
                serializer=get("serializer") or conf.task_serializer,
                compression=get("compression") or conf.task_compression,
                retry=get("retry", conf.task_publish_retry),
                retry_policy=policy,
                delivery_mode=conf.task_default_delivery_mode if mode is None else mode,
                declare=[*declared, *(get("declare") or ())],
                headers=headers,
                timeout=get("timeout"),
                confirm_timeout=get("confirm_timeout"),
                **sketch.properties,
            )

    def _own_producer(self) -> Any:
        """This thread's producer over the app's broker; made anew in a forked child."""
        found, pid = getattr(self._local, "producer", None), os.getpid()
        if found is None or found[0] != pid:
            line = self._app.assembly.kombu_connection(publish=self._publish)
            found = self._local.producer = (pid, self._app.amqp.Producer(line, auto_declare=False))
        return found[1]
