"""What a benchmark needs around it: a private Redis, a delaying proxy, workers as processes, and their memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SUBJECTS = HERE / "subjects"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], seconds: float, what: str, every: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(every)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """A private Redis without persistence; gives its port."""
    if shutil.which("redis-server") is None:
        raise SystemExit("bench: expected redis-server on PATH; install it (apt-get install redis-server)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            until(lambda: answers(port), 10, "redis-server")
            yield port
        finally:
            server.terminate()
            server.wait(10)


@contextlib.contextmanager
def delay_proxy(target: int, microseconds: int) -> Iterator[int]:
    """A native proxy in front of `target` that delays each direction by half of the time given; gives its port."""
    port = free_port()
    binary = Path(tempfile.gettempdir()) / f"celery-bench-proxy-{port}"
    subprocess.run(["cc", "-O2", "-o", str(binary), str(HERE / "proxy.c")], check=True)
    proxy = subprocess.Popen([str(binary), str(port), str(target), str(microseconds // 2)])
    try:
        until(lambda: answers(port), 10, "the proxy")
        yield port
    finally:
        proxy.kill()
        proxy.wait()
        binary.unlink()


@dataclass(frozen=True)
class Subject:
    """One implementation: how to call it and how to start a worker of it."""

    name: str
    python: str
    driver: str
    worker: Callable[[int, str, str], list[str]]

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """Of its processes: what this process was told of paths is for ours alone."""
        path = os.environ.get("PYTHONPATH", "") if self.name == "ours" else ""
        theirs = {**os.environ, "C_FORCE_ROOT": "1", **env, "PYTHONPATH": f"{SUBJECTS}{os.pathsep}{path}"}
        theirs.pop("PYTHONDONTWRITEBYTECODE", None)  # else ours, installed in place, would be compiled at each start
        return theirs

    def drive(self, env: dict[str, str], *args: Any, timeout: float = 300, driver: str = "") -> dict[str, Any]:
        """Run the driver, or another script beside it; its JSON answer."""
        done = subprocess.run(
            [self.python, str(SUBJECTS / (driver or self.driver)), *map(str, args)],
            env=self.environment(env),
            cwd=SUBJECTS,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {args} failed:\n{done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer


def _celery_worker(python: str) -> Callable[[int, str, str], list[str]]:
    def command(concurrency: int, level: str, log: str) -> list[str]:
        return [
            python, "-m", "celery", "-A", "bench_celery", "worker",
            "-c", str(concurrency), "-l", level, "-f", log,
        ]  # fmt: skip

    return command


def subjects(ours: str, reference: str) -> dict[str, Subject]:
    """Ours and the two that we are measured against, by name."""

    def huey_worker(concurrency: int, level: str, log: str) -> list[str]:
        quiet = [] if level == "INFO" else ["-q"]
        script = str(Path(reference).parent / "huey_consumer")
        return [script, "bench_huey.huey", "-w", str(concurrency), "-k", "process", "-l", log, "-n", *quiet]

    return {
        "ours": Subject("ours", ours, "bench_celery.py", _celery_worker(ours)),
        "celery": Subject("celery", reference, "bench_celery.py", _celery_worker(reference)),
        "huey": Subject("huey", reference, "bench_huey.py", huey_worker),
    }


@dataclass
class Worker:
    """A worker as a process of its own, its log in a file."""

    subject: Subject
    env: dict[str, str]
    concurrency: int = 2
    level: str = "WARNING"
    process: subprocess.Popen[bytes] | None = None
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="bench-"))

    @property
    def log(self) -> Path:
        return Path(self.folder) / "worker.log"

    def start(self) -> None:
        command = self.subject.worker(self.concurrency, self.level, str(self.log))
        self.process = subprocess.Popen(
            command,
            env=self.subject.environment(self.env),
            cwd=SUBJECTS,
            stdout=subprocess.DEVNULL,
            stderr=(Path(self.folder) / "stderr").open("wb"),
            start_new_session=True,
        )

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM if self.subject.name != "huey" else signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return self.process.returncode

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def tree(self) -> list[int]:
        """Ids of the worker's processes."""
        assert self.process is not None
        return family(self.process.pid)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo.extend(children.get(found[-1], ()))
    return found


def pss(pids: Sequence[int]) -> float:
    """Proportional set size of all, in MB: shared pages are counted once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that all have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
