"""Entrance. `celery worker`."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click
from click import Choice
from click.types import IntParamType

from celery.apps.launching import Launch
from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    _Choice,
    _ParamType,
    handle_preload_options,
)
from celery.bin.beat import NO_SCHEDULER
from celery.bin.starting import check_files, check_owner, refused
from celery.concurrency import ALIASES
from celery.exceptions import CeleryCommandException, ImproperlyConfigured
from celery.platforms import EX_FAILURE, check_pidlock, detached, maybe_drop_privileges
from celery.utils.nodenames import default_nodename, host_format, node_format
from celery.worker.scaling import range_of

__all__ = ["AUTOSCALE", "HOSTNAME", "WORKERS_POOL", "Autoscale", "Hostname", "WorkersPool", "detach", "worker"]

#: 0 is none, as it is for the settings.
_SECONDS, _COUNT = click.FloatRange(min=0), click.IntRange(min=0)
C_FAKEFORK = os.environ.get("C_FAKEFORK")

_WORKER: dict[str, Any] = {"cls": CeleryOption, "help_group": "Worker Options"}
_POOL: dict[str, Any] = {"cls": CeleryOption, "help_group": "Pool Options"}
_QUEUES: dict[str, Any] = {"cls": CeleryOption, "help_group": "Queue Options"}
_FEATURES: dict[str, Any] = {"cls": CeleryOption, "help_group": "Features"}
_BEAT: dict[str, Any] = {"cls": CeleryOption, "help_group": "Embedded Beat Options"}


class Hostname(_ParamType):
    """A node name; `%h`, `%n` and `%d` become host, name and domain (`[worker.2]`)."""

    name = "hostname"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return host_format(default_nodename(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class WorkersPool(_Choice):
    """The name of a pool."""

    name = "pool"

    def __init__(self) -> None:
        super().__init__((*ALIASES, "custom"))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A name, or the path of a class (`[pool.1]`)."""
        if isinstance(value, str) and ("." in value or ":" in value):
            return value
        if value == "custom" and not os.environ.get("CELERY_CUSTOM_WORKER_POOL"):
            self.fail("expected the path of a pool class (module:Class) in CELERY_CUSTOM_WORKER_POOL", param, ctx)
        return super().convert(value, param, ctx)


class _Concurrency(IntParamType):
    """A number, or "auto" (`[worker.7]`)."""

    name = "concurrency"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "auto":
            return value
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if number < 0:
            self.fail(f"must be a non-negative integer or 'auto', got {value!r}", param, ctx)
        return number


class Autoscale(_ParamType):
    """`max,min` or `max`: most and fewest processes (`[limit.7]`)."""

    name = "<max workers>, <min workers>"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return range_of(value)
        except ImproperlyConfigured:
            self.fail(f"must be max,min or max, such as 10,3 with min not above max, got {value!r}", param, ctx)


HOSTNAME = Hostname()
AUTOSCALE = Autoscale()
WORKERS_POOL = WorkersPool()
AUTO_CONCURRENCY = "auto"


def detach(
    path: str,
    argv: list[str],
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = None,
    workdir: str | None = None,
    fake: bool = False,
    app: Any = None,
    executable: str | None = None,
    hostname: str | None = None,
) -> int:
    """Run the program at `path` in the background (`[worker.20]`); `fake`: in the foreground, in this process.

    Returns when it is ready: 0, or why it is not.
    """
    node = default_nodename(hostname or "")
    logfile, pidfile = logfile and node_format(logfile, node), pidfile and node_format(pidfile, node)
    program = executable or path

    def become(launch: Launch | None) -> int:
        keep = launch.descriptors if launch else ()
        daemon = {"uid": uid, "gid": gid, "umask": umask, "workdir": workdir, "fake": fake, "keep": keep}
        with detached(logfile, pidfile, after_forkers=False, **daemon):
            if launch:
                launch.attach()
            try:
                os.execv(program, [program, *argv])  # noqa: S606 - ourselves, as the user called us
            except OSError as exc:
                _log_to(
                    logfile, f"{program} cannot be run in the background: {exc}. Expected the path of a Python program."
                )
        return EX_FAILURE

    if fake:
        return become(None)
    if pidfile:
        check_pidlock(pidfile)
    return Launch(f"The worker {node}", logfile).run(become)


def _log_to(logfile: str | None, text: str) -> None:
    """The terminal is gone by now; the log file is all there is."""
    handler = logging.FileHandler(logfile) if logfile else logging.NullHandler()
    logger = logging.getLogger("celery.bin.worker")
    logger.addHandler(handler)
    logger.critical(text)
    logger.removeHandler(handler)
    handler.close()


def _in_background(app: Any, options: dict[str, Any], hostname: str | None) -> int:
    argv = [argument for argument in sys.orig_argv[1:] if argument not in ("-D", "--detach")]
    wanted = ("logfile", "pidfile", "uid", "gid", "umask", "executable")
    return detach(
        sys.executable, argv, app=app, hostname=hostname, fake=bool(C_FAKEFORK), **{n: options.get(n) for n in wanted}
    )


@click.command(
    cls=CeleryDaemonCommand, name="worker", context_settings={"allow_extra_args": True}, no_args_is_help=False
)
@click.option(
    "-n",
    "--hostname",
    type=HOSTNAME,
    **_WORKER,
    help="Name of this worker, such as w1@%h: %h is the host, %n its name, %d its domain.",
)
@click.option("-D", "--detach", is_flag=True, help="Go on in the background.", **_WORKER)
@click.option("-l", "--loglevel", "-L", type=LOG_LEVEL, default="WARNING", help="Logging level.", **_WORKER)
@click.option("-S", "--statedb", type=click.Path(), help="Remember revoked tasks over restarts here.", **_WORKER)
@click.option(
    "-O",
    "--optimization",
    "optimization",
    type=Choice(("default", "fair")),
    default="default",
    **_WORKER,
    help="Accepted for compatibility: a task is handed only to a free process either way.",
)
@click.option(
    "--prefetch-multiplier",
    type=_COUNT,
    **_WORKER,
    help="Hold at most this many messages for each process; 0: as many as the processes have a use for, which is also "
    "the default.",
)
@click.option(
    "--disable-prefetch",
    is_flag=True,
    default=None,
    **_WORKER,
    help="Hold at most one message for each process, those that run included.",
)
@click.option(
    "-c",
    "--concurrency",
    type=_Concurrency(),
    metavar="<concurrency>",
    **_POOL,
    help="How many tasks run at once. The default is the number of CPUs; 'auto' respects the CPU quota and affinity.",
)
@click.option(
    "--autoscale",
    type=AUTOSCALE,
    **_POOL,
    help="As many processes as there is work for, within max,min (min: 0 if it is not given, which keeps one).",
)
@click.option("-P", "--pool", "pool", type=WORKERS_POOL, default=None, help="What runs the tasks.", **_POOL)
@click.option(
    "-E",
    "--task-events",
    "--events",
    "task_events",
    is_flag=True,
    default=None,
    **_POOL,
    help="Tell monitors of each task.",
)
@click.option("--time-limit", type=_SECONDS, help="Seconds after which a task's process is killed.", **_POOL)
@click.option("--soft-time-limit", type=_SECONDS, help="Seconds after which a task is told to stop.", **_POOL)
@click.option("--max-tasks-per-child", type=_COUNT, help="Tasks after which a process is replaced.", **_POOL)
@click.option("--max-memory-per-child", type=_COUNT, help="KiB of memory above which a process is replaced.", **_POOL)
@click.option(
    "--pool-start-method",
    type=Choice(("fork", "spawn", "forkserver")),
    default=None,
    **_POOL,
    help="How processes are made.",
)
@click.option("--purge", "--discard", "purge", is_flag=True, help="Erase all waiting messages first.", **_QUEUES)
@click.option("-Q", "--queues", type=COMMA_SEPARATED_LIST, help="Take messages from these queues.", **_QUEUES)
@click.option("-X", "--exclude-queues", type=COMMA_SEPARATED_LIST, help="Take none from these.", **_QUEUES)
@click.option("-I", "--include", type=COMMA_SEPARATED_LIST, help="Import these modules.", **_QUEUES)
@click.option("--without-gossip", is_flag=True, help="Do not listen to other workers.", **_FEATURES)
@click.option("--without-mingle", is_flag=True, help="Do not ask other workers at start.", **_FEATURES)
@click.option("--without-heartbeat", is_flag=True, help="Send no heartbeats.", **_FEATURES)
@click.option("--heartbeat-interval", type=int, help="Seconds between heartbeats; 2 by default.", **_FEATURES)
@click.option("-B", "--beat", is_flag=True, help="Run beat too (not part of this version yet).", **_BEAT)
@click.option("-s", "--schedule-filename", "--schedule", "schedule", help="File of beat's schedule.", **_BEAT)
@click.option("--scheduler", help="Class of beat's scheduler.", **_BEAT)
@click.pass_context
@handle_preload_options
def worker(
    ctx: click.Context,
    hostname: str | None = None,
    loglevel: int | None = None,
    logfile: str | None = None,
    pidfile: str | None = None,
    statedb: str | None = None,
    uid: Any = None,
    gid: Any = None,
    umask: Any = None,
    executable: str | None = None,
    **options: Any,
) -> None:
    """Start a worker.

    \b
    Examples
    --------

    \b
    $ celery -A proj worker -l INFO
    $ celery -A proj worker -Q urgent,celery -c 8
    $ celery -A proj worker -c 8 prefetch_multiplier=1
    """
    app = ctx.obj.app
    if ctx.args:
        _settings_from_words(ctx, app)
    _refuse_beat(ctx, options)
    name = default_nodename(hostname or "")
    check_owner(uid, gid, umask)
    check_files(logfile and node_format(logfile, name), pidfile and node_format(pidfile, name))
    if options.pop("detach"):
        daemon = {
            "logfile": logfile,
            "pidfile": pidfile,
            "uid": uid,
            "gid": gid,
            "umask": umask,
            "executable": executable,
        }
        ctx.exit(_in_background(app, daemon, hostname))
    maybe_drop_privileges(uid=uid, gid=gid)
    try:
        worker = app.Worker(
            hostname=name,
            loglevel=loglevel,
            logfile=logfile and node_format(logfile, name),
            pidfile=pidfile and node_format(pidfile, name),
            statedb=statedb and node_format(statedb, name),
            no_color=ctx.obj.no_color or None,
            quiet=ctx.obj.quiet,
            **options,
        )
    except Exception as exc:  # noqa: BLE001 - the app's modules are imported here
        ctx.exit(refused(exc, logs=app.log.already_setup))
    worker.start()
    if worker.restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - HUP asks for it
    ctx.exit(worker.exitcode)


def _refuse_beat(ctx: click.Context, options: dict[str, Any]) -> None:
    """Takes out what is for beat inside the worker. Raises if that is wanted."""
    wanted = options.pop("beat")
    for setting, value in (
        ("beat_schedule_filename", options.pop("schedule")),
        ("beat_scheduler", options.pop("scheduler")),
    ):
        if value:
            ctx.obj.app.conf[setting] = value
    if wanted and options.get("pool") in ("eventlet", "gevent"):
        raise click.UsageError("-B option does not work with eventlet/gevent pools: start beat by itself", ctx=ctx)
    if wanted:
        raise CeleryCommandException(f"-B: {NO_SCHEDULER}", EX_FAILURE)


def _settings_from_words(ctx: click.Context, app: Any) -> None:
    """`key=value` words after the options are settings (`[conf.15]`)."""
    try:
        app.config_from_cmdline(ctx.args, namespace="worker")
    except (KeyError, ValueError) as exc:
        raise click.UsageError(
            f"Unable to parse extra configuration from command line.\nReason: {exc}\n"
            f"Expected words of the form setting=value, got: {' '.join(ctx.args)}",
            ctx=ctx,
        ) from exc
