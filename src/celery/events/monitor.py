"""Application. What the terminal monitor knows and does, without a terminal ([event.21]).

Tasks in a table, the one that is selected, filters, pages, and what each key does.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from celery import states
from celery.events.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.events.state import State, Task

__all__ = ["ORDERS", "Actions", "Asked", "Fleet", "Monitor", "View", "arguments_of"]


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0.0


def _host(task: Task) -> str:
    return str(task.worker.hostname) if task.worker is not None else ""


#: What tasks can be sorted by.
ORDERS: dict[str, Callable[[Task], Any]] = {
    "time": lambda task: _number(task.timestamp),
    "state": lambda task: str(task.state),
    "runtime": lambda task: _number(task.runtime),
    "name": lambda task: str(task.name or ""),
    "worker": _host,
}
#: What the state filter goes through; "" is all.
_STATES = ("", states.PENDING, states.RECEIVED, states.STARTED, states.SUCCESS, states.FAILURE, states.RETRY,
           states.REVOKED, states.REJECTED)  # fmt: skip


class Actions(Protocol):
    """What the monitor asks of the world. Each may take seconds, and returns what to tell the user."""

    def revoke(self, task: Task) -> str: ...

    def terminate(self, task: Task) -> str: ...

    def rate_limit(self, task: Task, rate: str) -> str: ...

    def retry(self, task: Task) -> str: ...

    def result(self, task: Task) -> str: ...


@dataclass(frozen=True)
class View:
    """Which tasks are shown, and in which order. Texts are looked for in any case of letters."""

    order: str = "time"
    reverse: bool = True
    state: str = ""
    name: str = ""
    worker: str = ""
    search: str = ""

    def wanted(self) -> Callable[[Task], bool] | None:
        """Whether a task is shown; None: all are."""
        if not (self.state or self.name or self.worker or self.search):
            return None
        name, worker, search = self.name.lower(), self.worker.lower(), self.search.lower()

        def shown(task: Task) -> bool:
            if self.state and task.state != self.state:
                return False
            if name and name not in str(task.name or "").lower():
                return False
            if worker and worker not in _host(task).lower():
                return False
            return not search or any(search in str(text).lower() for text in _searched(task) if text)

        return shown


def _searched(task: Task) -> tuple[Any, ...]:
    return task.uuid, task.name, task.args, task.kwargs, task.result, task.exception, task.root_id


@dataclass
class Asked:
    """A line that the user is asked for."""

    label: str
    done: Callable[[str], object]
    text: str = ""


@dataclass(frozen=True)
class Fleet:
    """What a worker said of itself when it was asked (`inspect stats`, `active_queues`, `ping`)."""

    pool: str = ""
    queues: str = ""
    memory: int | None = None  # bytes
    trouble: str = ""  # why it is there and does not work


class Monitor:
    """One thread looks and presses keys; another hands events to `state`, whose callback must be `saw`."""

    def __init__(
        self,
        actions: Actions,
        in_background: Callable[[Callable[[], None]], object] = lambda job: job(),
        keymap: Mapping[str, Callable[[], object]] | None = None,
    ) -> None:
        """`in_background` runs what may take long. `keymap`: keys beside our own, or in their place."""
        self.actions = actions
        self.view = View()
        #: "tasks", "workers", "help" or "text" (a task's details).
        self.page = "tasks"
        #: The lines of the page "text", its title, and the first that is shown.
        self.title, self.lines, self.scroll = "", [""], 0
        self.asked: Asked | None = None
        self.message = ""
        self.selected: str | None = None
        #: Whether the user has chosen it: then it stays selected wherever it moves; else the topmost is.
        self.chosen = False
        self.first = 0
        self.rows = 10  # as many as the last drawing had room for
        self.fleet: dict[str, Fleet] = {}
        self.rate = 0.0
        self.done = False
        self.table: Table[Task] = Table(ORDERS["time"])
        self._background = in_background
        self._dirty: set[str] = set()
        self._counted: tuple[float, int] | None = None
        self.keymap: dict[str, Callable[[], object]] = {**self._keys(), **(keymap or {})}

    def _keys(self) -> dict[str, Callable[[], object]]:
        return {
            "j": lambda: self.move(1), "down": lambda: self.move(1), "k": lambda: self.move(-1),
            "up": lambda: self.move(-1), "pagedown": lambda: self.move(self.rows),
            "pageup": lambda: self.move(-self.rows), "home": lambda: self.move(-(10**9)),
            "end": lambda: self.move(10**9), "g": lambda: self.move(-(10**9)), "G": lambda: self.move(10**9),
            "c": self.revoke, "x": self.terminate, "l": self.rate_limit, "y": self.retry, "t": self.show_traceback,
            "r": self.show_result, "i": self.show_info, "enter": self.show_info,
            "/": lambda: self.ask("search", "search", self.view.search),
            "n": lambda: self.ask("task name", "name", self.view.name),
            "w": lambda: self.ask("worker", "worker", self.view.worker),
            "s": self.next_state, "o": self.next_order, "O": self.turn_round, "a": self.show_all,
            "W": lambda: self.turn_to("workers"), "tab": lambda: self.turn_to("workers"),
            "h": lambda: self.turn_to("help"), "?": lambda: self.turn_to("help"), "q": self.back, "esc": self.back,
        }  # fmt: skip

    # -- taking in ---------------------------------------------------------------------------------------------------

    def saw(self, _: State, event: Mapping[str, Any]) -> None:
        """An event is about to be taken in. Called while the state is held."""
        uuid = event.get("uuid")
        if uuid is not None:
            self._dirty.add(uuid)

    def refresh(self, state: State, now: float) -> None:
        """Bring the table up to date with what has changed since the last time. `now`: seconds from anywhere."""
        tasks = state.tasks.data
        dirty, self._dirty = state.freeze_while(lambda: (self._dirty, set()))
        for uuid in dirty:
            task = tasks.get(uuid)
            if task is not None:
                self.table.put(uuid, task)
        if self.table.known > len(tasks) + 1000 or (self.table.known > len(tasks) and not dirty):
            self.table.keep(state.freeze_while(list, tasks))
        if self._counted is None:
            self._counted = now, state.event_count
        elif now - self._counted[0] >= 1:
            self.rate = max(0.0, (state.event_count - self._counted[1]) / (now - self._counted[0]))
            self._counted = now, state.event_count
        self._follow()

    def _follow(self) -> None:
        """Keep the chosen task in sight; one that is not shown any more gives way to the topmost."""
        at = self.table.position(self.selected) if self.chosen and self.selected is not None else None
        if at is None:
            self.chosen, self.first = False, 0
            self._select(0)
        else:
            self.first = max(0, min(self.first, at), at - self.rows + 1)

    def _select(self, at: int) -> None:
        found = self.table.window(at, 1)
        self.selected = found[0][0] if found else None

    @property
    def task(self) -> Task | None:
        """The selected task."""
        at = None if self.selected is None else self.table.position(self.selected)
        return None if at is None else self.table.window(at, 1)[0][1]

    # -- keys --------------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Do what a key stands for: a character, or `up`, `enter`, `esc`, `backspace` and such."""
        self.message = ""
        if self.asked is not None:
            self._type(self.asked, key)
        elif key in self.keymap:
            self.keymap[key]()
        elif len(key) == 1 and key.isprintable():
            self.message = f"No key {key}: ? lists them"

    def _type(self, asked: Asked, key: str) -> None:
        if key == "esc":
            self.asked = None
        elif key == "enter":
            self.asked = None
            asked.done(asked.text.strip())
        elif key == "backspace":
            asked.text = asked.text[:-1]
        elif len(key) == 1 and key.isprintable():
            asked.text += key

    def move(self, by: int) -> None:
        """Select another task, or scroll a page of text."""
        if self.page != "tasks":
            self.scroll = max(0, min(self.scroll + by, len(self.lines) - 1))
            return
        at = None if self.selected is None else self.table.position(self.selected)
        at = max(0, min((at or 0) + by, len(self.table) - 1))
        self._select(at)
        self.chosen = at > 0 or by > 0
        self._follow()

    def back(self) -> None:
        """Leave the page; leave the monitor from the page of tasks."""
        if self.page == "tasks":
            self.done = True
        self.page = "tasks"

    def turn_to(self, page: str) -> None:
        """Open a page, or close it if it is open."""
        self.page, self.scroll = ("tasks" if self.page == page else page), 0

    # -- what is shown -----------------------------------------------------------------------------------------------

    def look(self, **changes: Any) -> None:
        """Change filters or the order."""
        self.view = replace(self.view, **changes)
        self.table.rearrange(ORDERS[self.view.order], self.view.wanted(), self.view.reverse)
        self._follow()

    def ask(self, label: str, field: str, text: str = "") -> None:
        """Ask for the text of a filter."""
        self.asked = Asked(label, lambda given: self.look(**{field: given}), text)

    def next_state(self) -> None:
        """Show tasks of the next state."""
        self.look(state=_STATES[(_STATES.index(self.view.state) + 1) % len(_STATES)])

    def next_order(self) -> None:
        """Sort by the next column."""
        orders = list(ORDERS)
        self.look(order=orders[(orders.index(self.view.order) + 1) % len(orders)])

    def turn_round(self) -> None:
        """Sort the other way round."""
        self.look(reverse=not self.view.reverse)

    def show_all(self) -> None:
        """No filters."""
        self.look(state="", name="", worker="", search="")

    def read(self, title: str, text: str) -> None:
        """Open a page of text."""
        self.page, self.title, self.lines, self.scroll = "text", title, text.splitlines() or [""], 0

    # -- the selected task -------------------------------------------------------------------------------------------

    def show_info(self) -> None:
        """All that is known of it, and where it stands in its flow."""
        task = self.task
        if task is not None:
            fields = {"name": task.name, "state": task.state, "worker": _host(task), **task.info()}
            lines = [f"{name + ':':<14}{value}" for name, value in fields.items() if value not in (None, "")]
            self.read(f"task {task.uuid}", "\n".join([*lines, *_flow(task), *(task.traceback or "").splitlines()]))

    def show_traceback(self) -> None:
        """Where it failed."""
        task = self.task
        if task is not None:
            self.read(f"traceback of {task.uuid}", task.traceback or "(none was told)")

    def show_result(self) -> None:
        """What it came to, from the result backend."""
        self._act("result", lambda task: self.read(f"result of {task.uuid}", self.actions.result(task)))

    def revoke(self) -> None:
        """Have it not run."""
        self._act("revoke", lambda task: self._say(self.actions.revoke(task)))

    def terminate(self) -> None:
        """Stop its run, once the user says yes."""

        def sure(answer: str) -> None:
            if answer.lower() in ("y", "yes"):
                self._act("terminate", lambda task: self._say(self.actions.terminate(task)))

        if self.task is not None:
            self.asked = Asked("kill the process that runs it? (yes/no)", sure)

    def rate_limit(self) -> None:
        """Ask how many tasks of this name each worker may run."""

        def given(rate: str) -> None:
            if rate:
                self._act("rate limit", lambda task: self._say(self.actions.rate_limit(task, rate)))

        task = self.task
        if task is not None:
            self.asked = Asked(f"rate limit of {task.name} (10/s, 100/m, 0: none)", given)

    def retry(self) -> None:
        """Send it again."""
        self._act("retry", lambda task: self._say(self.actions.retry(task)))

    def _say(self, text: str) -> None:
        self.message = text

    def _act(self, what: str, act: Callable[[Task], None]) -> None:
        task, self.chosen = self.task, True
        if task is None:
            self.message = "No task is selected"
            return

        def job() -> None:
            try:
                act(task)
            except Exception as exc:  # noqa: BLE001 - whatever a broker or a backend raises, the screen stays
                self.message = f"{what}: {type(exc).__name__}: {exc}"

        self.message = f"{what} …"
        self._background(job)


def _flow(task: Task) -> list[str]:
    """Lines that say where a task stands among those it belongs to."""
    lines = []
    for label, uuid, found in (("root", task.root_id, task.root), ("parent", task.parent_id, task.parent)):
        if uuid and uuid != task.uuid:
            lines.append(f"{label + ':':<14}{_named(found) if found is not None else uuid + ' (not heard of)'}")
    children = sorted(task.children, key=lambda child: (_number(child.timestamp), str(child.uuid)))
    return [*lines, *(f"{'child:':<14}{_named(child)}" for child in children)]


def _named(task: Task) -> str:
    return f"{task.uuid} {task.name} {task.state}"


def arguments_of(task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A task's arguments, read back from their texts in events.

    Raises `ValueError` if the texts do not say all: they were cut, or are no plain values.
    """
    args, kwargs = str(task.args or "()"), str(task.kwargs or "{}")
    try:
        if "..." in args + kwargs or "…" in args + kwargs:
            raise ValueError("cut")
        found = ast.literal_eval(args), ast.literal_eval(kwargs)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"its arguments are not known in full: {args} {kwargs}") from None
    if not isinstance(found[0], (tuple, list)) or not isinstance(found[1], dict):
        raise ValueError(f"its arguments are not known in full: {args} {kwargs}")
    return tuple(found[0]), found[1]
