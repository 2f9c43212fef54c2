"""Application. The monitor on the terminal: `celery events` without options ([event.21]).

The main thread draws a few times a second and hears keys; one thread takes events in, and others ask workers, so that
neither a flood of events nor a slow broker makes the screen wait.
"""

from __future__ import annotations

import curses
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.app import app_or_default
from celery.events.capturing import capture_for_ever
from celery.events.commands import Commands
from celery.events.drawing import draw
from celery.events.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.events.state import State

__all__ = ["CursesMonitor", "evtop"]

#: Tasks that are kept; about 100 MB.
_TASKS = 50_000
#: Seconds between two looks at what workers say of themselves.
_ASK_EVERY = 10.0
#: Ctrl-L draws everything anew, as everywhere: something else may have written on the terminal.
_REDRAW = "\x0c"
#: Names of keys that are no characters.
_NAMES = {
    curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_NPAGE: "pagedown", curses.KEY_PPAGE: "pageup",
    curses.KEY_HOME: "home", curses.KEY_END: "end", curses.KEY_ENTER: "enter", curses.KEY_BACKSPACE: "backspace",
    "\n": "enter", "\r": "enter", "\t": "tab", "\x1b": "esc", "\x7f": "backspace", "\b": "backspace",
}  # fmt: skip


class CursesMonitor:
    """A `Monitor` on the terminal.

    `keymap`: keys beside the monitor's own, or in their place: a character → a function without arguments.
    """

    #: Seconds between two drawings.
    screen_delay = 0.25

    def __init__(self, state: State, app: Any, keymap: Mapping[str, Callable[[], object]] | None = None) -> None:
        self.state = state
        self.app = app
        self.commands = Commands(app)
        self.monitor = Monitor(self.commands, _in_background, keymap)
        self.win: Any = None
        self._senseless = 0
        self._looks: dict[str, int] = {}
        state.event_callback = self.monitor.saw

    @property
    def keymap(self) -> dict[str, Callable[[], object]]:
        """What each key does."""
        return self.monitor.keymap

    @property
    def tasks(self) -> list[tuple[str, Any]]:
        """The tasks on the screen."""
        return self.monitor.table.window(self.monitor.first, self.monitor.rows)

    @property
    def selected_task(self) -> str | None:
        """The selected task's id."""
        return self.monitor.selected

    def init_screen(self) -> None:
        """Take the terminal over."""
        self.win = curses.initscr()
        curses.noecho()
        curses.cbreak()
        curses.set_escdelay(50)
        self.win.keypad(True)
        self.win.timeout(int(self.screen_delay * 1000))
        with suppress(curses.error):
            curses.curs_set(0)
        self._looks = _looks()

    def resetscreen(self) -> None:
        """Give the terminal back."""
        if self.win is not None:
            self.win.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()
        self.win = None

    def run(self) -> None:
        """Draw and hear keys until the user leaves. The screen must be ours (`init_screen`)."""
        while not self.monitor.done:
            self.draw()
            self.handle_keypress()

    def draw(self) -> None:
        """Show what there is now."""
        height, width = self.win.getmaxyx()
        self.monitor.refresh(self.state, time.monotonic())
        self.win.erase()
        for y, line in enumerate(draw(self.monitor, self.state, (width, height), time.time())):
            x = 0
            for text, look in line:
                with suppress(curses.error):  # the terminal has become smaller, or this is its very last cell
                    self.win.addstr(y, x, text, self._looks.get(look, 0))
                x += len(text)
        self.win.refresh()

    def handle_keypress(self) -> None:
        """Wait for a key, no longer than until the next drawing, and do what it stands for."""
        try:
            key = self.win.get_wch()
        except curses.error:  # none came
            return
        if key == _REDRAW:
            self.win.redrawwin()
            return
        self.monitor.press(_NAMES.get(key, key if isinstance(key, str) else ""))

    def ask_workers(self, every: float = _ASK_EVERY) -> None:
        """Keep up with pools, queues and memory, until the user leaves."""
        while not self.monitor.done:
            with suppress(Exception):  # what workers say of themselves is missing then, as with remote control off
                self.monitor.fleet = self.commands.fleet()
            time.sleep(every)

    def take_events(self) -> None:
        """Hand events to the state, for ever."""
        capture_for_ever(self.app, {"*": self.take}, self._lost)

    def take(self, event: dict[str, Any]) -> None:
        """Hand an event to the state. One that makes no sense is counted, and hides none of the others."""
        try:
            self.state.event(event)
        except Exception as exc:  # noqa: BLE001 - anybody may send events, of any content
            self._senseless += 1
            self.monitor.message = f"{self._senseless} events made no sense, the last: {type(exc).__name__}: {exc}"

    def _lost(self, exc: BaseException, pause: float) -> None:
        self.monitor.message = f"The broker is lost, tried again in {pause:.0f} s: {exc}"


def _in_background(job: Callable[[], None]) -> None:
    threading.Thread(target=job, name="monitor-asks", daemon=True).start()


def _looks() -> dict[str, int]:
    """Attributes of curses for the looks of `drawing`; without colours they are told apart all the same."""
    looks = {"bar": curses.A_REVERSE, "head": curses.A_BOLD, "selected": curses.A_REVERSE | curses.A_BOLD,
             "bad": curses.A_BOLD, "good": 0, "busy": 0, "dim": curses.A_DIM}  # fmt: skip
    with suppress(curses.error):
        curses.start_color()
        curses.use_default_colors()
        colours = {"good": curses.COLOR_GREEN, "bad": curses.COLOR_RED, "busy": curses.COLOR_YELLOW}
        for number, (look, colour) in enumerate(colours.items(), 1):
            curses.init_pair(number, colour, -1)
            looks[look] |= curses.color_pair(number)
    return looks


def evtop(app: Any = None) -> None:
    """Show the monitor until the user leaves it."""
    app = app_or_default(app)
    monitor = CursesMonitor(app.events.State(max_tasks_in_memory=_TASKS), app)
    for duty in (monitor.take_events, monitor.ask_workers):
        threading.Thread(target=duty, name=f"monitor-{duty.__name__}", daemon=True).start()
    try:
        monitor.init_screen()
        monitor.run()
    except KeyboardInterrupt:
        pass
    finally:
        monitor.resetscreen()
