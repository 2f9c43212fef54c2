"""Application. Sets up logging for a worker, beat or a script: once a process (`[log.1]` to `[log.7]`)."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.current import get_current_worker_task
from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from celery.utils.log import (
    MP_LOG,
    ColorFormatter,
    FileLineHandler,
    LoggingProxy,
    StreamLineHandler,
    flush_lines,
    get_logger,
    line_handlers,
    mlevel,
)
from celery.utils.nodenames import node_format, set_process_index
from celery.utils.term import IS_WINDOWS, colored

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.base import Celery

__all__ = ("Logging", "TaskFormatter")


class TaskFormatter(ColorFormatter):
    """A formatter with `%(task_name)s` and `%(task_id)s` of the task that runs; `???` outside of tasks."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        task = get_current_worker_task()
        if task is not None and task.request is not None:
            record.__dict__.update(task_id=task.request.id, task_name=task.name)
        else:
            record.__dict__.setdefault("task_name", "???")
            record.__dict__.setdefault("task_id", "???")
        return super().format(record)


class Logging:
    """What `app.log` is. The settings are read when it is made."""

    #: For the whole process: logging is set up once, whichever app does it.
    _setup = False
    #: Name of the log file as it was given, and the node's name that it is expanded with.
    _named: tuple[str, str] | None = None

    def __init__(self, app: Celery) -> None:
        self.app = app
        conf = app.conf
        self.loglevel: Any = mlevel(logging.WARNING)
        self.format: str = conf.worker_log_format
        self.task_format: str = conf.worker_task_log_format
        self.colorize: bool | None = conf.worker_log_color
        self.datefmt: str | None = conf.worker_log_datefmt
        self.task_datefmt: str | None = conf.worker_task_log_datefmt

    @property
    def already_setup(self) -> bool:
        """Has any app of this process set up logging?"""
        return Logging._setup

    @already_setup.setter
    def already_setup(self, value: bool) -> None:
        Logging._setup = value

    def setup(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        redirect_stdouts: bool = False,
        redirect_level: Any = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> Any:
        """Set up all of logging, and tell child processes in the environment how (`[log.6]`).

        `logfile` may hold `%n`, `%h`, `%d`, `%i` and `%I`, if `hostname` (a node name) is given. Returns the answers
        of the `setup_logging` signal's receivers: where there is one, nothing is configured here.
        """
        level = mlevel(loglevel)
        handled = self.setup_logging_subsystem(level, logfile, colorize=colorize, hostname=hostname)
        if not handled and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        os.environ.update(CELERY_LOG_LEVEL=str(level) if level else "", CELERY_LOG_FILE=str(logfile or ""))
        warnings.filterwarnings("always", category=CDeprecationWarning)
        warnings.filterwarnings("always", category=CPendingDeprecationWarning)
        logging.captureWarnings(True)
        return handled

    def setup_logging_subsystem(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Configure the root logger, billiard's and the tasks' one. Returns True where that was done before."""
        if self.already_setup:
            return True
        self.already_setup = True
        if hostname and isinstance(logfile, str):
            Logging._named = (logfile, hostname)
            logfile = node_format(logfile, hostname)
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.format
        colorize = self.supports_color(colorize, logfile)
        settings = {"loglevel": loglevel, "logfile": logfile, "format": format, "colorize": colorize}
        os.environ.update(
            _MP_FORK_LOGLEVEL_=str(loglevel), _MP_FORK_LOGFILE_=str(logfile or ""), _MP_FORK_LOGFORMAT_=format
        )
        receivers = signals.setup_logging.send(sender=None, **settings)
        if not receivers:
            self._configure_all(settings, datefmt or self.datefmt, kwargs)
        return receivers

    def _configure_all(self, settings: dict[str, Any], datefmt: str | None, kwargs: dict[str, Any]) -> None:
        root = logging.getLogger()
        if self.app.conf.worker_hijack_root_logger:
            for name in (None, "celery", "celery.task", "celery.redirected"):
                logging.getLogger(name).handlers = []
        level, logfile, format, colorize = settings.values()
        self._configure_logger(root, logfile, level, format, colorize, datefmt=datefmt, **kwargs)
        # billiard and multiprocessing both log here; by its name, because importing either of them is not free.
        pools = logging.getLogger("multiprocessing")
        pools.propagate = False
        self._configure_logger(pools, logfile, level if MP_LOG else logging.ERROR, format, colorize, **kwargs)
        signals.after_setup_logger.send(sender=None, logger=root, **settings)
        self.setup_task_loggers(level, logfile, colorize=colorize)

    def _configure_logger(
        self,
        logger: logging.Logger | None,
        logfile: Any,
        loglevel: Any,
        format: str,
        colorize: bool | None,
        **kwargs: Any,
    ) -> None:
        if logger is not None:
            self.setup_handlers(logger, logfile, format, colorize, **kwargs)
            if loglevel:
                logger.setLevel(loglevel)

    def enter_child(self, index: int) -> None:
        """In a child of a pool (from 0): from now on it is who `%i` and `%I` stand for, also in the log file's name."""
        if self._named is None:
            set_process_index(index)
            return
        old = os.path.abspath(node_format(*self._named))
        set_process_index(index)
        new = os.path.abspath(node_format(*self._named))
        for handler in line_handlers:
            if isinstance(handler, FileLineHandler) and handler.baseFilename == old != new:
                handler.move_to(new)

    def setup_task_loggers(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        propagate: bool = False,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Configure `celery.task`, the parent of all task loggers, and return it."""
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.task_format
        colorize = self.supports_color(colorize, logfile)
        logger = get_logger("celery.task")
        kwargs.setdefault("formatter", TaskFormatter)
        self.setup_handlers(logger, logfile, format, colorize, datefmt=datefmt or self.task_datefmt, **kwargs)
        logger.setLevel(loglevel)
        logger.propagate = bool(propagate)
        signals.after_setup_task_logger.send(
            sender=None, logger=logger, loglevel=loglevel, logfile=logfile, format=format, colorize=colorize
        )
        return logger

    def setup_handlers(
        self,
        logger: logging.Logger,
        logfile: Any,
        format: str,
        colorize: bool | None,
        formatter: Callable[..., logging.Formatter] = ColorFormatter,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Give the logger a handler, unless it has one (`NullHandler`s do not count)."""
        if not self._is_configured(logger):
            handler = self._detect_handler(logfile)
            handler.setFormatter(formatter(format, use_color=colorize, datefmt=datefmt))
            logger.addHandler(handler)
        return logger

    def _detect_handler(self, logfile: Any = None) -> logging.Handler:
        """A handler for a stream (None: standard error) or for the file of that name."""
        stream: Any = sys.__stderr__ if logfile is None else logfile
        if hasattr(stream, "write"):
            return StreamLineHandler(stream)
        return FileLineHandler(stream)

    def _has_handler(self, logger: logging.Logger) -> bool:
        return any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)

    def _is_configured(self, logger: logging.Logger) -> bool:
        return self._has_handler(logger) and not getattr(logger, "_rudimentary_setup", False)

    def redirect_stdouts(self, loglevel: Any = None, name: str = "celery.redirected") -> None:
        """From now on what is printed becomes records of the logger `name` (`[log.4]`)."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel=loglevel)
        os.environ.update(CELERY_LOG_REDIRECT="1", CELERY_LOG_REDIRECT_LEVEL=str(loglevel or ""))

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Put a `LoggingProxy` in the place of standard output and error, and return it."""
        flush_lines()
        proxy: Any = LoggingProxy(logger, loglevel)
        if stdout:
            sys.stdout = proxy
        if stderr:
            sys.stderr = proxy
        return proxy  # type: ignore[no-any-return]

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Are lines to be coloured? Unless it is said: only on a terminal, never in a file."""
        if colorize is None:
            colorize = self.colorize
        if IS_WINDOWS:
            return False
        if colorize is None:
            return not logfile and sys.stderr.isatty()
        return bool(colorize)

    def colored(self, logfile: Any = None, enabled: bool | None = None) -> colored:
        """For text in the colours that the log has."""
        return colored(enabled=self.supports_color(enabled, logfile))

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:
        """The logger `name`."""
        return get_logger(name)
