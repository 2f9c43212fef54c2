"""The command line without a worker: options, errors, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from celery.bin import base
from celery.bin.celery import celery, main
from celery.bin.worker import WORKERS_POOL
from celery.concurrency import ALIASES as POOLS
from tests.compat.apps import state
from tests.running import PATIENCE, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["state"]


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = environment(folder)

    def run(self, arguments: str, **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "celery", *arguments.split()], cwd=self.folder, env={**self.variables, **variables},
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
        )  # fmt: skip
        return done.returncode, done.stdout

    def invoke(self, arguments: str, **variables: str) -> tuple[int, str]:
        """The same in this process, which is quicker."""
        done = CliRunner(env=variables).invoke(celery, arguments.split(), auto_envvar_prefix="CELERY")
        return done.exit_code, done.output

    def main(self, arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        """The whole program, in this process; for commands that end with an error."""
        before = dict(os.environ)
        monkeypatch.setattr(sys, "argv", ["celery", *arguments.split()])
        try:
            code: Any = main()
        except SystemExit as exc:
            code = exc.code
        finally:
            os.environ.clear()
            os.environ.update(before)
        said = capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "proj.py").write_text(
        "from celery import Celery\napp = Celery('proj', broker='memory://')\n"
        "@app.task\ndef add(x, y):\n    return x + y\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    (tmp_path / "empty.py").write_text("")
    yield Shell(tmp_path)
    for name in ("proj", "broken", "empty"):
        sys.modules.pop(name, None)


@pytest.mark.process
def test_version_and_help(cli: Shell) -> None:
    code, output = cli.run("--version")
    assert code == 0
    assert re.fullmatch(r"5\.8\.0\+next \(.+\)\n", output)
    code, output = cli.run("")
    assert code == 0
    assert re.search(r"^  worker  +Start a worker\.$", output, re.M)
    code, output = cli.run("worker --help")
    assert code == 0
    assert "--concurrency" in output
    assert "%h" in output
    assert "%%" not in output


@pytest.mark.parametrize(
    ("broker", "says"),
    [
        ("nosuch://x", "broker_url: expected a broker among"),
        (
            "redis://u:secret@host:port/0",
            "up to 65535, got redis://**@host:port/0: ",
        ),
        ("sqlite://host/x.db", "a slash is missing"),
        ("sqlite:////no/such/folder/x.db", "/no/such/folder/x.db cannot be made"),
    ],
)
@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why_and_no_more(cli: Shell, broker: str, says: str) -> None:
    (cli.folder / "urls.py").write_text("from celery import Celery\napp = Celery('urls')\n")
    code, output = cli.run(f"-q -A urls -b {broker} worker -c 1")
    assert says in output
    assert "Traceback" not in output
    assert "secret" not in output
    assert code == 1


@pytest.mark.slow
def test_a_setting_that_cannot_be_right_is_told_without_a_traceback(cli: Shell) -> None:
    (cli.folder / "wrong.py").write_text(
        "from celery import Celery\napp = Celery('wrong')\napp.conf.result_expires = 'abc'\n"
    )
    code, output = cli.run("-A wrong report")
    assert output.startswith("Error: Setting result_expires: expected a number, got str 'abc'.")
    assert code == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("-A nope worker", "Unable to load celery application.\nThe module nope was not found."),
        ("-A proj:nope report", "Unable to load celery application.\n"),
        ("-A empty report", "Unable to load celery application.\nexpected a Celery app"),
        ("-A broken report", "the following error occurred"),
        ("-A broken report", "No module named 'no_such_package'"),
        ("-A proj workr", "Did you mean one of these?\n    worker"),
        ("-A proj worker --bogus", "No such option"),
        ("-A proj:add report", "expected a Celery app at proj:add, got <@task: proj.add"),
        ("-A ./proj report", "expected the name of a module, such as proj or proj.celery:app, got the path ./proj"),
        ("-A proj.py report", "got the path proj.py"),
        ("-A proj worker -c x", "must be a non-negative integer or 'auto', got 'x'"),
        ("-A proj worker -P zzz", "'zzz' is not one of"),
        ("-A proj worker -P custom", "expected the path of a pool class (module:Class) in CELERY_CUSTOM_WORKER_POOL"),
        ("-A proj worker -n %p@%h", "Unknown format %p"),
        ("-A proj worker -l foo", "Invalid value for '-l' / '--loglevel'"),
        ("-A proj worker -f /no/such/log", "'-f' / '--logfile': /no/such/log: the folder /no/such does not exist"),
        ("-A proj worker -D -f /no/such/log", "the folder /no/such does not exist"),
        ("-A proj worker --pidfile no/such/pid", "'--pidfile': no/such/pid: the folder"),
        ("-A proj worker --uid no-such-user", "'--uid': User does not exist: no-such-user"),
        ("-A proj worker --gid no-such-group", "'--gid': Group does not exist: no-such-group"),
        ("-A proj worker --umask 9", "expected octal digits such as 022, got '9'"),
        ("-A proj worker --max-tasks-per-child -3", "-3 is not in the range"),
        ("-A proj worker --max-memory-per-child 1.5", "'1.5' is not a valid integer"),
        ("-A proj worker --time-limit -1", "-1.0 is not in the range"),
        ("-A proj worker --soft-time-limit soon", "'soon' is not a valid float"),
        ("-A proj worker bogus", "Unable to parse extra configuration from command line."),
        ("-A proj call add -a [1", "Invalid value for '-a' / '--args'"),
        ("-A proj call add -k [1]", "expected a json object"),
    ],
)
def test_what_is_wrong_is_said_and_ends_with_2(cli: Shell, arguments: str, says: str) -> None:
    code, output = cli.invoke(arguments)
    assert says in output
    assert code == 2


@pytest.mark.parametrize(
    ("app", "arguments", "says", "shows"),
    [
        ("", "-I no_such_module", "No module named 'no_such_module'. If no_such_module is named by the setting", ""),
        ("include=['broken']", "", "No module named 'no_such_package'", "broken.py"),
        ("include=['unclosed']", "", "SyntaxError: '(' was never closed", ""),
        ("include=['raises']", "", "The worker cannot start: at import", 'raises.py", line 2, in <module>'),
        ("", "-P no.such.Pool", "worker_pool: No module named 'no'", ""),
        ("", "-c 1000000000", "there is no memory for", ""),
    ],
)
@pytest.mark.slow
def test_what_keeps_a_worker_from_starting_is_told_in_short(
    cli: Shell, app: str, arguments: str, says: str, shows: str
) -> None:
    (cli.folder / "unclosed.py").write_text("x = (\n")
    (cli.folder / "raises.py").write_text("# a comment\nraise RuntimeError('at import')\n")
    (cli.folder / "made.py").write_text(
        f"from celery import Celery\napp = Celery('made', broker='memory://made', {app})\n"
    )
    code, output = cli.run(f"-A made -q worker {arguments}")
    assert code == 1
    assert says in output
    assert shows in output
    assert ("Traceback" in output) is bool(shows)
    assert "importlib" not in output


@pytest.mark.slow
def test_a_module_of_settings_that_is_not_there(cli: Shell) -> None:
    (cli.folder / "made.py").write_text(
        "from celery import Celery\napp = Celery('made')\napp.config_from_object('no_such_settings')\n"
    )
    code, output = cli.run("-A made report")
    assert code == 1
    assert output == (
        "Error: No module named 'no_such_settings'. "
        "The settings are to be read from 'no_such_settings': see config_from_object.\n"
    )


@pytest.mark.process
def test_task_modules_are_found_in_the_current_directory(cli: Shell) -> None:
    (cli.folder / "pack").mkdir()
    (cli.folder / "pack" / "__init__.py").write_text("")
    (cli.folder / "pack" / "tasks.py").write_text("print('found')\nraise SystemExit(7)\n")
    (cli.folder / "made.py").write_text(
        "from celery import Celery\napp = Celery('made', broker='memory://made')\napp.autodiscover_tasks(['pack'])\n"
    )
    # The script, unlike `python -m`, does not have the current directory on its path.
    done = subprocess.run(
        [str(Path(sys.executable).parent / "celery"), "-A", "made", "worker"], cwd=cli.folder, env=cli.variables,
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
    )  # fmt: skip
    assert "found" in done.stdout
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            "-b redis://127.0.0.1:1 call x",
            "cannot use the Redis server at redis://127.0.0.1:1",
            marks=pytest.mark.slow,
        ),
        ("-b redis://127.0.0.1:1 purge -f", "cannot use the Redis server"),
        ("--result-backend redis://127.0.0.1:1 result x", "cannot use the Redis server"),
        ("--result-backend nosuch:// result x", "Unknown result backend: 'nosuch'"),
        ("result x", "No result backend is configured"),
        ("-A proj call proj.add --serializer jsn", "jsn"),
    ],
)
@pytest.mark.usefixtures("state")
def test_errors_of_a_command_are_one_line(
    cli: Shell, arguments: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = cli.main(arguments, monkeypatch, capsys)
    assert code == 1
    assert output.startswith("Error: ")
    assert says in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_the_app_comes_before_the_command(cli: Shell) -> None:
    code, output = cli.run("worker -l INFO -A proj")
    assert "celery -A celeryapp worker" in output
    assert code == 2


def test_options_come_from_the_environment_too(cli: Shell) -> None:
    assert cli.invoke("call proj.add", APP="proj")[0] == 0
    assert cli.invoke("call proj.add", CELERY_APP="proj")[0] == 0
    assert "'soli' is not one of" in cli.invoke("-A proj worker", CELERY_WORKER_POOL="soli")[1]


@pytest.mark.slow
def test_global_options_reach_the_app(cli: Shell) -> None:
    (cli.folder / "shows.py").write_text(
        "import os\nfrom celery import Celery\napp = Celery('shows')\n"
        "print(app.conf.broker_url, app.conf.result_backend, os.getcwd())\n"
    )
    (cli.folder / "elsewhere").mkdir()
    (cli.folder / "shows.py").rename(cli.folder / "elsewhere" / "shows.py")
    output = cli.run("-A shows --workdir elsewhere -b memory://b --result-backend cache+memory:// call x")[1]
    assert output.splitlines()[0] == f"memory://b cache+memory:// {cli.folder / 'elsewhere'}"


@pytest.mark.parametrize(
    "variables",
    [
        {"BROKER_URL": "memory://b", "RESULT_BACKEND": "cache+memory://"},
        {"CELERY_BROKER": "memory://b", "CELERY_RESULT_BACKEND": "cache+memory://"},
    ],
)
@pytest.mark.slow
def test_both_families_of_variables_are_read(cli: Shell, variables: dict[str, str]) -> None:
    (cli.folder / "shows.py").write_text(
        "from celery import Celery\napp = Celery('shows')\nprint(app.conf.broker_url, app.conf.result_backend)\n"
    )
    assert cli.run("-A shows call x", **variables)[1].splitlines()[0] == "memory://b cache+memory://"


@pytest.mark.slow
def test_strict_settings_refuse_the_start(cli: Shell) -> None:
    (cli.folder / "slip.py").write_text(
        "from celery import Celery\napp = Celery('slip', broker='memory://')\napp.conf.update(worker_concurency=3)\n"
    )
    for arguments, variables in (("--strict-settings", {}), ("", {"CELERY_STRICT_SETTINGS": "1"})):
        code, output = cli.run(f"{arguments} -A slip report", **variables)
        assert code == 1
        assert "Unknown setting 'worker_concurency': did you mean 'worker_concurrency'?" in output
        assert "Traceback" not in output
    code, output = cli.run("-A slip report")
    assert code == 0
    assert "did you mean 'worker_concurrency'" in output


@pytest.mark.slow
def test_a_package_adds_a_command(cli: Shell) -> None:
    info = cli.folder / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[celery.commands]\nplugged = plug:command\nbroken = plug:nothing\n")
    (cli.folder / "plug.py").write_text(
        "import click\nfrom celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options\n"
        "@click.command(cls=CeleryCommand)\n"
        "@click.option('--loud', is_flag=True, cls=CeleryOption, help_group='Plug Options')\n"
        "@click.pass_context\n@handle_preload_options\n"
        "def command(ctx, loud):\n    ctx.obj.echo(f'{ctx.obj.app.main} {loud}')\n"
    )
    path = f"{cli.variables['PYTHONPATH']}:{cli.folder}"
    assert cli.run("-A proj plugged --loud", PYTHONPATH=path) == (0, "proj True\n")
    assert "Plug Options:\n  --loud" in cli.run("-A proj plugged --help", PYTHONPATH=path)[1]
    code, output = cli.run("-A proj broken anything", PYTHONPATH=path)
    assert code == 1
    assert "The command broken (plug:nothing) cannot be loaded" in output


@pytest.mark.slow
def test_an_app_adds_options(cli: Shell) -> None:
    (cli.folder / "more.py").write_text(
        "import click\nfrom celery import Celery\nfrom celery.signals import user_preload_options\n"
        "app = Celery('more', broker='memory://')\n"
        "app.user_options['preload'].add(click.Option(['-Z', '--template'], default='none'))\n"
        "@user_preload_options.connect\n"
        "def seen(options, **_):\n    print('template is', options['template'])\n"
    )
    assert "template is red" in cli.run("-A more call x --template red")[1]


def test_the_help_knows_the_pools() -> None:
    assert set(WORKERS_POOL.choices) == {*POOLS, "custom"}
    assert set(WORKERS_POOL.choices) == {"prefork", "eventlet", "gevent", "solo", "processes", "threads", "custom"}


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (base.COMMA_SEPARATED_LIST, "a, b,,c", ["a", "b", "c"]),
        (base.JSON_ARRAY, "[1]", [1]),
        (base.JSON_OBJECT, '{"a": 1}', {"a": 1}),
        (base.ISO8601_OR_FLOAT, "1.5", 1.5),
        (base.LOG_LEVEL, "info", 20),
        (base.LOG_LEVEL, "25", 25),
    ],
)
def test_types(kind: click.ParamType, given: str, expected: object) -> None:
    assert kind.convert(given, None, None) == expected


@pytest.mark.parametrize("kind", [base.JSON_ARRAY, base.JSON_OBJECT, base.ISO8601, base.LOG_LEVEL])
def test_types_refuse(kind: click.ParamType) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert("nonsense", None, None)
