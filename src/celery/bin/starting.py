"""Entrance. What keeps a worker from starting, said in one line where one line will do."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celery.exceptions import ImproperlyConfigured
from celery.platforms import EX_FAILURE, parse_gid, parse_uid

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["check_files", "check_owner", "refused"]

#: Code that is not the user's: ours, the standard library's import system, click.
_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_OTHERS = ("<frozen ", str(Path(click.__file__).parent), str(Path(sys.modules["importlib"].__file__ or "").parent))
#: What says by itself what is wrong.
_EXPLAINED = (ImproperlyConfigured, ImportError, OSError, SyntaxError, ValueError)


def check_files(logfile: str | None, pidfile: str | None) -> None:
    """Raises click's BadParameter for a file that could not be written; in the background nobody would hear of it."""
    for option, path in (("-f' / '--logfile", logfile), ("--pidfile", pidfile)):
        if not path:
            continue
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise click.BadParameter(f"{path}: the folder {folder} does not exist", param_hint=f"'{option}'")
        if not os.access(path if os.path.exists(path) else folder, os.W_OK):
            raise click.BadParameter(f"{path} cannot be written by this user", param_hint=f"'{option}'")


def check_owner(uid: Any, gid: Any, umask: Any) -> None:
    """Raises click's BadParameter for a user or a group that does not exist, and for an umask that is not octal."""
    try:
        int(umask or "0", 8)
    except ValueError:
        raise click.BadParameter(f"expected octal digits such as 022, got {umask!r}", param_hint="'--umask'") from None
    for option, name, parse in (("--uid", uid, parse_uid), ("--gid", gid, parse_gid)):
        try:
            if name:
                parse(name)
        except KeyError as exc:
            raise click.BadParameter(exc.args[0], param_hint=f"'{option}'") from exc


def refused(exc: Exception, logs: bool) -> int:
    """Tell why there is no worker, with the user's part of the traceback if that says anything.

    `logs`: logging is set up, so the log is the place; else standard error. Returns the exit code.
    """
    frames = _from_users_code(exc.__traceback__)
    told = frames is None and isinstance(exc, _EXPLAINED)
    text, frames = f"The worker cannot start: {_text(exc)}", frames or exc.__traceback__
    if logs:
        exc_info = None if told else (type(exc), exc, frames)
        logging.getLogger("celery.worker").critical("%s", text, exc_info=exc_info)
    else:
        click.echo(("" if told else "".join(traceback.format_exception(type(exc), exc, frames))) + text, err=True)
    return EX_FAILURE


def _text(exc: Exception) -> str:
    if isinstance(exc, SyntaxError):
        return "".join(traceback.format_exception_only(exc)).strip()
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return (
            f"{exc}. If {exc.name} is named by the setting include or imports, by -I or for autodiscovery: is it spelt "
            f"right, and can it be imported from {os.getcwd()}?"
        )
    return str(exc) or repr(exc)


def _from_users_code(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is neither ours nor the import system's; None: there is none."""
    while frames is not None:
        where = frames.tb_frame.f_code.co_filename
        is_script = os.path.basename(where) == "celery"
        if not (where.startswith((_PACKAGE, *_OTHERS)) or is_script):
            return frames
        frames = frames.tb_next
    return None
