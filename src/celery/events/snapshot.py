"""Application. Cameras: something is done with the cluster's state at regular times (`[event.19]`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kombu.utils.limits import TokenBucket

from celery import platforms
from celery.app import app_or_default
from celery.events.capturing import capture_for_ever
from celery.utils.dispatch import Signal
from celery.utils.imports import instantiate
from celery.utils.time import rate
from celery.utils.timer2 import Timer

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("Polaroid", "evcam")

logger = logging.getLogger("celery.evcam")


class Polaroid:
    """The base class of cameras. While `on_shutter` looks at the state, nothing changes it."""

    #: Called in a thread of the timer's; made when it is first needed.
    timer: Any = None
    #: Sent, with the state as sender, just before `on_shutter` and `on_cleanup`.
    shutter_signal = Signal(name="shutter_signal", providing_args={"state"})
    cleanup_signal = Signal(name="cleanup_signal")
    #: Tasks that have ended are forgotten after each picture.
    clear_after = False

    _tref: Any = None
    _ctref: Any = None

    def __init__(
        self,
        state: Any,
        freq: float = 1.0,
        maxrate: Any = None,
        cleanup_freq: float = 3600.0,
        timer: Any = None,
        app: Any = None,
    ) -> None:
        """A picture each `freq` seconds, but no more than `maxrate` (`"10/m"`); `on_cleanup` each `cleanup_freq`."""
        self.app = app_or_default(app)
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.timer = timer or self.timer or Timer()
        self.maxrate = TokenBucket(rate(maxrate)) if maxrate else None

    def install(self) -> None:
        """Take pictures from now on."""
        self._tref = self.timer.call_repeatedly(self.freq, self.capture)
        self._ctref = self.timer.call_repeatedly(self.cleanup_freq, self.cleanup)

    def on_shutter(self, state: Any) -> None:
        """For subclasses: do something with the state."""

    def on_cleanup(self) -> None:
        """For subclasses: forget what is old."""

    def cleanup(self) -> None:
        logger.debug("Cleanup: Running...")
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def shutter(self) -> None:
        """Take a picture, unless that would be too many."""
        if self.maxrate is None or self.maxrate.can_consume():
            logger.debug("Shutter: %s", self.state)
            self.shutter_signal.send(sender=self.state)
            self.on_shutter(self.state)

    def capture(self) -> None:
        """`shutter`, with the state frozen."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cancel(self) -> None:
        """Take no more pictures. Idempotent."""
        for entry in (self._tref, self._ctref):
            if entry is not None:
                entry.cancel()
        self._tref = self._ctref = None

    def __enter__(self) -> Polaroid:
        self.install()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


def evcam(
    camera: Any,
    freq: float = 1.0,
    maxrate: Any = None,
    loglevel: Any = 0,
    logfile: str | None = None,
    pidfile: str | None = None,
    timer: Any = None,
    app: Any = None,
    **kwargs: Any,
) -> None:
    """Run a camera (a class, or the dotted name of one) until interrupted. Raises `SystemExit` then."""
    app = app_or_default(app)
    if pidfile:
        platforms.create_pidlock(pidfile)
    app.log.setup_logging_subsystem(loglevel, logfile)
    print(f"-> evcam: Taking snapshots with {camera} (every {freq} secs.)", flush=True)  # noqa: T201 - a program's word
    state = app.events.State()
    made = instantiate(camera, state, app=app, freq=freq, maxrate=maxrate, timer=timer)
    made.install()
    try:
        capture_for_ever(app, {"*": state.event}, _lost)
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    finally:
        made.cancel()


def _lost(exc: BaseException, seconds: float) -> None:
    logger.error("The broker is lost: %s. Trying again in %.0f s", exc, seconds)
