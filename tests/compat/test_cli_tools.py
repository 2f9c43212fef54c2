"""Commands that need no worker: `list`, `graph`, `logtool`, `shell`, `upgrade`, `amqp`, `beat`, `completion`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from celery.bin.celery import celery
from celery.routing import QueueSpec
from tests.running import PATIENCE, ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

APP = """
from kombu import Queue
from celery import Celery

app = Celery("tools", broker="memory://tools-{id}", backend="cache+memory://")
app.conf.task_queues = [Queue("celery"), Queue("b"), Queue("c", exchange="ex", routing_key="rk")]


@app.task(name="add")
def add(x, y):
    return x + y
"""

LOG = """\
 -------------- w1@h (a banner)
[2026-11-28 19:26:51,423: INFO/MainProcess] Task proj.add[id-1] received
[2026-11-28 19:26:51,424: INFO/ForkPoolWorker-1] Task proj.add[id-1] succeeded in 0.01s: 3
[2026-11-28 19:26:51,425: INFO/MainProcess] Task proj.add[id-2] received
[2026-11-28 19:26:51,425: INFO/MainProcess] Task proj.add[id-4] received
[2026-11-28 19:26:51,426: INFO/MainProcess] Discarding revoked task: proj.add[id-4]
[2026-11-28 19:26:51,427: INFO/MainProcess] Task proj.bad[id-3] received
[2026-11-28 19:26:51,428: ERROR/ForkPoolWorker-1] Task proj.bad[id-3] raised unexpected: ValueError('no')
Traceback (most recent call last):
  File "x.py", line 1, in f
    raise ValueError('no')
ValueError: no
[2026-11-28 19:26:52,424: DEBUG/MainProcess] hello
"""


class Tools:
    def __init__(self, app: Celery, folder: Path) -> None:
        self.app = app
        self.folder = folder

    def run(self, *words: str, answer: str | None = None) -> tuple[int, str]:
        done = CliRunner().invoke(celery, ["-A", "tools", *words], input=answer, auto_envvar_prefix="CELERY")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output

    def printed(self, *words: str, answer: str | None = None) -> str:
        code, output = self.run(*words, answer=answer)
        assert code == 0, output
        return output


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    (tmp_path / "tools.py").write_text(APP.replace("{id}", tmp_path.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("tools")
    yield Tools(module.app, tmp_path)
    module.app.close()
    sys.modules.pop("tools")


def test_bindings(tools: Tools) -> None:
    rows = [line.split() for line in tools.printed("list", "bindings").splitlines()]
    assert rows[0] == ["Queue", "Exchange", "Routing", "Key"]
    assert rows[2:] == [["b", "celery", "celery"], ["c", "ex", "rk"], ["celery", "celery", "celery"]]


class TestGraph:
    def test_parts_of_a_worker(self, tools: Tools) -> None:
        picture = tools.printed("graph", "bootsteps")
        assert picture.startswith("digraph dependencies {")
        parts = [part.name for part in tools.app.WorkController().parts]
        assert {"Pool", "Consumer"} <= set(parts)
        for after, before in zip(parts[1:], parts, strict=False):
            assert f'"{after}" -> "{before}"' in picture

    def test_workers_that_are_named(self, tools: Tools) -> None:
        picture = tools.printed("graph", "workers", "nodes:a,b", "threads:2", "broker:B", "backend:R")
        nodes = [line.split('"')[1] for line in picture.splitlines() if "->" not in line and line.startswith('    "')]
        assert nodes == ["a", "B", "R", "thr-1", "thr-2", "b"]
        edges = {tuple(line.split('"')[1:4:2]) for line in picture.splitlines() if "->" in line}
        assert edges == {("a", "B"), ("a", "R"), ("b", "B"), ("b", "R"), ("thr-1", "a"), ("thr-2", "a")}

    def test_without_addresses_and_with_numbers(self, tools: Tools) -> None:
        picture = tools.printed("graph", "workers", "nodes:a,b", "threads:1", "generic", "enumerate")
        for name in ("Broker (memory://)", "Worker₁", "Worker₂", 'label="P₁"'):
            assert name in picture
        assert '"a"' not in picture

    def test_of_many_some_are_left_out(self, tools: Tools) -> None:
        picture = tools.printed("graph", "workers", "nodes:a,b,c,d,e,f", "wmax:4", "threads:9", "tmax:2")
        drawn = [name for name in "abcdef" if f'    "{name}" [' in picture]
        assert drawn == ["a", "b", "c", "f"]
        assert '"…"' in picture
        assert [label for label in range(9) if f'label="{label}"' in picture] == [0, 1, 8]

    @pytest.mark.parametrize("word", ["nonsense:1", "wmax:x", "threads:x"])
    def test_other_words(self, tools: Tools, word: str) -> None:
        code, output = tools.run("graph", "workers", "nodes:a", word)
        assert code == 2
        assert word in output


class TestLogtool:
    @pytest.fixture
    def log(self, tmp_path: Path) -> str:
        (tmp_path / "w1.log").write_text(LOG)
        return str(tmp_path / "w1.log")

    def test_stats(self, tools: Tools, log: str) -> None:
        lines = tools.printed("logtool", "stats", log).splitlines()
        assert lines == [
            "", "Report", "======", "Task total: 4", "Task errors: 1", "Task success: 1", "Task completed: 2", "Tasks",
            "=====", "proj.add: 3", "proj.bad: 1", "",
        ]  # fmt: skip

    def test_several_files_and_standard_input(self, tools: Tools, log: str) -> None:
        assert "Task total: 8" in tools.printed("logtool", "stats", log, log)
        assert "Task total: 4" in tools.printed("logtool", "stats", answer=LOG)

    def test_traces(self, tools: Tools, log: str) -> None:
        assert tools.printed("logtool", "traces", log).splitlines() == LOG.splitlines()[7:12]

    def test_errors(self, tools: Tools, log: str) -> None:
        assert tools.printed("logtool", "errors", log).splitlines() == LOG.splitlines()[7:8]

    def test_incomplete(self, tools: Tools, log: str) -> None:
        assert tools.printed("logtool", "incomplete", log) == "Did not complete: id-2\n"

    def test_debug(self, tools: Tools, log: str) -> None:
        assert tools.printed("logtool", "debug", log).splitlines() == LOG.splitlines()[12:]

    def test_a_file_that_is_not_there(self, tools: Tools) -> None:
        code, output = tools.run("logtool", "stats", "nope.log")
        assert code == 2
        assert "nope.log" in output


class TestShell:
    @pytest.mark.process
    def test_its_names(self, tools: Tools) -> None:
        variables = environment(tools.folder)
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tools", "shell", "--python"], cwd=tools.folder, env=variables,
            input="print(app.main, celery is app, add.name, Task, [n.__name__ for n in (chord, group, chain, chunks, "
            "xmap, xstarmap, subtask, signature)])\n",
            text=True, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "tools True add" in done.stdout

    def test_tasks_may_be_left_out_and_a_shell_that_is_missing_is_told(
        self, tools: Tools, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[dict[str, object]] = []
        monkeypatch.setattr("code.interact", lambda local, exitmsg: seen.append(local))
        for module in ("IPython", "bpython"):
            monkeypatch.setitem(sys.modules, module, None)
        before = dict(sys.modules["__main__"].__dict__)
        try:
            tools.printed("shell", "-T")
            tools.printed("shell")
            assert ["add" in names for names in seen] == [False, True]
            code, output = tools.run("shell", "-I")
            assert code == 69
            assert "IPython" in output
        finally:
            for name in set(sys.modules["__main__"].__dict__) - set(before):
                del sys.modules["__main__"].__dict__[name]


class TestUpgrade:
    OLD = (
        "BROKER_URL = 'x'\r\nCELERYD_CONCURRENCY = 4  # CELERYD_CONCURRENCY here\n"
        "MY_BROKER_URL = BROKER_URL\nCELERYBEAT_SCHEDULE = {}\nother = 1\n"
    )

    def upgraded(self, tools: Tools, *options: str) -> str:
        path = tools.folder / "settings.py"
        path.write_bytes(self.OLD.encode())
        said = tools.printed("upgrade", "settings", "settings.py", *options)
        assert "Changes to your setting have been made!" in said
        return path.read_bytes().decode()

    def test_new_names_in_place(self, tools: Tools) -> None:
        assert self.upgraded(tools) == (
            "broker_url = 'x'\r\nworker_concurrency = 4  # worker_concurrency here\n"
            "MY_BROKER_URL = broker_url\nbeat_schedule = {}\nother = 1\n"
        )
        assert (tools.folder / "settings.py.orig").read_bytes().decode() == self.OLD

    @pytest.mark.parametrize("option", ["--django", "--compat"])
    def test_prefixed(self, tools: Tools, option: str) -> None:
        assert self.upgraded(tools, option, "--no-backup").startswith("CELERY_BROKER_URL = 'x'\r\nCELERY_WORKER_CONC")
        assert not (tools.folder / "settings.py.orig").exists()

    def test_nothing_to_do(self, tools: Tools) -> None:
        (tools.folder / "new.py").write_text("broker_url = 'x'\n")
        assert "need no change" in tools.printed("upgrade", "settings", "new.py")
        assert not (tools.folder / "new.py.orig").exists()

    def test_no_such_file(self, tools: Tools) -> None:
        code, output = tools.run("upgrade", "settings", "nope.py")
        assert code == 1
        assert "nope.py cannot be changed" in output


class TestAmqp:
    def test_one_command(self, tools: Tools) -> None:
        assert tools.printed("amqp", "queue.declare", "q") == (
            f"-> connecting to memory://tools-{tools.folder.name}.\n-> connected.\nqueue:q messages:0 consumers:0\nOK\n"
        )

    def test_a_session(self, tools: Tools) -> None:
        script = [
            "queue.declare q", "exchange.declare e topic", "queue.bind q e 'a.*'", "basic.publish 'hi there' e a.b",
            "basic.publish second '' q", "queue.declare q", "basic.get q", "basic.ack q.1", "", "basic.get q",
            "nonsense", "help queue.purge", "exit", "never",
        ]  # fmt: skip
        said = tools.printed("amqp", answer="\n".join(script))
        assert said.count("-> connected.") == 1
        assert "queue:q messages:2 consumers:0" in said
        assert "b'hi there'" in said
        assert "b'second'" in said
        assert "No such command 'nonsense'" in said
        assert "Delete the messages of a queue." in said
        assert "never" not in said
        # What was not acknowledged is back, and what was acknowledged is gone.
        assert "1 messages deleted." in tools.printed("amqp", "queue.purge", "q")

    def test_get_from_an_empty_queue_and_delete(self, tools: Tools) -> None:
        assert "No messages in queue. basic.publish something." in tools.printed("amqp", "basic.get", "q")
        tools.printed("amqp", "basic.publish", "x", "", "q")
        assert "1 messages deleted." in tools.printed("amqp", "queue.delete", "q")
        assert "messages:0" in tools.printed("amqp", "queue.declare", "q")

    def test_got_for_good(self, tools: Tools) -> None:
        tools.printed("amqp", "basic.publish", "x", "", "q")
        assert "b'x'" in tools.printed("amqp", "basic.get", "q", "true")
        assert "No messages" in tools.printed("amqp", "basic.get", "q")

    def test_what_goes_wrong_is_told_and_ends_with_1(self, tools: Tools) -> None:
        (tools.folder / "away.py").write_text(
            "from celery import Celery\napp = Celery('away', broker='sqlite:////no/such/folder/x.db')\n"
        )
        done = CliRunner().invoke(celery, ["-A", "away", "amqp", "queue.declare", "q"], auto_envvar_prefix="CELERY")
        sys.modules.pop("away")
        assert done.exit_code == 1
        assert "ERROR: /no/such/folder/x.db cannot be made" in done.output

    def test_a_missing_argument(self, tools: Tools) -> None:
        assert tools.run("amqp", "queue.declare")[0] == 2
        assert tools.run("amqp", "nope")[0] == 2


def test_beat_says_that_it_is_not_there(tools: Tools) -> None:
    code, output = tools.run("beat", "-l", "INFO", "-s", "x", "beat_max_loop_interval=3")
    assert code == 1
    assert "This version has no scheduler yet" in output
    help = tools.printed("beat", "--help")
    for option in ("--detach", "-S, --scheduler", "--max-interval", "--no-enable-remote-control", "--pidfile"):
        assert option in help


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tools: Tools, shell: str) -> None:
    script = CliRunner().invoke(celery, ["completion", shell], auto_envvar_prefix="CELERY").output
    assert f"_CELERY_COMPLETE={shell}_complete" in script
    assert (ROOT / "extra" / f"{shell}-completion" / f"celery.{shell}").read_text() == script


@pytest.mark.slow
def test_completion_completes(tools: Tools) -> None:
    """As a shell asks: commands, then options."""
    variables = environment(tools.folder, _CELERY_COMPLETE="bash_complete", COMP_CWORD="1")
    for words, wanted in (("celery ins", "inspect"), ("celery qu", "queues")):
        done = subprocess.run(
            [sys.executable, "-m", "celery"], cwd=tools.folder, env={**variables, "COMP_WORDS": words}, text=True,
            capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
        assert f"plain,{wanted}" in done.stdout.splitlines()


def test_a_queue_is_bound_before_it_is_listed(tools: Tools) -> None:
    tools.printed("list", "bindings")
    assert tools.app.assembly.broker.consume([QueueSpec("c")]) is not None
