"""Application. The state of a cluster, put together from its events ([event.16]).

Nothing here connects: whoever has events (a receiver, a file, a test) hands them to `State.event`, and looks.
"""

from __future__ import annotations

import threading
from bisect import insort
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet, ref

from kombu.clocks import timetuple
from kombu.utils.functional import LRUCache

from celery.events.records import (
    HEARTBEAT_DRIFT_MAX,
    HEARTBEAT_EXPIRE_WINDOW,
    TASK_EVENT_TO_STATE,
    Task,
    Worker,
    heartbeat_expires,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "HEARTBEAT_DRIFT_MAX",
    "HEARTBEAT_EXPIRE_WINDOW",
    "TASK_EVENT_TO_STATE",
    "State",
    "Task",
    "Worker",
    "heartbeat_expires",
]

#: Rows of the order of events that may lie before its start until they are cut off together: cutting costs as much
#: as what is left, so it is not done for each event.
_SLACK = 1024
#: Values of an index that are not worth looking through for those that no task has any more.
_FEW = 64


class _Index(dict[str, "WeakSet[Task]"]):
    """Tasks by something that they have: `index[value]` is a weak set, `index(value)` yields them in order."""

    def __init__(self, ordered: Callable[..., Iterator[tuple[str, Task]]]) -> None:
        super().__init__()
        self._ordered = ordered
        self._sweep_at = _FEW

    def __missing__(self, key: str) -> WeakSet[Task]:
        if len(self) >= self._sweep_at:
            self.forget_empty()
            self._sweep_at = max(_FEW, 2 * len(self))
        found = self[key] = WeakSet()
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Task]]:
        return self._ordered(*args, **kwargs)

    def forget_empty(self) -> None:
        """Let go of values that no task has any more."""
        for key in [key for key, tasks in self.items() if not tasks]:
            del self[key]


# The class below has attributes of these names.
_Task: TypeAlias = Task
_Worker: TypeAlias = Worker


class State:
    """What is known of a cluster: its workers, and its last tasks.

    Events may be handed over and things looked up in different threads. What is kept is bounded: first go the workers
    and tasks that were first heard of; a task that calls others, and one that is looked up in `tasks`, begins anew.
    """

    Worker = Worker
    Task = Task
    event_count = 0
    task_count = 0
    #: Events a task whose order is remembered.
    heap_multiplier = 4

    def __init__(
        self,
        callback: Callable[[State, dict[str, Any]], object] | None = None,
        workers: Any = None,
        tasks: Any = None,
        taskheap: list[Any] | None = None,
        max_workers_in_memory: int = 5000,
        max_tasks_in_memory: int = 10000,
        on_node_join: Callable[[_Worker], object] | None = None,
        on_node_leave: Callable[[_Worker], object] | None = None,
        tasks_by_type: Mapping[str, Iterable[str]] | None = None,
        tasks_by_worker: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """`callback(state, event)` is called before each event is taken in. `on_node_join` and `on_node_leave` are
        called with the worker. `tasks_by_type` and `tasks_by_worker`: ids of tasks, from a pickle."""
        self.event_callback = callback
        self.workers: Any = LRUCache(max_workers_in_memory) if workers is None else workers
        self.tasks: Any = LRUCache(max_tasks_in_memory) if tasks is None else tasks
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        #: Other groups of events: the text before the first dash → `handler(rest, event)`.
        self.handlers: dict[str, Callable[[str, dict[str, Any]], Any]] = {}
        self.tasks_by_type = _Index(self._tasks_by_type)
        self.tasks_by_worker = _Index(self._tasks_by_worker)
        self._seen_types: set[str] = set()
        #: Parents not heard of yet → their children.
        self._orphans: dict[str, WeakSet[_Task]] = {}
        # Handlers and cameras look and clear while it is held.
        self._mutex = threading.RLock()
        self._taskheap: list[Any] = [] if taskheap is None else taskheap
        for task in list(self.tasks.values()):
            task.cluster_state = self
            self._adopt(task)
        for index, given in ((self.tasks_by_type, tasks_by_type), (self.tasks_by_worker, tasks_by_worker)):
            for key, uuids in (given or {}).items():
                index[key].update(self.tasks[uuid] for uuid in uuids if uuid in self.tasks)
        self.rebuild_taskheap()

    # ---------------------------------------------------------------------------------------------- taking events in

    def event(self, event: dict[str, Any]) -> Any:
        """Take in an event. Returns `((worker or task, whether it is new), what follows the first dash of the type)`;
        for an event of another group what its handler returns, and None without one.

        Raises KeyError for an event that lacks its `type`, its `hostname` or, of a task, its `uuid`.
        """
        with self._mutex:
            return self._event(event)

    def _event(self, event: dict[str, Any]) -> Any:
        self.event_count += 1
        if self.event_callback is not None:
            self.event_callback(self, event)
        group, _, subject = event["type"].partition("-")
        if group in self.handlers:
            return self.handlers[group](subject, event), subject
        if group == "task":
            return self._task_event(subject, event), subject
        if group == "worker":
            return self._worker_event(subject, event), subject
        return None

    def task_event(self, type_: str, fields: dict[str, Any]) -> tuple[_Task, bool]:
        """Take in `task-<type_>`. Returns the task, and whether it is new."""
        found: tuple[_Task, bool] = self.event({**fields, "type": f"task-{type_}"})[0]
        return found

    def worker_event(self, type_: str, fields: dict[str, Any]) -> tuple[_Worker, bool]:
        """Take in `worker-<type_>`. Returns the worker, and whether it is new."""
        found: tuple[_Worker, bool] = self.event({**fields, "type": f"worker-{type_}"})[0]
        return found

    def _worker_event(self, subject: str, event: dict[str, Any]) -> tuple[_Worker, bool]:
        hostname = event["hostname"]
        leaves = subject == "offline"
        try:
            worker, created = self.workers.data[hostname], False
        except KeyError:
            worker, created = self.Worker(hostname), not leaves
            if not leaves:
                self.workers[hostname] = worker
        worker.event(subject, event.get("timestamp"), event.get("local_received"), event)
        if self.on_node_join is not None and (created or subject == "online"):
            self.on_node_join(worker)
        if leaves:
            if self.on_node_leave is not None:
                self.on_node_leave(worker)
            self.workers.pop(hostname, None)
        return worker, created

    def _task_event(self, subject: str, event: dict[str, Any]) -> tuple[_Task, bool]:
        uuid, hostname = event["uuid"], event["hostname"]
        timestamp, local_received = event.get("timestamp"), event.get("local_received")
        task, created = self.get_or_create_task(uuid)
        if subject == "sent":
            origin = task.client = hostname
        else:
            worker, _ = self.get_or_create_worker(hostname)
            task.worker = worker
            if local_received:
                # A worker that is busy telling of tasks is alive, by its own clock, whatever becomes of its heartbeats.
                worker.event(None, local_received, timestamp)
            origin = worker.id
            if subject == "received":
                self.task_count += 1
        self._order(timetuple(event.get("clock") or 0, timestamp or 0.0, origin, ref(task)))
        task.event(subject, timestamp, local_received, event)
        name = task.name
        if name is not None:
            self._seen_types.add(name)
            if created or task not in self.tasks_by_type[name]:
                self.tasks_by_type[name].add(task)
        if created:
            self.tasks_by_worker[hostname].add(task)
            self._adopt_children(task)
        self._adopt(task)
        return task, created

    def _order(self, row: Any) -> None:
        """Put an event at its place among all. Most are later than those before."""
        rows = self._taskheap
        if len(rows) >= self._max_rows + _SLACK:
            del rows[: len(rows) - self._max_rows + 1]
        if not rows or row > rows[-1]:
            rows.append(row)
        else:
            insort(rows, row)

    @property
    def _max_rows(self) -> int:
        return self.max_tasks_in_memory * self.heap_multiplier

    def _adopt(self, task: _Task) -> None:
        """Make it its parent's child, now or when the parent is heard of. Who has children was heard of."""
        if not task.parent_id:
            return
        try:
            self.tasks[task.parent_id].children.add(task)
        except KeyError:
            self._await_parent(task, task.parent_id)

    def _await_parent(self, task: _Task, parent_id: str) -> None:
        orphans = self._orphans.get(parent_id)
        if orphans is None:
            if len(self._orphans) >= self.max_tasks_in_memory:
                self._orphans = {parent: tasks for parent, tasks in self._orphans.items() if tasks}
            orphans = self._orphans[parent_id] = WeakSet()
        orphans.add(task)

    def _adopt_children(self, task: _Task) -> None:
        children = self._orphans.pop(task.uuid or "", None)
        if children:
            task.children.update(children)

    def get_or_create_worker(self, hostname: str, **kwargs: Any) -> tuple[_Worker, bool]:
        """The worker of this name, and whether it is new. `kwargs` become its attributes."""
        try:
            worker: Worker = self.workers.data[hostname]
        except KeyError:
            worker = self.workers[hostname] = self.Worker(hostname, **kwargs)
            return worker, True
        if kwargs:
            worker.update(kwargs)
        return worker, False

    def get_or_create_task(self, uuid: str) -> tuple[_Task, bool]:
        """The task of this id, and whether it is new."""
        try:
            return self.tasks.data[uuid], False
        except KeyError:
            task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
            return task, True

    # --------------------------------------------------------------------------------------------------- looking at it

    def freeze_while(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `fun` while no event is taken in, and return what it returns. `clear_after=True`: forget all then."""
        clear_after = kwargs.pop("clear_after", False)
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self._clear()

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, _Task]]:
        """Ids and tasks, those that will be forgotten first in front; at most `limit`."""
        with self._mutex:
            found = list(islice(self.tasks.data.items(), limit or None))
        yield from found

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, _Task]]:
        """Ids and tasks by the logical clock of their last events, the latest first; each once.

        `limit`: events looked at. `reverse=False`: by their first events, the earliest first.
        """
        with self._mutex:
            start = max(0, len(self._taskheap) - self._max_rows)
            rows = self._taskheap[start:] if start else list(self._taskheap)
        if reverse:
            rows.reverse()
        seen: set[str | None] = set()
        for row in islice(rows, limit):
            task = row[3]()
            if task is not None and task.uuid not in seen:
                seen.add(task.uuid)
                yield task.uuid, task

    tasks_by_timestamp = tasks_by_time

    def _tasks_by_type(self, name: str, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, _Task]]:
        found = ((uuid, task) for uuid, task in self.tasks_by_time(reverse=reverse) if task.name == name)
        return islice(found, limit)

    def _tasks_by_worker(
        self, hostname: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, _Task]]:
        found = (
            (uuid, task)
            for uuid, task in self.tasks_by_time(reverse=reverse)
            if task.worker is not None and task.worker.hostname == hostname
        )
        return islice(found, limit)

    def task_types(self) -> list[str]:
        """Names of all tasks that were seen, sorted."""
        with self._mutex:
            return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[_Worker]:
        """Workers heard of lately."""
        with self._mutex:
            workers = list(self.workers.data.values())
        return (worker for worker in workers if worker.alive)

    # ------------------------------------------------------------------------------------------------------ forgetting

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget tasks: those that have ended, or all if not `ready`."""
        with self._mutex:
            self._clear_tasks(ready)

    def _clear_tasks(self, ready: bool = True) -> None:
        kept = {uuid: task for uuid, task in self.itertasks() if not task.ready} if ready else {}
        self.tasks.clear()
        self.tasks.update(kept)
        self._taskheap[:] = []

    def clear(self, ready: bool = True) -> None:
        """Forget workers, counts and tasks (those that have ended, or all if not `ready`)."""
        with self._mutex:
            self._clear(ready)

    def _clear(self, ready: bool = True) -> None:
        self.workers.clear()
        self._clear_tasks(ready)
        self.event_count = 0
        self.task_count = 0

    def rebuild_taskheap(self, timetuple: type[Any] = timetuple) -> None:
        """Order tasks anew, by the last event of each."""
        with self._mutex:
            self._taskheap[:] = sorted(
                timetuple(task.clock or 0, task.timestamp or 0.0, task.origin, ref(task))
                for task in list(self.tasks.data.values())
            )

    def __repr__(self) -> str:
        return f"<State: events={self.event_count} tasks={self.task_count}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.event_callback, self.workers, self.tasks, None, self.max_workers_in_memory,
            self.max_tasks_in_memory, self.on_node_join, self.on_node_leave,
            _ids(self.tasks_by_type), _ids(self.tasks_by_worker),
        )  # fmt: skip


def _ids(index: Mapping[str, Iterable[_Task]]) -> dict[str, list[str | None]]:
    return {key: [task.uuid for task in tasks] for key, tasks in index.items()}
