"""Application. Calls side by side, and one more when all of them have ended ([canvas.46] to [canvas.61])."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from celery.canvas.groups import group, in_order, shown, unrolled
from celery.canvas.lazy import Lazy, members_of
from celery.canvas.plain import plain
from celery.canvas.planning import POLLING, Opening, attach, start
from celery.canvas.references import shortened_body
from celery.canvas.signatures import Signature, as_list, maybe_signature
from celery.canvas.stamping import added
from celery.exceptions import CPendingDeprecationWarning
from celery.producer import new_id
from celery.utils.text import remove_repeating_from_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.app.base import Celery
    from celery.canvas.planning import Plan
    from celery.canvas.stamping import StampingVisitor

__all__ = ["_chord", "chord"]

#: Options that are not for the body: they delay the header, are the header's own, or tell how it is sent.
_HEADER_ONLY = frozenset({"countdown", "eta", "parent_id", "add_to_parent", "task_id", *POLLING})
#: Options that are not for the members of the header.
_BODY_ONLY = frozenset({"link", "link_error", "chain", "chord", "group_id", "group_index", "task_id", *POLLING})
_PARTS = ("kwargs", "header", "body")


@Signature.register_type("chord")
class _chord(Signature[Any]):  # noqa: N801 - its public name
    """A header of calls that are made side by side, and a body that is called with the list of their results.

    Its result is that of the body, the header's `GroupResult` being the `parent`. The header is a list, an iterable
    that is asked when needed, a group, a chain, or one signature; the body may be given when the chord is called.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Celery | None = None,
        **options: Any,
    ) -> None:
        parts = {"kwargs": dict(kwargs or {}), "header": _header(header, app), "body": maybe_signature(body, app=app)}
        super().__init__(task, args, parts, options, app=app)
        self.subtask_type = "chord"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Any:
        """A chord from its dict, as any version wrote it ([canvas.70])."""
        kwargs = dict(d.get("kwargs") or {})
        kwargs["header"] = _header(kwargs.get("header") or (), app)
        kwargs["body"] = maybe_signature(kwargs.get("body"), app=app)
        return cls._revived(d, kwargs, app)

    @property
    def tasks(self) -> Any:
        """The members of the header."""
        header = self.kwargs["header"]
        return header.tasks if isinstance(header, group) else header

    @property
    def body(self) -> Any:
        """What is called at the end, or None."""
        return self.kwargs["body"]

    @body.setter
    def body(self, body: Any) -> None:
        self.kwargs["body"] = body

    @property
    def app(self) -> Celery:
        """The app given, or that of the first member of the header, of the body, or the current one ([canvas.72])."""
        if self._app is None:
            for task in (*as_list(next(iter(self.tasks), None)), *as_list(self.body)):
                app: Celery = task.app
                return app
        return super().app

    # -- calling -----------------------------------------------------------------------------------------------------

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if it has none. Returns the result of the body."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(  # type: ignore[override]
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        publisher: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        **options: Any,
    ) -> Any:
        """Send the header; the body follows when all of it has ended. Returns the result of the body ([canvas.50]).

        The arguments are for the members of the header. `task_id`, `link` and `link_error` are for the body,
        `countdown` and `eta` for the header, other options for both. Raises NotImplementedError where the result
        backend cannot wait for a chord's header, ValueError without a body.
        """
        options |= {"task_id": task_id, "producer": producer, "publisher": publisher, "connection": connection}
        return start(self, args, kwargs, options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        propagate: bool = True,
        body: Any = None,
        **options: Any,
    ) -> Any:
        """Run the members of the header here, in order, then the body ([canvas.61]).

        Raises what a member raised, unless `propagate` is False: then the body gets the exception in its place.
        """
        whole = self._with_body(body, kwargs)
        merged = self._merge((), {}, options)[2]
        how = {name: value for name, value in merged.items() if name not in _BODY_ONLY}
        header = group(list(whole.tasks), app=self._app)
        results = header.apply((*(args or ()), *self.args), whole._header_kwargs(kwargs), **how)
        values = results.join(propagate=propagate, disable_sync_subtasks=False) if results.results else []
        ended = _with_links(whole.body.clone(), merged)
        given = {"task_id": options["task_id"]} if options.get("task_id") is not None else {}
        if "throw" in merged:
            given["throw"] = merged["throw"]
        members = [member for member in in_order(header.tasks) if member._completions()]
        spread = [part for value, member in zip(values, members, strict=True) for part in _spread(value, member)]
        return ended.apply((spread,), **given)

    def run(
        self,
        header: Any,
        body: Any,
        partial_args: Sequence[Any] | None,
        app: Celery | None = None,
        interval: float | None = None,
        countdown: float = 1,
        max_retries: int | None = None,
        eager: bool = False,
        task_id: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Send this header and this body. `interval`, `countdown` (seconds) and `max_retries` are for the task that
        polls for the end of the header, where the backend cannot count."""
        whole = _chord(header, body, app=app or self._app)
        whole.options.update(self.options)
        if eager:
            return whole.apply(partial_args, kwargs, task_id=task_id, **options)
        options |= {"task_id": task_id, "interval": interval, "max_retries": max_retries, "unlock_countdown": countdown}
        return start(whole, partial_args, kwargs, options, eager=False)

    def _lower(self, plan: Plan, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        whole = self._with_body(None, kwargs)
        merged = self._merge((), {}, options)[2]
        for_header = {name: value for name, value in merged.items() if name not in _BODY_ONLY}
        header = whole._header_group()
        header_id = header.options.get("task_id") or self.options.get("task_id") or new_id()
        body, body_result = whole._prepared_body(merged, options.get("task_id"), header_id)
        members = unrolled(header.tasks)
        if not members:  # [canvas.47]
            body_result.parent = self.app.GroupResult(header_id, [])
            body._lower(plan, ([],), {}, {"group_id": header_id, "task_id": body_result.id})
            return body_result
        noted = for_header.pop("add_to_parent", True)
        carried, kept = shortened_body(self.app, plain(body), header_id, for_header.get("serializer"))
        for_header |= {"group_id": header_id, "chord": carried, "add_to_parent": False}
        call = (*(args or ()), *self.args), whole._header_kwargs(kwargs)
        results, size = _lower_header(plan, members, call, for_header)
        body_result.parent = self.app.GroupResult(header_id, results)
        if noted:
            plan.trail.append(body_result.parent)
        polling = {to: merged[name] for name, to in POLLING.items() if merged.get(name) is not None}
        plan.openings.append(Opening(header_id, size, body, results, polling, kept))
        return body_result

    def _with_body(self, body: Any, kwargs: Mapping[str, Any] | None) -> _chord:
        """This chord, or a copy with the body that the call brings."""
        given = body if body is not None else (kwargs or {}).get("body")
        if given is None:
            if self.body is None:
                raise ValueError(
                    f"expected a chord with a body, got {self!r}: give the body as the second argument, "
                    "or call the chord with it"
                )
            return self
        return self._revived(self, {**self.kwargs, "body": maybe_signature(given)}, self._app)  # type: ignore[no-any-return]

    def _header_kwargs(self, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        given = {name: value for name, value in (kwargs or {}).items() if name != "body"}
        return {**(self.kwargs.get("kwargs") or {}), **given}

    def _header_group(self) -> group:
        header = self.kwargs["header"]
        return header if isinstance(header, group) else group(header, app=self._app)

    def _prepared_body(self, options: dict[str, Any], task_id: str | None, header_id: str) -> tuple[Any, Any]:
        """The body with its ids, as it travels with each member of the header, and its result ([canvas.48])."""
        body = self.body.clone()
        given = {name: value for name, value in options.items() if name not in _HEADER_ONLY}
        following = given.pop("chain", None)
        group_id, chord, index = (given.pop(name, None) for name in ("group_id", "chord", "group_index"))
        given.pop("root_id", None)
        _with_links(body, given)
        given.pop("link", None)
        given.pop("link_error", None)
        body.options.update(body._merge((), {}, given)[2])
        if following:
            body.options["chain"] = [*following, *as_list(body.options.get("chain"))]
        result = body.freeze(
            task_id,
            group_id=group_id or body._group_id() or header_id,
            chord=chord,
            root_id=options.get("root_id"),
            group_index=index,
        )
        return body, result

    # -- as a step of a chain ----------------------------------------------------------------------------------------

    def _taken_apart(self) -> list[Any] | None:
        """Where the body is a chain that begins with a task: this chord with that task as its body, then the rest."""
        body = self.body
        if body is None or body.subtask_type != "chain" or not body.tasks:
            return None
        links = [*as_list(body.options.get("link")), *as_list(self.options.get("link"))]
        first, *rest = body._unchained(links, body.options.get("link_error"))
        if not rest or first.subtask_type is not None:
            return None
        ahead: Any = self.clone()
        ahead.options.pop("link", None)
        ahead.body = first
        return [ahead, *rest]

    def _ends_side_by_side(self) -> bool:
        """Whether it ends with several tasks, so that whoever follows has to wait for all of them."""
        return _is_wide(self.body)

    def _followed_by(self, following: Any) -> Any:
        joined: Any = self.clone()
        joined.body = joined.body | following
        return joined

    # -- variations --------------------------------------------------------------------------------------------------

    def _copy(self, **parts: Any) -> Any:
        given = parts.pop("kwargs", self.kwargs)
        kwargs = {name: given[name] for name in _PARTS if name in given}
        kwargs["kwargs"] = {**(kwargs.get("kwargs") or {}), **{n: given[n] for n in given if n not in _PARTS}}
        header, body = kwargs["header"], kwargs["body"]
        kwargs["header"] = header.clone() if isinstance(header, group) else members_of(header, maybe_clone)
        kwargs["body"] = maybe_clone(body)
        return self._revived({**self, **parts}, kwargs, self._app)

    def set_immutable(self, immutable: bool) -> None:
        """Make the members of the header take further arguments or not ([canvas.6])."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Choose the ids of the header's members and of the body. Returns the result of the body."""
        header = self._header_group()
        header_result = header.freeze(root_id=root_id, parent_id=parent_id)
        self.kwargs["header"] = header
        self.options["task_id"] = header_result.id
        if self.body is None:
            return header_result
        result = self.body.freeze(_id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index)
        attach(result, header_result)
        return result

    _freeze = freeze

    def _completions(self) -> int:
        return self.__length_hint__() if self.body is None else self.body._completions()

    def _group_id(self) -> str | None:
        return None if self.body is None else self.body._group_id()

    def __length_hint__(self) -> int:
        """How many completions the body waits for ([canvas.52])."""
        return sum(task._completions() for task in self.tasks)

    # -- links -------------------------------------------------------------------------------------------------------

    def link(self, callback: Any) -> Any:
        """Have the body call it. Returns the callback ([canvas.51])."""
        if self.body is None:
            return super().link(callback)
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Have it called if the body fails, as it does if a member of the header fails. Returns the errback.

        With `task_allow_error_cb_on_chord_header` each member of the header calls a copy too, which gets no failure.
        """
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in self.tasks:
                task.link_error(maybe_signature(errback).clone().set(immutable=True))
        else:
            warnings.warn(
                "a chord's errback is called for its body alone; in 6.0 the header's members will call it too: "
                "set task_allow_error_cb_on_chord_header to have that now",
                CPendingDeprecationWarning,
                stacklevel=2,
            )
        if self.body is None:
            return super().link_error(errback)
        self.body.link_error(errback)
        return errback

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp the members of the header, and the body if a visitor is there to choose its stamps ([stamp.9])."""
        if visitor is not None:
            headers = added(headers, visitor.on_chord_header_start(self, **headers))
        header = self.kwargs["header"]
        made = members_of(self.tasks, lambda task: task.stamp(visitor, append_stamps, **headers))
        if isinstance(header, group):
            header.tasks = made
        else:
            self.kwargs["header"] = made
        if visitor is None:
            return self
        visitor.on_chord_header_end(self, **headers)
        if self.body is not None:
            self.body.stamp(visitor, append_stamps, **added(headers, visitor.on_chord_body(self, **headers)))
        return self

    # -- other forms -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        header = repr(self.tasks) if isinstance(self.tasks, Lazy) else shown(self.tasks)
        if self.body is None:
            return f"<chord without body: {header}>"
        body = self.body
        if isinstance(body, Signature) and body.subtask_type is None:
            text = body.reprcall(_Shown(header))
        elif isinstance(body, Signature) and body.subtask_type == "chain" and body["kwargs"]["tasks"]:
            first, *rest = body["kwargs"]["tasks"]
            text = f"({' | '.join([first.reprcall(_Shown(header)), *map(repr, rest)])})"
        else:
            text = f"({header} | {body!r})"
        return "%" + remove_repeating_from_task(body.task, text)


chord = _chord


class _Shown:
    """Stands for an argument in a text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _header(given: Any, app: Celery | None) -> Any:
    """The header as it is kept: its members, or the group that they are if that says more of them."""
    if isinstance(given, dict):
        given = maybe_signature(given, app=app)
        if isinstance(given, group):
            return given if given.options else given.tasks
        given = given.tasks if given.subtask_type == "chain" else [given]
    return members_of(given, lambda task: maybe_signature(task, app=app, clone=True))


def _lower_header(
    plan: Plan, members: list[Any], call: tuple[Any, Any], options: dict[str, Any]
) -> tuple[list[Any], int]:
    """The members' results, and how many completions the barrier waits for; that is the place of the next one, too."""
    results, place = [], 0
    for member in members:
        results.append(member._lower(plan, *call, {**options, "group_index": place}))
        place += member._completions()
    return results, place


def _with_links(body: Any, options: Mapping[str, Any]) -> Any:
    for links in ("link", "link_error"):
        if options.get(links):
            body.extend_list_option(links, options[links])
    return body


def _is_wide(task: Any) -> bool:
    if isinstance(task, group):
        return True
    if isinstance(task, _chord):
        return _is_wide(task.body)
    return (
        isinstance(task, Signature)
        and task.subtask_type == "chain"
        and bool(task["kwargs"]["tasks"])
        and _is_wide(task["kwargs"]["tasks"][-1])
    )


def _spread(value: Any, task: Any) -> Any:
    """The values that a body gets of one member of the header: one for each of its ends ([canvas.52])."""
    kind = task.subtask_type
    if kind == "chain":
        task = task._steps(None, None)[-1]
        kind = task.subtask_type
    if kind == "group":
        for part, member in zip(value, in_order(task.tasks), strict=True):
            yield from _spread(part, member)
    elif kind == "chord":
        yield from _spread(value, task.body)
    else:
        yield value


def maybe_clone(task: Any) -> Any:
    return task.clone() if isinstance(task, Signature) else task
