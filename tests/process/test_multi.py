"""`celery multi` with real workers: start, stop, restart, and what goes wrong (areas multi, daemon)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celery.utils import processes
from tests.process.project import Project, lines
from tests.running import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

#: Workers under load; as many as the issue names at full size.
WORKERS = 10 if os.environ.get("CHAOS") else 3
CALLS = 2000 if os.environ.get("CHAOS") else 150

PROJECT = """
import os, time
from celery import Celery

app = Celery("proj", broker=URL, backend=URL)

def note(name, text):
    fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\\n".encode())
    os.close(fd)

@app.task
def early(name, number):
    note(name, f"early {number}")
    time.sleep(0.02)

@app.task(acks_late=True)
def late(name, number):
    note(name, f"late {number}")
    time.sleep(0.02)

@app.task
def nap(name, seconds):
    note(name, "begun")
    time.sleep(seconds)
    note(name, "ended")
"""


class Nodes(Project):
    """A project whose workers are started in the background, with their files in its folder."""

    def __init__(self, folder: Path) -> None:
        files = {"CELERYD_PID_FILE": f"{folder}/run/%n.pid", "CELERYD_LOG_FILE": f"{folder}/log/%n%I.log"}
        super().__init__(folder, PROJECT)
        self.variables |= files

    def command(self, line: str, **variables: str) -> tuple[int, str]:
        """Exit code and output (both streams) of a command."""
        done = subprocess.run(
            f"celery {line}", shell=True, cwd=self.folder, env={**self.variables, **variables}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=4 * PATIENCE,
        )  # fmt: skip
        return done.returncode, done.stdout

    def multi(self, line: str, code: int = 0) -> str:
        got, output = self.command(f"multi {line}")
        assert got == code, output
        return output

    def pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text()) for path in sorted((self.folder / "run").glob("*.pid"))}

    def log(self, name: str) -> str:
        return (self.folder / "log" / f"{name}.log").read_text()

    def close(self) -> None:
        """End what still runs of ours."""
        for pid in self.pids().values():
            if processes.is_alive(pid) and str(self.folder) in (Path("/proc") / str(pid) / "cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
        self.app.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    nodes.close()


OPTIONS = "-A proj -P solo -l INFO"


def gone(pid: int) -> bool:
    return not processes.is_alive(pid)


def test_start_restart_stop(nodes: Nodes) -> None:
    said = nodes.multi(f"start w1 w2 {OPTIONS}")
    assert re.fullmatch(
        r"celery multi v\S+ \(\S+\)\n> Starting nodes\.\.\.\n\t> w1@\S+: OK\n\t> w2@\S+: OK\n(\t  .*\n)*", said
    ), said
    # OK means that it works: the pid file is there, and so is the line in the log.
    first = nodes.pids()
    assert set(first) == {"w1", "w2"}
    assert "ready." in nodes.log("w1")
    nodes.send("early", str(nodes.note()), 1).get(timeout=PATIENCE)

    said = nodes.multi(f"restart w1 {OPTIONS}")
    assert re.search(
        r"> Stopping nodes\.\.\.\n\t> w1@\S+: TERM -> \d+\n> Waiting for 1 node -> \d+\.\.\.\.*\n"
        r"\t> w1@\S+: OK\n> Restarting node w1@\S+: OK\n", said
    ), said  # fmt: skip
    second = nodes.pids()
    assert gone(first["w1"])
    assert (second["w1"] != first["w1"], second["w2"] == first["w2"]) == (True, True)

    said = nodes.multi("stop w2")
    assert re.search(rf"\t> w2@\S+: TERM -> {second['w2']}\n\Z", said), said
    wait_until(lambda: gone(second["w2"]), "w2 ends")
    said = nodes.multi("stopwait w1 w2 -QUIT")
    assert re.search(r"> w2@\S+: DOWN\n", said), said
    assert f"QUIT -> {second['w1']}" in said
    assert gone(second["w1"])
    assert nodes.pids() == {}


def test_waiting_is_for_what_runs(nodes: Nodes) -> None:
    nodes.multi(f"start w1 {OPTIONS} -P prefork -c 1")
    nodes.send("nap", str(nodes.note()), 6)
    wait_until(lambda: lines(nodes.note()), "the task runs")
    said = nodes.multi("stop_verify w1")
    assert re.search(r"> Waiting for 1 node -> \d+\.{4,}\n\t> w1@\S+: OK\n> w1@\S+: DOWN", said), said
    assert nodes.note().read_text() == "begun\nended\n"


def test_kill_waits_for_nothing_and_leaves_a_file_that_nobody_trips_over(nodes: Nodes) -> None:
    nodes.multi(f"start w1 {OPTIONS}")
    pid = nodes.pid("w1")
    assert f"Sending KILL to node w1@{os.uname().nodename} ({pid})" in nodes.multi("kill w1")
    wait_until(lambda: gone(pid), "it ends")
    assert nodes.pid("w1") == pid
    assert "DOWN" in nodes.multi("stop w1")
    assert nodes.pids() == {}
    nodes.multi(f"start w1 {OPTIONS}")
    nodes.multi("kill w1")
    nodes.multi(f"start w1 {OPTIONS}")  # over the file of the dead
    nodes.multi("stopwait w1 --quiet")


def test_a_pid_that_is_another_programs_is_left_alone(nodes: Nodes) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    try:
        assert stranger.stdout
        stranger.stdout.readline()
        (nodes.folder / "run").mkdir()
        file = nodes.folder / "run" / "w1.pid"
        file.write_text(f"{stranger.pid}\n")
        os.utime(file, (1, 1))  # written long before that process began
        said = nodes.multi("stopwait w1 -9")
        assert f"DOWN (process {stranger.pid}, whose number was in {file}, is another program: left alone)" in said
        assert stranger.poll() is None
        file.write_text(f"{stranger.pid}\n")
        os.utime(file, (1, 1))
        nodes.multi(f"start w1 {OPTIONS}")
        assert nodes.pid("w1") != stranger.pid
        nodes.multi("stopwait w1")
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("-A nosuch", "The module nosuch was not found."),
        ("-A proj -P nosuch", "Invalid value for '-P' / '--pool'"),
        ("-A proj -l INFO -I nosuch_module", "No module named 'nosuch_module'"),
        ("-A proj --executable=/nosuch/python", "No such file or directory: '/nosuch/python'"),
    ],
)
def test_a_node_that_cannot_start_is_told_at_once_with_its_last_words(nodes: Nodes, options: str, says: str) -> None:
    said = nodes.multi(f"start w1 {options}", code=1)
    assert re.search(r"> w1@\S+: \* Child terminated with exit code \d+\nFAILED\n", said), said
    assert says in said
    assert nodes.pids() == {}


def test_a_running_node_is_not_started_twice(nodes: Nodes) -> None:
    nodes.multi(f"start w1 {OPTIONS}")
    pid = nodes.pid("w1")
    assert f"Seems we're already running? (pid: {pid})" in nodes.multi(f"start w1 {OPTIONS}", code=1)
    assert nodes.pid("w1") == pid
    nodes.multi("stopwait w1")


def test_options_of_celery_before_or_after(nodes: Nodes) -> None:
    for line in ("-A proj multi start w1", "multi start w1 -A proj", "multi -A proj start w1"):
        code, said = nodes.command(f"{line} -P solo -l INFO")
        assert code == 0, said
        nodes.multi("stopwait w1")


def test_detach_alone(nodes: Nodes) -> None:
    files = "--pidfile=d.pid --logfile=d.log"
    code, said = nodes.command(f"-A proj worker --detach -P solo -l INFO {files}")
    assert code == 0, said
    pid = int((nodes.folder / "d.pid").read_text())
    assert os.getsid(pid) != pid  # it is nobody's session, so it can get no terminal
    assert "ready." in (nodes.folder / "d.log").read_text()
    assert os.readlink(f"/proc/{pid}/fd/2") == str(nodes.folder / "d.log")
    assert nodes.command(f"-A proj worker --detach {files}")[0] == 73
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: gone(pid), "it ends")
    assert not (nodes.folder / "d.pid").exists()


def test_detach_without_a_log_tells_why_it_did_not_start(nodes: Nodes) -> None:
    code, said = nodes.command("-A proj worker -D -P solo -I nosuch_module")
    assert code == 1
    assert re.search(r"The worker celery@\S+ did not start\.\n(    .*\n)*.*No module named 'nosuch_module'", said), said


def test_fakefork_stays_in_front(nodes: Nodes) -> None:
    code, said = nodes.command("-A proj worker -D -P solo -I nosuch_module", C_FAKEFORK="1")
    assert code == 1
    assert "No module named 'nosuch_module'" in said
    assert "did not start" not in said


def test_a_broker_that_is_down_does_not_hold_up_the_start(nodes: Nodes) -> None:
    code, said = nodes.command("-A proj -b redis://127.0.0.1:1 multi start w1 -P solo -l INFO")
    assert code == 0, said
    assert re.search(
        r"OK\n\t  The worker w1@\S+ runs, but is not ready yet\.\n(\t .*\n)*.*Cannot connect to redis://", said
    ), said
    nodes.multi("stopwait w1")


def test_nodes_are_restarted_under_load_and_nothing_is_lost(nodes: Nodes) -> None:
    note = nodes.note("ledger")
    nodes.multi(f"start {WORKERS} -A proj -P prefork -c 1 -l INFO")
    for number in range(CALLS):
        nodes.send(("early", "late")[number % 2], str(note), number)
    wait_until(lambda: lines(note) >= CALLS // 10, "tasks flow")
    before = nodes.pids()
    assert len(before) == WORKERS
    assert nodes.multi(f"restart {WORKERS} -A proj -P prefork -c 1 -l INFO").count("Restarting node") == WORKERS
    after = nodes.pids()
    assert not set(before.values()) & set(after.values())
    for number in range(CALLS, CALLS + 20):
        nodes.send("late", str(note), number)
    wait_until(lambda: lines(note) >= CALLS + 20, "all tasks have run", timeout=4 * PATIENCE)
    nodes.multi(f"stopwait {WORKERS}")
    runs = Counter(note.read_text().splitlines())
    expected = [f"{('early', 'late')[n % 2]} {n}" for n in range(CALLS)] + [
        f"late {n}" for n in range(CALLS, CALLS + 20)
    ]
    assert runs == Counter(expected)
    assert nodes.depth() == 0
    assert all(gone(pid) for pid in (*before.values(), *after.values()))
