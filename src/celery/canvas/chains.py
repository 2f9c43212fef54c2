"""Application. Calls that follow each other, each with the result of the one before ([canvas.26] to [canvas.36])."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from celery.canvas.chords import chord
from celery.canvas.groups import group, shortened
from celery.canvas.plain import plain
from celery.canvas.planning import attach, start
from celery.canvas.signatures import Signature, as_list, maybe_signature
from celery.canvas.stamping import added
from celery.states import IGNORED, REJECTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.app.base import Celery
    from celery.canvas.planning import Plan
    from celery.canvas.stamping import StampingVisitor

__all__ = ["_chain"]

#: Options of a chain that are for its last task; `root_id` is for all, any other for the first.
_LAST = ("group_id", "chord", "group_index")


@Signature.register_type("chain")
class _chain(Signature[Any]):  # noqa: N801 - its public name
    """Calls that follow each other. Its result is that of the last one, those before it being its `parent`s."""

    def __init__(self, *tasks: Any, **options: Any) -> None:
        given: Any = tasks
        if len(tasks) == 1 and not isinstance(tasks[0], dict):
            given = tasks[0]
        super().__init__("celery.chain", (), {"tasks": [maybe_signature(task) for task in given]}, **options)
        self.subtask_type = "chain"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Any:
        """A chain from its dict."""
        kwargs = dict(d.get("kwargs") or {})
        kwargs["tasks"] = [maybe_signature(task, app=app) for task in kwargs.get("tasks") or ()]
        return _chain._revived(d, kwargs, app)

    @property
    def tasks(self) -> list[Any]:
        """Its steps."""
        tasks: list[Any] = self.kwargs["tasks"]
        return tasks

    @tasks.setter
    def tasks(self, tasks: list[Any]) -> None:
        self.kwargs["tasks"] = tasks

    @property
    def app(self) -> Celery:
        """The app given, or that of the first step, or the current one ([canvas.72])."""
        if self._app is None and self.tasks:
            app: Celery = self.tasks[0].app
            return app
        return super().app

    # -- calling -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(args, kwargs)

    def apply_async(  # type: ignore[override]
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send the first step, which takes the others along. Returns the result of the last; None if there is no step.

        The arguments are for the first step. Of the options `task_id` and `link` are for the last, `link_error` for
        all, the others for the first ([canvas.29] to [canvas.31]).
        """
        return start(self, args, kwargs, options)

    def run(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`apply_async`, published even where tasks are run eagerly."""
        return start(self, args, kwargs, options, eager=False)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the steps here. Returns the result of the last one, or of one that is ignored or rejected ([canvas.35]).

        Raises what a step raises that is not the last.
        """
        args, kwargs, merged = self._for_first(args, kwargs, options)
        last_id = merged.pop("task_id", None)
        steps = self._steps(merged.pop("link", None), merged.pop("link_error", None))
        throw = {"throw": merged["throw"]} if "throw" in merged else {}
        result: Any = None
        for position, step in enumerate(steps):
            how = merged if position == 0 else dict(throw)
            if position == len(steps) - 1 and last_id is not None:
                how["task_id"] = last_id
            given = (args, kwargs) if result is None else ((result.get(disable_sync_subtasks=False),), None)
            before, result = result, step.apply(*given, **how)
            if before is not None:
                attach(result, before)
            if getattr(result, "state", None) in (IGNORED, REJECTED):
                break
        return result

    def _for_first(self, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        merged = self._merge((), {}, options)[2]
        for links in ("link", "link_error"):
            if links in self.options and options.get(links):
                merged[links] = [*as_list(self.options[links]), *as_list(options[links])]
        if self.immutable:
            return self.args, None, merged
        return (*(args or ()), *self.args), kwargs, merged

    def _lower(self, plan: Plan, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        args, kwargs, merged = self._for_first(args, kwargs, options)
        steps = self._steps(merged.pop("link", None), merged.pop("link_error", None))
        if not steps:
            return None
        first, *rest = steps
        last = {name: merged.pop(name) for name in _LAST if merged.get(name) is not None}
        last_id = merged.pop("task_id", None)
        results = _freeze_steps(rest, last_id, merged.get("root_id"), last)
        if (nesting := merged.get("replaced_task_nesting")) is not None:
            for step in rest:
                step.options["replaced_task_nesting"] = nesting
        following = [*(merged.pop("chain", None) or ()), *(plain(step) for step in reversed(rest))]
        if not rest:
            merged |= last
            merged["task_id"] = last_id
        if following:
            merged["chain"] = following + as_list(first.options.get("chain"))
        result = first._lower(plan, args, kwargs, merged)
        if not results:
            return result
        attach(results[0], result)
        return results[-1]

    # -- steps -------------------------------------------------------------------------------------------------------

    def unchain_tasks(self) -> list[Any]:
        """Copies of the steps as they stand here, with the links of the chain ([canvas.36])."""
        return self._unchained(self.options.get("link"), self.options.get("link_error"))

    def _unchained(self, link: Any, link_error: Any) -> list[Any]:
        tasks = [task.clone() for task in self.tasks]
        for callback in as_list(link) if tasks else ():
            tasks[-1].append_to_list_option("link", callback)
        for errback in as_list(link_error):
            for task in tasks:
                task.link_error(errback)
        return tasks

    def _steps(self, link: Any, link_error: Any) -> list[Any]:
        """What is sent one after the other, copied: no chains, and no groups but at the end.

        What follows a group is the body of a chord of its members. Bodies that are chains are taken apart, so that
        what is sent grows with the number of tasks and not with how they are nested ([canvas.59]).
        """
        steps: list[Any] = []
        for step in reversed(_flat(self._unchained(link, link_error))):
            following = steps[-1] if steps else None
            if following is not None and isinstance(step, group):
                steps[-1] = chord(step, body=following, app=self._app)
            elif following is not None and isinstance(step, chord) and step._ends_side_by_side():
                steps[-1] = step._followed_by(following)
            else:
                steps.append(step)
        steps.reverse()
        return steps

    def prepare_steps(
        self,
        args: Any,
        kwargs: Any,
        tasks: Any,
        root_id: str | None = None,
        parent_id: str | None = None,
        link_error: Any = None,
        app: Celery | None = None,
        last_task_id: str | None = None,
        group_id: str | None = None,
        chord_body: Any = None,
        clone: bool = True,
        from_dict: Any = None,
        group_index: int | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """The steps that `tasks` make, last one first, and their results in the same order; ids are chosen."""
        steps = _chain(tasks, app=app)._steps(None, link_error)
        if steps and (args or kwargs):
            steps[0] = steps[0].clone(args, kwargs)
        last = {"group_id": group_id, "chord": chord_body, "group_index": group_index}
        results = _freeze_steps(steps, last_task_id, root_id, last)
        return steps[::-1], results[::-1]

    # -- variations --------------------------------------------------------------------------------------------------

    def _copy(self, **parts: Any) -> Any:
        more = {name: value for name, value in parts.pop("kwargs", {}).items() if name != "tasks"}
        args = parts.pop("args", ())
        tasks = [task.clone() for task in self.tasks]
        if tasks and (args or more):
            tasks[0] = tasks[0].clone(args, more)
        return type(self)._revived({**self, **parts, "args": ()}, {"tasks": tasks}, self._app)

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """A copy, steps included; further arguments are for the first step."""
        return super().clone(*args, **kwargs)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Choose the ids of all steps. Returns the result of the last; None if there is no step ([canvas.30])."""
        self.tasks = steps = self._steps(self.options.get("link"), self.options.get("link_error"))
        last = {"group_id": group_id, "chord": chord, "group_index": group_index}
        results = _freeze_steps(steps, _id or self.options.get("task_id"), root_id, last)
        if not results:
            return None
        self.options["task_id"] = results[-1].id
        return results[-1]

    _freeze = freeze

    def _completions(self) -> int:
        return next((size for task in reversed(self.tasks) if (size := task._completions())), 0)

    def _group_id(self) -> str | None:
        return self.tasks[-1]._group_id() if self.tasks else None

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp the links and each step."""
        if visitor is not None:
            headers = added(headers, visitor.on_chain_start(self, **headers))
        self.stamp_links(visitor, append_stamps, **headers)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)
        return self

    # -- other forms -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return shortened(" | ".join(repr(task) for task in self.tasks), self.tasks)


def _flat(tasks: list[Any]) -> list[Any]:
    """The steps of chains in place of these, single members in place of their groups, groups of none left out."""
    flat = []
    waiting = deque(tasks)
    while waiting:
        task = waiting.popleft()
        if isinstance(task, _chain):
            waiting.extendleft(reversed(task.unchain_tasks()))
        elif isinstance(task, group) and len(task) < 2:
            waiting.extendleft(member.clone() for member in task._inherited())
        elif isinstance(task, chord) and (parts := task._taken_apart()):
            waiting.extendleft(reversed(parts))
        else:
            flat.append(task)
    return flat


def _freeze_steps(steps: list[Any], last_id: str | None, root_id: str | None, last: dict[str, Any]) -> list[Any]:
    """Choose the ids; returns the results, each leading to the one before."""
    results: list[Any] = []
    for step in steps:
        given: dict[str, Any] = {"_id": last_id, **last} if step is steps[-1] else {}
        result = step.freeze(root_id=root_id, **given)
        if results:
            attach(result, results[-1])
        results.append(result)
    return results
