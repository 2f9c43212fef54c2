"""Entrance. `celery beat`: its place, until the scheduler is here (`[cli.9]`)."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from celery.bin.base import LOG_LEVEL, CeleryDaemonCommand, CeleryOption, handle_preload_options
from celery.exceptions import CeleryCommandException
from celery.platforms import EX_FAILURE

__all__ = ["NO_SCHEDULER", "beat"]

NO_SCHEDULER = (
    "This version has no scheduler yet: the settings beat_schedule and beat_… are read, and nothing is sent by them. "
    "Run the beat of Celery 5.7 on the same broker meanwhile: workers of this version take its tasks."
)

_BEAT: dict[str, Any] = {"cls": CeleryOption, "help_group": "Beat Options"}


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True})
@click.option("--detach", is_flag=True, help="Run in the background.", **_BEAT)
@click.option("-s", "--schedule", help="File that keeps when what ran last.", **_BEAT)
@click.option("-S", "--scheduler", help="Class of the scheduler.", **_BEAT)
@click.option("--max-interval", type=int, help="Seconds to sleep at most.", **_BEAT)
@click.option(
    "--enable-remote-control/--no-enable-remote-control", default=None, help="Answer `celery inspect ping`.", **_BEAT
)
@click.option("-n", "--hostname", help="Node name to answer under.", **_BEAT)
@click.option("-l", "--loglevel", default="WARNING", type=LOG_LEVEL, help="Log level.", **_BEAT)
@click.pass_context
@handle_preload_options
def beat(ctx: click.Context, **options: Any) -> NoReturn:
    """Send periodic tasks when they are due (not part of this version yet)."""
    raise CeleryCommandException(NO_SCHEDULER, EX_FAILURE)
