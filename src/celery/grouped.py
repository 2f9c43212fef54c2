"""Application. What the calls of a group give back together ([result.15])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import _state
from celery.result import AsyncResult, ResultBase

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ["GroupResult"]


class GroupResult(ResultBase):
    """The results of the members of a group, in their order."""

    app: Celery = None  # type: ignore[assignment]

    def __init__(
        self, id: str, results: list[Any], parent: ResultBase | None = None, app: Celery | None = None
    ) -> None:
        self.id = id
        self.results = results
        self.parent = parent
        if app is not None or self.app is None:
            self.app = _state._app_or_default(app)

    def get(self, timeout: float | None = None, propagate: bool = True, **how: Any) -> list[Any]:
        """What the members returned. Raises what `AsyncResult.get` of each does."""
        return [result.get(timeout=timeout, propagate=propagate, **how) for result in self.results]

    join = get

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return True

    def as_tuple(self) -> Any:
        """`((id, parent), [members])`, all in the form that `result_from_tuple` reads."""
        parent = self.parent
        above = parent.as_tuple() if isinstance(parent, AsyncResult | GroupResult) else None
        return (self.id, above), [result.as_tuple() for result in self.results]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(result) for result in self.results)}]>"
