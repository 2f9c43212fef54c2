"""Flow. Records that are on their way with an outcome, saved at once where somebody in this process looks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery.outcome import Record
    from celery.ports import ResultBackend

__all__ = ["Pending", "Revealing"]


class Pending:
    """The records of runs that have come to their result here, while hooks and receivers of theirs still run.

    They are saved by whoever settles the run (decision 3). To user code that looks from inside the order is that of
    `[task.51]` all the same: `reveal` saves a record before it can be missed.
    """

    def __init__(self, save: Callable[[list[Record]], None]) -> None:
        self._save = save
        #: By task id. The tracer puts a record in and takes it out again: what is missing then has been saved.
        self.records: dict[str, Record] = {}

    def reveal(self, ids: Iterable[str]) -> None:
        """Save those of these tasks' records that are pending. Raises what saving raises; they are then kept."""
        records = [record for task_id in ids if (record := self.records.get(task_id)) is not None]
        if records:
            self._save(records)
            for record in records:
                self.records.pop(record.id, None)

    def reveal_all(self) -> None:
        """Save all: something is leaving this process that may make others look."""
        self.reveal(list(self.records))


class Revealing:
    """A result backend in front of the store: nothing pending is missed, or written over."""

    def __init__(self, store: ResultBackend, pending: Pending) -> None:
        self._store = store
        self._pending = pending
        self._records = pending.records

    def save(self, records: Sequence[Record]) -> None:
        if self._records:
            self._pending.reveal(record.id for record in records)
        self._store.save(records)

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        if self._records:
            self._pending.reveal(ids)
        return self._store.load(ids)

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        if self._records:
            self._pending.reveal(ids)
        return self._store.wait(ids, timeout)

    def forget(self, ids: Sequence[str]) -> None:
        if self._records:
            self._pending.reveal(ids)
        self._store.forget(ids)

    def close(self) -> None:
        self._store.close()

    def __getattr__(self, name: str) -> Any:
        """What the store can do beside a backend's port."""
        return getattr(self._store, name)
