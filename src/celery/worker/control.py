"""Application. The panel: every command that a worker obeys, or answers, and what is said of it (`[control.37]`).

The commands themselves are plain functions beside this module: looks in `looking`, orders in `ordering`. Each is called
as `command(state, **arguments)` in the thread that hears commands; what it returns is the reply, None sends none.
"""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from celery.utils.serialization import strtobool
from celery.worker import looking, ordering

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("Panel", "control_command", "controller_info_t", "inspect_command")


class controller_info_t(NamedTuple):  # noqa: N801 - its public name
    """What is known of a command beside its function."""

    alias: str | None
    #: "control" (it changes something) or "inspect" (it only looks).
    type: str
    #: Whether `celery inspect` and `celery control` list it.
    visible: bool
    #: Seconds that a caller waits for replies who says nothing else.
    default_timeout: float
    help: str
    #: The arguments as the command line shows them.
    signature: str | None
    #: Name and type of each argument, in the order of the command line.
    args: Sequence[tuple[str, Any]] | None
    #: Name of the argument that takes all that is left on the command line.
    variadic: str | None


class Panel(UserDict[str, Any]):
    """The commands by their names. One for all workers of a process, like the class attributes that it consists of."""

    #: Name or alias → function.
    data: ClassVar[dict[str, Callable[..., Any]]] = {}  # type: ignore[misc]
    #: Name → what is known of it.
    meta: ClassVar[dict[str, controller_info_t]] = {}

    @classmethod
    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a command of a function: as a decorator, with or without arguments (see `_register`)."""
        return cls._register(**kwargs)(*args) if args else cls._register(**kwargs)

    @classmethod
    def _register(
        cls,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",
        visible: bool = True,
        default_timeout: float = 1.0,
        help: str | None = None,
        signature: str | None = None,
        args: Sequence[tuple[str, Any]] | None = None,
        variadic: str | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            known_as = name or function.__name__
            text = help or (function.__doc__ or "").strip().partition("\n")[0]
            cls.data[known_as] = function
            cls.meta[known_as] = controller_info_t(
                alias, type, visible, default_timeout, text, signature, args, variadic
            )
            if alias:
                cls.data[alias] = function
            return function

        return register


def control_command(**kwargs: Any) -> Any:
    """Make a function a command that changes something; the keywords are those of `Panel.register`."""
    return Panel.register(type="control", **kwargs)


def inspect_command(**kwargs: Any) -> Any:
    """Make a function a command that only looks."""
    return Panel.register(type="inspect", **kwargs)


# What only looks.
report = inspect_command()(looking.report)
conf = inspect_command(alias="dump_conf", signature="[include_defaults=False]", args=[("with_defaults", strtobool)])(
    looking.conf
)
query_task = inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")(looking.query_task)
clock = inspect_command()(looking.clock)
hello = inspect_command(visible=False)(looking.hello)
ping = inspect_command(default_timeout=0.2)(looking.ping)
stats = inspect_command()(looking.stats)
scheduled = inspect_command(alias="dump_schedule")(looking.scheduled)
reserved = inspect_command(alias="dump_reserved")(looking.reserved)
active = inspect_command(alias="dump_active")(looking.active)
revoked = inspect_command(alias="dump_revoked")(looking.revoked)
registered = inspect_command(alias="dump_tasks", variadic="taskinfoitems", signature="[attr1 [attr2 [... [attrN]]]]")(
    looking.registered
)
active_queues = inspect_command()(looking.active_queues)
memsample = inspect_command()(looking.memsample)
memdump = inspect_command(args=[("samples", int)], signature="[n_samples=10]")(looking.memdump)
objgraph = inspect_command(
    default_timeout=60.0,
    args=[("type", str), ("num", int), ("max_depth", int)],
    signature="[object_type=Request] [num=200 [max_depth=10]]",
)(looking.objgraph)

# What changes something.
revoke = control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(ordering.revoke)
revoke_by_stamped_headers = control_command(
    variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]"
)(ordering.revoke_by_stamped_headers)
terminate = control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")(
    ordering.terminate
)
rate_limit = control_command(
    args=[("task_name", str), ("rate_limit", str)], signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>"
)(ordering.rate_limit)
time_limit = control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)], signature="<task_name> <soft_secs> [hard_secs]"
)(ordering.time_limit)
election = control_command()(ordering.election)
enable_events = control_command()(ordering.enable_events)
disable_events = control_command()(ordering.disable_events)
heartbeat = control_command()(ordering.heartbeat)
pool_grow = control_command(args=[("n", int)], signature="[N=1]")(ordering.pool_grow)
pool_shrink = control_command(args=[("n", int)], signature="[N=1]")(ordering.pool_shrink)
pool_restart = control_command()(ordering.pool_restart)
autoscale = control_command(args=[("max", int), ("min", int)], signature="[max [min]]")(ordering.autoscale)
shutdown = control_command()(ordering.shutdown)
add_consumer = control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)(ordering.add_consumer)
cancel_consumer = control_command(args=[("queue", str)], signature="<queue>")(ordering.cancel_consumer)
