"""`task_publish_timeout`: callers that do not wait longer, whatever it is that takes long."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from celery import Celery
from celery.brokers.memory import MemoryBroker
from celery.exceptions import ImproperlyConfigured
from celery.ports import BrokerConfig
from celery.producer import Call
from tests.contracts.processes import in_child
from tests.flow.engine import DEADLINE, until
from tests.flow.test_producer import Bench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import Publication

#: Seconds: nothing that is held up here is let go within.
SHORT = 0.05


class Slow(MemoryBroker):
    """Publishes only once it may, and not at all where it is told to fail."""

    def __init__(self) -> None:
        super().__init__(BrokerConfig(f"memory://{uuid.uuid4()}"))
        self.may = threading.Event()
        self.fails: list[Exception] = []
        self.threads: list[threading.Thread] = []

    def publish(self, publications: Sequence[Publication]) -> None:
        self.threads.append(threading.current_thread())
        assert self.may.wait(DEADLINE)
        if self.fails:
            raise self.fails.pop()
        super().publish(publications)


def open_bench(within: float = DEADLINE, **defaults: Any) -> Bench:
    bench = Bench(broker=Slow(), within=within, **defaults)
    bench.broker.may.set()
    return bench


def test_what_is_over_in_time_is_as_ever() -> None:
    bench = open_bench()
    for n in range(5):
        assert bench.send(n).headers["argsrepr"] == f"({n},)"
    assert len(set(bench.broker.threads)) == 1, "one thread serves them all"
    assert bench.broker.threads[0] is not threading.current_thread()


@pytest.mark.parametrize("options", [{}, {"countdown": 1}], ids=["formed", "laid out"])
def test_what_the_broker_raises_comes_out(options: dict[str, Any]) -> None:
    bench = open_bench(retry=False)
    bench.broker.fails = [OperationalError("nobody there")]
    with pytest.raises(OperationalError, match="nobody there"):
        bench.send(**options)
    bench.broker.fails = [ValueError("odd")]
    with pytest.raises(ValueError, match="odd"):
        bench.send(**options)


def test_it_is_tried_again_as_ever() -> None:
    bench = open_bench(retry_policy={"max_retries": 2, "interval_step": 0.0})
    bench.broker.fails = [OperationalError("nobody there")] * 2
    bench.send()
    assert len(bench.broker.threads) == 3


def test_nothing_is_tried_again_for_a_caller_who_has_gone() -> None:
    later = {"max_retries": None, "interval_start": 2 * DEADLINE, "interval_max": 2 * DEADLINE}
    bench = open_bench(DEADLINE, retry_policy=later)
    bench.broker.fails = [OperationalError("nobody there")] * 5
    for options in ({}, {"retry_policy": later}):
        with pytest.raises(OperationalError, match="nobody there"):
            bench.send(**options)
    assert len(bench.broker.threads) == 2


@pytest.mark.parametrize("options", [{}, {"countdown": 1}], ids=["formed", "laid out"])
def test_who_waits_too_long_is_told(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(broker=Slow(), within=SHORT)
    with pytest.raises(
        OperationalError, match=r"publishing [0-9a-f-]{36} took longer than task_publish_timeout = 0\.05"
    ):
        bench.send(**options)
    with caplog.at_level(logging.WARNING, "celery.producer"):
        bench.broker.may.set()
        until(lambda: caplog.messages, "what became of it is said")
    assert "was done after all" in caplog.text
    assert bench.broker.depth("q") == 1


def test_what_failed_later_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(broker=Slow(), within=SHORT)
    bench.broker.fails = [ValueError("odd")]
    with pytest.raises(OperationalError, match="may still get there"):
        bench.send()
    with caplog.at_level(logging.WARNING, "celery.producer"):
        bench.broker.may.set()
        until(lambda: caplog.messages, "what became of it is said")
    assert "failed (odd)" in caplog.text


def test_a_hundred_at_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(broker=Slow(), within=SHORT)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            bench.send()
        except OperationalError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=call) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(errors) == 100
    with caplog.at_level(logging.CRITICAL, "celery.producer"):
        bench.broker.may.set()
        until(lambda: bench.broker.depth("q") == 100, "all get there")
    until(lambda: sum(thread.is_alive() for thread in bench.broker.threads) <= 20, "a few threads are kept")


@pytest.mark.process
def test_a_forked_child_has_threads_of_its_own() -> None:
    bench = open_bench()
    bench.send(1)
    in_child(lambda: bench.send(2))
    assert bench.send(3).headers["argsrepr"] == "(3,)"


def test_a_group_is_one_errand() -> None:
    bench = open_bench(SHORT)
    bench.broker.may.clear()
    publications = [bench.producer.encode(bench.producer.lay_out(call(n))) for n in range(5)]
    with pytest.raises(OperationalError, match=r"publishing \S+ \S+ \S+ and 2 more took longer"):
        bench.producer.publish(publications)
    bench.broker.may.set()
    until(lambda: bench.broker.depth("q") == 5, "all get there")


def call(n: int) -> Any:
    return Call("proj.add", (n,), {}, {})


def test_the_setting() -> None:
    app = Celery(broker=f"memory://{uuid.uuid4()}", set_as_current=False)
    assert app.assembly.producer._haste is None
    app.conf.task_publish_timeout = 0
    assert app.assembly.producer._haste is None
    app.conf.task_publish_timeout = 2
    assert app.assembly.producer._haste.seconds == 2.0  # type: ignore[union-attr]
    app.send_task("any")
    app.close()


@pytest.mark.parametrize("given", [-1, float("inf"), float("nan")])
def test_no_such_setting(given: Any) -> None:
    app = Celery(broker=f"memory://{uuid.uuid4()}", set_as_current=False)
    app.conf.task_publish_timeout = given
    with pytest.raises(ImproperlyConfigured, match="Setting task_publish_timeout: expected seconds above 0"):
        app.send_task("any")
    app.close()
