"""Application. The call of a task as a value: a dict, so that every serializer carries it ([canvas.1], [wire.10])."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from celery import _state
from celery.canvas.planning import Sending
from celery.canvas.stamping import added, stamped
from celery.producer import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.canvas.planning import Plan
    from celery.canvas.stamping import StampingVisitor
    from celery.result import AsyncResult, EagerResult

__all__ = ["Signature", "as_list", "maybe_signature", "signature"]

R = TypeVar("R", covariant=True)

#: Once they are among a signature's options, merging does not change them ([canvas.7]).
_FIXED = frozenset({"group_id", "stamped_headers"})


class Signature(dict[str, Any], Generic[R]):
    """A task's name with arguments and options, to be called here or elsewhere, now or later.

    `task` is a name, a task, or a dict that was a signature before it travelled. Arguments given at the call come
    before those kept here; keyword arguments and options are merged, the call's winning. An `immutable` one takes no
    further arguments.
    """

    #: Kinds that `from_dict` tells apart by `subtask_type`.
    TYPES: ClassVar[dict[str, type[Signature[Any]]]] = {}
    _app: Celery | None = None
    _type: Task[..., Any] | None = None

    def __init__(
        self,
        task: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Celery | None = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            super().__init__(task)  # it has been a signature: kept as it came
            return
        if isinstance(task, str) or task is None:
            self._type = type
        else:
            self._type = task
            task = task.name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=kwargs or {},
            options={**(options or {}), **ex},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[type[Signature[Any]]], type[Signature[Any]]]:
        """Class decorator: `from_dict` makes this class of dicts with that `subtask_type` ([canvas.3])."""

        def register(subclass: type[Signature[Any]]) -> type[Signature[Any]]:
            Signature.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Signature[Any]:
        """A signature from its dict. Raises KeyError for a `subtask_type` that is not registered."""
        kind = d.get("subtask_type")
        target = cls.TYPES[kind] if kind else Signature
        if target is cls or target is Signature:
            return target(d, app=app)
        return target.from_dict(d, app=app)

    # -- calling -----------------------------------------------------------------------------------------------------

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Send it, with these arguments too."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send it, with what `Task.apply_async` takes; by its name if the task is unknown here ([canvas.4])."""
        merged_args, merged_kwargs, merged = self._merge(args, kwargs, options)
        if route_name is not None:
            merged["route_name"] = route_name
        task = self._known_task()
        if task is None:
            return self.app.send_task(self.task, merged_args, merged_kwargs, **merged)
        return task.apply_async(merged_args, merged_kwargs, **merged)

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult[R]:
        """Run it here and now, with what `Task.apply` takes. Raises `NotRegistered` if the task is unknown here."""
        merged_args, merged_kwargs, merged = self._merge(args, kwargs, options)
        return self.type.apply(merged_args, merged_kwargs, **merged)

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> R:
        """Call the task's function, here. Raises `NotRegistered` if the task is unknown here."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs)
        return cast("R", self.type(*args, **kwargs))

    def __invert__(self) -> R:
        """`~sig`: send it and wait for the result."""
        return self.apply_async().get()

    def __or__(self, other: Any) -> Any:
        """`a | b`: call `b` with the result of `a` ([canvas.25], [combo])."""
        return self._join(self, other)

    #: A dict's own `|=` would merge the keys of two calls into nonsense ([combo.65]).
    __ior__ = __or__

    def __ror__(self, other: Any) -> Any:
        return self._join(other, self)

    @staticmethod
    def _join(left: Any, right: Any) -> Any:
        """What `|` does; `celery.canvas.pipes`, which knows all kinds, puts its own here."""
        return NotImplemented

    # -- as a part of a plan -----------------------------------------------------------------------------------------

    def _lower(self, plan: Plan, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Add to the plan what starting this means. Returns the result; nothing is sent, nor this signature changed."""
        task_id = options.get("task_id") or self.options.get("task_id") or new_id()
        options["task_id"] = task_id
        plan.sendings.append(Sending(self, args, kwargs, options))
        return self.AsyncResult(task_id)

    def _completions(self) -> int:
        """How many members of a chord's header this is to its barrier ([canvas.52])."""
        return 1

    def _group_id(self) -> str | None:
        """The group that the last of its tasks belongs to already."""
        return self.options.get("group_id")

    # -- variations --------------------------------------------------------------------------------------------------

    def _merge(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Arguments and options of a call with these more ([canvas.5], [canvas.6]); `force`: even if immutable."""
        own = self.options
        merged = dict(own)
        if options:
            fixed = _FIXED.union(own.get("stamped_headers") or ())
            merged.update(
                (key, value)
                for key, value in options.items()
                if value is not None and not (key in own and key in fixed)
            )
        if self.immutable and not force:
            return tuple(self.args), dict(self.kwargs), merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any
    ) -> Signature[R]:
        """A copy with these arguments and options too; changing its options leaves this one alone ([canvas.9])."""
        merged_args, merged_kwargs, merged = self._merge(args, kwargs, opts)
        return self._copy(args=merged_args, kwargs=merged_kwargs, options=deepcopy(merged) if merged else {})

    partial = clone

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Signature[R]:
        """A copy in which the parts that are given stand in place of the old ones ([canvas.10])."""
        given = {"args": args, "kwargs": kwargs, "options": options}
        return self.clone()._copy(**{part: value for part, value in given.items() if value is not None})

    @classmethod
    def _revived(cls, d: Mapping[str, Any], kwargs: dict[str, Any], app: Celery | None) -> Any:
        """One of this kind with the parts of `d`, but with these kwargs. Parts that are missing are empty."""
        made = cls.__new__(cls)
        blank: dict[str, Any] = {"task": None, "args": (), "kwargs": {}, "options": {}}
        blank |= {"subtask_type": None, "immutable": False}
        dict.update(made, {**blank, **d, "kwargs": kwargs})
        made._app = app
        return made

    def _copy(self, **parts: Any) -> Signature[R]:
        if type(self) is Signature and self.get("subtask_type") is None:
            copied = Signature.__new__(Signature)  # what large canvases are made of: no detours
            dict.update(copied, self)
            dict.update(copied, parts)
            copied._app = self._app
        else:
            copied = self.from_dict({**self, **parts}, app=self._app)
        copied._type = self._type
        return copied

    def set(self, immutable: bool | None = None, **options: Any) -> Signature[R]:
        """Add these options. Returns this very signature ([canvas.8])."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self.immutable = immutable

    # -- ids ---------------------------------------------------------------------------------------------------------

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> AsyncResult[R]:
        """Choose the id of the call before it is sent; returns its result. A second call keeps the id ([canvas.11])."""
        options = self.options
        task_id = options.setdefault("task_id", _id or new_id())
        given = {
            "root_id": root_id,
            "parent_id": parent_id,
            "group_id": group_id,
            "chord": chord,
            "group_index": group_index,
        }
        options.update((name, value) for name, value in given.items() if value is not None)
        options.setdefault("reply_to", self.app.assembly.address.text)
        return self.AsyncResult(task_id)

    _freeze = freeze

    @property
    def id(self) -> str | None:
        return self.options.get("task_id")

    @property
    def parent_id(self) -> str | None:
        return self.options.get("parent_id")

    @property
    def root_id(self) -> str | None:
        return self.options.get("root_id")

    def election(self) -> Any:
        """Have the workers elect one of them, which sends this call; returns its result ([canvas.18])."""
        task_id = self.options.get("task_id") or new_id()
        chosen = self.clone(task_id=task_id)
        self.app.control.election(task_id, "task", chosen)
        return self.AsyncResult(task_id)

    # -- links -------------------------------------------------------------------------------------------------------

    def link(self, callback: Any) -> Any:
        """Have `callback` sent with the result once the task has succeeded. Returns the callback ([canvas.12])."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Have `errback` called if the task fails. Returns the errback ([canvas.12])."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Signature[R]:
        """`link_error` that returns this signature, to go on from ([canvas.13])."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add to an option that is a list, unless it is there already. Returns `value`."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add one value, or all of a list."""
        self._list_option(key).extend(as_list(value))

    def _list_option(self, key: str) -> list[Any]:
        items = self.options.get(key)
        if not isinstance(items, list):
            items = self.options[key] = as_list(items)
        return items

    def flatten_links(self) -> list[Signature[Any]]:
        """This signature, its callbacks, their callbacks … ([canvas.14])."""
        links = [maybe_signature(link, app=self._app) for link in as_list(self.options.get("link"))]
        return [self, *(nested for link in links for nested in link.flatten_links())]

    # -- stamps ------------------------------------------------------------------------------------------------------

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp the call and its links with these headers and what the visitor chooses ([stamp.1]). Returns this.

        To be done before it is sent. `append_stamps`: values of a stamp that is there already are kept beside the new.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        if visitor is not None:
            headers = added(headers, visitor.on_signature(self, **headers))
        self.options.update(stamped(self.options, headers, append_stamps))
        return self

    def stamp_links(self, visitor: StampingVisitor | None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp the callbacks and errbacks that it has by now."""
        for key, hook in (("link", "on_callback"), ("link_error", "on_errback")):
            if not self.options.get(key):
                continue
            links = self.options[key] = [maybe_signature(link, app=self._app) for link in as_list(self.options[key])]
            for link in links:
                found = added(headers, getattr(visitor, hook)(link, **headers)) if visitor is not None else headers
                link.stamp(visitor, append_stamps, **found)

    # -- the task ----------------------------------------------------------------------------------------------------

    @property
    def app(self) -> Celery:
        return self._app if self._app is not None else _state.get_current_app()

    @property
    def type(self) -> Task[..., Any]:
        """The task itself. Raises `NotRegistered` if it is unknown here."""
        if self._type is None:
            self._type = self.app.tasks[self.task]
        return self._type

    def _known_task(self) -> Task[..., Any] | None:
        if self._type is None:
            self._type = self.app.tasks.get(self.task)
        return self._type

    @property
    def AsyncResult(self) -> Callable[..., AsyncResult[R]]:  # noqa: N802 - its public name
        """Makes results of this task from ids."""
        task = self._known_task()
        return self.app.AsyncResult if task is None else task.AsyncResult

    @property
    def name(self) -> str:
        return self.task

    @property
    def task(self) -> str:
        return cast("str", self["task"])

    @task.setter
    def task(self, name: str) -> None:
        self["task"] = name

    @property
    def args(self) -> Any:
        return self.get("args") or ()

    @args.setter
    def args(self, args: Any) -> None:
        self["args"] = args

    @property
    def kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = self.setdefault("kwargs", {})
        return kwargs

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Any]) -> None:
        self["kwargs"] = kwargs

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.setdefault("options", {})
        return options

    @options.setter
    def options(self, options: dict[str, Any]) -> None:
        self["options"] = options

    @property
    def immutable(self) -> bool:
        return bool(self.get("immutable"))

    @immutable.setter
    def immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    @property
    def subtask_type(self) -> str | None:
        return self.get("subtask_type")

    @subtask_type.setter
    def subtask_type(self, kind: str | None) -> None:
        self["subtask_type"] = kind

    # -- other forms -------------------------------------------------------------------------------------------------

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """The call as text, with these arguments too ([canvas.16])."""
        merged_args, merged_kwargs, _ = self._merge(args, kwargs, force=True)
        shown = [repr(arg) for arg in merged_args] + [f"{name}={arg!r}" for name, arg in merged_kwargs.items()]
        return f"{self['task']}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        # As a plain dict: whoever reads it may know another version of this class.
        return signature, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """A plain dict; only the options are copied deeply ([canvas.17])."""
        copied = dict(self)
        memo[id(self)] = copied
        copied["options"] = deepcopy(self.get("options"), memo)
        return copied


def as_list(value: Any) -> list[Any]:
    """The elements of a list or tuple, or the one value; none of None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
    """A signature from a task's name or a task with what `Signature` takes, or again from its dict ([canvas.2])."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, dict):
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Celery | None = None, clone: bool = False) -> Any:
    """A signature from a dict that was one; anything else, None too, is given back as it is.

    `app`, if given, becomes the signature's own. `clone`: copy what is a signature already.
    """
    if isinstance(d, Signature):
        d = d.clone() if clone else d
    elif isinstance(d, dict):
        d = signature(d, app=app)  # those within it belong to the app too
    else:
        return d
    if app is not None:
        d._app = app
    return d
