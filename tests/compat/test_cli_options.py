"""What all commands share: synonyms, settings behind options, exit codes, colours, the environment, secrets."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from celery.bin.base import CeleryDaemonCommand, CeleryOption, CLIContext, handle_preload_options
from celery.bin.beat import beat
from celery.bin.celery import celery
from celery.bin.worker import worker
from celery.exceptions import CeleryCommandException

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

CANARY = "c4n4ry-s3cret"
APP = f"""
from celery import Celery

app = Celery("opts", broker="memory://opts-{{id}}", backend="sqlite:///opts.db")
app.conf.redis_password = "{CANARY}"
app.conf.broker_password = None


@app.task(name="add")
def add(x, y):
    return x + y
"""


class Program:
    def __init__(self, app: Celery) -> None:
        self.app = app

    def run(self, *words: str, color: bool = False, **variables: str) -> tuple[int, str]:
        before = dict(os.environ)
        done = CliRunner(env=variables).invoke(
            celery, ["-A", "opts", *words], auto_envvar_prefix="CELERY", color=color, input=""
        )
        self.environment = dict(os.environ)
        os.environ.clear()
        os.environ.update(before)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    (tmp_path / "opts.py").write_text(APP.replace("{id}", tmp_path.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("opts")
    yield Program(module.app)
    module.app.close()
    sys.modules.pop("opts")


def names_of(command: click.Command) -> dict[str, set[str]]:
    return {option.name or "": {*option.opts, *option.secondary_opts} for option in command.params}


def test_synonyms_of_options() -> None:
    options = names_of(worker)
    for name, words in {
        "purge": {"--purge", "--discard"},
        "task_events": {"-E", "--task-events", "--events"},
        "queues": {"-Q", "--queues"},
        "exclude_queues": {"-X", "--exclude-queues"},
        "include": {"-I", "--include"},
        "schedule": {"-s", "--schedule", "--schedule-filename"},
        "statedb": {"-S", "--statedb"},
        "optimization": {"-O", "--optimization"},
        "beat": {"-B", "--beat"},
    }.items():
        assert words <= options[name]
    assert {"--enable-remote-control", "--no-enable-remote-control"} <= names_of(beat)["enable_remote_control"]
    for command in (worker, beat):
        assert {"logfile", "pidfile", "uid", "gid", "umask", "executable"} <= names_of(command).keys()


class TestDaemonOptions:
    def given(self, program: Program, name: str, *words: str) -> dict[str, Any]:
        got: dict[str, Any] = {}

        @click.command(name, cls=CeleryDaemonCommand)
        @click.option("--size", cls=CeleryOption, help_group="Its Own", default_value_from_context="workdir")
        @click.pass_context
        @handle_preload_options
        def command(ctx: click.Context, **options: Any) -> None:
            got.update(options)

        done = CliRunner().invoke(command, words, obj=CLIContext(app=program.app, workdir="/w"))
        assert done.exit_code == 0, done.output
        return got

    @pytest.mark.parametrize("name", ["worker", "beat", "events"])
    def test_settings_stand_behind_them(self, program: Program, name: str) -> None:
        for option in ("logfile", "pidfile", "uid", "gid", "umask", "executable"):
            program.app.conf[f"{name}_{option}"] = f"{name}'s {option}"
        assert self.given(program, name) == {
            **{option: f"{name}'s {option}" for option in ("logfile", "pidfile", "uid", "gid", "umask", "executable")},
            "size": "/w",
        }
        got = self.given(program, name, "-f", "mine", "--umask", "022", "--size", "3")
        assert (got["logfile"], got["umask"], got["size"], got["pidfile"]) == ("mine", "022", "3", f"{name}'s pidfile")

    def test_they_have_a_heading_of_their_own(self) -> None:
        said = CliRunner().invoke(beat, ["--help"]).output
        assert said.index("Beat Options:") < said.index("Daemonization Options:") < said.index("\nOptions:")


class TestBeatInTheWorker:
    def test_it_is_refused(self, program: Program) -> None:
        code, output = program.run("worker", "-B")
        assert (code, "-B: This version has no scheduler yet" in output) == (1, True)
        code, output = program.run("worker", "-B", "-P", "gevent")
        assert (code, "-B option does not work with eventlet/gevent pools" in output) == (2, True)


class TestExitCodes:
    def test_a_command_may_choose(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        @click.command("odd")
        def odd() -> None:
            raise CeleryCommandException("no room", 73)

        monkeypatch.setitem(celery.commands, "odd", odd)
        assert program.run("odd") == (73, "Error: no room\n")

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (["--version"], 0),
            (["--help"], 0),
            (["report"], 0),
            (["result", "nope", "-t", "nope"], 2),
            (["nonsense"], 2),
            (["status", "-t", "0.01"], 69),
            (["upgrade", "settings", "nope"], 1),
        ],
    )
    def test_codes(self, program: Program, words: list[str], code: int) -> None:
        assert program.run(*words)[0] == code


class TestColours:
    def test_on_a_terminal_only_and_not_where_they_are_unwanted(self, program: Program) -> None:
        assert "\x1b[" in program.run("check", color=True)[1]
        assert "\x1b[" not in program.run("check")[1]
        assert "\x1b[" not in program.run("-C", "check", color=True)[1]
        assert "\x1b[" not in program.run("check", color=True, NO_COLOR="1")[1]
        assert "\x1b[" not in program.run("check", "--json", color=True)[1]

    def test_quiet(self, program: Program) -> None:
        assert program.run("-q", "check") == (0, "")


def test_options_reach_child_processes(program: Program, tmp_path: Path) -> None:
    (tmp_path / "cfg.py").write_text("task_serializer = 'json'\n")
    program.run(
        "-b", "memory://other", "--result-backend", "cache+memory://", "--loader", "default", "--config", "cfg",
        "--skip-checks", "call", "add",
    )  # fmt: skip
    wanted = {
        "CELERY_BROKER_URL": "memory://other", "CELERY_RESULT_BACKEND": "cache+memory://", "CELERY_LOADER": "default",
        "CELERY_CONFIG_MODULE": "cfg", "CELERY_SKIP_CHECKS": "true",
    }  # fmt: skip
    assert {name: program.environment.get(name) for name in wanted} == wanted


#: Commands that print something of the app, its tasks and its broker.
SPEAKING = [
    ["report"], ["check"], ["check", "--json"], ["queues", "--no-workers"], ["queues", "--no-workers", "--json"],
    ["queues", "peek", "celery"], ["queues", "peek", "celery", "--json"], ["queues", "parked"], ["dlq", "list"],
    ["dlq", "list", "--json"], ["list", "bindings"], ["graph", "workers", "nodes:a"],
    pytest.param(["amqp", "queue.declare", "celery"], marks=pytest.mark.slow),
    ["purge"], ["status", "-t", "0.01"], ["graph", "bootsteps"],
]  # fmt: skip


@pytest.mark.parametrize("words", SPEAKING, ids=" ".join)
def test_no_command_tells_secrets(program: Program, words: list[str]) -> None:
    """Arguments, results and passwords show nowhere unless one asks for them."""
    program.app.send_task("add", (CANARY,), {"password": CANARY}, task_id="t")
    program.app.conf.result_backend = "sqlite:///opts.db"
    assert CANARY not in program.run(*words)[1]
    program.app.conf.broker_url = f"redis://user:{CANARY}@127.0.0.1:1/0"
    program.app.conf.result_backend = f"redis://user:{CANARY}@127.0.0.1:1/0"
    try:
        said = program.run(*words)[1]
    except AssertionError as exc:  # an error that `main` prints
        said = str(exc)
    assert CANARY not in said


def test_json_is_one_document(program: Program) -> None:
    assert isinstance(json.loads(program.run("check", "--json")[1]), list)
