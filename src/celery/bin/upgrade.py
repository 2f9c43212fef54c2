"""Entrance. `celery upgrade settings`: old names of settings in a file become the new ones (`[cli.23]`)."""

from __future__ import annotations

import re
import shutil
from typing import Any

import click

from celery.bin.base import CeleryCommand, CeleryOption, CLIContext, handle_preload_options
from celery.exceptions import CeleryCommandException
from celery.platforms import EX_FAILURE
from celery.settings import NEW_NAME

__all__ = ["settings", "upgrade"]

_UPGRADE: dict[str, Any] = {"cls": CeleryOption, "help_group": "Upgrading Options"}


@click.group()
@click.pass_context
@handle_preload_options
def upgrade(ctx: click.Context) -> None:
    """Bring a project to a newer version."""


@upgrade.command(cls=CeleryCommand)
@click.argument("filename")
@click.option("--django", is_flag=True, help="The names of a Django project: CELERY_…", **_UPGRADE)
@click.option("--compat", is_flag=True, help="Names that every version reads: CELERY_…", **_UPGRADE)
@click.option("--no-backup", is_flag=True, help="Keep no copy of the file (FILENAME.orig).", **_UPGRADE)
@click.pass_context
def settings(ctx: click.Context, filename: str, django: bool, compat: bool, no_backup: bool) -> None:
    """Write the new names of settings into FILENAME, in place of those from before Celery 4."""
    cli: CLIContext = ctx.obj
    cli.error(f"processing {filename}...")
    try:
        with open(filename, encoding="utf-8", newline="") as file:
            before = file.read()
        after = renamed(before, prefixed=django or compat)
        if after == before:
            cli.echo("Your settings need no change.")
            return
        if not no_backup:
            cli.error(f"writing backup to {filename}.orig...")
            shutil.copyfile(filename, f"{filename}.orig")
        with open(filename, "w", encoding="utf-8", newline="") as file:
            file.write(after)
    except (OSError, UnicodeDecodeError) as exc:
        raise CeleryCommandException(f"{filename} cannot be changed: {exc}", EX_FAILURE) from exc
    cli.echo("Changes to your setting have been made!")


_OLD = re.compile(r"(?<!\w)(?:" + "|".join(sorted(map(re.escape, NEW_NAME), key=len, reverse=True)) + r")(?!\w)")


def renamed(text: str, *, prefixed: bool) -> str:
    """The text with each old name of a setting replaced, wherever it stands. `prefixed`: by `CELERY_<NEW NAME>`."""

    def new(found: re.Match[str]) -> str:
        name = NEW_NAME[found[0]]
        return f"CELERY_{name.upper()}" if prefixed else name

    return _OLD.sub(new, text)
