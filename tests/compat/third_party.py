"""Result backends as third parties write them, for the tests of the bridge."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from celery.backends.base import BaseDictBackend, KeyValueStoreBackend


class Shelf(KeyValueStoreBackend):
    """A key/value backend on a dict."""

    shelf: ClassVar[dict[bytes, Any]] = {}
    calls: ClassVar[list[str]] = []

    def get(self, key: Any) -> Any:
        return self.shelf.get(key)

    def mget(self, keys: Any) -> Any:
        return [self.shelf.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        self.calls.append(f"set {type(value).__name__}")
        self.shelf[key] = value

    def delete(self, key: Any) -> None:
        self.shelf.pop(key, None)


class Rows(BaseDictBackend):
    """A backend that keeps rows, as those on databases do."""

    rows: ClassVar[dict[str, dict[str, Any]]] = {}
    stored: ClassVar[list[tuple[Any, ...]]] = []
    cleanups: ClassVar[list[str]] = []
    failures: ClassVar[list[Exception]] = []

    def _store_result(
        self, task_id: str, result: Any, status: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if self.failures:
            raise self.failures.pop()
        self.stored.append((task_id, status, request, threading.get_ident()))
        self.rows[task_id] = {
            "task_id": task_id,
            "status": status,
            "result": self.encode(result),
            "traceback": traceback,
            "children": self.current_task_children(request),
        }
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        row = self.rows.get(task_id)
        if row is None:
            return {"status": "PENDING", "result": None}
        return self.meta_from_decoded({**row, "result": self.decode(row["result"])})

    def _forget(self, task_id: str) -> None:
        self.rows.pop(task_id, None)

    def _save_group(self, group_id: str, result: Any) -> Any:
        self.rows[group_id] = {"result": result}
        return result

    def _restore_group(self, group_id: str) -> Any:
        return self.rows.get(group_id)

    def _delete_group(self, group_id: str) -> None:
        self.rows.pop(group_id, None)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, ConnectionError)

    def process_cleanup(self) -> None:
        self.cleanups.append("done")
