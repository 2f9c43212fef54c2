"""GUIDE.md: every console, pycon and python block has its place here, and each that can run now does.

The guide is the user's own document, kept outside this repository; `GUIDE.md` beside this file is a copy, compared with
the original where that is at hand. Blocks run as they stand, against real workers, on SQLite and on Redis.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.guide.blocks import Block, blocks
from tests.running import ROOT, Answer, Background, Prompt, environment, shell, wait_until
from tests.servers import RedisServer
from tests.terminals import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = Path(__file__).with_name("GUIDE.md")
ORIGINAL = ROOT.parent / "shared" / "GUIDE.md"
EXAMPLE = ROOT / "examples" / "next-steps"

#: Blocks that run now, by the test that runs them.
WORKERS = ("starting-the-worker-1", "starting-the-worker-2")
CALLS = tuple(f"calling-tasks-{n}" for n in range(1, 13))
SIGNATURES = (
    "canvas-designing-work-flows-1",
    "canvas-designing-work-flows-2",
    "and-theres-that-calling-api-again-1",
    "and-theres-that-calling-api-again-2",
    "and-theres-that-calling-api-again-3",
    "and-theres-that-calling-api-again-4",
)
CANVASES = ("groups-1", "groups-2", "chains-1", "chains-2", "chains-3", "chords-1", "chords-2", "chords-3")
ROUTES = ("routing-1", "routing-2", "routing-3", "routing-4")
TIMES = ("timezone-1",)
BACKGROUND = tuple(f"in-the-background-{n}" for n in range(1, 7))
CONTROL = tuple(f"remote-control-{n}" for n in range(1, 10))

#: Blocks of issues that are still open: issue → names.
LATER: dict[int, tuple[str, ...]] = {
    3: ("calling-tasks-13",),  # the states of a task that is retried
}


def test_the_copy_is_the_guide() -> None:
    if ORIGINAL.exists():
        assert GUIDE.read_bytes() == ORIGINAL.read_bytes(), f"copy {ORIGINAL} to {GUIDE}"


def test_every_block_has_its_place() -> None:
    now = [*WORKERS, *CALLS, *SIGNATURES, *CANVASES, *ROUTES, *TIMES, *BACKGROUND, *CONTROL]
    later = [name for names in LATER.values() for name in names]
    assert sorted(now + later) == sorted(block.name for block in blocks(GUIDE))


# A project, its worker and a prompt, on each broker ------------------------------------------------------------------


@dataclass
class Project:
    """The example project in a folder of its own, on one broker."""

    folder: Path
    variables: dict[str, str]
    prompt: Prompt

    def type(self, name: str) -> list[Answer]:
        """Type a block of the guide at the prompt; every answer is checked."""
        answers = self.prompt.enter(text(name))
        for answer in answers:
            answer.check()
        return answers

    def worker(self, name: str) -> Background:
        """Run the one command of a console block; returns when the worker is ready."""
        [(command, _)] = block(name).commands()
        return self.start(command)

    def start(self, command: str) -> Background:
        worker = Background(command, self.folder, self.variables)
        try:
            worker.wait_for(r"^\[.* \S+@\S+ ready\.$" if "INFO" in command else r"celery@")
        except BaseException:
            worker.stop()
            raise
        return worker


def block(name: str) -> Block:
    return next(b for b in blocks(GUIDE) if b.name == name)


def text(name: str) -> str:
    return block(name).text


REDIS = pytest.param("redis", marks=pytest.mark.server)
RABBIT = pytest.param("rabbit", marks=[pytest.mark.server, pytest.mark.xdist_group("rabbit")])
#: Of tests that say nothing of results, and take long.
not_rabbit = pytest.mark.parametrize("urls", ["sqlite", REDIS], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["sqlite", REDIS, RABBIT])
def urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of the broker, and of the result backend."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('guide')}/guide.sqlite3"
        yield url, url
    elif request.param == "redis":
        with RedisServer() as server:
            yield server.url(), server.url()
    else:  # as the guide's example project has them
        server = request.getfixturevalue("rabbit_session")
        yield server.make_vhost("guide"), "rpc://"
        server.drop_vhost("guide")


@pytest.fixture(scope="module")
def project(urls: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("src")
    shutil.copytree(EXAMPLE / "proj", folder / "proj")
    # The guide's last signature passes `debug=`, which the example's `add` does not take: refused at the call, as in
    # Celery 5.7. Here it takes it, so that the block runs to its end.
    tasks = folder / "proj" / "tasks.py"
    tasks.write_text(tasks.read_text().replace("def add(x, y):", "def add(x, y, debug=False):"))
    variables = environment(folder, CELERY_BROKER_URL=urls[0], CELERY_RESULT_BACKEND=urls[1])
    with Prompt(folder, variables) as prompt:
        yield Project(folder, variables, prompt)


@pytest.fixture(scope="module")
def worker(project: Project) -> Iterator[Background]:
    """`celery -A proj worker -l INFO`, for as long as the tests of this module run."""
    with project.worker("starting-the-worker-1") as running:
        yield running


# The walk through the guide ------------------------------------------------------------------------------------------

BANNER = r"""
 -------------- celery@\S+ v\S+ \(\S+\)
--- \*+ ----- *
-- \*+ ---- .*
- \*\*\* --- \* --- *
- \*+ ---------- \[config\]
- \*+ ---------- \.> app: +proj:0x[0-9a-f]+
- \*+ ---------- \.> transport: +\S+
- \*+ ---------- \.> results: +\S+
- \*\*\* --- \* --- \.> concurrency: \d+ \(prefork\)
-- \*+ ---- \.> task events: OFF \(enable -E to monitor tasks in this worker\)
--- \*+ ----- *
 -------------- \[queues\]
 +\.> celery +exchange=celery\(direct\) key=celery
"""


@pytest.mark.process
def test_starting_the_worker(project: Project, worker: Background) -> None:
    printed = worker.wait_for(r" ready\.$")
    for line in BANNER.strip("\n").splitlines():
        assert re.search(f"^{line} *$", printed, re.M), f"no line {line!r} in the banner:\n{printed}"
    for task in ("proj.tasks.add", "proj.tasks.mul", "proj.tasks.xsum"):
        assert re.search(rf"^ +\. {re.escape(task)}$", printed, re.M), printed


@pytest.mark.process
@not_rabbit
def test_help_without_an_app(project: Project) -> None:
    [(command, _)] = block("starting-the-worker-2").commands()
    printed = shell(command, project.folder, project.variables)
    for option in ("--concurrency", "--queues", "--pool", "--loglevel", "--hostname"):
        assert option in printed


@pytest.mark.process
@not_rabbit
def test_stopping_the_worker(project: Project) -> None:
    [(command, _)] = block("starting-the-worker-1").commands()
    with project.start(f"{command} -n another@%h -Q elsewhere") as worker:
        assert worker.stop() == 1  # Control-c: warm, with the failure code that Celery gives it ([shutdown.1])
        assert "Warm shutdown (MainProcess)" in worker.output


@pytest.mark.process
@pytest.mark.usefixtures("worker")
def test_calling_tasks(project: Project) -> None:
    prompt = project.prompt
    project.type("calling-tasks-1")
    project.type("calling-tasks-2")
    sent = time.monotonic()
    project.type("calling-tasks-3")
    prompt.enter("later = _")
    with project.start("celery -A proj worker -l INFO -Q lopri -n lopri@%h"):
        project.type("calling-tasks-4")
        project.type("calling-tasks-5")
        project.type("calling-tasks-6")
        failing = prompt.enter(text("calling-tasks-7"))
        failing[0].check()
        assert "Traceback (most recent call last):" in failing[1].traceback
        assert failing[1].error == text("calling-tasks-8").splitlines()[-1]
        for name in CALLS[8:]:
            project.type(name)
        assert prompt.value("later.get(timeout=30)") == "4"
        assert time.monotonic() - sent >= 10, "a countdown of 10 seconds was cut short"


@pytest.mark.process
@pytest.mark.usefixtures("worker")
def test_signatures(project: Project) -> None:
    project.prompt.enter("from proj.tasks import add")
    for name in SIGNATURES[:2]:
        [answer] = project.prompt.enter(text(name))
        assert answer.shown.strip() == f"proj.{answer.want.strip()}", answer.traceback
    for name in SIGNATURES[2:]:
        answers = project.type(name)
    assert answers[-1].source.startswith("s3.delay(debug=False)")
    assert project.prompt.value("_.get(timeout=30)") == "4"


@pytest.mark.process
@pytest.mark.usefixtures("worker")
def test_canvases(project: Project) -> None:
    prompt = project.prompt
    for name in CANVASES[:-1]:
        project.type(name)
    prompt.enter("from proj.tasks import add as upload_document, mul as apply_filter; file, filters = 5, [1, 2, 3]")
    [shown] = prompt.enter(text("chords-3"))  # a signature, shown and not sent
    assert shown.shown.startswith("proj.tasks.add(5) | group(")
    assert (
        prompt.value("(upload_document.s(5, 1) | group(apply_filter.s(n) for n in filters))().get()") == "[6, 12, 18]"
    )


@pytest.mark.process
@pytest.mark.usefixtures("worker")
def test_routing(project: Project) -> None:
    prompt = project.prompt
    prompt.enter("from proj.celery import app")
    prompt.enter(text("routing-1"))
    project.type("routing-2")
    prompt.enter("by_option = _")
    prompt.enter("by_route = add.delay(3, 3)")
    assert prompt.value("by_option.ready(), by_route.ready()") == "(False, False)"
    with project.worker("routing-3") as hipri:
        assert prompt.value("by_option.get(timeout=30), by_route.get(timeout=30)") == "(4, 6)"
        assert re.search(r"^ +\.> hipri +exchange=\S+ key=hipri *$", hipri.output, re.M), hipri.output
    with project.worker("routing-4") as both:
        wait_until(lambda: ".> hipri" in both.output and ".> celery" in both.output, "both queues in the banner")
        prompt.enter("from proj.tasks import mul")
        assert prompt.value("add.delay(1, 2).get(timeout=30), mul.delay(2, 3).get(timeout=30)") == "(3, 6)"


@pytest.mark.process
@pytest.mark.usefixtures("worker")
def test_remote_control(project: Project) -> None:
    def said(number: int) -> str:
        [(command, _)] = block(f"remote-control-{number}").commands()
        return shell(command, project.folder, project.variables)

    everybody = said(1)
    assert re.search(r"^->  celery@\S+: OK\n    - empty -$", everybody, re.M), everybody
    with project.start("celery -A proj worker -l INFO -Q elsewhere -n celery@example.com"):
        assert said(2) == "->  celery@example.com: OK\n    - empty -\n\n1 node online.\n"
        online = said(9)
        assert "->  celery@example.com: OK\n" in online
        assert online.endswith("\n\n2 nodes online.\n")
    assert re.search(r"^  active +List the tasks that run", said(3), re.M)
    assert re.search(r"^  enable_events  ", said(4), re.M)


@not_rabbit
@pytest.mark.usefixtures("worker")
@pytest.mark.process
def test_events(project: Project) -> None:
    def said(number: int) -> str:
        [(command, _)] = block(f"remote-control-{number}").commands()
        return shell(command, project.folder, project.variables)

    [(dump, _)] = block("remote-control-6").commands()
    [(monitor, _)] = block("remote-control-7").commands()
    assert re.search(r"^->  celery@\S+: OK\n +task events enabled$", said(5), re.M)
    dumper = Background(dump, project.folder, project.variables)
    try:
        dumper.wait_for(r"worker-heartbeat|celery@\S+ \[")
        project.prompt.enter("from proj.tasks import add")
        project.prompt.enter("add.apply_async((2, 2), queue='celery').get(timeout=30)")
        dumper.wait_for(r"proj\.tasks\.add\([\w-]+\) args=\(2, 2\)")
    finally:
        dumper.stop()
    with Terminal(monitor, project.folder, project.variables) as terminal:
        terminal.wait_for("1 of 1 workers")
        project.prompt.enter("add.apply_async((2, 2), queue='celery').get(timeout=30)")
        terminal.wait_for("proj.tasks.add")
    assert re.search(r"^->  celery@\S+: OK\n +task events disabled$", said(8), re.M)


@pytest.mark.process
def test_timezone(project: Project) -> None:
    project.prompt.enter("from proj.celery import app")
    project.type("timezone-1")
    assert project.prompt.value("str(app.timezone)") == "'Europe/London'"


# In the background ---------------------------------------------------------------------------------------------------

#: What it shows has names, versions and numbers of its own, and of 2016: "Waiting for 1 node" had no numbers then.
SHOWN = [
    (r"celery multi v\S+ \(\w+\)", r"celery multi v\S+ \(\w+\)"),
    (r"> Starting nodes\.\.\.", r"> Starting nodes\.\.\."),
    (r"> Stopping nodes\.\.\.", r"> Stopping nodes\.\.\."),
    (r"> w1\.halcyon\.local: OK", r"> w1@\S+: OK"),
    (r"> w1\.halcyon\.local: TERM -> \d+", r"> w1@\S+: TERM -> \d+"),
    (r"> Waiting for 1 node\.+", r"> Waiting for 1 node -> \d+\.+"),
    (r"> Restarting node w1\.halcyon\.local: OK", r"> Restarting node w1@\S+: OK"),
]


def pattern(shown: str) -> str:
    """What a line must look like, from what the guide shows in its place."""
    [found] = [ours for theirs, ours in SHOWN if re.fullmatch(theirs, shown.strip())]
    return found


def in_background(project: Project, name: str) -> str:
    """Run a block of `celery multi`; files that the guide puts under /var are in the project's folder."""
    variables = {
        **project.variables,
        "CELERYD_PID_FILE": f"{project.folder}/var/run/celery/%n.pid",
        "CELERYD_LOG_FILE": f"{project.folder}/var/log/celery/%n%I.log",
    }
    for command, output in block(name).commands():
        if "start 10" in command and not os.environ.get("CHAOS"):
            command = command.replace("start 10", "start 5") + " -P solo"  # ten with children each are for full size
        said = shell(command.replace("/var/", f"{project.folder}/var/"), project.folder, variables)
        for line in output.splitlines():
            assert re.search(rf"^\s*{pattern(line)}$", said, re.M), f"{line!r} is not in:\n{said}"
    return said


@pytest.fixture
def no_nodes_left(project: Project) -> Iterator[None]:
    """Whatever the test comes to, its workers end."""
    yield
    names = " ".join(path.stem for path in (project.folder / "var" / "run" / "celery").glob("*.pid"))
    shell(
        f"celery multi kill {names} --pidfile={project.folder}/var/run/celery/%n.pid", project.folder, project.variables
    )


@pytest.mark.process
@not_rabbit
@pytest.mark.usefixtures("no_nodes_left")
def test_in_the_background(project: Project) -> None:
    run = project.folder / "var" / "run" / "celery"
    in_background(project, "in-the-background-1")
    first = (run / "w1.pid").read_text()
    assert re.search(r"> Restarting node w1@\S+: OK\n", in_background(project, "in-the-background-2"))
    assert (run / "w1.pid").read_text() != first
    in_background(project, "in-the-background-3")
    wait_until(lambda: not (run / "w1.pid").exists(), "w1 ends")
    in_background(project, "in-the-background-1")
    in_background(project, "in-the-background-4")
    assert not list(run.iterdir())
    in_background(project, "in-the-background-5")
    in_background(project, "in-the-background-4")
    assert in_background(project, "in-the-background-6").count(": OK") in (5, 10)
    command_lines = {path.stem: Path(f"/proc/{int(path.read_text())}/cmdline").read_text() for path in run.iterdir()}
    queues = {name: line.split("\0")[line.split("\0").index("-Q") + 1] for name, line in command_lines.items()}
    assert [queues[f"celery{n}"] for n in range(1, 6)] == ["images,video"] * 3 + ["data"] * 2
    assert set(queues.values()) <= {"images,video", "data", "default"}
    shell(f"celery multi stopwait {len(queues)} --pidfile={run}/%n.pid", project.folder, project.variables)
    assert not list(run.iterdir())
