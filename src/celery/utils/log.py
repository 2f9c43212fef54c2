"""Application. Loggers, formatters, and handlers that write whole lines, many at once (`[log.2]` to `[log.5]`)."""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
import re
import select
import stat
import sys
import threading
import time
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Any, ClassVar, TextIO, cast

from celery.utils.nodenames import current_process_index as current_process_index
from celery.utils.term import colored
from celery.waits import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = (
    "LOG_LEVELS", "ColorFormatter", "FileLineHandler", "LoggingProxy", "StreamLineHandler", "base_logger",
    "flush_lines", "get_logger", "get_multiprocessing_logger", "get_task_logger", "in_sighandler", "line_writer",
    "mlevel", "reset_multiprocessing_logger", "set_in_sighandler",
)  # fmt: skip

LOG_LEVELS: dict[Any, Any] = {
    **{
        name: getattr(logging, name)
        for name in ("CRITICAL", "FATAL", "ERROR", "WARN", "WARNING", "INFO", "DEBUG", "NOTSET")
    },
    **{level: logging.getLevelName(level) for level in (50, 40, 30, 20, 10, 0)},
}
RESERVED_LOGGER_NAMES = {"celery", "celery.task"}
MP_LOG = os.environ.get("MP_LOG", False)

#: Longest that lines of `line_writer` stay in memory while lines come in, in seconds, and at most how many characters.
_HOLD_SECONDS, _HOLD_CHARACTERS = 0.05, 65536
#: What one write to a pipe may have without being mixed with what other processes write (PIPE_BUF).
_PIPE_ATOM = 4096

_in_sighandler = False


# ------------------------------------------------------------------------------------------------------------ loggers


def get_logger(name: str | logging.Logger) -> logging.Logger:
    """A logger of Celery's own parts. Never without a handler, so that nothing is said where logging is not set up."""
    logger = logging.getLogger(name) if isinstance(name, str) else name
    if not logger.handlers and logger.name not in ("root", "celery") and logger.name.startswith("celery."):
        logger.addHandler(logging.NullHandler())
    return logger


base_logger = logging.getLogger("celery")
task_logger = get_logger("celery.task")
worker_logger = get_logger("celery.worker")


def get_task_logger(name: str) -> logging.Logger:
    """A logger for a module of tasks: its parent is `celery.task`, whose lines name the task (`[log.3]`).

    Raises `RuntimeError` for the names of Celery's own loggers.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved! Choose another name, such as your module's __name__")
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    if not _descends(logger, task_logger):
        logger.parent = task_logger
    return logger


def _descends(logger: logging.Logger, ancestor: logging.Logger) -> bool:
    this: logging.Logger | None = logger
    while this is not None:
        if this is ancestor:
            return True
        this = this.parent
    return False


def mlevel(level: Any) -> Any:
    """A level's number from its name in any case. Numbers and nothing pass. Raises `KeyError`."""
    if level and not isinstance(level, numbers.Integral):
        return LOG_LEVELS[level.upper()]
    return level


def get_multiprocessing_logger() -> logging.Logger | None:
    """billiard's logger."""
    try:
        from billiard import util
    except ImportError:
        return None
    return util.get_logger()  # type: ignore[no-any-return]


def reset_multiprocessing_logger() -> None:
    """Have billiard's logger made anew, without handlers."""
    try:
        from billiard import util
    except ImportError:
        return
    if hasattr(util, "_logger"):
        util._logger = None


def set_in_sighandler(value: bool) -> None:
    """Say that a signal handler is running: what is then printed is not logged but written straight away."""
    global _in_sighandler
    _in_sighandler = value


@contextlib.contextmanager
def in_sighandler() -> Iterator[None]:
    """For the length of a signal handler."""
    set_in_sighandler(True)
    try:
        yield
    finally:
        set_in_sighandler(False)


# --------------------------------------------------------------------------------------------------------- formatters


class ColorFormatter(logging.Formatter):
    """A formatter whose lines have the colour of their level, where `use_color`. Fast: a second's date is made once."""

    COLORS: ClassVar[dict[str, Any]] = colored().names
    #: Colour by name of level; the others have none.
    colors: ClassVar[dict[str, Any]] = {
        "DEBUG": COLORS["blue"],
        "WARNING": COLORS["yellow"],
        "ERROR": COLORS["red"],
        "CRITICAL": COLORS["magenta"],
    }

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color
        self._second: tuple[int, str] = (-1, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """The date of the record; dates of one second differ in their milliseconds only."""
        if datefmt or self.default_msec_format != "%s,%03d":
            return super().formatTime(record, datefmt)
        return f"{self.second(int(record.created))}{int(record.msecs):03d}"

    def second(self, second: int) -> str:
        """The part of a date that is the same for a whole second, up to the milliseconds."""
        known, text = self._second  # one read: other threads replace it
        if known != second:
            text = time.strftime(self.default_time_format, self.converter(second)) + ","
            self._second = (second, text)
        return text

    def format(self, record: logging.LogRecord) -> str:
        """The line, in colour or not."""
        line = super().format(record)
        color = self.colors.get(record.levelname) if self.use_color else None
        return str(color(line)) if color else line


# ----------------------------------------------------------------------------------------------------------- handlers

#: One for all of our handlers: a record of one is written after the lines held by the others, without deadlock.
_lock = threading.RLock()
line_handlers: list[FileLineHandler | StreamLineHandler] = []


class _Held:
    """Lines that wait to be written by one handler. Appending needs no lock; taking out does (`_lock`)."""

    __slots__ = ("due", "lines", "size")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.size = 0
        #: Wall-clock time from which a further line is written at once, with all before it.
        self.due = 0.0

    def take(self) -> str:
        """All lines so far as one text. What is taken is out before it is written: nothing is written twice."""
        lines, n = self.lines, len(self.lines)
        text = "".join(lines[:n])
        del lines[:n]
        self.size = 0
        self.due = time.time() + _HOLD_SECONDS
        return text


class StreamLineHandler(logging.StreamHandler[TextIO]):
    """Writes whole lines to a stream: straight to its descriptor, if it has one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.held = _Held()
        line_handlers.append(self)

    def createLock(self) -> None:  # noqa: N802
        """Share the lock of all handlers of this kind."""
        _share_lock(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line after all that are held, here or by other handlers."""
        _emit(self, record)

    def flush(self) -> None:
        """Write what is held."""
        _flush(self)

    def close(self) -> None:
        """Write what is held; the stream stays open."""
        self.flush()
        _forget(self)
        super().close()


class FileLineHandler(WatchedFileHandler):
    """Appends whole lines to a file, and opens it anew when it has been moved away (`[log.5]`).

    Several processes may append to one file: each write is a number of whole lines.
    """

    def __init__(self, filename: str | os.PathLike[str], encoding: str = "utf-8") -> None:
        super().__init__(filename, encoding=encoding)
        self.held = _Held()
        line_handlers.append(self)

    def createLock(self) -> None:  # noqa: N802
        """Share the lock of all handlers of this kind."""
        _share_lock(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line after all that are held, here or by other handlers."""
        _emit(self, record)

    def flush(self) -> None:
        """Write what is held."""
        _flush(self)

    def move_to(self, filename: str) -> None:
        """Go on in another file. What is held goes to the old one."""
        with _lock:
            self.flush()
            if self.stream is not None:
                self.stream.close()
            self.baseFilename = os.path.abspath(filename)
            self.stream = self._open()
            self._statstream()

    def close(self) -> None:
        """Write what is held and close the file."""
        self.flush()
        _forget(self)
        super().close()


LineHandler = FileLineHandler | StreamLineHandler


def flush_lines() -> None:
    """Write all lines that `line_writer` holds, in all handlers.

    To be called by who wrote lines before it waits for anything (a pool's child when it sends outcomes or goes idle,
    the worker's loop before it blocks); also done by every ordinary record, and at exit.
    """
    for handler in line_handlers:
        if handler.held.lines:
            handler.flush()


def _share_lock(handler: logging.Handler) -> None:
    handler.lock = _lock
    cast("Any", logging)._register_at_fork_reinit_lock(handler)


def _forget(handler: LineHandler) -> None:
    with contextlib.suppress(ValueError):
        line_handlers.remove(handler)


def _emit(handler: LineHandler, record: logging.LogRecord) -> None:
    try:
        line = handler.format(record) + handler.terminator
        for other in line_handlers:
            if other.held.lines and other is not handler:
                other.flush()
        handler.held.lines.append(line)
        _write(handler, handler.held.take())
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - logging never disturbs who logs
        handler.handleError(record)


def _flush(handler: LineHandler) -> None:
    with _lock:
        text = handler.held.take()
        if not text:
            return
        try:
            _write(handler, text)
        except Exception:  # noqa: BLE001 - as for a record
            handler.handleError(logging.makeLogRecord({"msg": "(lines held back)"}))


def _write(handler: LineHandler, text: str) -> None:
    if isinstance(handler, FileLineHandler):
        handler.reopenIfNeeded()
        if handler.stream is None:
            handler.stream = handler._open()
    stream: Any = handler.stream
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # a stream in memory, a proxy, pytest's capture
        stream.write(text)
        if hasattr(stream, "flush"):
            stream.flush()
        return
    stream.flush()
    _write_whole(descriptor, text.encode(getattr(stream, "encoding", None) or "utf-8", "backslashreplace"))


def _write_whole(descriptor: int, data: bytes) -> None:
    """Write it all: to a file at once, to a pipe or terminal in pieces that end with lines and are not mixed up."""
    regular = len(data) <= _PIPE_ATOM or stat.S_ISREG(os.fstat(descriptor).st_mode)
    while data:
        piece = data
        if not regular and len(data) > _PIPE_ATOM:
            end = data.rfind(b"\n", 0, _PIPE_ATOM) + 1 or data.find(b"\n") + 1 or len(data)
            piece = data[:end]
        try:
            data = data[write(descriptor, piece) :]
        except BlockingIOError:
            select.select([], [descriptor], [], 1.0)


def _drop_held() -> None:
    """A forked child forgets what is held: it is its parent's to write."""
    for handler in line_handlers:
        handler.held.lines.clear()


os.register_at_fork(after_in_child=_drop_held)


# ---------------------------------------------------------------------------------------------------- the fast writer


def line_writer(logger: logging.Logger, level: int) -> Callable[[str], None] | None:
    """A function that does what `logger.log(level, text)` does, at a tenth of its cost; None where it might differ.

    It may be used where nobody could tell the difference: our own handler and formatter alone on the way from the
    logger to the root, no filters, no record factory, no colour, and a format made of nothing but the date, the
    message and what is the same for the whole process. Lines are held back for a short while: see `flush_lines`.
    Made again after the process's name has changed; all else is looked at again once a second.
    """
    handler = _only_handler(logger, level)
    if handler is None:
        return None
    parts = _split_format(handler.formatter._fmt, logger, level)  # type: ignore[union-attr]
    if parts is None:
        return None
    return _writer(logger, level, handler, parts)


def _writer(
    logger: logging.Logger, level: int, handler: LineHandler, parts: tuple[str, str, str]
) -> Callable[[str], None]:
    before, between, after = parts
    after += handler.terminator
    formatter, held = handler.formatter, handler.held
    assert isinstance(formatter, ColorFormatter)
    append, now = held.lines.append, time.time
    # One tuple, since several threads may write: a date never meets the second of another.
    stamp = (-1, "")

    def write(text: str) -> None:
        nonlocal stamp
        created = now()
        second = int(created)
        this_second, date = stamp
        if second != this_second:
            if _only_handler(logger, level) is not handler or handler.formatter is not formatter:
                logger.log(level, text)
                return
            date = before + formatter.second(second)
            stamp = (second, date)
        line = f"{date}{int((created - second) * 1000):03d}{between}{text}{after}"
        append(line)
        held.size += len(line)
        if created > held.due or held.size > _HOLD_CHARACTERS:
            handler.flush()

    return write


def _only_handler(logger: logging.Logger, level: int) -> LineHandler | None:
    """Our handler, if a record of this logger and level would go to it, and nowhere else, unseen by anybody."""
    if type(logger) is not logging.Logger or not logger.isEnabledFor(level):
        return None
    if not all(getattr(each, "minds_exceptions_only", False) for each in logger.filters):
        return None
    if logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    found: list[logging.Handler] = []
    this: logging.Logger | None = logger
    while this is not None:
        found += [handler for handler in this.handlers if type(handler) is not logging.NullHandler]
        this = this.parent if this.propagate else None
    if len(found) != 1 or type(found[0]) not in (FileLineHandler, StreamLineHandler):
        return None
    handler = found[0]
    formatter = handler.formatter
    plain = type(formatter) is ColorFormatter and formatter.datefmt is None and level < logging.WARNING
    if not plain or handler.filters or handler.level > level:
        return None
    if formatter.default_msec_format != "%s,%03d" or (  # type: ignore[union-attr]
        formatter.use_color and logging.getLevelName(level) in formatter.colors  # type: ignore[union-attr]
    ):
        return None
    return handler  # type: ignore[return-value]


def _split_format(fmt: str | None, logger: logging.Logger, level: int) -> tuple[str, str, str] | None:
    """What stands before the date, between date and message, and after it; None for any other format."""
    pieces = re.split(r"%\((?:asctime|message)\)s", fmt or "")
    if len(pieces) != 3 or (fmt or "").find("%(asctime)s") > (fmt or "").find("%(message)s"):
        return None
    record = logging.LogRecord(logger.name, level, "", 0, "", (), None)
    constant = {name: getattr(record, name) for name in ("levelname", "levelno", "name", "process", "processName")}
    try:
        before, between, after = (piece % constant for piece in pieces)
    except (KeyError, ValueError, TypeError):
        return None
    return before, between, after


# ------------------------------------------------------------------------------------------------- standard out, err


class LoggingProxy:
    """A file whose lines become records: what prints is then in the log (`[log.4]`).

    What is written while a record of this same thread is being handled, or in a signal handler, goes to the real
    standard error: a handler that prints its troubles would otherwise never come to an end.
    """

    mode = "w"
    name: str | None = None
    closed = False
    loglevel: int = logging.ERROR

    def __init__(self, logger: logging.Logger, loglevel: int | str | None = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or logger.level or self.loglevel)
        self._thread = threading.local()

    def write(self, data: str | bytes | None) -> int:
        """Log the text without the newlines at its end; returns how long it is."""
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""
        message = text.rstrip("\n")
        if not message or self.closed:
            return 0
        if _in_sighandler or getattr(self._thread, "busy", False):
            print(message, file=sys.__stderr__)
            return len(text)
        self._thread.busy = True
        try:
            self.logger.log(self.loglevel, message)
        finally:
            self._thread.busy = False
        return len(text)

    def writelines(self, sequence: Sequence[str]) -> None:
        """Log each."""
        for line in sequence:
            self.write(line)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Drop what is written from now on."""
        self.closed = True

    def isatty(self) -> bool:
        """No."""
        return False
