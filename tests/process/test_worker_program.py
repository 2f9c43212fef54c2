"""`celery worker` as a process: banner, log lines, and every way to stop it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.project import Project, lines
from tests.running import Background, shell, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.process

PROJECT = """
import atexit, os, signal, threading, time
from celery import Celery

app = Celery("proj", broker="sqlite:///", backend="sqlite:///")

@app.task
def add(x, y):
    return x + y

@app.task
def nap(seconds, note=None):
    if note:
        open(note, "a").write("begun\\n")
    time.sleep(seconds)
    return "rested"

@app.task(acks_late=True)
def late_nap(seconds, note):
    return nap(seconds, note)

@app.task
def die():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(note):
    first = not os.path.exists(note)
    open(note, "a").write("begun\\n")
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"

@app.task
def at_exit(note):
    atexit.register(lambda: (time.sleep(1), open(note, "a").write("ended\\n")))

@app.task
def fork_and_terminate():
    pid = os.fork()
    if not pid:
        signal.pause()
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@app.task
def in_main_thread():
    return threading.current_thread() is threading.main_thread()
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, PROJECT)
    yield project
    project.app.close()


BANNER = """ $
 -------------- w1@here v5\\.8\\.0\\+next \\(.*\\)
--- \\*{5} ----- $
-- \\*{7} ---- .+ \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d
- \\*{3} --- \\* --- $
- \\*\\* ---------- \\[config\\]
- \\*\\* ---------- \\.> app:         proj:0x[0-9a-f]+
- \\*\\* ---------- \\.> transport:   sqlite:///(?P<broker>.*)
- \\*\\* ---------- \\.> results:     sqlite:///(?P<results>.*)
- \\*{3} --- \\* --- \\.> concurrency: 1 \\(prefork\\)
-- \\*{7} ---- \\.> task events: OFF \\(enable -E to monitor tasks in this worker\\)
--- \\*{5} ----- $
 -------------- \\[queues\\]
                \\.> celery           exchange=celery\\(direct\\) key=celery
                \\.> hipri            exchange=hipri\\(direct\\) key=hipri
                $
$
\\[tasks\\]
  \\. proj\\.add
"""


def test_banner(project: Project) -> None:
    with project.worker("-l INFO -c 1 -n w1@here -Q hipri,celery") as worker:
        output = worker.wait_for(r"\[.*: INFO/MainProcess\] w1@here ready\.$")
    found = re.search(BANNER, output, re.M)
    assert found, output
    assert Path(found["broker"]) == Path(found["results"]) == project.folder / "celery.sqlite3"


def test_two_lines_a_task(project: Project) -> None:
    with project.ready("-l INFO -c 2") as worker:
        results = [project.send("add", n, 1) for n in range(20)]
        assert [result.get(timeout=30) for result in results] == list(range(1, 21))
    for result in results:
        received = rf"INFO/MainProcess\] Task proj\.add\[{result.id}\] received$"
        succeeded = rf"INFO/ForkPoolWorker-[12]\] Task proj\.add\[{result.id}\] succeeded in [0-9.e-]+s: \d+$"
        assert len(re.findall(received, worker.output, re.M)) == 1
        assert len(re.findall(succeeded, worker.output, re.M)) == 1


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGTERM, 0, "worker: Warm shutdown"), (signal.SIGINT, 1, "worker: Hitting Ctrl\\+C again will initiate")],
)
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_warm_stop_finishes_what_runs(project: Project, pool: str, number: int, code: int, says: str) -> None:
    worker = project.ready(f"-l INFO -c 1 -P {pool}")
    running = project.send("nap", 1.0, str(project.note()))
    wait_until(lambda: lines(project.note()), "the task runs")
    waiting = project.send("add", 1, 1)
    assert worker.stop(number) == code
    assert re.search(says, worker.output)
    assert running.get(timeout=5) == "rested"
    assert waiting.state == "PENDING"
    assert project.depth() == 1


def test_a_warm_stop_lets_the_children_end_in_order(project: Project) -> None:
    with project.ready() as worker:
        project.send("at_exit", str(project.note())).get(timeout=30)
        assert worker.stop(signal.SIGTERM) == 0
    assert lines(project.note()) == 1


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_cold_stop_gives_back_what_was_not_acknowledged(project: Project, pool: str) -> None:
    worker = project.ready(f"-c 1 -l INFO -P {pool}")
    late = project.send("late_nap", 60, str(project.note()))
    wait_until(lambda: lines(project.note()), "the task runs")
    assert worker.stop(signal.SIGQUIT) == 1
    assert "worker: Cold shutdown (MainProcess)" in worker.output
    assert late.state == "PENDING"
    assert project.depth() == 1


def test_the_second_ctrl_c_is_cold(project: Project) -> None:
    worker = project.ready()
    project.send("late_nap", 60, str(project.note()))
    wait_until(lambda: lines(project.note()), "the task runs")
    worker._process.send_signal(signal.SIGINT)
    worker.wait_for("Warm shutdown")
    assert worker.stop(signal.SIGINT) == 1
    assert "Cold shutdown" in worker.output
    assert project.depth() == 1


def test_a_worker_that_is_killed_loses_nothing(project: Project) -> None:
    worker = project.ready("-c 2 -l INFO")
    notes = [project.note(f"note{n}") for n in range(2)]
    results = [project.send("late_nap", 2.0, str(note)) for note in notes]
    wait_until(lambda: all(lines(note) for note in notes), "both tasks run")
    worker.stop(signal.SIGKILL)
    with project.ready("-c 2 -l INFO"):
        assert [result.get(timeout=30) for result in results] == ["rested"] * 2
    assert [lines(note) for note in notes] == [2, 2]


def test_a_child_that_is_killed_fails_its_task_and_is_replaced(project: Project) -> None:
    with project.ready() as worker:
        lost = project.send("die")
        assert re.match(r"Worker exited prematurely: signal 9 \(SIGKILL\) Job: \d+\.", str(lost.get(propagate=False)))
        assert (lost.state, type(lost.result).__name__) == ("FAILURE", "WorkerLostError")
        assert project.send("add", 2, 2).get(timeout=30) == 4
    assert "Task handler raised error: WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL)" in worker.output


def test_a_task_may_ask_to_run_again_when_its_child_dies(project: Project) -> None:
    with project.ready():
        assert project.send("die_once", str(project.note())).get(timeout=30) == "alive"
    assert lines(project.note()) == 2


def test_what_a_task_forks_dies_of_term_however_early_it_comes(project: Project) -> None:
    with project.ready():
        results = [project.send("fork_and_terminate") for _ in range(20)]
        assert [result.get(timeout=30) for result in results] == [-signal.SIGTERM] * 20


def test_solo_tasks_run_in_the_main_thread(project: Project) -> None:
    with project.ready("-P solo -l INFO"):
        assert project.send("in_main_thread").get(timeout=30) is True


def test_hang_up_starts_the_program_anew(project: Project) -> None:
    worker = project.ready("-l INFO -c 1")
    os.kill(worker._process.pid, signal.SIGHUP)
    worker.wait_for(r"(?s)ready\.$.*Warm shutdown.*ready\.$")
    assert project.send("add", 1, 1).get(timeout=30) == 2
    assert worker.stop(signal.SIGTERM) == 0


def test_usr1_shows_where_the_threads_are(project: Project) -> None:
    with project.ready() as worker:
        os.kill(worker._process.pid, signal.SIGUSR1)
        worker.wait_for("Current thread 0x.* \\(most recent call first\\)")
        worker.wait_for('engine.py", line')


def test_log_file_pid_file_and_settings_in_words(project: Project) -> None:
    with project.worker("-l INFO -c 1 -n w1@%h -f %n.log --pidfile %n.pid -S %n.state worker_proc_alive_timeout=9"):
        wait_until(lambda: (project.folder / "w1.log").exists(), "the log file")
        wait_until(lambda: "ready." in (project.folder / "w1.log").read_text(), "the worker is ready")
        assert int((project.folder / "w1.pid").read_text()) > 1
    assert not (project.folder / "w1.pid").exists()
    assert (project.folder / "w1.state").exists()


def test_purge(project: Project) -> None:
    project.send("add", 1, 1)
    project.send("add", 1, 1)
    with project.worker("-l INFO -c 1 --purge") as worker:
        worker.wait_for("purge: Erased 2 messages from the queue")
        worker.wait_for("ready")
    assert project.depth() == 0


def test_call_result_and_purge_commands(project: Project) -> None:
    task_id = shell("celery -A proj call proj.add -a '[2, 3]'", project.folder, project.variables).strip()
    with project.ready():
        project.app.AsyncResult(task_id).get(timeout=30)
    assert shell(f"celery -A proj result {task_id}", project.folder, project.variables).strip() == "5"
    project.send("add", 1, 1)
    purged = "celery -A proj purge -f"
    assert "Purged 1 message from 1 known task queue." in shell(purged, project.folder, project.variables)
    assert "No messages purged from 1 queue." in shell(purged, project.folder, project.variables)


def test_no_broker_configured_says_how_to_choose_the_embedded_one(project: Project) -> None:
    (project.folder / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    worker = Background("celery -A bare worker -c 1", project.folder, project.variables)
    try:
        output = worker.wait_for(r"Cannot connect(.|\n)*sqlite:///")
        assert "amqp://guest" in output
    finally:
        worker.stop(signal.SIGTERM)


def test_detached(project: Project) -> None:
    command = "celery -A proj worker -D -l INFO -c 1 -n w1@%h -f %n.log --pidfile %n.pid"
    shell(command, project.folder, project.variables)
    wait_until(lambda: (project.folder / "w1.pid").exists(), "the pid file")
    pid = int((project.folder / "w1.pid").read_text())
    try:
        assert project.send("add", 2, 2).get(timeout=30) == 4
        second = Background(command.replace(" -D", ""), project.folder, project.variables)
        assert second._process.wait(30) == 73  # the pid file's owner lives
        second.stop()
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (project.folder / "w1.pid").exists(), "it has stopped")
    assert "w1@" in (project.folder / "w1.log").read_text()


def test_names_of_processes(project: Project) -> None:
    """As Celery 5.7 shows them (observed), if the package setproctitle is there: here, one that writes them down."""
    (project.folder / "setproctitle.py").write_text(
        "def setproctitle(title):\n    with open('titles', 'a') as file:\n        file.write(title + '\\n')\n"
    )
    with project.ready("-l INFO -c 2 -n w1@here.example"):
        titles = project.note("titles")
        wait_until(lambda: lines(titles) == 3, "all have named themselves")
    assert sorted(titles.read_text().splitlines()) == [
        "[celeryd: w1@here:ForkPoolWorker-1]",
        "[celeryd: w1@here:ForkPoolWorker-2]",
        "[celeryd: w1@here:MainProcess] -active- (-A proj worker -l INFO -c 2 -n w1@here.example)",
    ]
