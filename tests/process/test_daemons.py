"""What `extra/` has for starting workers at boot: init scripts run, units and configurations read (area daemon)."""

from __future__ import annotations

import configparser
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from celery.utils import processes
from tests.process.project import Project
from tests.running import PATIENCE, ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

EXTRA = ROOT / "extra"

PROJECT = """
from celery import Celery
app = Celery("proj", broker=URL, backend=URL)

@app.task
def add(x, y):
    return x + y
"""


def test_scripts_are_portable_shell() -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([checker, "--shell=sh", EXTRA / "init.d" / "celeryd", EXTRA / "init.d" / "celerybeat"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


class Machine:
    """A folder that is /etc, /var and the rest; scripts run in it as whoever runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder, PROJECT)
        self.folder = folder
        (folder / "etc").mkdir()
        for name in ("celeryd", "celerybeat"):
            shutil.copy(EXTRA / "init.d" / name, folder / "etc" / name)
        self.run, self.log = folder / "var" / "run", folder / "var" / "log"
        #: With our variables a script takes our folders for those of the machine.
        self.variables = {
            **self.project.variables,
            "CELERY_UNPRIVILEGED": "1",
            "CELERY_CONFIG_DIR": str(folder / "etc" / "default"),
        }
        (folder / "etc" / "default").mkdir()

    def configure(self, name: str, **settings: str) -> None:
        lines = [f"{key}={shlex.quote(value)}\n" for key, value in settings.items()]
        file = self.folder / "etc" / "default" / name
        file.write_text("".join(lines))
        file.chmod(0o644)

    def script(self, name: str, command: str) -> tuple[int, str]:
        done = subprocess.run(
            [self.folder / "etc" / name, command], cwd="/", env=self.variables, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=4 * PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.configure(
        "celeryd",
        CELERYD_NODES="w1 w2", CELERY_APP="proj", CELERYD_CHDIR=str(tmp_path),
        CELERYD_OPTS="-P solo --time-limit:w1=300",
        CELERYD_PID_FILE=f"{machine.run}/%n.pid", CELERYD_LOG_FILE=f"{machine.log}/%n%I.log",
        CELERYD_USER="root", CELERY_CREATE_DIRS="1", CELERYD_ULIMIT="-n 512", CELERY_TIMEZONE_OF_TEST="UTC",
    )  # fmt: skip
    yield machine
    machine.script("celeryd", "kill")
    machine.project.app.close()


def test_workers_by_init_script(machine: Machine) -> None:
    assert machine.script("celeryd", "status")[0] == 3
    code, said = machine.script("celeryd", "try-restart")
    assert (code != 0, machine.run.exists()) == (True, True), said
    code, said = machine.script("celeryd", "start")
    assert code == 0, said
    assert said.count(": OK") == 2
    code, said = machine.script("celeryd", "status")
    assert code == 0, said
    first = {path.stem: int(path.read_text()) for path in machine.run.iterdir()}
    assert re.search(rf"celeryd \(node w2\) \(pid {first['w2']}\) is up\.\.\.", said)
    # Options, limits and the environment reach the workers.
    process = Path("/proc") / str(first["w1"])
    assert "--time-limit=300" in (process / "cmdline").read_text().split("\0")
    assert "CELERY_TIMEZONE_OF_TEST=UTC" in (process / "environ").read_text().split("\0")
    assert re.search(r"Max open files +512 ", (process / "limits").read_text())
    assert machine.project.send("add", 2, 3).get(timeout=PATIENCE) == 5

    code, said = machine.script("celeryd", "restart")
    assert code == 0, said
    second = {path.stem: int(path.read_text()) for path in machine.run.iterdir()}
    assert set(second) == {"w1", "w2"}
    assert not set(first.values()) & set(second.values())
    code, said = machine.script("celeryd", "stop")
    assert code == 0, said
    assert not list(machine.run.iterdir())
    assert not any(processes.is_alive(pid) for pid in (*first.values(), *second.values()))


def test_a_worker_that_does_not_start_fails_the_script(machine: Machine) -> None:
    machine.configure("celeryd", CELERY_APP="nosuch", CELERYD_CHDIR=str(machine.folder), CELERYD_USER="root",
                      CELERYD_PID_FILE=f"{machine.run}/%n.pid", CELERYD_LOG_FILE=f"{machine.log}/%n%I.log",
                      CELERY_CREATE_DIRS="1")  # fmt: skip
    code, said = machine.script("celeryd", "start")
    assert code == 1
    assert "The module nosuch was not found." in said


def test_other_commands_of_the_script(machine: Machine) -> None:
    code, said = machine.script("celeryd", "dryrun")
    assert code == 0
    assert said.splitlines()[-1] == (
        f"cd '{machine.folder}' && celery multi start w1 w2 --pidfile='{machine.run}/%n.pid' "
        f"--logfile='{machine.log}/%n%I.log' --app='proj' --loglevel='INFO' -P solo --time-limit:w1=300"
    )
    assert machine.script("celeryd", "nosuch")[0] == 64
    assert machine.script("celeryd", "reload")[1].splitlines()[-1] == "Use restart"
    assert machine.script("celeryd", "create-paths")[0] == 0
    assert machine.run.is_dir()
    assert machine.log.is_dir()
    machine.run.rmdir()
    machine.configure("celeryd", CELERYD_PID_FILE=f"{machine.run}/%n.pid", CELERYD_LOG_FILE=f"{machine.log}/%n.log")
    code, said = machine.script("celeryd", "check-paths")
    assert (code, said.splitlines()[-1]) == (
        5, f"Error: the folder {machine.run} does not exist; CELERY_CREATE_DIRS=1 has it made."
    )  # fmt: skip
    machine.run.mkdir()
    (machine.run / "w1.pid").write_text("rubbish\n")
    assert "holds no number" in machine.script("celeryd", "status")[1]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(PATIENCE)
    (machine.run / "w1.pid").write_text(f"{ended.pid}\n")
    code, said = machine.script("celeryd", "status")
    assert (code, said.splitlines()[-1]) == (1, f"celeryd (node w1) (pid {ended.pid}) is down...")


def test_beat_by_init_script(machine: Machine) -> None:
    """The program is a stand-in: the script's part is the command line, the pid file and the end."""
    program = machine.folder / "etc" / "program"
    program.write_text(
        '#!/bin/sh\necho "$@" >"$0.args"\nsleep 300 </dev/null >/dev/null 2>&1 &\n'
        f"mkdir -p {machine.run} && echo $! >{machine.run}/beat.pid\n"
    )
    program.chmod(0o755)
    machine.configure(
        "celerybeat", CELERY_BIN=str(program), CELERY_APP="proj", CELERYBEAT_OPTS="--max-interval=5 -s s.db",
        CELERYBEAT_CHDIR=str(machine.folder), CELERYBEAT_PID_FILE=f"{machine.run}/beat.pid",
        CELERYBEAT_LOG_FILE=f"{machine.log}/beat.log", CELERYBEAT_LOG_LEVEL="DEBUG", CELERYBEAT_USER="root",
        CELERY_CREATE_DIRS="1",
    )  # fmt: skip
    assert machine.script("celerybeat", "status")[0] == 3
    code, said = machine.script("celerybeat", "start")
    assert code == 0, said
    assert Path(f"{program}.args").read_text() == (
        f"--app=proj beat --detach --pidfile={machine.run}/beat.pid --logfile={machine.log}/beat.log "
        "--loglevel=DEBUG --max-interval=5 -s s.db\n"
    )
    pid = int((machine.run / "beat.pid").read_text())
    assert machine.script("celerybeat", "status") == (0, f"celerybeat (pid {pid}) is up...\n")
    code, said = machine.script("celerybeat", "stop")
    assert code == 0, said
    wait_until(lambda: not processes.is_alive(pid), "it ends")
    assert machine.script("celerybeat", "stop")[1] == "celerybeat is not running\n"
    assert f"cd '{machine.folder}' && {program} --app='proj' beat" in machine.script("celerybeat", "dryrun")[1]


@pytest.mark.parametrize("name", ["celeryd", "celerybeat"])
def test_others_than_root_are_refused(name: str) -> None:
    somebody = 65534 if os.geteuid() == 0 else None
    with open(EXTRA / "init.d" / name) as script:
        done = subprocess.run(["/bin/sh", "-s", "start"], stdin=script, user=somebody, capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin"}, cwd="/", check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (4, "Error: sh has to be run as root.\n")


def test_settings_that_others_can_write_are_refused_to_root(machine: Machine) -> None:
    (machine.folder / "etc" / "default" / "celeryd").chmod(0o666)
    code, said = machine.script("celeryd", "dryrun")
    if os.geteuid() == 0:
        assert code == 6
        assert "writable by root alone" in said
    else:
        assert code == 0


# Units and configurations --------------------------------------------------------------------------------------------


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(EXTRA / name)
    return parser


def settings() -> dict[str, str]:
    """The environment file as systemd reads it."""
    lines = (EXTRA / "systemd" / "celery.conf").read_text().splitlines()
    return {
        key: shlex.split(value)[0]
        for key, _, value in (line.partition("=") for line in lines if line and not line.startswith("#"))
    }


@pytest.mark.parametrize("command", ["ExecStart", "ExecReload", "ExecStop"])
def test_the_unit_of_workers(tmp_path: Path, command: str) -> None:
    """The shell line gives `celery` the words that are meant."""
    program = tmp_path / "celery"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    line = unit("systemd/celery.service")["Service"][command]
    shell, option, script = shlex.split(line)
    assert (shell, option) == ("/bin/sh", "-c")
    given = {**os.environ, **settings(), "CELERY_BIN": str(program), "CELERYD_NODES": "w1 w2"}
    done = subprocess.run([shell, option, script], env=given, capture_output=True, text=True, check=True)
    files = ["--pidfile=/var/run/celery/%n.pid", "--logfile=/var/log/celery/%n%I.log", "--loglevel=INFO"]
    options = ["--time-limit=300", "--concurrency=8"]
    assert (
        done.stdout.splitlines()
        == {
            "ExecStart": ["-A", "proj", "multi", "start", "w1", "w2", *files, *options],
            "ExecReload": ["-A", "proj", "multi", "restart", "w1", "w2", *files, *options],
            "ExecStop": ["multi", "stopwait", "w1", "w2", *files],
        }[command]
    )


def test_units_name_what_is_in_the_settings_file() -> None:
    known = set(settings())
    for path in (EXTRA / "systemd").glob("*.service"):
        service = unit(f"systemd/{path.name}")["Service"]
        assert service["EnvironmentFile"] == "/etc/conf.d/celery"
        used = set(re.findall(r"\$\{?(\w+)", " ".join(service.values())))
        assert used <= known, path.name
        assert service["Type"] == ("forking" if path.name == "celery.service" else "simple")
    assert "--hostname=%i@%%h" in unit("systemd/celery-worker@.service")["Service"]["ExecStart"]
    folders = (EXTRA / "systemd" / "tmpfiles.conf").read_text()
    assert re.findall(r"^d (\S+) 0755 celery celery -$", folders, re.M) == ["/run/celery", "/var/log/celery"]


def test_supervisor() -> None:
    parser = unit("supervisor/celery.ini")
    workers = parser["program:celery"]
    expanded = workers["command"] % {"process_num": 0, "program_name": "celery"}  # as supervisor does
    assert expanded.split()[1:] == ["-A", "proj", "worker", "--loglevel=INFO", "--hostname=worker0@%h"]
    assert parser["program:celerybeat"]["command"].split()[3] == "beat"


def test_launchd() -> None:
    found = plistlib.loads((EXTRA / "launchd" / "org.celeryq.worker.plist").read_bytes())
    assert found["ProgramArguments"][1:4] == ["-A", "proj", "worker"]
    assert "--hostname=w1@%h" in found["ProgramArguments"]


def test_docker() -> None:
    compose = yaml.safe_load((EXTRA / "docker" / "compose.yaml").read_text())
    assert set(compose["services"]) == {"redis", "worker", "beat"}
    [command] = re.findall(r"^CMD (.+)$", (EXTRA / "docker" / "Dockerfile").read_text(), re.M)
    assert yaml.safe_load(command)[:4] == ["celery", "-A", "proj", "worker"]
