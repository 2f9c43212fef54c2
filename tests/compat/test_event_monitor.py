"""The terminal monitor: its screens as text (golden/monitor), its keys, and what it asks of the world."""

from __future__ import annotations

import gc
import os
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from celery import Celery
from celery.events.commands import Commands, fleet_of
from celery.events.cursesmon import CursesMonitor, evtop
from celery.events.drawing import draw, fit
from celery.events.monitor import Fleet, Monitor, View, arguments_of
from celery.events.state import State, Task

GOLDEN = Path(__file__).parent / "golden" / "monitor"
#: 2096-10-02 07:06:40 UTC: workers heard of then are alive when this runs.
NOW = 4_000_000_000.0
AGO = 1_000_000_000.0
TASKS = 100_000
NAMES = ("proj.mail.send_newsletter", "proj.images.resize", "proj.add", "shop.orders.export_to_the_warehouse_and_wait")


class Said:
    """Actions that only note what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def revoke(self, task: Task) -> str:
        self.asked.append(("revoke", task.uuid))
        return "w1@here: tasks flagged as revoked"

    def terminate(self, task: Task) -> str:
        self.asked.append(("terminate", task.uuid))
        return "terminated"

    def rate_limit(self, task: Task, rate: str) -> str:
        self.asked.append(("rate_limit", task.name, rate))
        return "new rate limit set successfully"

    def retry(self, task: Task) -> str:
        raise OSError("the broker is away")

    def result(self, task: Task) -> str:
        return f"SUCCESS\n{task.uuid!r}"


def uuid(n: int) -> str:
    return f"{n:08x}-0000-4000-8000-000000000000"


def tell(state: State, kind: str, n: int, at: float, **fields: Any) -> None:
    number = (0, 1, 2, 3, 4, 5, 6, 6, 8, 9)[n % 10]
    host = f"worker{number:02}@machine-{number % 3}.example.com"
    state.event({"type": f"task-{kind}", "uuid": uuid(n), "hostname": host, "timestamp": at, "local_received": at,
                 "clock": 10 + n, "pid": 7, "utcoffset": 0, **fields})  # fmt: skip


def filled(tasks: int) -> tuple[State, Monitor]:
    """Ten workers, one of them gone; tasks that came over ten minutes, the last of them in all states."""
    monitor = Monitor(Said())
    state = State(monitor.saw, max_tasks_in_memory=tasks)
    for n in range(10):
        host = f"worker{n:02}@machine-{n % 10 % 3}.example.com"
        heard = AGO if n == 7 else NOW
        state.event({"type": "worker-heartbeat", "hostname": host, "timestamp": heard, "local_received": heard,
                     "clock": n, "pid": 100 + n, "utcoffset": 0, "freq": 2.0, "active": n, "processed": 1000 * n,
                     "loadavg": [n / 4, 1.0, 0.5], "sw_ident": "py-celery", "sw_ver": "5.8.0",
                     "sw_sys": "Linux"})  # fmt: skip
        trouble = "2 of 5 processes of the pool do not answer" if n == 4 else ""
        monitor.fleet[host] = Fleet(f"prefork {n + 1}", "celery, mail", (40 + n) * 2**20, trouble)
    for n in range(tasks):
        parent = uuid(n - n % 5) if n % 5 else None
        tell(state, "received", n, NOW - 600 + 600 * n / tasks, name=NAMES[n % 4], args=f"({n}, 'öl')", kwargs="{}",
             root_id=uuid(n - n % 5), parent_id=parent, retries=0, eta=None, expires=None)  # fmt: skip
    for n in range(tasks - 100, tasks - 5):
        at = NOW - 600 + 600 * n / tasks
        kind = ("succeeded", "started", "failed", "succeeded", "retried")[n % 5]
        ended: dict[str, Any] = {
            "succeeded": {"result": f"{n * 2}", "runtime": n % 7 / 3},
            "failed": {"exception": "ValueError('no such image')", "traceback": "Traceback …\n  in resize\nValueError"},
            "retried": {"exception": "TimeoutError('smtp')", "traceback": "Traceback …"},
        }.get(kind, {})
        tell(state, kind, n, at + 1e-4, **ended)
    monitor.refresh(state, 0.0)
    return state, monitor


@pytest.fixture(scope="module")
def many() -> tuple[State, Monitor]:
    gc.disable()  # it would look at all tasks again and again
    try:
        return filled(TASKS)
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def some() -> tuple[State, Monitor]:
    return filled(2000)


@pytest.fixture
def few() -> tuple[State, Monitor]:
    return filled(200)


def text(state: State, monitor: Monitor, size: tuple[int, int]) -> str:
    lines = ["".join(piece for piece, _ in line) for line in draw(monitor, state, size, NOW, UTC)]
    assert len(lines) == size[1]
    assert all(len(line) <= size[0] for line in lines), [line for line in lines if len(line) > size[0]]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def press(monitor: Monitor, *keys: str) -> None:
    for key in keys:
        for one in [key] if key in monitor.keymap or len(key) == 1 or key in ("enter", "esc", "backspace") else key:
            monitor.press(one)


def search(monitor: Monitor, key: str, words: str) -> None:
    press(monitor, key, *words, "enter")


SCENES: dict[str, list[Any]] = {
    "tasks": [],
    "further-down": ["down", "pagedown", "j"],
    "one-name": ["n", *"IMAGES", "enter", "o", "o"],
    "failures": ["s"] * 5,
    "by-worker": ["o", "o", "o", "o", "O"],
    "nothing-found": ["/", *"no such thing", "enter"],
    "asking": ["j", "l", *"10/s"],
    "info": ["w", *"worker06", "enter", "i"],
    "traceback": ["s"] * 5 + ["t"],
    "result": ["r"],
    "workers": ["W"],
    "help": ["?"],
}


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("scene", [*SCENES][:3])
@pytest.mark.xdist_group("monitor")
@pytest.mark.process  # 100,000 tasks are a large program
def test_screens_of_100_000_tasks(many: tuple[State, Monitor], scene: str, size: tuple[int, int]) -> None:
    compare(*many, scene, size)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("scene", [*SCENES][3:])
def test_screens(some: tuple[State, Monitor], scene: str, size: tuple[int, int]) -> None:
    compare(*some, scene, size)


def compare(state: State, monitor: Monitor, scene: str, size: tuple[int, int]) -> None:
    """`GOLDEN=1` writes them anew: look at them then."""
    text(state, monitor, size)  # says how many rows there are
    monitor.rate = 4987.2
    press(monitor, *SCENES[scene])
    monitor.refresh(state, 0.5)
    screen = text(state, monitor, size)
    press(monitor, *(["esc"] if monitor.asked else []), *(["q"] if monitor.page != "tasks" else []), "g")
    if monitor.view != View():
        monitor.look(**vars(View()))
    monitor.message = ""
    path = GOLDEN / f"{scene}-{size[0]}x{size[1]}.txt"
    if os.environ.get("GOLDEN"):
        path.write_text(screen)
    assert screen == path.read_text()


def test_a_small_terminal_says_so(few: tuple[State, Monitor]) -> None:
    state, monitor = few
    assert "Too small" in draw(monitor, state, (30, 24), NOW)[0][0][0]


def test_the_top_is_followed_until_a_task_is_chosen(few: tuple[State, Monitor]) -> None:
    state, monitor = few
    text(state, monitor, (80, 24))
    tell(state, "started", 3, NOW + 1)
    monitor.refresh(state, 0.1)
    assert monitor.selected == uuid(3)
    press(monitor, "j", "j")
    chosen = monitor.selected
    for n in range(50):
        tell(state, "started", n, NOW + 2 + n)
    monitor.refresh(state, 0.2)
    assert monitor.selected == chosen
    (row,) = [line for line in text(state, monitor, (80, 24)).splitlines() if line.startswith(">")]
    assert row.endswith(str(chosen)[:8])
    press(monitor, "g")
    assert monitor.selected == uuid(49)


def test_what_the_state_forgets_is_shown_no_more() -> None:
    state, monitor = filled(300)
    for n in range(300, 2000):
        tell(state, "received", n, NOW + n, name="proj.add", args="()", kwargs="{}", root_id=None, parent_id=None)
    monitor.refresh(state, 2.0)
    assert monitor.rate == 850.0
    monitor.refresh(state, 2.1)
    assert monitor.table.known == len(monitor.table) == 300


def test_keys_ask_workers(few: tuple[State, Monitor]) -> None:
    _, monitor = few
    actions: Any = monitor.actions
    task = monitor.task
    assert task is not None
    press(monitor, "c")
    assert monitor.message == "w1@here: tasks flagged as revoked"
    press(monitor, "x", "n", "enter")  # not sure
    press(monitor, "x", *"yes", "enter")
    press(monitor, "l", *"10/mm", "backspace", "enter")
    press(monitor, "l", *"5", "esc")
    press(monitor, "y")
    assert monitor.message == "retry: OSError: the broker is away"
    assert actions.asked == [
        ("revoke", task.uuid),
        ("terminate", task.uuid),
        ("rate_limit", task.name, "10/m"),
    ]
    press(monitor, "Z")
    assert monitor.message == "No key Z: ? lists them"
    press(monitor, "q")
    assert monitor.done


def test_without_tasks_no_key_hurts() -> None:
    monitor = Monitor(Said())
    state = State(monitor.saw)
    monitor.refresh(state, 0.0)
    for key in monitor.keymap:
        press(monitor, key, "esc")
        text(state, monitor, (80, 24))
    assert not monitor.actions.asked  # type: ignore[attr-defined]


def test_events_cannot_move_the_cursor(few: tuple[State, Monitor]) -> None:
    state, monitor = few
    tell(state, "received", 999, NOW + 9, name="a\x1b[2J\n" + "b" * 99, args="\x07" * 200, kwargs=3, runtime="x")
    tell(state, "odd", 998, None, name=None, clock=None)  # type: ignore[arg-type]
    monitor.refresh(state, 0.1)
    for key in ("i", "q", "o", "o", "o", "o"):
        press(monitor, key)
        assert "\x1b" not in text(state, monitor, (80, 24))


@pytest.mark.parametrize(
    ("given", "width", "shown"),
    [("abc", 5, "abc  "), ("abcdef", 5, "abcd…"), ("a\tb", 3, "a·b"), ("日本語", 6, "日本語"), ("日本語", 4, "日本"),
     ("日本語x", 5, "日本 "), ("öl", 4, "öl  "), ("ööööö", 3, "öö…")],
)  # fmt: skip
def test_text_is_cut_by_columns(given: str, width: int, shown: str) -> None:
    assert fit(given, width) == shown


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [("(1, 'a')", "{'k': [1]}", ((1, "a"), {"k": [1]})), ("[1]", "{}", ((1,), {})), (None, None, ((), {}))],
)
def test_arguments_are_read_back(args: Any, kwargs: Any, expected: Any) -> None:
    assert arguments_of(Task("u", args=args, kwargs=kwargs)) == expected


@pytest.mark.parametrize("args", ["(1, ...)", "('abc...',)", "(<object>,)", "3", "(open('x'),)", "("])
def test_arguments_that_are_not_known_in_full_are_not_guessed(args: str) -> None:
    with pytest.raises(ValueError, match="not known in full"):
        arguments_of(Task("u", args=args, kwargs="{}"))


def test_workers_of_any_kind_describe_themselves() -> None:
    stats = {
        "w1": {"pool": {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 4},
               "rusage": {"maxrss": 2048}},
        "w2": {"pool": None, "rusage": "N/A"}, "w3": "no",
    }  # fmt: skip
    pings = {"w1": {"ok": "pong"}, "w2": {"error": "2 of 2 processes of the pool do not answer"}}
    assert fleet_of(stats, {"w1": [{"name": "a"}, {"name": "b"}]}, pings) == {
        "w1": Fleet("prefork 4", "a, b", 2048 * 1024),
        "w2": Fleet(trouble="2 of 2 processes of the pool do not answer"),
        "w3": Fleet(),
    }


def test_commands_reach_a_worker_and_a_backend() -> None:
    app = Celery("monitored", broker="memory://monitor", backend="memory://monitor", set_as_current=False)
    commands = Commands(app)
    assert commands.result(Task("u", state="FAILURE", exception="ValueError()")) == "FAILURE\nValueError()"
    sent = commands.retry(Task("u", name="proj.add", args="(1, 2)", kwargs="{}"))
    assert sent.startswith("sent again as ")
    assert app.assembly.broker.depth("celery") == 1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="name"):
        commands.retry(Task("u"))


def test_celerys_names_and_a_keymap() -> None:
    app = Celery("monitored", broker="memory://", set_as_current=False)
    pressed: list[str] = []
    shown = CursesMonitor(app.events.State(), app, keymap={"Z": lambda: pressed.append("Z")})
    assert set("jkctril") <= shown.keymap.keys()
    shown.monitor.press("Z")
    assert (pressed, shown.tasks, shown.selected_task) == (["Z"], [], None)
    assert callable(evtop)


def test_an_event_that_makes_no_sense_ends_nothing() -> None:
    shown = CursesMonitor(State(), Celery("monitored", broker="memory://", set_as_current=False))
    shown.take({"type": "task-received"})
    shown.take({"type": "task-received", "uuid": "u", "hostname": "w", "timestamp": "then", "local_received": NOW})
    shown.take({"type": "task-sent", "uuid": "u", "hostname": "w", "timestamp": NOW, "local_received": NOW})
    assert "2 events" in shown.monitor.message
    assert list(shown.state.tasks) == ["u"]
