"""Application. One task for many arguments: in one message (map, starmap), or in as many as wanted (chunks)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from celery.canvas.groups import group
from celery.canvas.lazy import Lazy
from celery.canvas.signatures import Signature, maybe_signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from celery.app.base import Celery

__all__ = ["chunks", "xmap", "xstarmap"]


class _mapping(Signature[Any]):  # noqa: N801 - as its subclasses
    """A task for each element of `it`, one after the other in one message; the result is the list of theirs."""

    _task_name = ""
    _stars = ""
    _starred = False

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        parts = {"task": _as_signature(task), "it": _kept(it)}
        super().__init__(self._task_name, (), parts, immutable=True, **options)

    def apply_async(  # type: ignore[override]
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it: to the queue that the task itself would go to ([canvas.62]). The arguments are those of a call: for
        a typed task they are checked, and raise what its calls raise."""
        options.setdefault("route_name", self.kwargs["task"]["task"])
        result = super().apply_async(args, kwargs, **options)
        result._types = self._many()
        return result

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it here."""
        result = super().apply(args, kwargs, **options)
        result._types = self._many()
        return result

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - its public name
        """Makes results of this call from ids."""
        make, many = super().AsyncResult, self._many()

        def made(task_id: str) -> Any:
            result = make(task_id)
            result._types = many
            return result

        return make if many is None else made

    def _merge(self, args: Any = None, kwargs: Any = None, options: Any = None, force: bool = False) -> Any:
        merged_args, merged_kwargs, merged = super()._merge(args, kwargs, options, force)
        return merged_args, {**merged_kwargs, "it": self._sent(merged_kwargs.get("it"))}, merged

    def _many(self) -> Any:
        """What a typed task's arguments and results are; None for any other."""
        return _types_of(self.kwargs["task"], self._starred, self.app)

    def _sent(self, it: Any) -> Any:
        """The arguments as they travel."""
        many = self._many()
        if many is not None:
            return many.send(it)
        return list(it) if isinstance(it, Lazy) else it

    def _copy(self, **parts: Any) -> Any:
        return self._revived({**self, **parts}, dict(self.kwargs), self._app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Any:
        """From its dict."""
        return cls._revived(d, dict(d.get("kwargs") or {}), app)

    @property
    def app(self) -> Celery:
        """The app given, or that of the task."""
        task = self.kwargs["task"]
        return task.app if self._app is None and isinstance(task, Signature) else super().app

    def __repr__(self) -> str:
        return f"[{self.kwargs['task']['task']}({self._stars}x) for x in {self.kwargs['it']!r}]"


@Signature.register_type()
class xmap(_mapping):  # noqa: N801 - its public name
    """`task(x) for x in it`, in one message."""

    _task_name = "celery.map"


@Signature.register_type()
class xstarmap(_mapping):  # noqa: N801 - its public name
    """`task(*x) for x in it`, in one message."""

    _task_name = "celery.starmap"
    _stars = "*"
    _starred = True


@Signature.register_type()
class chunks(Signature[Any]):  # noqa: N801 - its public name
    """`task(*x) for x in it`, in messages of `n` calls each; the last may have fewer ([canvas.63])."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        parts = {"task": _as_signature(task), "it": _kept(it), "n": n}
        super().__init__("celery.chunks", (), parts, immutable=True, **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Any:
        """From its dict."""
        return cls._revived(d, dict(d.get("kwargs") or {}), app)

    @property
    def app(self) -> Celery:
        """The app given, or that of the task."""
        task = self.kwargs["task"]
        return task.app if self._app is None and isinstance(task, Signature) else super().app

    def __call__(self, **options: Any) -> Any:
        """Send them."""
        return self.apply_async(**options)

    def apply_async(  # type: ignore[override]
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send the chunks. Returns a `GroupResult`, whose value is a list of the chunks' lists."""
        return self.group().apply_async(args, kwargs, **options)

    def group(self) -> group:
        """The chunks as a group."""
        task, n = self.kwargs["task"], self.kwargs["n"]
        app = self.app
        parts = (xstarmap(task, part, app=app) for part in _parts(iter(self.kwargs["it"]), n))
        return group(parts, app=app, **self.options)

    def _sent(self, it: Any) -> Any:
        """The arguments as they travel within another message."""
        many = _types_of(self.kwargs["task"], True, self.app)
        return it if many is None else many.send(it)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Celery | None = None) -> Any:
        """Send `task` for each element of `it`, `n` of them in a message."""
        return cls(task, it, n, app=app)()

    def _copy(self, **parts: Any) -> Any:
        return self._revived({**self, **parts}, dict(self.kwargs), self._app)


def _as_signature(task: Any) -> Any:
    return maybe_signature(task) if isinstance(task, dict) else task.s()


def _types_of(task: Any, starred: bool, app: Celery) -> Any:
    known = app.tasks.get(task["task"])
    types = None if known is None else known._types
    if types is None or not hasattr(types, "each_of_many"):
        return None
    return types.each_of_many if starred else types.one_of_many


def _kept(it: Iterable[Any]) -> Any:
    return it if isinstance(it, list | tuple | Lazy | range) else Lazy(it)


def _parts(it: Iterator[Any], n: int) -> Iterator[list[Any]]:
    while part := list(islice(it, n)):
        yield part
