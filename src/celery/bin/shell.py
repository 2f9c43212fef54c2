"""Entrance. `celery shell`: a Python prompt with the app and its tasks at hand (`[cli.22]`)."""

from __future__ import annotations

import code
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from celery.bin.base import EX_UNAVAILABLE, CeleryCommand, CeleryOption, handle_preload_options
from celery.exceptions import CeleryCommandException
from celery.patching import maybe_patch_concurrency

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["shell"]

_SHELL: dict[str, Any] = {"cls": CeleryOption, "help_group": "Shell Options"}


@click.command(cls=CeleryCommand)
@click.option("-I", "--ipython", is_flag=True, help="Use IPython.", **_SHELL)
@click.option("-B", "--bpython", is_flag=True, help="Use bpython.", **_SHELL)
@click.option("--python", is_flag=True, help="Use Python's own prompt.", **_SHELL)
@click.option("-T", "--without-tasks", is_flag=True, help="Leave the tasks out.", **_SHELL)
@click.option("--eventlet", is_flag=True, help="Patch for eventlet first.", **_SHELL)
@click.option("--gevent", is_flag=True, help="Patch for gevent first.", **_SHELL)
@click.pass_context
@handle_preload_options
def shell(ctx: click.Context, ipython: bool, bpython: bool, python: bool, without_tasks: bool, **green: bool) -> None:
    """Start a Python prompt with the app at hand.

    Its names: app and celery (the app), Task, chord, group, chain, chunks, xmap, xstarmap, subtask, signature, and
    every task by the last part of its name. IPython or bpython are used where they are installed.
    """
    for name, wanted in green.items():
        if wanted:
            maybe_patch_concurrency(["shell", "-P", name])
    app = ctx.obj.app
    app.loader.import_default_modules()
    names = _names(app, tasks=not without_tasks)
    sys.modules["__main__"].__dict__.update(names)
    chosen = [start for start, wanted in ((_ipython, ipython), (_bpython, bpython), (_python, python)) if wanted]
    for start in chosen or (_bpython, _ipython, _python):
        try:
            start(names)
        except ModuleNotFoundError as exc:
            if chosen:
                raise CeleryCommandException(f"{exc}. Install it, or leave the option out", EX_UNAVAILABLE) from exc
            continue
        return


def _names(app: Any, *, tasks: bool) -> dict[str, Any]:
    canvas = import_module("celery.canvas")
    words = ("chord", "group", "chain", "chunks", "xmap", "xstarmap", "subtask", "signature")
    names: dict[str, Any] = {"app": app, "celery": app, "Task": app.Task}
    names.update({word: getattr(canvas, word) for word in words})
    if tasks:
        names.update({task.__name__: task for name, task in app.tasks.items() if not name.startswith("celery.")})
    return names


def _ipython(names: dict[str, Any]) -> None:
    ipython = import_module("IPython")
    ipython.start_ipython(argv=[], user_ns=names)


def _bpython(names: dict[str, Any]) -> None:
    import_module("bpython").embed(names)


def _python(names: dict[str, Any]) -> None:
    try:
        readline = import_module("readline")
        completer: Callable[..., Any] = import_module("rlcompleter").Completer(names).complete
        readline.set_completer(completer)
        readline.parse_and_bind("tab:complete")
    except ModuleNotFoundError:  # built without it
        pass
    code.interact(local=names, exitmsg="")
