"""Entrance. `celery result`: print what a task returned (`[cli.15]`)."""

from __future__ import annotations

from typing import Any

import click

from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options

_RESULT: dict[str, Any] = {"cls": CeleryOption, "help_group": "Result Options"}


@click.command(cls=CeleryCommand)
@click.argument("task_id")
@click.option("-t", "--task", help="Name of the task, if it keeps its results elsewhere.", **_RESULT)
@click.option("--traceback", is_flag=True, help="Show the traceback instead.", **_RESULT)
@click.option("--flow", is_flag=True, help="Show where the flow stands that begins with the task.", **_RESULT)
@click.pass_context
@handle_preload_options
def result(ctx: click.Context, task_id: str, task: str | None, traceback: bool, flow: bool) -> None:
    """Print what a task returned, by its id; with --flow what became of it and of all tasks that it has sent."""
    app = ctx.obj.app
    found = (app.tasks[task] if task else app).AsyncResult(task_id)
    ctx.obj.echo(found.flow() if flow else found.traceback if traceback else found.get())
