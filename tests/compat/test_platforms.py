"""Signals, pid files, privileges, descriptors (area daemon, 6)."""

import os
import signal
import subprocess
import sys
import time

import pytest

from celery import platforms
from celery.exceptions import SecurityError, SecurityWarning
from celery.platforms import LockFailed, Pidfile, create_pidlock, signals


def test_names_of_old():
    assert platforms.PIDFile is Pidfile
    for alias, method in (
        ("get_signal", "signum"),
        ("install_signal_handler", "__setitem__"),
        ("reset_signal", "reset"),
        ("ignore_signal", "ignore"),
    ):
        assert getattr(platforms, alias) == getattr(signals, method)
    assert (platforms.EX_OK, platforms.EX_FAILURE) == (0, 1)
    assert (platforms.EX_USAGE, platforms.EX_UNAVAILABLE, platforms.EX_CANTCREAT) == (64, 69, 73)


class TestSignals:
    def test_names(self):
        assert signals.signum("TERM") == signals.signum("SIGTERM") == signals.signum(15) == 15
        assert signals.supported("INT")
        assert not signals.supported("FOO")
        with pytest.raises(TypeError):
            signals.signum(None)
        assert platforms.signal_name(9) == "KILL"
        with pytest.raises(KeyError):
            platforms.signal_name(999)

    def test_handlers(self):
        before, got = signals["USR1"], []
        try:
            signals.update({"USR1": lambda *args: got.append(args[0]), "FOO": print})
            os.kill(os.getpid(), signal.SIGUSR1)
            assert got == [signal.SIGUSR1]
            signals.ignore("USR1")
            assert signals["USR1"] == signal.SIG_IGN
            signals.reset("USR1")
            assert signals["USR1"] == signal.SIG_DFL
        finally:
            signals["USR1"] = before


class TestPidfile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "w.pid"

    def test_is_made_once_and_removed(self, path):
        with Pidfile(str(path)) as pidfile:
            assert path.read_text() == f"{os.getpid()}\n"
            assert path.stat().st_mode & 0o777 == 0o644
            assert pidfile.is_locked()
            with pytest.raises(LockFailed, match="exists"):
                Pidfile(str(path)).acquire()
        assert not path.exists()
        pidfile.release()

    def test_is_stale_when_its_process_is_no_more(self, path, capsys):
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait(10)
        path.write_text(f"{child.pid}\n")
        assert Pidfile(str(path)).remove_if_stale()
        assert not path.exists()
        assert "Stale" in capsys.readouterr().err

    def test_of_a_living_process_ends_the_program(self, path, capsys):
        path.write_text("1\n")
        with pytest.raises(SystemExit) as ended:
            create_pidlock(str(path))
        assert ended.value.code == platforms.EX_CANTCREAT
        assert "already exists" in capsys.readouterr().err
        assert path.read_text() == "1\n"

    @pytest.mark.parametrize("content", ["", "12", "abc\n"])
    def test_with_no_number_is_broken(self, path, content):
        path.write_text(content)
        with pytest.raises(ValueError, match="pidfile"):
            Pidfile(str(path)).read_pid()
        assert Pidfile(str(path)).remove_if_stale()

    def test_is_removed_at_exit_but_not_by_forked_children(self, path):
        program = f"""
import os, sys
from celery.platforms import create_pidlock
create_pidlock({str(path)!r})
if not os.fork():
    sys.exit(0)
os.wait()
assert os.path.exists({str(path)!r})
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
        assert not path.exists()

    def test_without_directory(self):
        with pytest.raises(LockFailed):
            create_pidlock("/nonexistent/x.pid")


class TestPrivileges:
    def test_names_of_users_and_groups(self):
        assert platforms.parse_uid("root") == platforms.parse_uid("0") == platforms.parse_gid("root") == 0
        with pytest.raises(KeyError, match="nosuchuser"):
            platforms.parse_uid("nosuchuser")
        with pytest.raises(KeyError, match="nosuchgroup"):
            platforms.parse_gid("nosuchgroup")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
    def test_are_dropped_for_good(self):
        program = (
            "import os; from celery.platforms import maybe_drop_privileges as drop; drop(uid='nobody'); "
            "print(os.getresuid(), os.getgid() != 0, 0 in os.getgroups())"
        )
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
        uid = platforms.parse_uid("nobody")
        assert out.stdout.strip() == f"{(uid, uid, uid)} True False"

    def test_root_and_pickle(self, monkeypatch):
        for name in ("getuid", "geteuid", "getgid", "getegid"):
            monkeypatch.setattr(os, name, lambda: 0)
        with pytest.raises(SecurityError, match="pickle"):
            platforms.check_privileges({"json", "pickle"})
        with pytest.warns(SecurityWarning, match="--uid"):
            platforms.check_privileges({"json"})
        monkeypatch.setenv("C_FORCE_ROOT", "1")
        with pytest.warns(SecurityWarning):
            platforms.check_privileges({"application/x-python-serialize"})

    def test_others_may(self, monkeypatch):
        for name in ("getuid", "geteuid", "getgid", "getegid"):
            monkeypatch.setattr(os, name, lambda: 1000)
        platforms.check_privileges({"pickle"})


class TestDescriptors:
    def test_all_but_these_are_closed(self):
        program = """
import os
from celery.platforms import close_open_fds, fd_by_path
kept, gone = os.open("/dev/null", 0), os.open("/dev/null", 0)
assert {kept, gone} <= set(fd_by_path(["/dev/null", "/nonexistent"]))
close_open_fds([0, 1, 2, kept])
os.fstat(kept)
try:
    os.fstat(gone)
except OSError:
    print("closed")
"""
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
        assert out.stdout == "closed\n"

    def test_ignore_errno(self):
        with platforms.ignore_errno("ENOENT"):
            open("/nonexistent")  # noqa: SIM115
        with pytest.raises(OSError, match="nonexistent"), platforms.ignore_errno("EEXIST"):
            open("/nonexistent")  # noqa: SIM115

    def test_isatty(self):
        assert platforms.isatty(None) is None
        with open(os.devnull) as file:
            assert platforms.isatty(file) is False


def test_a_detached_process_is_a_session_of_its_own(tmp_path):
    told, pidfile = tmp_path / "told", tmp_path / "d.pid"
    program = f"""
import os
from celery.platforms import detached
parent = os.getsid(0)
with detached(pidfile={str(pidfile)!r}, umask="027", workdir={str(tmp_path)!r}):
    with open("part", "w") as file:
        file.write(f"{{os.getsid(0) != parent}} {{os.getsid(0) != os.getpid()}} {{os.getcwd()}}")
    os.rename("part", "told")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    deadline = time.monotonic() + 10
    while not told.exists():
        assert time.monotonic() < deadline
    assert told.read_text() == f"True True {tmp_path}"
    assert told.stat().st_mode & 0o777 == 0o640
    assert not pidfile.exists()


def test_process_titles():
    assert platforms.set_process_title("celery", "idle") == "[celery] idle"
    assert platforms.set_mp_process_title("celery", "idle", "h.x") == "[celery: h:MainProcess] idle"
    assert platforms.set_mp_process_title("celery") == "[celery:MainProcess]"
