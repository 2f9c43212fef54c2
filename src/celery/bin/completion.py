"""Entrance. `celery completion`: what a shell needs to complete the commands and options (`[cli.32]`)."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from celery.bin.base import CeleryCommand

__all__ = ["completion"]


@click.command(cls=CeleryCommand)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    bash   celery completion bash >> ~/.bashrc
    zsh    celery completion zsh >> ~/.zshrc
    fish   celery completion fish > ~/.config/fish/completions/celery.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows each of the choices"
    program = ctx.find_root()
    click.echo(found(program.command, {}, "celery", "_CELERY_COMPLETE").source())
