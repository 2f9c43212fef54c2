"""Application. Calls that are made side by side ([canvas.37] to [canvas.45])."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from celery.canvas.lazy import Lazy, members_of
from celery.canvas.planning import start
from celery.canvas.signatures import Signature, maybe_signature
from celery.canvas.stamping import added
from celery.producer import new_id
from celery.utils.text import remove_repeating_from_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.app.base import Celery
    from celery.canvas.planning import Plan
    from celery.canvas.stamping import StampingVisitor

__all__ = ["group", "in_order", "shortened", "shown", "unrolled"]

#: Options that say something of the group itself.
_OWN = frozenset({"task_id", "group_id", "group_index", "root_id", "parent_id", "chord"})


@Signature.register_type()
class group(Signature[Any]):  # noqa: N801 - its public name
    """Calls that are made side by side; its result is a `GroupResult`, whose value is the list of theirs.

    Takes signatures, or one iterable of them, which is not asked for its elements before they are needed. Options hold
    for all members.
    """

    def __init__(self, *tasks: Any, **options: Any) -> None:
        given: Any = tasks
        if len(tasks) == 1:
            given = tasks[0]
            if isinstance(given, group):
                given = given.tasks
            elif isinstance(given, dict):
                given = tasks
        super().__init__("celery.group", (), {"tasks": members_of(given, maybe_signature)}, **options)
        self.subtask_type = "group"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> group:
        """A group from its dict."""
        kwargs = dict(d.get("kwargs") or {})
        kwargs["tasks"] = members_of(kwargs.get("tasks") or (), lambda task: maybe_signature(task, app=app))
        made: group = cls._revived(d, kwargs, app)
        return made

    @property
    def tasks(self) -> Any:
        """The members: a list, or a sequence that takes them from a generator."""
        return self.kwargs["tasks"]

    @tasks.setter
    def tasks(self, tasks: Any) -> None:
        self.kwargs["tasks"] = tasks

    @property
    def app(self) -> Celery:
        """The app given, or that of the first member, or the current one ([canvas.72])."""
        if self._app is None and self.tasks:
            app: Celery = self.tasks[0].app if not isinstance(self.tasks, Lazy) else next(iter(self.tasks)).app
            return app
        return super().app

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return bool(self.tasks)

    # -- calling -----------------------------------------------------------------------------------------------------

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it, with these arguments before those of each member, and these options."""
        return self.apply_async(partial_args, **options)

    def apply_async(  # type: ignore[override]
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        """Send all members, in batches. Returns a `GroupResult` ([canvas.38]).

        Raises TypeError for `link` and `link_error`, since no single task of a group ends last.
        """
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        return start(self, args, kwargs, {**options, "add_to_parent": add_to_parent, "producer": producer})

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the members here, one after the other. Returns a `GroupResult` of eager results."""
        _, _, merged = self._merge((), {}, options)
        group_id = merged.pop("task_id", None) or new_id()
        merged.pop("add_to_parent", None)
        merged.pop("producer", None)
        results = (member.apply(args, kwargs, **merged) for member in in_order(self.tasks))
        return self.app.GroupResult(group_id, [result for result in results if result is not None])

    def _lower(self, plan: Plan, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        merged = self._merge((), {}, options)[2]
        group_id = merged.pop("task_id", None) or new_id()
        # Inside a chord's header its members go on counting where those before it ended.
        first = merged.pop("group_index", None) or 0 if merged.get("chord") is not None else 0
        merged.pop("group_index", None)
        header = merged.pop("group_id", None)  # members that have one already keep it ([canvas.7])
        noted = merged.pop("add_to_parent", True)
        # What ends a member of a chord's header is told to the chord, not to the group that it stands in.
        merged["group_id"] = header if header is not None and merged.get("chord") is not None else group_id
        merged["add_to_parent"] = False
        result = self.app.GroupResult(group_id, self._lower_members(plan, args, kwargs, merged, first))
        if noted:
            plan.trail.append(result)
        return result

    def _lower_members(self, plan: Plan, args: Any, kwargs: Any, options: dict[str, Any], first: int) -> list[Any]:
        results: list[Any] = []
        index, awaited = first - 1, 1
        for member in self.tasks:
            index += awaited
            awaited = member._completions() if options.get("chord") is not None else 1
            if isinstance(member, group):  # flat, but each counts its own ([canvas.39])
                own = member._merge((), {}, options)[2]
                own["group_id"] = options["group_id"]
                results += member._lower_members(plan, args, kwargs, own, 0)
                continue
            result = member._lower(plan, args, kwargs, {**options, "group_index": index})
            if result is not None:
                results.append(result)
        return results

    # -- variations --------------------------------------------------------------------------------------------------

    def _copy(self, **parts: Any) -> group:
        more = {name: value for name, value in parts.pop("kwargs", {}).items() if name != "tasks"}
        args = parts.pop("args", ())
        tasks = members_of(self.tasks, lambda member: _cloned(member, args, more))
        copied: group = self._revived({**self, **parts, "args": ()}, {"tasks": tasks}, self._app)
        return copied

    def _inherited(self) -> list[Any]:
        """The members, with what the group's options say of them."""
        options = {name: value for name, value in self.options.items() if name not in _OWN}
        return [member.clone(**options) if options else member for member in self.tasks]

    def set_immutable(self, immutable: bool) -> None:
        """Make each member take further arguments or not."""
        for member in self.tasks:
            member.set_immutable(immutable)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Delay each member by `step` seconds more than the one before it, up to `stop`. Returns this group."""
        delay = float(start)
        for member in self.tasks:
            member.set(countdown=delay)
            if stop is None or delay + step <= stop:
                delay += step
        return self

    # -- ids ---------------------------------------------------------------------------------------------------------

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Choose the ids of all members; nested groups become part of this one ([canvas.39])."""
        given = {"group_id": group_id, "chord": chord, "group_index": group_index}
        options = self.options
        own_id = options.setdefault("task_id", _id or new_id())
        options.update({name: value for name, value in given.items() if value is not None})
        options.update(root_id=root_id, parent_id=parent_id)
        self.tasks = members = unrolled(self.tasks)
        # Once it has its place in a chord's header it keeps it, also where a chain that it ends is sent later.
        index = (options.get("group_index") or 0) if options.get("group_id") is not None else 0
        results = []
        for member in members:
            results.append(
                member.freeze(
                    group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id, group_index=index
                )
            )  # fmt: skip
            index += member._completions()
        return self.app.GroupResult(own_id, results)

    _freeze = freeze

    def _completions(self) -> int:
        return sum(member._completions() for member in self.tasks)

    # -- links -------------------------------------------------------------------------------------------------------

    def link(self, sig: Any) -> Any:
        """Have the first member call `sig`, which gets no result; it may be called before the others end.

        Raises IndexError for a group without members ([canvas.41]).
        """
        return self.tasks[0].link(maybe_signature(sig).clone().set(immutable=True))

    def link_error(self, sig: Any) -> Any:
        """Have each member call a copy of `sig` if it fails. Returns the copies ([canvas.42])."""
        errback = maybe_signature(sig)
        return tuple(member.link_error(errback.clone()) for member in self.tasks)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp each member; those that a generator will yield, when they are needed ([stamp.13])."""
        if visitor is not None:
            headers = added(headers, visitor.on_group_start(self, **headers))
        self.stamp_links(visitor, append_stamps, **headers)
        self.tasks = members_of(self.tasks, lambda task: task.stamp(visitor, append_stamps, **headers))
        if visitor is not None:
            visitor.on_group_end(self, **headers)
        return self

    # -- other forms -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if isinstance(self.tasks, Lazy):
            return f"group({self.tasks!r})"
        return f"group({shown(self.tasks) if self.tasks else '<empty>'})"


def shown(members: Any) -> str:
    """Calls as the text of a list; the module of the first is not repeated."""
    return shortened(repr(list(members)), members)


def shortened(text: str, members: Any) -> str:
    """A text of calls, where the module that the first task is in is named once ([canvas.16])."""
    name = next((first.task for first in members if isinstance(first, Signature)), None)
    return remove_repeating_from_task(name, text) if name else text


def in_order(members: Any) -> list[Any]:
    """The members, those of nested groups in place of these."""
    flat: list[Any] = []
    for member in members:
        flat += in_order(member.tasks) if isinstance(member, group) else [member]
    return flat


def unrolled(members: Any) -> list[Any]:
    """The members, those of nested groups in place of these, last one first; empty chains left out.

    That order is Celery's: it decides the places of results among a body's arguments ([canvas.39]).
    """
    flat: list[Any] = []
    waiting = deque(members)
    while waiting:
        member = waiting.popleft()
        if isinstance(member, group):
            waiting.extendleft(member._inherited())
        elif member._completions():
            flat.append(member)
    return flat


def _cloned(member: Any, args: Any, kwargs: Any) -> Any:
    return member.clone(args, kwargs) if isinstance(member, Signature) else member
