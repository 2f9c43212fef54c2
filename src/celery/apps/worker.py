"""Application. The worker as a program: banner, logging, signals, pid file."""

from __future__ import annotations

import datetime as dt
import logging
import platform
import sys
import threading
from typing import Any

from kombu.utils.url import maybe_sanitize_url

import celery
from celery import signals
from celery.app.utils import sanitize_url
from celery.apps.banner import StartupInfo, banner
from celery.apps.launching import Launched
from celery.apps.signals import SignalLadder
from celery.platforms import check_privileges, create_pidlock, set_mp_process_title
from celery.ports import Broadcasting
from celery.worker.worker import WorkController

__all__ = ["Worker"]

logger = logging.getLogger("celery.apps.worker")


class Worker(WorkController):
    """A worker that owns its process, if it is started in the main thread; elsewhere it is a `WorkController`."""

    _ladder: SignalLadder | None = None

    def wants_engine_thread(self) -> bool:
        """In the main thread the engine gets a thread of its own: the main thread is for signals."""
        return self._owns_process() and self.pool_cls != "solo"

    def _owns_process(self) -> bool:
        current, main = threading.current_thread(), threading.main_thread()
        # eventlet puts another object in the place of the main thread's, of the same class.
        return current is main or type(current).__name__ == "_MainThread"

    # -- hooks -------------------------------------------------------------------------------------------------------

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:
        """Let `celeryd_init` receivers configure this node, and refuse what must not run as root (`[worker.21]`)."""
        self.quiet = quiet
        self._launched = Launched() if self._owns_process() else None
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=self.app.conf, options=kwargs)
        if self._owns_process():
            check_privileges(self.app.conf.accept_content)

    def on_after_init(
        self,
        purge: bool = False,
        no_color: bool | None = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take the program's own options, and set logging up: everything later may log."""
        conf = self.app.conf
        self.purge = purge
        self.no_color = no_color
        self.redirect_stdouts = conf.worker_redirect_stdouts if redirect_stdouts is None else redirect_stdouts
        self.redirect_stdouts_level = redirect_stdouts_level or conf.worker_redirect_stdouts_level
        if self._owns_process():
            self.setup_logging(colorize=None if no_color is None else not no_color)

    def on_init_blueprint(self) -> None:
        """Queues and modules are known: let `celeryd_after_setup` receivers change them."""
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)
        if self.purge:
            self.purge_messages()

    def on_start(self) -> None:
        """Show the banner; take pid file and signals."""
        if not self._owns_process():
            return
        if not self.quiet:
            self.emit_banner()
        if self.pidfile:
            self.pidlock = create_pidlock(self.pidfile)
        self.set_process_status("-active-")
        self.install_platform_tweaks(self)
        if self._launched:
            self._launched.loaded()

    def on_consumer_ready(self, consumer: Any) -> None:
        """Say so (`[worker.40]`)."""
        logger.info("%s ready.", self.hostname)
        if self._launched:
            self._launched.ready(logs=bool(self.logfile))

    def on_stopped(self) -> None:
        """Give back what `on_start` took."""
        if self._ladder is not None:
            self._ladder.uninstall()
        if self.pidlock is not None:
            self.pidlock.release()

    @property
    def restart(self) -> bool:
        """Whether the program is to start anew once stopped: HUP asked for it, or the pool is exhausted."""
        return self._ladder is not None and (self._ladder.restart or self._exhausted)

    def on_pool_exhausted(self) -> None:
        """Start the program anew, once the tasks that still run in good order have ended."""
        super().on_pool_exhausted()
        if self._ladder is not None:
            logger.critical("Warm shutdown; then this worker starts anew.")
            self.stop(in_sighandler=True)

    # -- the program -------------------------------------------------------------------------------------------------

    def setup_logging(self, colorize: bool | None = None) -> Any:
        """Configure logging for this process and its children (`[log.1]`)."""
        return self.app.log.setup(
            self.loglevel,
            self.logfile,
            redirect_stdouts=self.redirect_stdouts,
            redirect_level=self.redirect_stdouts_level,
            colorize=colorize,
            hostname=self.hostname,
        )

    def install_platform_tweaks(self, worker: Any) -> None:
        """Take over the signals."""
        self._ladder = SignalLadder(self)
        self._ladder.install()

    def set_process_status(self, info: str) -> Any:
        """Name the process (`[worker.34]`)."""
        return set_mp_process_title("celeryd", f"{info} ({' '.join(sys.argv[1:])})", self.hostname)

    def purge_messages(self) -> int:
        """Drop what waits in the selected queues (`[worker.13]`)."""
        broker = self.app.assembly.broker_for_read
        count: int = sum(broker.purge(spec.name) for spec in self.app.amqp.queues.consume_specs())
        if count and not self.quiet:
            print(f"purge: Erased {count} {'message' if count == 1 else 'messages'} from the queue.\n", flush=True)  # noqa: T201
        return count

    # -- the banner --------------------------------------------------------------------------------------------------

    def emit_banner(self) -> None:
        """Print it, with the list of tasks from INFO on."""
        text = self.startup_info(artlines=True) + "\n" + (self.extra_info() or "")
        print(text, file=sys.__stdout__, flush=True)

    def startup_info(self, artlines: bool = True) -> str:
        """The banner."""
        app = self.app
        main, loader = app.main or "__main__", _loader_name(app)
        info = StartupInfo(
            hostname=self.hostname,
            version=celery.VERSION_BANNER,
            platform=platform.platform(),
            when=dt.datetime.now().isoformat(sep=" ", timespec="seconds"),
            app=f"{main}:{id(app):#x}{loader}",
            transport=self.broker_url,
            results=_results(app),
            concurrency=f"{self._shown_size()} ({getattr(self.pool_cls, '__module__', self.pool_cls)})",
            events=bool(self.task_events),
            notices=isinstance(app.assembly.broker_for_read, Broadcasting),
            queues=app.amqp.queues.format(indent=0, indent_first=False).splitlines(),
        )
        return banner(info, art=artlines)

    def _shown_size(self) -> str:
        if self.autoscale is None:
            return str(self.concurrency)
        most, least = self.autoscale
        return f"{{min={least}, max={most}}}"

    def extra_info(self) -> str | None:
        """The tasks, if INFO is logged; with Celery's own from DEBUG on."""
        if self.loglevel is None or self.loglevel > logging.INFO:
            return None
        return self.tasklist(include_builtins=self.loglevel <= logging.DEBUG)

    def tasklist(self, include_builtins: bool = True, sep: str = "\n", int_: str = "celery.") -> str:
        """The names of the registered tasks, one a line."""
        names = sorted(name for name in self.app.tasks if include_builtins or not name.startswith(int_))
        return "[tasks]\n" + sep.join(f"  . {name}" for name in names) + "\n"


def _loader_name(app: Any) -> str:
    cls = type(app.loader)
    name = f"{cls.__module__}.{cls.__qualname__}"
    return "" if name == "celery.loaders.app.AppLoader" else f" ({name.removeprefix('celery.loaders.')})"


def _results(app: Any) -> str:
    store = app.assembly.store
    if store is None:
        return "disabled://"
    shown = getattr(store, "url_text", None)
    return sanitize_url(shown, "**") if shown else str(maybe_sanitize_url(str(app.conf.result_backend)))
