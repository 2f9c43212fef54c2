"""Entrance. `celery report`: what a bug report needs (`[cli.21]`)."""

from __future__ import annotations

import click

from celery.bin.base import CeleryCommand, handle_preload_options


@click.command(cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def report(ctx: click.Context) -> None:
    """Show platform, versions and settings, for a bug report."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    ctx.obj.echo(app.bugreport())
