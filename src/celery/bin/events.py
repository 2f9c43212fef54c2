"""Entrance. `celery events`: what happens in the cluster, as lines, as snapshots, or on the screen (`[cli.10]`)."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from celery.bin.base import LOG_LEVEL, CeleryDaemonCommand, CeleryOption, handle_preload_options
from celery.bin.starting import check_files, check_owner
from celery.platforms import EX_FAILURE, detached, set_process_title, strargv
from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["events"]

_DUMPER: dict[str, Any] = {"cls": CeleryOption, "help_group": "Dumper"}
_SNAPSHOT: dict[str, Any] = {"cls": CeleryOption, "help_group": "Snapshot"}


def _set_title(prog: str, info: str = "") -> None:
    set_process_title(f"celery:{prog}", info=f"{info} {strargv(sys.argv)}".strip())


#: What each use of the command runs; loaded when it is used.
_DUMP, _CAMERA, _SCREEN = "celery.events.dumper:evdump", "celery.events.snapshot:evcam", "celery.events.cursesmon:evtop"


def _take_snapshots(
    app: Any, camera: str, files: dict[str, Any], detach: dict[str, Any] | None, options: dict[str, Any]
) -> None:
    take: Callable[[], None] = partial(symbol_by_name(_CAMERA), camera, app=app, **files, **options)
    _set_title("cam")
    if detach is None:
        take()
        return
    with detached(files["logfile"], files["pidfile"], **detach):
        take()


@click.command(cls=CeleryDaemonCommand, name="events")
@click.option("-d", "--dump", is_flag=True, help="Write each event as a line.", **_DUMPER)
@click.option("-c", "--camera", help="Take snapshots with this class (a dotted name).", **_SNAPSHOT)
@click.option("--detach", is_flag=True, help="Go on in the background; with -c, -d means this.", **_SNAPSHOT)
@click.option(
    "-F",
    "--frequency",
    "--freq",
    type=float,
    default=1.0,
    help="Seconds between two snapshots.",
    **_SNAPSHOT,
)
@click.option("-r", "--maxrate", help="Take no more snapshots than this, such as 10/m.", **_SNAPSHOT)
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="WARNING", help="Logging level.", **_SNAPSHOT)
@click.pass_context
@handle_preload_options
def events(
    ctx: click.Context,
    dump: bool,
    camera: str | None,
    detach: bool,
    frequency: float,
    maxrate: str | None,
    loglevel: int,
    **options: Any,
) -> None:
    """Look at what happens in the cluster. Without options: a monitor on the screen.

    \b
    Examples
    --------

    \b
    $ celery -A proj events
    $ celery -A proj events --dump
    $ celery -A proj events -c proj.Camera -F 2.0 -r 10/m
    """
    app = ctx.obj.app
    owner = {name: options.get(name) for name in ("uid", "gid", "umask")}
    files = {name: options.get(name) for name in ("logfile", "pidfile")}
    check_owner(**owner)
    check_files(**files)
    try:
        if camera:
            daemon = {**owner, "umask": owner["umask"] or 0, "workdir": os.getcwd()} if detach or dump else None
            _take_snapshots(app, camera, files, daemon, {"freq": frequency, "maxrate": maxrate, "loglevel": loglevel})
        else:
            _set_title("dump" if dump else "top")
            symbol_by_name(_DUMP if dump else _SCREEN)(app=app)
    except (AttributeError, ImportError, ValueError) as exc:
        click.echo(f"Error: Unable to run the `events` command. Reason: {exc}", err=True)
        ctx.exit(EX_FAILURE)
