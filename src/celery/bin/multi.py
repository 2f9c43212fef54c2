"""Entrance. `celery multi`: workers in the background, many by one command line (areas multi, daemon)."""

from __future__ import annotations

import signal
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from celery import VERSION_BANNER
from celery.apps import multi as apps
from celery.apps.multi import MultiParser, NamespacedOptionParser
from celery.bin.base import CeleryCommand
from celery.bin.celery import celery
from celery.bin.worker import worker
from celery.platforms import EX_FAILURE, EX_OK, signals
from celery.utils.term import colored
from celery.utils.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TextIO

    from celery.apps.multi import Node

__all__ = ("MultiTool", "multi")

USAGE = """\
usage: {prog} start <node1 node2 nodeN|count> [worker options]
       {prog} stop <n1 n2 nN|count> [-SIG (default: -TERM)]
       {prog} stopwait <n1 n2 nN|count> [-SIG]
       {prog} restart <n1 n2 nN|count> [-SIG] [worker options]
       {prog} kill <n1 n2 nN|count>

       {prog} show <n1 n2 nN|count> [worker options]
       {prog} get hostname <n1 n2 nN|count> [-qv] [worker options]
       {prog} names <n1 n2 nN|count>
       {prog} expand template <n1 n2 nN|count>
       {prog} help

options of this command:

    * --nosplash:   Leave out the line with the version.
    * --quiet, -q:  Say only what went wrong.
    * --verbose:    Show the command line of each node.
    * --no-color:   Plain text; so it is anyway where the output is no terminal.
"""

HELP = """\
Start and stop workers in the background, one or many.

    celery multi start w1 -A proj -l INFO

starts a worker w1@<this host>. Nothing is remembered: stop and restart it with the same node names, -A, --pidfile and
--logfile (restart with all options, since the worker is started with those of the restart).

    celery multi stop w1                  send TERM, do not wait
    celery multi stopwait w1              … and wait until what runs has ended
    celery multi stop w1 -QUIT            another signal
    celery multi restart w1 -A proj -l INFO
    celery multi kill w1                  KILL: what runs is lost, or runs again if it is acknowledged late

Nodes: names (w1 w2, or whole ones: w1@example.com, w1@%h), or a single number:

    celery multi start 3 -c 4             celery1, celery2, celery3
    celery multi start 3 --range-prefix=w w1, w2, w3
    --suffix=example.com, -n example.com  the host of those without one
    --prefix=x                            x before each name (not with a number)

Options for some of the nodes: a selector after the option's name.

    -Q:1-3 images,video -Q:4,5 data -Q default    with a number of nodes: a number, list or range
    -c:w1 3 -c:2 4 --statedb:w1,w3=%n.db          with names: a name, a place in the list, or a list of them

Files: pid and log files are in /var/run/celery and /var/log/celery, unless CELERYD_PID_FILE and CELERYD_LOG_FILE are in
the environment, or:

    --pidfile=run/%n.pid --logfile=log/%n%I.log   folders are made
    %n name   %h whole name   %d host   %I -<number> of a child process, or nothing

Anything after -- is handed to each worker as it stands. --executable=PYTHON runs them with another Python, --cmd=… is
another command in place of "-m celery worker --detach", --append=… is added to the end.

To look without doing:

    celery multi show 3 -A proj -Q:1 images -Q default
    celery multi names 3
    celery multi expand %n.log 3
    celery multi get w2@%h w1 w2
"""

#: `stop_verify` is an old name of `stopwait` (`[compat.20]`).
COMMANDS = ("start", "stop", "stopwait", "stop_verify", "restart", "kill", "show", "names", "expand", "get", "help")


class TermLogger:
    """How a command talks: in colours on a terminal, and as much as was asked for."""

    #: Option → attribute that it sets.
    reserved_options = (
        ("--nosplash", "nosplash"), ("--quiet", "quiet"), ("-q", "quiet"), ("--verbose", "verbose"),
        ("--no-color", "no_color"),
    )  # fmt: skip
    nosplash = quiet = verbose = no_color = False
    stdout: TextIO
    stderr: TextIO

    def setup_terminal(self, stdout: TextIO | None, stderr: TextIO | None) -> None:
        """Where to write; None: the process's own streams."""
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr

    @cached_property
    def colored(self) -> colored:
        """Colours, if there are any."""
        isatty = getattr(self.stdout, "isatty", None)
        return colored(enabled=not self.no_color and bool(isatty and isatty()))

    def say(self, text: str, newline: bool = True) -> None:
        """What a command was asked for."""
        print(text, file=self.stdout, end="\n" if newline else "", flush=True)

    def note(self, text: str, newline: bool = True) -> None:
        """What goes on, unless it is to be quiet."""
        if not self.quiet:
            self.say(text, newline)

    def info(self, text: str, newline: bool = True) -> None:
        """What goes on in detail, if that was asked for."""
        if self.verbose:
            self.note(text, newline)

    def carp(self, text: str) -> None:
        """What went wrong."""
        print(text, file=self.stderr, flush=True)

    def error(self, text: str | None = None) -> int:
        """What went wrong, and how the command is used. Returns the exit code."""
        if text:
            self.carp(text)
        self.usage()
        return EX_FAILURE

    def splash(self) -> None:
        """The version."""
        if not self.nosplash:
            self.note(str(self.colored.cyan(f"celery multi v{VERSION_BANNER}")))

    def usage(self) -> None:
        """How the command is used."""
        self.splash()
        self.say(USAGE.format(prog="multi"))


class MultiTool(TermLogger):
    """The commands. Each returns an exit code."""

    OptionParser = NamespacedOptionParser
    MultiParser = MultiParser

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        cmd: str | None = None,
        fh: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        """`env`: the nodes' environment (this process's). `cmd`: what to start. `fh`: an old name of `stdout`."""
        self.env = env
        self.cmd = cmd or "-m celery worker --detach"
        self.setup_terminal(stdout or fh, stderr)
        self.fh = self.stdout
        self.prog_name = "multi"

    def execute_from_commandline(self, argv: Sequence[str], cmd: str | None = None) -> int:
        """Run a command line whose first word is the program. Returns the exit code."""
        self.cmd = cmd or self.cmd
        words = self._take_reserved(argv[1:])
        if not words or words[0].startswith("-"):
            return self.error()
        command, *rest = words
        if command not in COMMANDS:
            return self.error(f"Invalid command: {command}; expected one of {', '.join(COMMANDS)}")
        if command in ("expand", "get") and not rest:
            return self.error(f"{command}: expected {'a template' if command == 'expand' else 'the name of a node'}")
        try:
            return self.call_command(command, rest)
        except (ValueError, PermissionError) as exc:
            self.carp(f"{command}: {exc}")
            return EX_FAILURE

    def call_command(self, command: str, argv: Sequence[str]) -> int:
        """Run one of `COMMANDS`. Raises `ValueError`, `PermissionError`."""
        do = getattr(self, command)
        if command in ("expand", "get", "help"):
            return int(do(*argv))
        if command in ("start", "show", "names", "kill"):
            return int(do(self.cluster_from_argv(argv)))
        parser = self._parse(argv)
        sig = self._find_sig_argument(parser)
        return int(do(self._cluster_of(parser), sig))

    def _take_reserved(self, argv: Sequence[str]) -> list[str]:
        """Obey and remove our own options, up to `--`."""
        words, at = list(argv), argv.index("--") if "--" in argv else len(argv)
        for option, name in self.reserved_options:
            if option in words[:at]:
                setattr(self, name, True)
        reserved = {option for option, _ in self.reserved_options}
        return [word for word in words[:at] if word not in reserved] + words[at:]

    # -- commands ----------------------------------------------------------------------------------------------------

    def start(self, cluster: apps.Cluster) -> int:
        """Start the nodes; fails if any of them does (`[multi.12]`)."""
        self.splash()
        self.note("> Starting nodes...")
        return int(any(cluster.start()))

    def stop(self, cluster: apps.Cluster, sig: int, **kwargs: Any) -> int:
        """Send a signal to the nodes."""
        self.splash()
        cluster.stop(sig=sig, **kwargs)
        return EX_OK

    def stopwait(self, cluster: apps.Cluster, sig: int, **kwargs: Any) -> int:
        """… and wait until they are down."""
        self.splash()
        cluster.stopwait(sig=sig, **kwargs)
        return EX_OK

    stop_verify = stopwait

    def restart(self, cluster: apps.Cluster, sig: int, **kwargs: Any) -> int:
        """Stop the nodes, and start each when it is down."""
        self.splash()
        return int(any(cluster.restart(sig=sig, **kwargs)))

    def kill(self, cluster: apps.Cluster) -> int:
        """Kill the nodes."""
        self.splash()
        cluster.kill()
        return EX_OK

    def names(self, cluster: apps.Cluster) -> int:
        """Print the nodes' names."""
        self.say("\n".join(node.name for node in cluster))
        return EX_OK

    def show(self, cluster: apps.Cluster) -> int:
        """Print the nodes' command lines."""
        self.say("\n".join(" ".join(node.argv_with_executable) for node in cluster))
        return EX_OK

    def get(self, wanted: str, *argv: str) -> int:
        """Print one node's arguments; fails if there is no such node."""
        try:
            node = self.cluster_from_argv(argv).find(wanted)
        except KeyError:
            return EX_FAILURE
        self.say(" ".join(node.argv))
        return EX_OK

    def expand(self, template: str, *argv: str) -> int:
        """Print the template for each node."""
        for node in self.cluster_from_argv(argv):
            self.say(node.expander(template))
        return EX_OK

    def help(self, *argv: str) -> int:
        """Print how all this is meant."""
        self.say(HELP)
        return EX_OK

    # -- nodes -------------------------------------------------------------------------------------------------------

    def cluster_from_argv(self, argv: Iterable[str], cmd: str | None = None) -> apps.Cluster:
        """The nodes of a command line. Raises `ValueError`."""
        self.cmd = cmd or self.cmd
        return self._cluster_of(self._parse(argv))

    def _cluster_of(self, parser: NamespacedOptionParser) -> apps.Cluster:
        cluster = self.Cluster(list(self.MultiParser(cmd=self.cmd).parse(parser)), cmd=self.cmd)
        for selector in parser.unmatched:
            options = " ".join(f"{name}:{selector}" for name in parser.namespaces[selector])
            self.carp(f"No node is meant by {options}; there are {', '.join(node.name for node in cluster)}")
        return cluster

    def _parse(self, argv: Iterable[str]) -> NamespacedOptionParser:
        parser = self.OptionParser(argv, valued=valued_options())
        parser.parse()
        return parser

    def Cluster(self, nodes: Iterable[Node], cmd: str | None = None) -> apps.Cluster:  # noqa: N802 - public name
        """The nodes, with us listening."""
        names = [name for name in apps.Cluster.__annotations__ if name.startswith("on_")]
        return apps.Cluster(nodes, cmd=cmd, env=self.env, **{name: getattr(self, name) for name in names})

    # Signals stand among the options: `-9`, `-KILL`, `-SIGQUIT`.
    def _find_sig_argument(self, p: NamespacedOptionParser, default: int = signal.SIGTERM) -> int:
        for option in reversed(p.options):
            found = _signal(option)
            if found is not None:
                value = p.options.pop(option)  # the worker knows no such option
                if value is not None:
                    p.values.append(value)
                return found
        return default

    # -- what happens ------------------------------------------------------------------------------------------------

    def on_stopping_preamble(self, nodes: Sequence[Node]) -> None:
        self.note(str(self.colored.blue("> Stopping nodes...")))

    def on_send_signal(self, node: Node, sig: str) -> None:
        self.note(f"Sending {sig} to node {node.name} ({node.pid})")

    def on_node_signal(self, node: Node, sig: str) -> None:
        self.note(f"\t> {node.name}: {sig} -> {node.pid}")

    def on_node_signal_dead(self, node: Node) -> None:
        self.note(f"Could not signal {node.name} ({node.pid}): No such process")

    def on_still_waiting_for(self, nodes: Sequence[Node]) -> None:
        count = len(nodes)
        pids = ", ".join(str(node.signalled.pid if node.signalled else None) for node in nodes)
        self.note(str(self.colored.blue(f"> Waiting for {count} {pluralize(count, 'node')} -> {pids}...")), False)

    def on_still_waiting_progress(self, nodes: Sequence[Node]) -> None:
        self.note(".", newline=False)

    def on_still_waiting_end(self) -> None:
        self.note("")

    def on_node_shutdown_ok(self, node: Node) -> None:
        self.note(f"\n\t> {node.name}: {self.OK}")

    def on_node_down(self, node: Node) -> None:
        text = f"> {node.name}: {self.DOWN}"
        if node.stranger:
            text += f" (process {node.stranger}, whose number was in {node.pidfile}, is another program: left alone)"
        self.note(text)

    def on_node_start(self, node: Node) -> None:
        self.note(f"\t> {node.name}: ", newline=False)

    def on_node_restart(self, node: Node) -> None:
        self.note(str(self.colored.blue(f"> Restarting node {node.name}: ")), newline=False)

    def on_node_status(self, node: Node, retval: int) -> None:
        self.note(self.FAILED if retval else self.OK)
        if node.said:
            heading = f"{node.name}: " if self.quiet else ""
            self.carp("\n".join(f"\t  {heading}{line}" for line in node.said.splitlines()))

    def on_child_spawn(self, node: Node, argstr: str, env: Mapping[str, str] | None) -> None:
        self.info(f"  {argstr}")

    def on_child_signalled(self, node: Node, signum: int) -> None:
        self.note(f"* Child was terminated by signal {signum}")

    def on_child_failure(self, node: Node, retcode: int) -> None:
        self.note(f"* Child terminated with exit code {retcode}")

    @property
    def OK(self) -> str:  # noqa: N802 - public name
        """The word, in green."""
        return str(self.colored.green("OK"))

    @property
    def FAILED(self) -> str:  # noqa: N802 - public name
        """The word, in red."""
        return str(self.colored.red("FAILED"))

    @property
    def DOWN(self) -> str:  # noqa: N802 - public name
        """The word, in magenta."""
        return str(self.colored.magenta("DOWN"))


def _signal(option: str) -> int | None:
    """The signal that an option such as `-9`, `-KILL` or `-SIGQUIT` names, if any."""
    name = option[1:]
    try:
        if name.isdigit():
            return int(signal.Signals(int(name)))
        return signals.signum(name) if len(name) > 2 and name.isupper() else None
    except (AttributeError, ValueError):
        return None


def valued_options() -> frozenset[str]:
    """Long options of a worker, and of `celery` before it, that take a value: here it may also be the next word."""
    return frozenset(
        name
        for param in (*celery.params, *worker.params)
        if isinstance(param, click.Option) and not param.is_flag
        for name in param.opts
        if name.startswith("--")
    ) | {"--prefix", "--suffix", "--range-prefix", "--cmd", "--append"}


class _OwnSyntax(CeleryCommand):
    """Words are taken as they are: `-Q:1-3` and `--` mean something to us."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] in (["--help"], ["-h"]):
            click.echo(f"{USAGE.format(prog='celery multi')}\n{HELP}")
            ctx.exit()
        ctx.args = list(args)
        return ctx.args


@click.command(cls=_OwnSyntax, name="multi", add_help_option=False)
@click.pass_context
def multi(ctx: click.Context) -> None:
    """Start, stop and restart workers in the background."""
    tool = MultiTool()
    tool.no_color = ctx.obj.no_color
    ctx.exit(tool.execute_from_commandline(["multi", *arrange(ctx.args)]))


def arrange(words: Sequence[str]) -> list[str]:
    """Options that stand before the command go behind it, and behind its template or node (`[cli.25]`)."""
    at, valued = 0, valued_options()
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        takes = words[at] in valued or (not words[at].startswith("--") and words[at] not in ("-C", "-q", "-h"))
        at += 2 if takes else 1
    front, command, rest = list(words[:at]), list(words[at : at + 1]), list(words[at + 1 :])
    own = 1 if command and command[0] in ("expand", "get") else 0
    return [*command, *rest[:own], *front, *rest[own:]]
