"""A process that only sends starts quickly: what it does not need, it does not load (`pkg`)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: Packages and modules that neither making an app, a task and a producer nor sending plain JSON needs.
HEAVY = {
    "amqp", "asyncio", "billiard", "click", "concurrent", "ctypes", "dataclasses", "email", "http",
    "importlib.metadata", "importlib.resources", "inspect", "kombu", "logging.handlers", "multiprocessing",
    "pickle", "pprint", "random", "redis", "ssl", "subprocess", "tempfile", "vine", "zoneinfo",
    "celery.app.runner", "celery.app.trace", "celery.apps", "celery.bin", "celery.brokers.redis_consumer",
    "celery.brokers.redis_keeper", "celery.brokers.redis_scripts", "celery.concurrency", "celery.documents",
    "celery.drivers.redis_errors", "celery.events", "celery.tracer", "celery.utils.log", "celery.utils.time",
    "celery.worker",
}  # fmt: skip

#: An optional package that msgspec uses where it is installed: it loads `inspect`, which would hide ours.
PROGRAM = """
import sys
sys.modules["typing_extensions"] = None

from celery import Celery

app = Celery("start_up", broker={broker!r}, backend={broker!r})

@app.task
def add(x, y):
    return x + y

assert app.assembly.producer is not None
{more}
print(*sys.modules)
"""


def loaded(broker: str, more: str = "") -> set[str]:
    program = PROGRAM.format(broker=broker, more=more)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def heavy(modules: set[str]) -> set[str]:
    """What is in HEAVY, whole or by its parents."""
    steps = (name.split(".") for name in modules)
    return {".".join(step[:size]) for step in steps for size in range(1, len(step) + 1)} & HEAVY


def test_what_counts_as_heavy() -> None:
    assert heavy({"kombu.utils.url", "celery.worker.engine", "celery.wire", "emailer"}) == {"kombu", "celery.worker"}


@pytest.mark.process
def test_ready_to_send_to_redis() -> None:
    modules = loaded("redis://:secret@127.0.0.1:1/0")
    assert "celery.brokers.redis" in modules
    assert not heavy(modules)


@pytest.mark.process
@pytest.mark.parametrize("broker", ["memory://", "sqlite:///{tmp_path}/queue.sqlite3"])
def test_having_sent(broker: str, tmp_path: Path) -> None:
    broker = broker.format(tmp_path=tmp_path)
    modules = loaded(broker, "assert add.delay(2, y=3).id and app.assembly.broker.depth('celery') == 1")
    assert f"celery.brokers.{broker.partition(':')[0]}" in modules
    assert not heavy(modules)
