"""Confirmed publishing on RabbitMQ, from one thread and from many."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from celery.brokers import amqp_convoy
from celery.brokers.amqp import AmqpBroker
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.ports import BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from tests.contracts.broker import ids, message, numbers, spec, take, to
from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came
    from tests.servers import RabbitServer

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


def links_of(broker: AmqpBroker) -> list[Link]:
    """The connections over which it has published with confirms, the first one first."""
    return [carrier._link for carrier in reversed(broker._convoy._all) if carrier._link is not None]


def test_sixteen_threads_share_one_connection_and_few_writes(
    broker: AmqpBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one waits for its confirm, the others gather, and go together."""
    monkeypatch.setattr(amqp_convoy, "_LONG", 30.0)
    broker.publish(to("q", message("first")))
    (link,) = links_of(broker)
    sent = Sent(link, monkeypatch)
    each = 20

    def work(place: int) -> None:
        for i in range(each):
            broker.publish(to("q", message(place * each + i)))

    assert in_threads(16, work) == [None] * 16
    assert links_of(broker) == [link]
    assert broker._idle == []
    assert sent.writes < 16 * each / 2
    got = ids(take(broker.consume([spec("q")]), 16 * each + 1))
    assert sorted(got[1:], key=int) == numbers(16 * each)
    for place in range(16):
        mine = [i for i in got[1:] if int(i) // each == place]
        assert mine == sorted(mine, key=int), "a thread's own messages stay in their order"


class Held:
    """A connection whose server takes its time over confirms, until it is let go."""

    def __init__(self, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits, self.goes_on = threading.Event(), threading.Event()
        heard = link.heard

        def slow(answers: Collection[tuple[int, int]], timeout: float) -> Came | None:
            self.waits.set()
            assert self.goes_on.wait(30)
            return heard(answers, timeout)

        monkeypatch.setattr(link, "heard", slow)


def test_the_next_ones_set_out_before_the_first_are_back(broker: AmqpBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that takes long; four at a time. Then they gather again, and go with the first who comes back."""
    broker.publish(to("q", message("first")))
    held: list[Held] = []
    waiting: list[threading.Thread] = []

    def publish(id: str) -> None:
        broker.publish(to("q", message(id)))

    for n in range(4):
        held.append(Held(links_of(broker)[n], monkeypatch))
        waiting.append(threading.Thread(target=publish, args=(f"held {n}",), daemon=True))
        waiting[-1].start()
        assert held[-1].waits.wait(30)
        if n < 3:
            broker.publish(to("q", message(f"passes {n}")))
    crowd = [threading.Thread(target=publish, args=(f"gathers {n}",), daemon=True) for n in range(8)]
    for thread in crowd:
        thread.start()
    wait_until(lambda: len(broker._convoy._waiting) == 8, "they have gathered")
    assert len(links_of(broker)) == 4
    for each in held:
        each.goes_on.set()
    for thread in (*waiting, *crowd):
        thread.join(30)
        assert not thread.is_alive()
    assert len(broker._convoy._free) == 4
    got = ids(take(broker.consume([spec("q")]), 16))
    assert got[0] == "first"
    assert set(got[1:]) == {f"held {n}" for n in range(4)} | {f"passes {n}" for n in range(3)} | {
        f"gathers {n}" for n in range(8)
    }


def test_nobody_waits_for_a_thread_that_was_interrupted(broker: AmqpBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while it waits, nor as its turn has come."""
    broker.publish(to("q", message("first")))
    held = Held(links_of(broker)[0], monkeypatch)
    thread = threading.Thread(target=broker.publish, args=(to("q", message("held")),), daemon=True)
    thread.start()
    assert held.waits.wait(30)
    await_word = amqp_convoy._Party.await_word

    def interrupted(party: amqp_convoy._Party, timeout: float = -1) -> bool:
        raise KeyboardInterrupt

    def interrupted_at_its_turn(party: amqp_convoy._Party, timeout: float = -1) -> bool:
        held.goes_on.set()
        assert await_word(party)
        raise KeyboardInterrupt

    for way in (interrupted, interrupted_at_its_turn):
        monkeypatch.setattr(amqp_convoy._Party, "await_word", way)
        with pytest.raises(KeyboardInterrupt):
            broker.publish(to("q", message("interrupted")))
    monkeypatch.undo()
    thread.join(30)
    assert len(broker._convoy._free) == 4
    broker.publish(to("q", message("goes on")))
    assert "goes on" in ids(broker.consume([spec("q")]).fetch(10, 5.0))


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


def test_a_failure_is_not_that_of_those_who_gathered_meanwhile(
    broker: AmqpBroker, rabbit_session: RabbitServer, rabbit_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is alone on the way, to an exchange that has been deleted since: the server closes the connection."""
    monkeypatch.setattr(amqp_convoy, "_LONG", 30.0)
    place = QueueSpec("there", "short-lived", routing_key="there")
    gone = [Publication(message("bad"), Route("short-lived", "there", place))]
    broker.publish(gone)
    rabbit_session.call("DELETE", f"exchanges/{rabbit_url.rpartition('/')[2]}/short-lived")
    held = Held(links_of(broker)[0], monkeypatch)
    raised: dict[str, BaseException | None] = {}

    def publish(name: str, publications: list[Publication]) -> None:
        try:
            broker.publish(publications)
        except OperationalError as exc:
            raised[name] = exc
        else:
            raised[name] = None

    alone = threading.Thread(target=publish, args=("alone", gone), daemon=True)
    alone.start()
    assert held.waits.wait(30)
    other = threading.Thread(target=publish, args=("other", to("q", message("good"))), daemon=True)
    other.start()
    wait_until(lambda: len(broker._convoy._waiting) == 1, "it has gathered")
    held.goes_on.set()
    for thread in (alone, other):
        thread.join(30)
        assert not thread.is_alive()
    assert "short-lived" in str(raised["alone"])
    assert raised["other"] is None
    assert ids(take(broker.consume([spec("q")]), 1)) == ["good"]


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
