"""Adapter. Transport options of AMQP servers: those that py-amqp logs in with, and those that change nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.brokers.option_advice import CONNECTING, Others, option_advice
from celery.drivers.amqp import LOGIN_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["advise", "on_options"]

logger = logging.getLogger("celery.brokers.amqp")

_HONOURED = LOGIN_OPTIONS | {
    "confirm_publish", "confirm_timeout", "delayed_queue_type", "heartbeat", "lease_timeout", "pool_acquire_timeout",
}  # fmt: skip
_CALLED = "nobody is called by a connection; a server that takes no messages is named in the error of whoever sends"
_OTHERS: Others = {
    **CONNECTING,
    "connect_retries_timeout": CONNECTING["max_retries"],
    "callback": CONNECTING["max_retries"],
    "channel_max": ((None, 0), "a connection uses few channels, however many may be opened"),
    "frame_max": ((None, 0), "the server says how long a frame may be"),
    "host": ((), "servers are named by broker_url"),
    "insist": ((False,), "no server looks at it any more"),
    "ssl": ((None,), "TLS is asked for by amqps:// or broker_use_ssl"),
    **dict.fromkeys(("on_blocked", "on_open", "on_tune_ok", "on_unblocked"), ((None,), _CALLED)),
    **dict.fromkeys(("frame_handler", "frame_writer"), ((None,), "frames are read and written by drivers of our own")),
}  # fmt: skip


def advise(options: Mapping[str, Any]) -> None:
    """Log one warning for each option that changes nothing."""
    for line in on_options(options):
        logger.warning("%s", line)


def on_options(options: Mapping[str, Any]) -> Iterator[str]:
    """A line for each transport option that is not known, or known but without effect (`[broker.9]`)."""
    return option_advice("RabbitMQ", options, _HONOURED, _OTHERS)
