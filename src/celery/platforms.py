"""Application. The process as its operating system sees it: signals, users, pid files, daemons (`[daemon.6]`)."""

from __future__ import annotations

import atexit
import errno
import os
import platform as _platform
import signal as _signal
import sys
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celery.exceptions import SecurityError, SecurityWarning
from celery.utils import processes

try:
    import grp
    import pwd
    import resource
except ImportError:  # not a POSIX system
    grp = pwd = resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = (
    "EX_FAILURE", "EX_OK", "EX_UNAVAILABLE", "EX_USAGE", "IS_WINDOWS", "SIGMAP", "SYSTEM", "DaemonContext", "IS_macOS",
    "LockFailed", "Pidfile", "check_pidlock", "check_privileges", "close_open_fds", "create_pidlock", "detached",
    "fd_by_path", "get_errno_name", "get_fdmax", "ignore_errno", "initgroups", "isatty", "maybe_drop_privileges",
    "parse_gid", "parse_uid", "pyimplementation", "set_mp_process_title", "set_pdeathsig", "set_process_title",
    "setgid", "setgroups", "setuid", "signal_name", "signals",
)  # fmt: skip

EX_OK = getattr(os, "EX_OK", 0)
EX_FAILURE = 1
EX_UNAVAILABLE = getattr(os, "EX_UNAVAILABLE", 69)
EX_USAGE = getattr(os, "EX_USAGE", 64)
EX_CANTCREAT = getattr(os, "EX_CANTCREAT", 73)

SYSTEM = _platform.system()
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

DAEMON_WORKDIR = "/"
PIDFILE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY
PIDFILE_MODE = 0o644
PIDLOCKED = "ERROR: Pidfile ({0}) already exists.\nSeems we're already running? (pid: {1})"

SIGMAP: dict[int, str] = {signum: signum.name for signum in _signal.Signals}
SIGNAMES: set[str] = set(SIGMAP.values())


def pyimplementation() -> str:
    """`CPython`, `PyPy` …"""
    return _platform.python_implementation()


def isatty(fh: Any) -> bool | None:
    """Is the file a terminal? None: it cannot tell."""
    try:
        return bool(fh.isatty())
    except AttributeError:
        return None


def get_errno_name(n: int | str) -> int:
    """The number of an error, from its name or number."""
    return getattr(errno, n) if isinstance(n, str) else n


@contextmanager
def ignore_errno(*errnos: int | str, **kwargs: Any) -> Iterator[None]:
    """Errors with these numbers or names, of `types` (any), are passed over."""
    types = kwargs.get("types") or (Exception,)
    numbers = [get_errno_name(n) for n in errnos]
    try:
        yield
    except types as error:
        if getattr(error, "errno", None) not in numbers:
            raise


# ------------------------------------------------------------------------------------------------------------- signals


class Signals:
    """Signals by name, without `SIG` or with it: `signals["TERM"] = handler`. Those unknown here are passed over."""

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def arm_alarm(self, seconds: float) -> None:
        """SIGALRM in so many seconds, fractions included."""
        _signal.setitimer(_signal.ITIMER_REAL, seconds)

    def reset_alarm(self) -> int:
        """No alarm; returns the whole seconds that were left."""
        return _signal.alarm(0)

    def supported(self, name: str) -> bool:
        """Is there a signal of that name?"""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: str | int) -> int:
        """A signal's number. Raises `AttributeError` for an unknown name, `TypeError` for what is none."""
        if isinstance(name, int):
            return name
        if not isinstance(name, str) or not name.isupper():
            raise TypeError(f"expected a signal's number or upper-case name such as 'TERM', got {name!r}")
        return getattr(_signal, name if name.startswith("SIG") else f"SIG{name}")  # type: ignore[no-any-return]

    def reset(self, *signal_names: str) -> None:
        """Back to what the system does."""
        self.update((name, self.default) for name in signal_names)

    def ignore(self, *names: str) -> None:
        """Do nothing on these."""
        self.update((name, self.ignored) for name in names)

    def __getitem__(self, name: str) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: str, handler: Any) -> None:
        # A name that this system does not know, or a thread that may not do it: there is then nothing to handle.
        with suppress(AttributeError, ValueError):
            _signal.signal(self.signum(name), handler)

    def update(self, _d_: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None, **sigmap: Any) -> None:
        """Set many."""
        for name, handler in dict(_d_ or {}, **sigmap).items():
            self[name] = handler


signals = Signals()
get_signal = signals.signum
install_signal_handler = signals.__setitem__
reset_signal = signals.reset
ignore_signal = signals.ignore


def signal_name(signum: int) -> str:
    """`TERM` for 15. Raises `KeyError`."""
    return SIGMAP[signum][3:]


def set_pdeathsig(name: str | int) -> None:
    """Have the kernel send this signal to this process when its parent dies (Linux). Raises `OSError`."""
    from billiard.compat import set_pdeathsig as prctl

    prctl(signals.signum(name))


# ----------------------------------------------------------------------------------------------------- open descriptors


def get_fdmax(default: int | None = None) -> int | None:
    """The highest number that an open file may have, plus one."""
    if resource is None:
        return default
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if limit == resource.RLIM_INFINITY else limit


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close all open files but these: numbers, or objects with a number."""
    kept = {fd for fd in map(_number, keep or ()) if fd is not None}
    for fd in _open_fds():
        if fd not in kept:
            with suppress(OSError):
                os.close(fd)


def _number(file: Any) -> int | None:
    if isinstance(file, int):
        return file
    try:
        return int(file.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def _open_fds() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")]
    except OSError:
        return list(range(get_fdmax(2048) or 2048))


def fd_by_path(paths: Iterable[str]) -> list[int]:
    """Numbers of the open files that are these, by device and inode."""
    wanted = set()
    for path in paths:
        with suppress(OSError):
            seen = os.stat(path)
            wanted.add((seen.st_dev, seen.st_ino))
    found = []
    for fd in _open_fds():
        with suppress(OSError):
            seen = os.fstat(fd)
            if (seen.st_dev, seen.st_ino) in wanted:
                found.append(fd)
    return found


# ------------------------------------------------------------------------------------------------------------ pid files


class LockFailed(Exception):
    """The pid file cannot be made."""


class Pidfile:
    """A file that holds the number of the process that runs; there is one of its name at a time."""

    path: str | None = None

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Make it. Raises `LockFailed`."""
        try:
            self.write_pid()
        except OSError as exc:
            raise LockFailed(str(exc)) from exc
        return self

    __enter__ = acquire

    def is_locked(self) -> bool:
        """Is it there?"""
        return os.path.exists(self._path)

    def release(self, *args: Any) -> None:
        """Remove it."""
        self.remove()

    __exit__ = release

    def read_pid(self) -> int | None:
        """The number in it; None: it is not there. Raises `ValueError` if there is no whole number in it."""
        try:
            with open(self._path) as file:
                line = file.readline()
        except FileNotFoundError:
            return None
        if not line.endswith("\n"):  # whoever writes it has not come to the end yet, or never will
            raise ValueError(f"Partial or invalid pidfile {self.path}: expected a number and a newline, got {line!r}")
        try:
            return int(line)
        except ValueError:
            raise ValueError(f"pidfile {self.path} contents invalid: expected a number, got {line!r}") from None

    def holds(self, pid: int) -> bool:
        """Is that the number in it?"""
        try:
            return self.read_pid() == pid
        except (OSError, ValueError):
            return False

    def remove(self) -> None:
        """Remove it, if it is there and may be removed."""
        with suppress(FileNotFoundError, PermissionError):
            os.unlink(self._path)

    def remove_if_stale(self) -> bool:
        """Remove it if its process is no more, is this one, or surely another program. True: there is none any more."""
        try:
            pid = self.read_pid()
        except ValueError:
            print("Broken pidfile found - Removing it.", file=sys.stderr)  # noqa: T201 - there is no log yet
            self.remove()
            return True
        alive = pid and processes.is_alive(pid) and not processes.is_stranger(pid, self._path, ("celery",))
        if not pid or (pid != os.getpid() and alive):
            return not pid
        print("Stale pidfile exists - Removing it.", file=sys.stderr)  # noqa: T201 - there is no log yet
        self.remove()
        return True

    def write_pid(self) -> None:
        """Make it with the number of this process, whole and on disk before this returns. Raises `OSError`."""
        fd = os.open(self._path, PIDFILE_FLAGS, PIDFILE_MODE)
        with os.fdopen(fd, "w") as file:
            file.write(f"{os.getpid()}\n")
            file.flush()
            os.fsync(fd)
        with open(self._path) as file:
            if file.read() != f"{os.getpid()}\n":
                raise LockFailed(f"{self.path}: another process wrote to the pidfile meanwhile")

    @property
    def _path(self) -> str:
        assert self.path is not None
        return self.path


PIDFile = Pidfile


def check_pidlock(pidfile: str) -> None:
    """End the program with exit code 73 (`EX_CANTCREAT`) if a process of the number in the file is alive."""
    lock = Pidfile(pidfile)
    if lock.is_locked() and not lock.remove_if_stale():
        print(PIDLOCKED.format(pidfile, lock.read_pid()), file=sys.stderr)  # noqa: T201 - there is no log yet
        raise SystemExit(EX_CANTCREAT)


def create_pidlock(pidfile: str) -> Pidfile:
    """Make the pid file, and remove it at exit, if it is still this process's.

    Ends the program as `check_pidlock` does. Raises `LockFailed`.
    """
    check_pidlock(pidfile)
    lock, owner = Pidfile(pidfile).acquire(), os.getpid()
    atexit.register(lambda: lock.release() if os.getpid() == owner and lock.holds(owner) else None)
    return lock


# ------------------------------------------------------------------------------------------------------------- daemons


class DaemonContext:
    """A process without terminal: `with DaemonContext(): …` goes on in a child of a child, the parents end."""

    _is_open = False

    def __init__(
        self,
        pidfile: str | None = None,
        workdir: str | None = None,
        umask: int | str | None = None,
        fake: bool = False,
        after_chdir: Callable[[], Any] | None = None,
        after_forkers: bool = True,
        keep: Iterable[Any] = (),
        **kwargs: Any,
    ) -> None:
        """`keep`: files that stay open, besides the three of every process."""
        self.pidfile = pidfile
        self.workdir = workdir or DAEMON_WORKDIR
        #: Text is octal, as on a command line.
        self.umask = int(umask, 8) if isinstance(umask, str) else umask
        self.fake = fake
        self.after_chdir = after_chdir
        self.after_forkers = after_forkers
        self.keep = tuple(keep)
        self.stdfds = (sys.stdin, sys.stdout, sys.stderr)

    def redirect_to_null(self, fd: int | None) -> None:
        """Put /dev/null in the file's place."""
        if fd is not None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            os.close(null)

    def open(self) -> None:
        """Become a daemon; with `fake`, do all of it but forking."""
        if self._is_open:
            return
        if not self.fake:
            self._detach()
        os.chdir(self.workdir)
        if self.umask is not None:
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            close_open_fds((*self.stdfds, *self.keep))
            for file in self.stdfds:
                self.redirect_to_null(_number(file))
        self._is_open = True

    def _detach(self) -> None:
        if os.fork():  # the session's leader must be no leader of its group before
            os._exit(0)
        os.setsid()
        if os.fork():  # and a daemon no leader of its session, or it could get a terminal again
            os._exit(0)

    def close(self, *args: Any) -> None:
        """Nothing is undone."""
        self._is_open = False

    def __enter__(self) -> DaemonContext:
        self.open()
        return self

    __exit__ = close


def detached(
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: int | str = 0,
    workdir: str | None = None,
    fake: bool = False,
    **opts: Any,
) -> DaemonContext:
    """A `DaemonContext` for these files, as this user and group.

    Raises `RuntimeError` where daemons are not to be had, and before anything is forked if the log or pid file's
    directory cannot be written (`SystemExit`, with the reason on standard error).
    """
    if resource is None:
        raise RuntimeError("This platform does not support detach: run in the foreground, under a service manager")
    workdir = os.getcwd() if workdir is None else workdir
    signals.reset("CLD")
    maybe_drop_privileges(uid=uid, gid=gid)

    def check_files() -> None:
        if logfile and os.path.isdir(os.path.dirname(os.path.abspath(logfile))):
            with open(logfile, "a"):
                pass
        if pidfile:
            create_pidlock(pidfile).release()

    return DaemonContext(pidfile, workdir, umask, fake=fake, after_chdir=check_files, **opts)


# ----------------------------------------------------------------------------------------------------- users and groups


def parse_uid(uid: int | str) -> int:
    """A user's number from a number, its text, or a name. Raises `KeyError`."""
    try:
        return int(uid)
    except ValueError:
        pass
    try:
        return pwd.getpwnam(str(uid)).pw_uid
    except (AttributeError, KeyError):
        raise KeyError(f"User does not exist: {uid}") from None


def parse_gid(gid: int | str) -> int:
    """A group's number from a number, its text, or a name. Raises `KeyError`."""
    try:
        return int(gid)
    except ValueError:
        pass
    try:
        return grp.getgrnam(str(gid)).gr_gid
    except (AttributeError, KeyError):
        raise KeyError(f"Group does not exist: {gid}") from None


def setgroups(groups: Iterable[int]) -> None:
    """Set the groups that this process is in besides its own, as many as the system takes. Needs to be root."""
    try:
        limit = os.sysconf("SC_NGROUPS_MAX")
    except (OSError, ValueError):
        limit = None
    try:
        os.setgroups(list(groups)[:limit])
    except OSError as error:
        # Who may not, but has them already, has lost nothing.
        if error.errno != errno.EPERM or any(group not in groups for group in os.getgroups()):
            raise


def initgroups(uid: int, gid: int) -> None:
    """Set the groups of the user, as the system's list has them."""
    os.initgroups(pwd.getpwuid(uid).pw_name, gid)


def setgid(gid: int | str) -> None:
    """Become the group (number or name)."""
    os.setgid(parse_gid(gid))


def setuid(uid: int | str) -> None:
    """Become the user (number or name)."""
    os.setuid(parse_uid(uid))


def maybe_drop_privileges(uid: Any = None, gid: Any = None) -> None:
    """Become the user (and its group, unless another is given), for good. Only root can: others stay who they are.

    Raises `KeyError` for an unknown name, `SecurityError` if root could be had again afterwards.
    """
    if os.geteuid() or (uid is None and gid is None):
        return
    if uid is None:
        setgid(gid)
        return
    uid = parse_uid(uid)
    gid = pwd.getpwuid(uid).pw_gid if gid is None else parse_gid(gid)
    setgid(gid)
    initgroups(uid, gid)
    setuid(uid)
    if uid:
        _assert_root_is_gone()


def _assert_root_is_gone() -> None:
    try:
        os.setuid(0)
    except OSError:
        return
    raise SecurityError("Expected privileges to be dropped for good, but root could be had again: not going on")


ROOT_DISALLOWED = """\
Running a worker as root while it accepts pickle would let anybody who can write to the broker
do anything on this machine. Use another user (--uid), or accept no pickle (accept_content). Who
knows what he does sets C_FORCE_ROOT in the environment.

User information: uid={uid} euid={euid} gid={gid} egid={egid}
"""

ROOT_DISCOURAGED = """\
You're running the worker with superuser privileges: this is absolutely not recommended!
Please choose another user with the --uid option.

User information: uid={uid} euid={euid} gid={gid} egid={egid}
"""


def check_privileges(accept_content: Iterable[str] | None) -> None:
    """Warn who runs as root; with pickle accepted, refuse (`[worker.21]`). Raises `SecurityError`."""
    if not hasattr(os, "geteuid"):
        return
    who = {"uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(), "egid": os.getegid()}
    if all(who.values()):
        return
    if {"pickle", "application/x-python-serialize"} & set(accept_content or ()) and not os.environ.get("C_FORCE_ROOT"):
        raise SecurityError(ROOT_DISALLOWED.format(**who))
    warnings.warn(SecurityWarning(ROOT_DISCOURAGED.format(**who)), stacklevel=2)


# ------------------------------------------------------------------------------------------------------- process titles


def strargv(argv: list[str]) -> str:
    """The arguments of a command line, without the program, as shown in a process's title."""
    return " ".join(argv[1:])


def set_process_title(progname: str, info: str | None = None) -> str:
    """Show as `[progname] info` in lists of processes, if setproctitle is installed; returns the title."""
    title = f"[{progname}]" if info is None else f"[{progname}] {info}"
    try:
        from setproctitle import setproctitle
    except ImportError:
        return title
    if not os.environ.get("NOSETPS"):
        setproctitle(title)
    return title


def set_mp_process_title(progname: str, info: str | None = None, hostname: str | None = None) -> str:
    """As `set_process_title`, with this process's name: `[progname: host:ForkPoolWorker-1] info`."""
    from multiprocessing import current_process

    name = current_process().name
    first = hostname.split(".")[0] if hostname else ""
    return set_process_title(f"{progname}: {first}:{name}" if hostname else f"{progname}:{name}", info=info)
