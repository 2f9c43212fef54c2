"""Entrance. A real worker in a thread of the test's own process (`[test.7]`, `[test.8]`)."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.concurrency.prefork import PreforkPool
from celery.contrib.testing.app import current_apps_kept
from celery.contrib.testing.records import RecordedPool, RecordHandler, RecordQueue
from celery.contrib.testing.tasks import PING, pong
from celery.result import allow_join_result
from celery.utils.dispatch import Signal
from celery.utils.log import mlevel
from celery.utils.nodenames import anon_nodename
from celery.worker import WorkController

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

    from celery import Celery
    from celery.ports import Pool

__all__ = [
    "WORKER_LOGLEVEL", "TestWorkController", "setup_app_for_worker", "start_worker", "test_worker_started",
    "test_worker_starting", "test_worker_stopped",
]  # fmt: skip

#: The level of workers that are not told another (`[test.10]`).
WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")

#: Before a worker is made; the sender of all three is its app.
test_worker_starting = Signal(name="test_worker_starting", providing_args=set())
#: The worker takes messages. Sent in its thread.
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
#: The worker has stopped, or was given up.
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})

#: What decides, when a worker and its pool start, whether lines of received and succeeded tasks are ever made.
_GATES = ("celery.worker.strategy", "celery.app.trace")
#: Seconds that a worker has to end once its running tasks were given up.
_LAST_CHANCE = 5.0

_STUCK = (
    "Worker thread failed to exit within the allocated timeout. Consider raising `shutdown_timeout` if your tasks "
    "take longer to execute."
)


class TestWorkController(WorkController):
    """A worker that tells when it is ready, and whose pool's processes log in the test's."""

    __test__ = False

    #: What the pool's processes log with.
    QueueHandler: ClassVar[type[logging.Handler]] = RecordHandler
    #: How their records come here; None where tasks run in this process.
    logger_queue: RecordQueue | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._began = threading.Event()
        kwargs["hostname"] = kwargs.get("hostname") or anon_nodename()
        super().__init__(*args, **kwargs)

    def _make_pool(self) -> Pool:
        pool = super()._make_pool()
        if not isinstance(pool, PreforkPool):
            return pool
        self.logger_queue = RecordQueue()
        return RecordedPool(pool, self.logger_queue)

    def start(self) -> None:
        """Run until stopped, as every worker. Who waits for it to be ready learns of its end too."""
        try:
            super().start()
        finally:
            self._began.set()

    def on_consumer_ready(self, consumer: Any) -> None:
        """Tell."""
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)
        self._began.set()

    def ensure_started(self, timeout: float | None = None) -> None:
        """Wait until it takes messages. Raises RuntimeError if it ends first, or is not ready in time (seconds)."""
        if not self._began.wait(timeout):
            raise RuntimeError(f"Worker not ready within {timeout} seconds: is there a broker at {self.broker_url}?")
        if self.exitcode is not None:
            raise RuntimeError(f"Worker ended before it was ready (exit code {self.exitcode}); its log says why.")

    def on_stopped(self) -> None:
        """Nobody logs from elsewhere any more."""
        super().on_stopped()
        if self.logger_queue is not None:
            self.logger_queue.close()

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Tasks that were defined since it started can be run from now on (`[test.3]`).

        They can before, where they are defined in this process. With `modules`, these are imported.
        """
        for module in modules or ():
            self.app.loader.import_task_module(module)
        self.app.finalize()


@contextmanager
def start_worker(
    app: Celery,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: Any = WORKER_LOGLEVEL,
    logfile: Any = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[TestWorkController]:
    """A worker for as long as the context lasts, in a thread of its own (`[test.7]`).

    The app is the current one of this thread meanwhile, and the default of all others. Unless `perform_ping_check`
    is false, the task `celery.ping` has been run before the context begins; it needs a result backend. Log records
    go where the test's go: nothing is taken from the root logger, records from `loglevel` on are made whatever its
    level, and written to `logfile` if one is given. `kwargs` are options of `celery worker`, by their long names.

    Raises `celery.exceptions.TimeoutError` if the ping is not answered within `ping_task_timeout` seconds, and
    RuntimeError if the worker cannot start, or if tasks still run `shutdown_timeout` seconds after the context's end.
    """
    options = {"concurrency": concurrency, "pool": pool, "loglevel": loglevel, "logfile": logfile, **kwargs}
    worker: TestWorkController | None = None
    test_worker_starting.send(sender=app)
    try:
        with current_apps_kept(), _logged(app, loglevel, logfile):
            setup_app_for_worker(app, loglevel, logfile)
            with _running(app, options, ping_task_timeout, shutdown_timeout) as worker:
                _ping(worker, ping_task_timeout if perform_ping_check else None)
                yield worker
    finally:
        test_worker_stopped.send(sender=app, worker=worker)


def setup_app_for_worker(app: Celery, loglevel: Any, logfile: Any) -> None:
    """Finalize the app, and make it current and default.

    Its logging is set up only where it leaves the root logger alone (`worker_hijack_root_logger` is false).
    """
    app.finalize()
    app.set_current()
    app.set_default()
    if _configures_logging(app):
        app.log.setup(loglevel=loglevel, logfile=logfile)


def _configures_logging(app: Celery) -> bool:
    return not app.conf.worker_hijack_root_logger and not app.log.already_setup


@contextmanager
def _running(
    app: Celery, options: dict[str, Any], start_timeout: float, stop_timeout: float
) -> Iterator[TestWorkController]:
    """A worker that takes messages, in a thread of its own."""
    with _gates_open():
        worker = TestWorkController(app=app, **options)
        thread = threading.Thread(target=worker.start, name="celery-test-worker", daemon=True)
        thread.start()
        try:
            worker.ensure_started(start_timeout)
        except RuntimeError:
            worker.terminate(in_sighandler=True)
            thread.join(_LAST_CHANCE)
            raise
    try:
        yield worker
    finally:
        _stop(worker, thread, stop_timeout)


def _ping(worker: TestWorkController, timeout: float | None) -> None:
    """Have `celery.ping` run by this worker: on a queue that it takes from, whatever the app's routes are."""
    if timeout is None:
        return
    app = worker.app
    ping = app.tasks.get(PING) or app.task(name=PING, shared=False)(pong)
    queue = next(iter(app.amqp.queues.consume_from), None)
    with allow_join_result():
        answer = ping.apply_async(queue=queue, ignore_result=False).get(timeout=timeout)
    if answer != pong():
        raise RuntimeError(f"expected the task {PING} to return {pong()!r}, got {answer!r}")


def _stop(worker: TestWorkController, thread: threading.Thread, timeout: float) -> None:
    worker.stop(in_sighandler=True)  # does not wait: that is what the next line does, but not for ever
    thread.join(timeout)
    if thread.is_alive():
        worker.terminate(in_sighandler=True)
        thread.join(0 if worker.logger_queue is None else _LAST_CHANCE)  # only processes can be killed
        raise RuntimeError(_STUCK)


@contextmanager
def _logged(app: Celery, loglevel: Any, logfile: Any) -> Iterator[None]:
    """Records from this level on are made, and written to the file if there is one; then all is as before."""
    root, level = logging.getLogger(), mlevel(loglevel) or logging.NOTSET
    before = root.level
    handler = None
    if level and level < root.getEffectiveLevel():
        root.setLevel(level)
    if logfile and not _configures_logging(app):
        handler = logging.FileHandler(logfile)
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(app.conf.worker_log_format))
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(before)
        if handler is not None:
            root.removeHandler(handler)
            handler.close()


@contextmanager
def _gates_open() -> Iterator[None]:
    """A worker that starts meanwhile makes its INFO lines, so that levels may be changed while it runs (`caplog`)."""
    loggers = [logging.getLogger(name) for name in _GATES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
