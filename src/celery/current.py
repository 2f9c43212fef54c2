"""Domain. Which task runs here, now, and its request: stacks that belong to one thread, greenlet or asyncio task.

A stack is a chain of nodes in a context variable, never a list: an asyncio task inherits the chain of whoever made it,
and what either pushes later stays invisible to the other.
"""

from __future__ import annotations

from contextvars import ContextVar
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery.app.task import Task
    from celery.result import ResultBase

__all__ = [
    "Context", "LocalStack", "current_request", "get_current_task", "get_current_worker_task", "task_stack",
]  # fmt: skip

T = TypeVar("T")


class LocalStack(Generic[T]):
    """A stack of which each thread, greenlet and asyncio task has its own ([task.13], [util.8])."""

    def __init__(self) -> None:
        # A node is [what was pushed, the node below, the token that takes the node off again]. A list and no class:
        # this is done twice for every run of a task.
        self._top: ContextVar[list[Any] | None] = ContextVar("celery.LocalStack", default=None)
        self._get = self._top.get
        self._set = self._top.set

    def push(self, obj: T) -> None:
        node: list[Any] = [obj, self._get(), None]
        node[2] = self._set(node)

    def pop(self) -> T | None:
        """Take off what was pushed last and return it; None if the stack is empty."""
        node = self._get()
        if node is None:
            return None
        try:
            # Taking the value back out keeps the context from holding variables of apps that are long gone.
            self._top.reset(node[2])
        except ValueError:  # pushed in another context: an asyncio task took over its maker's chain
            self._set(node[1])
        found: T = node[0]
        return found

    @property
    def top(self) -> T | None:
        node = self._get()
        return None if node is None else node[0]

    @property
    def stack(self) -> list[T]:
        """What was pushed, oldest first. A copy."""
        return list(self)[::-1]

    def __iter__(self) -> Iterator[T]:
        """Newest first."""
        node = self._get()
        while node is not None:
            yield node[0]
            node = node[1]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        # An empty stack is still a stack: `task.request_stack or …` must not replace it.
        return True


#: Tasks that are being run here, by a worker or called directly.
task_stack: LocalStack[Task[..., Any]] = LocalStack()


def get_current_task() -> Task[..., Any] | None:
    """The task that is being run here, or None."""
    return task_stack.top


def get_current_worker_task() -> Task[..., Any] | None:
    """The innermost task here that a worker runs; those called directly inside it are passed over ([call.20])."""
    node = task_stack._get()
    while node is not None:
        task: Task[..., Any] = node[0]
        if not task.request.called_directly:
            return task
        node = node[1]
    return None


def current_request() -> Context | None:
    """The request of the task that a worker runs here, or None."""
    if task_stack._get() is None:  # outside of tasks, that is on most calls
        return None
    task = get_current_worker_task()
    return None if task is None else task.request


#: Headers of the protocol that have no attribute of their own here, yet are none of the user's.
_PROTOCOL = frozenset({"argsrepr", "compression", "kwargsrepr", "lang", "task"})
#: RabbitMQ's history of a message. Sent back, it would make the broker see a loop and drop the message ([task.18]).
_DEATHS = ("x-death", "x-first-death-", "x-last-death-")


class _Limit:
    """One of the two time limits, read from `timelimit`; an own value, once set, wins ([task.17])."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, request: Context | None, owner: type[Context] | None = None) -> Any:
        limits = None if request is None else request.timelimit
        return None if limits is None else limits[self.index]


class _Headers:
    """The user's own headers: whatever the message says that is not the protocol's ([task.15])."""

    def __get__(self, request: Context | None, owner: type[Context] | None = None) -> dict[str, Any] | None:
        if request is None:
            return None
        known = type(request)
        said = islice(request.__dict__.items(), request._said)
        custom = {key: value for key, value in said if key not in _PROTOCOL and not hasattr(known, key)}
        request.__dict__["headers"] = custom or None
        return custom or None


class Context:
    """What the message of a run said; attributes that it did not say have the values below ([task.14]).

    Any header of the message is an attribute, and third parties add their own. `task_id`, `task_name` are not here:
    `id` and `task` are their names.
    """

    _children: list[ResultBase] | None = None  # made when asked for
    _protected = 0
    #: Messages that go out when the run is settled (`celery.producer.Gathered`), or () while there are none.
    #: None: nobody settles this run.
    _gathered: Any = None
    #: Members that this run has added to its chord, of which the chord is told when the run is settled.
    _added = 0
    #: How many of the own attributes the message said; those set later are nobody's headers.
    _said = 0
    args: Any = None
    callbacks: Any = None
    called_directly: bool = True
    chain: Any = None
    chord: Any = None
    correlation_id: str | None = None
    delivery_info: dict[str, Any] | None = None
    errbacks: Any = None
    eta: str | None = None
    expires: Any = None
    group: str | None = None
    group_index: int | None = None
    hostname: str | None = None
    id: str | None = None
    ignore_result: bool = False
    is_eager: bool = False
    kwargs: Any = None
    logfile: str | None = None
    loglevel: int | None = None
    origin: str | None = None
    override_max_retries: int | None = None
    parent_id: str | None = None
    properties: dict[str, Any] | None = None
    retries: int = 0
    reply_to: str | None = None
    replaced_task_nesting: int = 0
    root_id: str | None = None
    shadow: str | None = None
    taskset: str | None = None
    timelimit: Any = None
    utc: bool | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None

    # Not properties: an entry of the same name in the instance comes first.
    headers = _Headers()
    time_limit = _Limit(0)
    soft_time_limit = _Limit(1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what `dict` takes."""
        self.__dict__ = own = dict(*args, **kwargs)
        own["_said"] = len(own)
        limits = own.get("timelimit")
        if own.get("headers", own) is None or not (limits is None or (type(limits) is list and len(limits) == 2)):
            self._tidy()

    @classmethod
    def adopt(cls, fields: dict[str, Any]) -> Context:
        """The request of these very fields: nothing is copied, so they are nobody else's from now on."""
        self = cls.__new__(cls)
        if fields.get("headers", fields) is None:
            del fields["headers"]
        fields["_said"] = len(fields)
        self.__dict__ = fields
        return self

    def _tidy(self) -> None:
        own = self.__dict__
        limits = own.get("timelimit")
        if limits is not None and not (isinstance(limits, (list, tuple)) and len(limits) == 2):
            own["timelimit"] = None
        if own.get("headers", own) is None:
            # Null is how a message says that there are none; custom ones then stand among the rest.
            del own["headers"]
            own["_said"] = own.get("_said", 0) - 1

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes, as `dict.update` takes them."""
        changes = dict(*args, **kwargs)
        if "timelimit" in changes:
            self.__dict__.pop("time_limit", None)
            self.__dict__.pop("soft_time_limit", None)
        self.__dict__.update(changes)
        self._tidy()

    def clear(self) -> None:
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute called `key`, or `default`."""
        return getattr(self, key, default)

    @property
    def children(self) -> list[ResultBase]:
        """Results of the tasks that this run has sent: a fresh list for each request."""
        if self._children is None:
            self._children = []
        return self._children

    def as_execution_options(self) -> dict[str, Any]:
        """Options of `apply_async` that send this very call again."""
        limits = self.timelimit or (None, None)
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": limits[1],
            "time_limit": limits[0],
            "headers": _without_deaths(self.headers or {}),
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
        }

    def __repr__(self) -> str:
        return f"<Context: {self.__dict__!r}>"


def _without_deaths(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in headers.items() if not key.lower().startswith(_DEATHS)}
