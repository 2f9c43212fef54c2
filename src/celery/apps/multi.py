"""Application. Many workers by one command line: its syntax, and the nodes that come of it (areas multi, daemon)."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections import UserList, defaultdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.apps.cluster import maybe_call, start_all, stop_all
from celery.apps.selectors import resolve
from celery.platforms import IS_WINDOWS, Pidfile, parse_gid, parse_uid, signal_name
from celery.utils import processes
from celery.utils.nodenames import gethostname, host_format, node_format, nodesplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from celery.apps.cluster import Listener

__all__ = ("Cluster", "MultiParser", "NamespacedOptionParser", "Node", "build_expander", "build_nodename",
           "celery_exe", "format_opt", "maybe_call")  # fmt: skip

CELERY_EXE = "celery"
DEFAULT_PIDFILE = "/var/run/celery/%n.pid"
DEFAULT_LOGFILE = "/var/log/celery/%n%I.log"
#: Options of `celery` itself: they go before `worker`.
GLOBAL_OPTIONS = ("--app", "-A", "--broker", "-b", "--result-backend", "--loader", "--config", "--workdir",
                  "--no-color", "-C", "--quiet", "-q", "--skip-checks", "--strict-settings")  # fmt: skip
#: Bytes of a node's words that are kept for whoever wonders why it did not start.
_SAID = 16_384


def celery_exe(*args: str) -> str:
    """The command of that name with these words after it."""
    return " ".join((CELERY_EXE, *args))


def build_nodename(name: str, prefix: str, suffix: str) -> tuple[str, str, str]:
    """Short name, node name and host of a name as it was given (`[multi.2]`)."""
    if "@" in name:
        whole = host_format(name)
        short, host = nodesplit(whole)
        return short or "", whole, host
    return name, host_format(f"{prefix}{name}@{suffix}"), suffix


def build_expander(nodename: str, shortname: str, hostname: str) -> Callable[[str], str]:
    """A function that puts a node's names in the place of `%n`, `%N`, `%h`, `%d` and `%p` (`[multi.6]`).

    `%i` and `%I` stay: only the worker knows its children.
    """
    return partial(node_format, name=nodename, N=shortname, d=hostname, h=nodename, i="%i", I="%I")


def format_opt(opt: str, value: Any) -> str:
    """An option as it is written on a command line, quoted for a shell where it needs to be."""
    if not value:
        return opt
    text = shlex.quote(str(value))
    return f"{opt}={text}" if opt.startswith("--") else f"{opt} {text}"


# ---------------------------------------------------------------------------------------------------------- the syntax


class NamespacedOptionParser:
    """Words into options, values and options of single nodes: `-c 3 -Q:1-3 a,b w1 w2 -- --verbatim`.

    A long option takes its value after `=`; those in `valued` may also have it as the next word.
    """

    def __init__(self, args: Iterable[str], valued: Iterable[str] = ()) -> None:
        self.args = list(args)
        self.valued = frozenset(valued)
        self.options: dict[str, Any] = {}
        self.values: list[str] = []
        #: What came after `--`, with it, quoted for a shell.
        self.passthrough = ""
        #: Selector → options.
        self.namespaces: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        #: Selectors that meant no node, once nodes have been made.
        self.unmatched: list[str] = []

    def parse(self) -> None:
        """Read all words. Raises `ValueError` for one that cannot be read."""
        words = [word for word in self._before_dashes() if word]
        while words:
            word = words.pop(0)
            if word == "-":
                raise ValueError("expected an option or a node, got a dash alone")
            if not word.startswith("-"):
                self.values.append(word)
                continue
            is_long = word.startswith("--")
            name = word.partition(":")[0]
            takes = name in self.valued and "=" not in word if is_long else True
            follows = bool(takes and words and (words[0] == "-" or not words[0].startswith("-")))
            value = words.pop(0) if follows else None
            if is_long:
                self.process_long_opt(word[2:], value)
            else:
                self.process_short_opt(word[1:], value)

    def _before_dashes(self) -> list[str]:
        if "--" not in self.args:
            return self.args
        at = self.args.index("--")
        self.passthrough = " ".join(["--", *(shlex.quote(word) for word in self.args[at + 1 :] if word)])
        return self.args[:at]

    def process_long_opt(self, arg: str, value: str | None = None) -> None:
        """`name`, `name=value`, `name:selector=value`, without the dashes."""
        name, equals, given = arg.partition("=")
        self.add_option(name, given if equals else value, short=False)

    def process_short_opt(self, arg: str, value: str | None = None) -> None:
        """`n` or `n:selector`, without the dash."""
        self.add_option(arg, value, short=True)

    def optmerge(self, ns: str, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The options that hold for a selector."""
        return {**(self.options if defaults is None else defaults), **self.namespaces.get(ns, {})}

    def add_option(self, name: str, value: Any, short: bool = False, ns: str | None = None) -> None:
        """Remember an option; the name may bear the selector."""
        name, colon, selector = name.partition(":")
        if colon:
            ns = selector
        options = self.options if ns is None else self.namespaces[ns]
        options[("-" if short else "--") + name] = value


class MultiParser:
    """Makes nodes of parsed words."""

    def __init__(
        self,
        cmd: str = "celery worker",
        append: str = "",
        prefix: str = "",
        suffix: str = "",
        range_prefix: str = "celery",
    ) -> None:
        self.cmd = cmd
        self.append = append
        self.prefix = prefix
        self.suffix = suffix
        self.range_prefix = range_prefix

    @cached_property
    def Node(self) -> type[Node]:  # noqa: N802 - public name
        """What the nodes are made with."""
        return Node

    def parse(self, p: NamespacedOptionParser) -> Iterator[Any]:
        """The nodes, in order. Raises `ValueError` for a selector that cannot be meant."""
        options = dict(p.options)
        count = _count(p.values)
        names = p.values if count is None else [str(number) for number in range(1, count + 1)]
        prefix = options.pop("--prefix", None) or self.prefix
        range_prefix = options.pop("--range-prefix", None) or self.range_prefix
        host = [options.pop("-n", None), options.pop("--hostname", None)]
        suffix = options.pop("--suffix", None) or self.suffix or host[1] or host[0] or gethostname()
        suffix = "" if suffix in ('""', "''") else host_format(suffix)
        cmd = options.pop("--cmd", None) or self.cmd
        append = options.pop("--append", None) or self.append
        resolve(p.namespaces, names, counted=count is not None)
        p.unmatched = list(p.namespaces)
        for name in names:
            short, whole, _ = build_nodename(name, prefix if count is None else range_prefix, suffix)
            mine = options
            # The more exactly a node is named, the later.
            for selector in dict.fromkeys((short, whole.partition("@")[0], whole)):
                mine = p.optmerge(selector, mine)
                if selector in p.unmatched:
                    p.unmatched.remove(selector)
            yield self.Node(whole, cmd, append, mine, p.passthrough)


def _count(names: Sequence[str]) -> int | None:
    """How many nodes, if a number is all that was given."""
    try:
        return int(names[0]) if len(names) == 1 else None
    except ValueError:
        return None


# ----------------------------------------------------------------------------------------------------------- the nodes


class Node:
    """One worker: its command line, its files, and the process that these lead to."""

    def __init__(
        self,
        name: str,
        cmd: str | None = None,
        append: str | None = None,
        options: Mapping[str, Any] | None = None,
        extra_args: str | None = None,
    ) -> None:
        self.name = name
        self.cmd = cmd or f"-m {celery_exe('worker', '--detach')}"
        self.append = append
        self.extra_args = extra_args or ""
        self.options = self._annotate_with_default_opts(options or {})
        short, host = nodesplit(name)
        self.expander = build_expander(name, short or "", host)
        #: Words of its command line; each element is one or more of them, as a shell would read it.
        self.argv = self._prepare_argv()
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Any = None
        #: The process that got the last signal.
        self.signalled: processes.Running | None = None
        #: The number that was in the pid file of a dead process, if another program has it by now.
        self.stranger: int | None = None
        #: What it printed when it was last started: why it did not, perhaps.
        self.said = ""

    @classmethod
    def from_kwargs(cls, name: str, **kwargs: Any) -> Node:
        """A node whose options are given as Python names: `max_tasks_per_child=30, A="proj"`."""
        options = {
            f"-{key}" if len(key) == 1 else f"--{key.replace('_', '-')}": str(value) for key, value in kwargs.items()
        }
        return cls(name, options=options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"

    def _annotate_with_default_opts(self, options: Mapping[str, Any]) -> dict[str, Any]:
        options = {**options, "-n": self.name}
        for names, value in (
            (("--pidfile", "-p"), os.environ.get("CELERYD_PID_FILE") or DEFAULT_PIDFILE),
            (("--logfile", "-f"), os.environ.get("CELERYD_LOG_FILE") or DEFAULT_LOGFILE),
            (("--executable",), sys.executable),
        ):
            if not any(name in options for name in names):
                options[names[0]] = value
        for name in ("--pidfile", "-p", "--logfile", "-f", "--executable"):
            if options.get(name):
                options[name] = os.path.expanduser(options[name])
        return options

    def _prepare_argv(self) -> tuple[str, ...]:
        cmd = self.expander(self.cmd).split(" ")
        at = cmd.index(CELERY_EXE) + 1 if CELERY_EXE in cmd else len(cmd)
        rest = []
        for name, value in self.options.items():
            text = format_opt(name, self.expander(str(value)) if value else None)
            if name in GLOBAL_OPTIONS:
                cmd.insert(at, text)
            else:
                rest.append(text)
        return (" ".join(cmd), *rest, self.extra_args, *([self.append] if self.append else ()))

    def prepare_argv(self, argv: Iterable[str], path: str) -> list[str]:
        """The single words, with the program before them."""
        return shlex.split(" ".join((shlex.quote(path), *argv)), posix=not IS_WINDOWS)

    def getopt(self, *alt: str) -> Any:
        """The first of these options that was given. Raises `KeyError`."""
        for name in alt:
            if name in self.options:
                return self.options[name]
        raise KeyError(alt[0])

    @cached_property
    def executable(self) -> str:
        """The Python that runs it."""
        return str(self.options["--executable"] or sys.executable)

    @property
    def argv_with_executable(self) -> tuple[str, ...]:
        """The whole command line."""
        return (self.executable, *self.argv)

    @property
    def command_line(self) -> str:
        """The same, as typed at a shell."""
        return " ".join(self.argv_with_executable).rstrip()

    @cached_property
    def pidfile(self) -> str:
        """Where its pid is. A path that is not absolute is the worker's, in its working directory."""
        return self._path("--pidfile", "-p")

    @cached_property
    def logfile(self) -> str:
        """Where its log is, with `%I` for the number of a child."""
        return self._path("--logfile", "-f")

    def _path(self, *names: str) -> str:
        path = self.expander(str(self.getopt(*names) or ""))
        return os.path.join(self.options.get("--workdir") or "", path) if path else path

    # -- the process -------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The number in its pid file; None: there is no such file, or no number in it."""
        try:
            return Pidfile(self.pidfile).read_pid() if self.pidfile else None
        except (ValueError, OSError):
            return None

    @property
    def _marks(self) -> tuple[str, ...]:
        return self.name, self.pidfile

    def alive(self) -> bool:
        """Does its process run?"""
        pid = self.pid
        return bool(pid) and self._is_mine(pid or 0)

    def _is_mine(self, pid: int) -> bool:
        return processes.is_alive(pid) and not processes.is_stranger(pid, self.pidfile, self._marks)

    def send(self, sig: int, on_error: Callable[[Node], Any] | None = None) -> bool:
        """Send its process a signal, and no other process. False, after `on_error(node)`: it does not run.

        Raises `PermissionError`.
        """
        pid = self.pid
        self.signalled = processes.Running(pid) if pid else None
        if pid and processes.send(pid, sig, lambda: self._is_mine(pid)):
            return True
        self.signalled = None
        if pid:
            maybe_call(on_error, self)
        return False

    def forget(self) -> None:
        """Remove the pid file that a dead process left, and remember in `stranger` whose its number is by now."""
        pid = self.pid
        if self.alive() or not (self.pidfile and os.path.exists(self.pidfile)):
            return
        self.stranger = pid if pid and processes.is_alive(pid) else None
        Pidfile(self.pidfile).remove()

    def start(
        self,
        env: Mapping[str, str] | None = None,
        on_spawn: Callable[..., Any] | None = None,
        on_signalled: Callable[..., Any] | None = None,
        on_failure: Callable[..., Any] | None = None,
    ) -> int:
        """Start it, and wait until it runs in the background. Returns 0, or why not: exit code, or signal."""
        self.spawn(env, on_spawn)
        return self.wait(on_signalled, on_failure)

    def spawn(self, env: Mapping[str, str] | None = None, on_spawn: Callable[..., Any] | None = None) -> None:
        """Begin to start it. Raises nothing: `wait` says what went wrong."""
        words = self.prepare_argv(self.argv, self.executable)
        maybe_call(on_spawn, self, argstr=self.command_line, env=env)
        # No pipe: a command that goes into the background may keep it open for ever.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `wait` closes it
        try:
            self._make_folders()
            self._process = subprocess.Popen(  # noqa: S603 - the command of who calls us
                words, env=None if env is None else dict(env), stdout=self._output, stderr=subprocess.STDOUT
            )
        except (OSError, KeyError) as exc:
            self._output.write(f"{exc}\n".encode())

    def _make_folders(self) -> None:
        uid, gid = self.options.get("--uid"), self.options.get("--gid")
        for path in (self.pidfile, self.logfile):
            folder = Path(os.path.dirname(os.path.abspath(path or "x")))
            missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            if missing and (uid or gid) and not os.geteuid():
                for made in missing:
                    os.chown(made, parse_uid(uid) if uid else -1, parse_gid(gid) if gid else -1)

    def wait(self, on_signalled: Callable[..., Any] | None = None, on_failure: Callable[..., Any] | None = None) -> int:
        """Wait until it has been started."""
        process, self._process = self._process, None
        code = process.wait() if process else os.EX_OSERR
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _SAID))
        self.said = self._output.read().decode(errors="replace").strip()
        self._output.close()
        return self.handle_process_exit(code, on_signalled, on_failure)

    def handle_process_exit(
        self,
        retcode: int,
        on_signalled: Callable[..., Any] | None = None,
        on_failure: Callable[..., Any] | None = None,
    ) -> int:
        """Tell what became of the starting process. Returns the exit code, or the number of the signal."""
        if retcode < 0:
            maybe_call(on_signalled, self, -retcode)
            return -retcode
        if retcode > 0:
            maybe_call(on_failure, self, retcode)
        return retcode


class Cluster(UserList[Node]):
    """Nodes that are started and stopped together; each step is told to a function, if there is one.

    The functions get the node (or nodes) and what is said beside them.
    """

    on_stopping_preamble: Listener = None  # nodes
    on_send_signal: Listener = None  # the signal's name
    on_still_waiting_for: Listener = None  # nodes
    on_still_waiting_progress: Listener = None  # nodes
    on_still_waiting_end: Listener = None  # nothing
    on_node_start: Listener = None
    on_node_restart: Listener = None
    on_node_shutdown_ok: Listener = None
    on_node_status: Listener = None  # exit code
    on_node_signal: Listener = None  # the signal's name
    on_node_signal_dead: Listener = None
    on_node_down: Listener = None
    on_child_spawn: Listener = None  # argstr, env
    on_child_signalled: Listener = None  # the signal's number
    on_child_failure: Listener = None  # exit code

    def __init__(
        self,
        nodes: Iterable[Node],
        cmd: str | None = None,
        env: Mapping[str, str] | None = None,
        **listeners: Listener,
    ) -> None:
        """`listeners`: functions by name, such as `on_node_start`. Raises `TypeError` for a name that is none."""
        known = [name for name in Cluster.__annotations__ if name.startswith("on_")]
        unknown = sorted(set(listeners) - set(known))
        if unknown:
            raise TypeError(f"Cluster: unexpected {', '.join(unknown)}; expected some of {', '.join(known)}")
        super().__init__(nodes)
        self.nodes = self.data
        self.cmd = cmd or celery_exe("worker")
        self.env = env
        for name, listener in listeners.items():
            setattr(self, name, listener)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({len(self)}): {[node.name for node in self]}>"

    def start(self) -> list[int]:
        """Start all, several at a time. Returns what each came to: 0 is well."""
        return start_all(self, list(self), self.on_node_start)

    def start_node(self, node: Node) -> int:
        """Start one."""
        return start_all(self, [node], self.on_node_start)[0]

    def send_all(self, sig: int) -> None:
        """Send a signal to all that run."""
        for node in self.getpids(on_down=self.on_node_down):
            maybe_call(self.on_send_signal, node, signal_name(sig))
            node.send(sig, self.on_node_signal_dead)

    def kill(self) -> None:
        """Kill all, without waiting (`[multi.10]`)."""
        self.send_all(signal.SIGKILL)

    def restart(self, sig: int = signal.SIGTERM) -> list[int]:
        """Stop all, and start each as soon as it is down. Returns what each start came to."""
        codes: list[int] = []
        for down in stop_all(self, list(self), sig, retry=1):
            codes += start_all(self, down, self.on_node_restart)
        return codes

    def stop(
        self, retry: float | None = None, callback: Callable[[Node], Any] | None = None, sig: int = signal.SIGTERM
    ) -> None:
        """Send all a signal; with `retry` (seconds between two signs of life of ours) wait until they are down."""
        for node in self.shutdown_nodes(self, sig, retry):
            maybe_call(callback or self.on_node_down, node)

    def stopwait(
        self, retry: float | None = 1, callback: Callable[[Node], Any] | None = None, sig: int = signal.SIGTERM
    ) -> None:
        """Stop all, and wait until they are down, however long that takes (`[multi.9]`)."""
        self.stop(retry, callback, sig)

    def shutdown_nodes(
        self, nodes: Iterable[Node], sig: int = signal.SIGTERM, retry: float | None = None
    ) -> Iterator[Node]:
        """Send these a signal, and give each when it is down."""
        for down in stop_all(self, list(nodes), sig, retry):
            yield from down

    def find(self, name: str) -> Node:
        """The node of that whole name. Raises `KeyError`."""
        for node in self:
            if node.name == name:
                return node
        raise KeyError(name)

    def getpids(self, on_down: Callable[[Node], Any] | None = None) -> Iterator[Node]:
        """The nodes that run; `on_down(node)` is called for the others, whose pid files are removed."""
        for node in self:
            if node.alive():
                yield node
            else:
                node.forget()
                maybe_call(on_down, node)
