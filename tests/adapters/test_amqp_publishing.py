"""Confirmed publishing on RabbitMQ, from one thread and from many."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from celery.brokers.amqp import AmqpBroker
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.ports import BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from tests.contracts.broker import ids, message, numbers, spec, take, to
from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.drivers.amqp import Link

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]


@pytest.fixture
def broker(rabbit_url: str) -> Iterator[AmqpBroker]:
    broker = AmqpBroker(BrokerConfig(rabbit_url, {"confirm_publish": True}))
    yield broker
    broker.close()


class Sent:
    """What went over the line: how often something was written."""

    def __init__(self, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        send = link.send

        def counting(data: bytes) -> None:
            self.writes += 1
            send(data)

        monkeypatch.setattr(link, "send", counting)


def in_threads(n: int, work: Callable[[int], Any]) -> list[BaseException | None]:
    """Run it in so many threads at once; what each raised."""
    raised: list[BaseException | None] = [None] * n
    together = threading.Barrier(n)

    def go(place: int) -> None:
        together.wait(30)
        try:
            work(place)
        except Exception as exc:  # noqa: BLE001 - looked at by the test
            raised[place] = exc

    threads = [threading.Thread(target=go, args=(place,), daemon=True) for place in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


def test_sixteen_threads_share_one_connection_and_few_writes(
    broker: AmqpBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one waits for its confirm, the others gather, and go together."""
    broker.publish(to("q", message("first")))
    link = broker._convoy._link
    assert link is not None
    sent = Sent(link, monkeypatch)
    each = 20

    def work(place: int) -> None:
        for i in range(each):
            broker.publish(to("q", message(place * each + i)))

    assert in_threads(16, work) == [None] * 16
    assert broker._convoy._link is link
    assert broker._idle == []
    assert sent.writes < 16 * each / 2
    got = ids(take(broker.consume([spec("q")]), 16 * each + 1))
    assert sorted(got[1:], key=int) == numbers(16 * each)
    for place in range(16):
        mine = [i for i in got[1:] if int(i) // each == place]
        assert mine == sorted(mine, key=int), "a thread's own messages stay in their order"


def test_a_failure_is_the_failure_of_whom_it_concerns(broker: AmqpBroker) -> None:
    """One declares a queue otherwise, one names an exchange that is not there: the others get through."""
    broker.declare([spec("q")])
    otherwise = QueueSpec("q", "q", routing_key="q", arguments={"x-max-priority": 5})

    def work(place: int) -> None:
        if place == 3:
            broker.publish([Publication(message("bad"), Route("", "q", otherwise))])
        elif place == 5:
            broker.publish([Publication(message("bad"), Route("no such exchange", "q"))])
        else:
            broker.publish(to("q", message(place)))

    raised = in_threads(8, work)
    assert [place for place, exc in enumerate(raised) if exc] == [3, 5]
    assert isinstance(raised[3], ImproperlyConfigured)
    assert "x-max-priority" in str(raised[3])
    assert isinstance(raised[5], OperationalError)
    assert "no such exchange" in str(raised[5])
    got = set(ids(broker.consume([spec("q")]).fetch(100, 1.0)))
    assert got == {"0", "1", "2", "4", "6", "7"}


def test_a_full_queue_refuses_those_that_it_does_not_take(broker: AmqpBroker) -> None:
    """The others of the same batch are confirmed."""
    small = QueueSpec(
        "small", "small", routing_key="small", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    broker.publish([Publication(message("fits"), Route("", "small", small))])

    def work(place: int) -> None:
        if place % 2:
            broker.publish([Publication(message(place), Route("", "small", small))])
        else:
            broker.publish(to("q", message(place)))

    raised = in_threads(6, work)
    assert [bool(exc) for exc in raised] == [False, True] * 3
    assert all("has not accepted" in str(exc) for exc in raised if exc)
    assert set(ids(take(broker.consume([spec("q")]), 3))) == {"0", "2", "4"}


def test_a_child_has_a_connection_of_its_own(broker: AmqpBroker) -> None:
    broker.publish(to("q", message("parent")))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            broker.publish(to("q", message("child")))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    broker.publish(to("q", message("parent again")))
    assert ids(take(broker.consume([spec("q")]), 3)) == ["parent", "child", "parent again"]


def test_it_goes_on_after_it_was_closed(broker: AmqpBroker) -> None:
    broker.publish(to("q", message(1)))
    broker.close()
    broker.publish(to("q", message(2)))
    assert ids(take(broker.consume([spec("q")]), 2)) == ["1", "2"]


def test_a_program_that_ends_at_once_has_sent_everything(rabbit_url: str) -> None:
    """Without confirms: the server is behind by thousands of messages when the program comes to its end."""
    program = (
        "import sys; from celery import Celery; app = Celery(broker=sys.argv[1])\n"
        "for _ in range(6_000): app.send_task('t', ('x' * 500,))"
    )
    subprocess.run([sys.executable, "-c", program, rabbit_url], check=True, timeout=120)
    broker = AmqpBroker(BrokerConfig(rabbit_url))
    wait_until(lambda: broker.depth("celery") == 6_000, "all are there")
    broker.close()
