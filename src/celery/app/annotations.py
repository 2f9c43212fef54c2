"""Application. The `task_annotations` setting: attributes and wrappers put on tasks when they are bound ([task.58])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["MapAnnotation", "apply_to", "prepare", "resolve_all"]

_Attributes = "Mapping[str, Any] | None"


class MapAnnotation(dict[str, Any]):
    """Annotations by task name; those under `"*"` are for every task."""

    def annotate_any(self) -> dict[str, Any] | None:
        return dict(self["*"]) if "*" in self else None

    def annotate(self, task: Any) -> dict[str, Any] | None:
        return dict(self[task.name]) if task.name in self else None


class _Named:
    """An annotation given by its dotted name: found and made when it is first asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._made: Any = None

    def _get(self) -> Any:
        if self._made is None:
            found = symbol_by_name(self.name)
            self._made = found() if isinstance(found, type) else found
        return self._made

    def annotate_any(self) -> Any:
        return _ask(self._get(), "annotate_any")

    def annotate(self, task: Any) -> Any:
        return _ask(self._get(), "annotate", task)


def prepare(annotations: Any) -> tuple[Any, ...]:
    """The setting as a tuple of objects with `annotate(task)` and `annotate_any()`."""
    if annotations is None:
        return ()
    given = annotations if isinstance(annotations, (list, tuple)) else (annotations,)
    return tuple(_prepare_one(item) for item in given)


def _prepare_one(item: Any) -> Any:
    if isinstance(item, dict):
        return item if hasattr(item, "annotate") else MapAnnotation(item)
    return _Named(item) if isinstance(item, str) else item


def resolve_all(annotations: Iterable[Any], task: Any) -> Iterator[Mapping[str, Any]]:
    """What the annotations have for `task`, in the order in which it is to be applied: later ones win."""
    for annotation in annotations:
        for found in (_ask(annotation, "annotate_any"), _ask(annotation, "annotate", task)):
            if found:
                yield found


def apply_to(cls: Any, annotations: Iterable[Any]) -> None:
    """Set the attributes on the task class; `"@method"` wraps that method."""
    for found in resolve_all(annotations, cls):
        for key, value in found.items():
            if key.startswith("@"):
                cls.add_around(key[1:], value)
            else:
                setattr(cls, key, value)


def _ask(annotation: Any, method: str, *args: Any) -> Any:
    asked = getattr(annotation, method, None)
    return None if asked is None else asked(*args)
