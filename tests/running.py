"""Programs as a user runs them: shell commands, a worker in the background, a Python prompt."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Self

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0  # seconds: far more than anything takes, so that a busy machine fails nothing


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has just installed the package: `celery` and `python` on the path, no settings."""
    commands = folder / ".bin"
    if not commands.exists():
        commands.mkdir(parents=True)
        for name, line in [
            ("celery", f'exec "{sys.executable}" -m celery "$@"'),
            ("python", f'exec "{sys.executable}" "$@"'),
        ]:
            (commands / name).write_text(f"#!/bin/sh\n{line}\n")
            (commands / name).chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CELERY", "C_", "PYTEST"))}
    return {
        **clean,
        "PATH": f"{commands}:{clean['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }


class Background:
    """A command that keeps running; its output (both streams) can be waited for and read."""

    def __init__(self, command: str, folder: Path, variables: dict[str, str]) -> None:
        self.command = command
        self._process = subprocess.Popen(
            f"exec {command}", shell=True, cwd=folder, env=variables, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float = PATIENCE) -> str:
        """Wait until the output matches; returns all output so far. Raises `AssertionError` showing it."""
        seen = re.compile(pattern, re.M)
        with self._changed:
            self._changed.wait_for(lambda: self._ended or seen.search("".join(self._lines)), timeout)
        assert seen.search(self.output), (
            f"no {pattern!r} within {timeout} s in what `{self.command}` printed:\n{self.output}"
        )
        return self.output

    def stop(self, signum: int = signal.SIGINT, timeout: float = PATIENCE) -> int:
        """Send a signal (Ctrl-C) and wait for the end; returns the exit code. Kills what does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signum)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"`{self.command}` did not stop within {timeout} s:\n{self.output}") from None
        finally:
            self._process.wait(timeout)
            self._reader.join(timeout)
            if self._process.stdout:
                self._process.stdout.close()
        return self._process.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it ends by itself; returns the exit code."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        """`kill -9` of the command and of all processes that it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)


def shell(command: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a command to its end; returns what it printed. Raises `AssertionError` if its exit code is not 0."""
    done = subprocess.run(command, shell=True, cwd=folder, env=variables, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * PATIENCE)  # fmt: skip
    assert done.returncode == 0, f"`{command}` ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


class Prompt:
    """A Python prompt in a process of its own, kept open: names live from one block to the next."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        driver = Path(__file__).parent / "guide" / "prompt.py"
        self._process = subprocess.Popen(
            [sys.executable, str(driver)], cwd=folder, env=variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def enter(self, block: str, timeout: float = 2 * PATIENCE) -> list[Answer]:
        """Type a block with `>>>` prompts, or plain statements; returns the answer to each statement."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        alarm = threading.Timer(timeout, self._process.kill)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps(block) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            alarm.cancel()
        assert line, f"the Python prompt ended or took more than {timeout} s over:\n{block}"
        return [Answer(**answer) for answer in json.loads(line)]

    def value(self, expression: str) -> str:
        """What the prompt shows for an expression. Raises `AssertionError` if it raises."""
        answer = self.enter(expression)[-1]
        assert not answer.error, f"{expression}:\n{answer.traceback}"
        return answer.shown.strip()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Answer:
    """What the prompt said to one statement."""

    def __init__(self, source: str, want: str, shown: str, error: str, traceback: str) -> None:
        self.source = source
        #: What the document says it shows; "" where it says nothing.
        self.want = want
        self.shown = shown
        #: The line of the exception, "TypeError: …"; "" if there was none.
        self.error = error
        self.traceback = traceback

    def check(self) -> None:
        """Raises `AssertionError` unless this is what the document shows, ids and prefixes aside."""
        want, got = self.want.strip(), self.shown.strip()
        if want.startswith("Traceback (most recent call last):"):
            assert alike(want.splitlines()[-1], self.error), (
                f"{self.source}expected: {want}\n     got: {self.error or got}"
            )
            return
        assert not self.error, f"{self.source}{self.traceback}"
        assert not want or alike(want, got), f"{self.source}expected: {want}\n     got: {got}"


_ID = re.compile(r"'?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'?")


def alike(want: str, got: str) -> bool:
    """Equal but for task ids; `…` and `...` stand for anything."""
    pattern = re.escape(_ID.sub("<id>", want)).replace(re.escape("..."), ".*").replace("…", ".*")
    return re.fullmatch(pattern, _ID.sub("<id>", got), re.S) is not None


def wait_until(condition: Any, what: str, timeout: float = PATIENCE) -> None:
    """Look again and again until the condition holds. Raises `AssertionError` saying what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


class Traces:
    """What this process came to hold since then. Of threads and children that is whatever is new, though others of
    earlier tests may have ended meanwhile; of descriptors what is new, if there are more than there were."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()
        self._children = _children()

    @property
    def new(self) -> list[object]:
        """Threads, what descriptors stand for, and ids of child processes."""
        now = _descriptors()
        more = now - self._descriptors if now.total() > self._descriptors.total() else Counter[str]()
        return [*set(threading.enumerate()) - self._threads, *more.elements(), *_children() - self._children]

    def wait(self) -> None:
        """Until nothing is left."""
        wait_until(lambda: not self.new, "threads, descriptors and processes are gone")


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{descriptor}")] += 1
        except FileNotFoundError:  # the one that lists
            continue
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ends
            found.update(map(int, (task / "children").read_text().split()))
    return found


def missing_lines(want: str, got: str) -> Sequence[str]:
    """Lines of a document's output that a command did not print, in any order."""
    printed = [line.strip() for line in got.splitlines()]
    return [line for line in want.splitlines() if line.strip() and not any(alike(line.strip(), p) for p in printed)]
