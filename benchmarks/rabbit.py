"""What is measured on RabbitMQ: publishing unconfirmed, confirmed, from threads, in bulk; draining, also with
results; doing nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.servers import RabbitServer

from benchmarks.environment import Worker, cpu_seconds, until
from benchmarks.report import Row
from celery.brokers.amqp import AmqpBroker
from celery.ports import BrokerConfig

if TYPE_CHECKING:
    from benchmarks.scenarios import Session

__all__ = ["rabbit"]

#: Scenario, calls of each, whether both confirm, the driver's command and what follows its count, and the goal.
_PUBLISHING: tuple[tuple[str, int, bool, str, tuple[int, ...], float], ...] = (
    ("`delay()` one by one, unconfirmed", 5_000, False, "enqueue", (), 2.5),
    ("`delay()` one by one, confirmed", 2_000, True, "enqueue", (), 1.0),
    ("`delay()` from 16 threads, confirmed", 8_000, True, "enqueue_threads", (16,), 5.0),
    ("`group().apply_async()` of 1,000, confirmed", 4_000, True, "enqueue_groups", (1000,), 5.0),
)
_NAMES = ["ours", "celery"]


def _environment(server: RabbitServer, *, confirm: bool = False, results: str = "") -> dict[str, str]:
    return {
        "BENCH_BROKER": server.url(),
        "BENCH_BACKEND": results,
        "BENCH_CONFIRM": "1" if confirm else "",
    }


def rabbit(session: Session) -> list[Row]:
    """A node on loopback, both sides in turn."""
    with RabbitServer(erlang="") as server:
        broker = AmqpBroker(BrokerConfig(server.url()))
        rows = [_publishing(session, server, broker, *one) for one in _PUBLISHING]
        rows += [_drains(session, server, broker), _with_results(session, server, broker), _idle(session, server)]
        broker.close()
    return rows


def _publishing(
    session: Session, server: RabbitServer, broker: AmqpBroker, what: str, count: int, confirm: bool, command: str,
    more: tuple[int, ...], goal: float,
) -> Row:  # fmt: skip
    def measure(name: str) -> float:
        broker.purge("celery")
        n = session.count(name, count, count)
        env = _environment(server, confirm=confirm)
        rate = n / float(session.subjects[name].drive(env, command, "noop", "noop", n, *more)["seconds"])
        until(lambda: broker.depth("celery") >= n, 60, "all to be there")
        return rate

    values = session.interleaved(f"RabbitMQ, {what}", _NAMES, measure)
    ratio = values["ours"] / values["celery"]
    return Row(f"RabbitMQ, {what}", "calls/s", values, f"≥ {goal:g}×", f"{ratio:.2f}×", ratio >= goal)


def _drains(session: Session, server: RabbitServer, broker: AmqpBroker) -> Row:
    """From nine tenths of a full queue to one tenth: what a worker holds does not count, for it is as much at both.
    Both have the same to drain: the more a queue has, the longer its server collects garbage."""

    def measure(name: str) -> float:
        broker.purge("celery")
        n = session.count(name, 20_000, 20_000)
        env = _environment(server)
        session.subjects[name].drive(env, "enqueue", "noop", "noop", n - 1)
        until(lambda: broker.depth("celery") >= n, 60, "all to be there")
        worker = Worker(session.subjects[name], env, 2, "WARNING")
        worker.start()
        try:
            until(lambda: broker.depth("celery") < 0.9 * n, 60, f"{name} to begin", every=0.05)
            begin, left = time.perf_counter(), broker.depth("celery")
            until(lambda: broker.depth("celery") < 0.1 * n, 300, f"{name} to drain", every=0.05)
            return (left - broker.depth("celery")) / (time.perf_counter() - begin)
        finally:
            worker.stop()
            worker.close()

    values = session.interleaved("RabbitMQ, drain, no results, WARNING", _NAMES, measure)
    ratio = values["ours"] / values["celery"]
    return Row("RabbitMQ, drain, no results, WARNING", "tasks/s", values, "≥ 5×", f"{ratio:.1f}×", ratio >= 5)


def _with_results(session: Session, server: RabbitServer, broker: AmqpBroker) -> Row:
    """The process that called reads every result, in the order of its calls, while the worker drains."""

    def measure(name: str) -> float:
        broker.purge("celery")
        n = session.count(name, 20_000, 20_000)
        env, subject = _environment(server, results="rpc://"), session.subjects[name]
        worker = Worker(subject, env, 2, "WARNING")
        called = Path(worker.folder) / "called"
        with ThreadPoolExecutor(1) as pool:
            client = pool.submit(subject.drive, env, "drain_results", n, called, timeout=600)
            try:
                until(lambda: called.exists() or client.done(), 120, f"{name} to call")
                worker.start()
                return 0.8 * n / float(client.result()["seconds"])
            finally:
                worker.stop()
                worker.close()

    values = session.interleaved("RabbitMQ, drain, results over rpc://, WARNING", _NAMES, measure)
    ratio = values["ours"] / values["celery"]
    return Row("RabbitMQ, drain, results over rpc://, WARNING", "tasks/s", values, "≥ 5×", f"{ratio:.1f}×", ratio >= 5)


def _idle(session: Session, server: RabbitServer) -> Row:
    """Processor time of all of a worker's processes while there is nothing to do."""
    seconds = max(5.0, 30 * session.scale)

    def measure(name: str) -> float:
        worker = Worker(session.subjects[name], _environment(server), 2, "INFO")
        worker.start()
        try:
            until(lambda: worker.log.exists() and "ready" in worker.log.read_text(), 60, f"{name} to be ready")
            time.sleep(3)
            before = cpu_seconds(worker.tree())
            time.sleep(seconds)
            return 100 * (cpu_seconds(worker.tree()) - before) / seconds
        finally:
            worker.stop()
            worker.close()

    values: dict[str, Any] = session.interleaved("RabbitMQ, idle worker", _NAMES, measure)
    return Row("RabbitMQ, idle worker", "% of a core", values, "< 1 %", f"{values['ours']:.2f} %", values["ours"] < 1)
