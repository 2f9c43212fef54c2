"""What every broker does that carries notices (`celery.ports.Broadcasting`)."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from celery.ports import Broadcasting, Notice
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.ports import Listener

    MakeCarrier = Callable[[], Broadcasting]

#: Nothing here takes this long unless it is broken.
DEADLINE = 20.0


def ear(name: str, exchange: str = "ctl.pidbox", kind: str = "fanout", key: str = "") -> QueueSpec:
    arguments = {"x-message-ttl": 300_000, "x-expires": 10_000}
    return QueueSpec(name, exchange, kind, key, durable=False, auto_delete=True, arguments=arguments)


def notice(body: str, exchange: str = "ctl.pidbox", kind: str = "fanout", key: str = "", **headers: object) -> Notice:
    return Notice(exchange, kind, key, body.encode(), headers=headers)


def hear(listener: Listener, n: int) -> list[str]:
    """Listen until n notices have come; their bodies."""
    end = time.monotonic() + DEADLINE
    heard: list[Notice] = []
    while len(heard) < n and time.monotonic() < end:
        heard += listener.hear(0.2)
    assert len(heard) == n, f"expected {n} notices, heard {[one.body for one in heard]}"
    return [one.body.decode() for one in heard]


class BroadcastingContract:
    """Subclass it and override `make_carrier`."""

    #: Whether the broker says how many have heard a notice.
    counts = True

    @pytest.fixture
    def make_carrier(self) -> MakeCarrier:
        """Each call a new broker on the test's own fresh storage; closed after the test."""
        raise NotImplementedError

    @pytest.fixture
    def carrier(self, make_carrier: MakeCarrier) -> Broadcasting:
        return make_carrier()

    @pytest.fixture
    def listen(self, make_carrier: MakeCarrier) -> Iterator[Callable[..., Listener]]:
        made: list[Listener] = []

        def listen(*mailboxes: QueueSpec) -> Listener:
            made.append(make_carrier().listen(mailboxes))
            return made[-1]

        yield listen
        for listener in made:
            listener.close()

    def test_it_is_one(self, carrier: Broadcasting) -> None:
        assert isinstance(carrier, Broadcasting)

    def test_everybody_hears_what_is_told_to_all(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        ears = [listen(ear(f"n{i}.pidbox")) for i in range(3)]
        carrier.tell([notice("one"), notice("two")])
        carrier.tell([notice("three")])
        assert [hear(each, 3) for each in ears] == [["one", "two", "three"]] * 3
        assert [each.hear(0) for each in ears] == [[]] * 3

    def test_a_notice_arrives_as_it_was_told(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        listener = listen(ear("n.pidbox"))
        body = bytes(range(256))
        told = Notice(
            "ctl.pidbox", "fanout", "", body, "application/x-özil", "binary", {"clock": 3, "ticket": "tïcket"},
            {"reply_to": "oid"},
        )  # fmt: skip
        carrier.tell([told])
        end = time.monotonic() + DEADLINE
        while not (heard := listener.hear(0.2)):
            assert time.monotonic() < end
        (one,) = heard
        assert (one.exchange, one.body, one.content_type, one.content_encoding) == (
            "ctl.pidbox", body, "application/x-özil", "binary",
        )  # fmt: skip
        assert dict(one.headers) == {"clock": 3, "ticket": "tïcket"}
        assert one.properties["reply_to"] == "oid"

    def test_nobody_hears_what_was_told_before(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        carrier.tell([notice("missed")])
        listener = listen(ear("n.pidbox"))
        carrier.tell([notice("heard")])
        assert hear(listener, 1) == ["heard"]

    def test_nobody_hears_another_exchange(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        listener = listen(ear("n.pidbox"))
        carrier.tell([notice("else", exchange="other.pidbox"), notice("ours")])
        assert hear(listener, 1) == ["ours"]

    def test_topics(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        def told(key: str) -> Notice:
            return notice(key, "ev", "topic", key)

        everything = listen(ear("ev.1", "ev", "topic", "#"))
        tasks = listen(ear("ev.2", "ev", "topic", "task.#"))
        beats = listen(ear("ev.3", "ev", "topic", "worker.heartbeat"))
        keys = ["task.multi", "worker.heartbeat", "worker.online", "task.sent"]
        carrier.tell([told(key) for key in keys])
        assert sorted(hear(everything, 4)) == sorted(keys)
        assert sorted(hear(tasks, 2)) == ["task.multi", "task.sent"]
        assert hear(beats, 1) == ["worker.heartbeat"]

    def test_one_listener_with_several_mailboxes(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        listener = listen(ear("n.pidbox"), ear("ev.1", "ev", "topic", "worker.#"))
        carrier.tell([notice("command"), notice("event", "ev", "topic", "worker.online")])
        assert sorted(hear(listener, 2)) == ["command", "event"]

    def test_a_reply_reaches_its_mailbox_alone(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        mine, others = (listen(ear(f"{oid}.reply", "reply.pidbox", "direct", oid)) for oid in ("mine", "others"))
        carrier.tell(
            [notice("for me", "reply.pidbox", "direct", "mine"), notice("x", "reply.pidbox", "direct", "nobody")]
        )
        carrier.tell([notice("for others", "reply.pidbox", "direct", "others")])
        assert hear(mine, 1) == ["for me"]
        assert hear(others, 1) == ["for others"]

    def test_a_closed_listener_hears_no_more(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        gone, still = listen(ear("gone.pidbox")), listen(ear("still.pidbox"))
        gone.close()
        gone.close()
        carrier.tell([notice("told")])
        assert hear(still, 1) == ["told"]

    def test_it_says_how_many_have_heard(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        def told(*notices: Notice) -> int | None:
            return carrier.tell(notices)

        assert not told(notice("nobody"))
        ears = [listen(ear(f"n{i}.pidbox")) for i in range(3)]
        if not self.counts:
            assert told(notice("one")) is None
            return
        assert told() == told(notice("nobody", "no.pidbox")) == 0
        listen(ear("ev.1", "ev", "topic", "worker.#"), ear("else.pidbox", "else.pidbox"))
        assert told(notice("one")) == 3
        assert told(notice("one"), notice("two"), notice("else", "else.pidbox"), notice("nobody", "no.pidbox")) == 7
        ears[0].close()
        assert told(notice("one")) == 2
        reply = notice("reply", "reply.pidbox", "direct", "oid")
        assert told(reply) == 0
        for _ in range(2):  # they share a mailbox: one of them hears it
            listen(ear("oid.reply", "reply.pidbox", "direct", "oid"))
        assert told(reply) == 1

    def test_a_descriptor_ends_the_wait(self, listen: Callable[..., Listener]) -> None:
        listener = listen(ear("n.pidbox"))
        readable, writable = os.pipe()
        try:
            os.write(writable, b"x")
            began = time.monotonic()
            assert listener.hear(DEADLINE, [readable]) == []
            assert time.monotonic() - began < DEADLINE / 2
        finally:
            os.close(readable)
            os.close(writable)

    def test_a_notice_ends_the_wait(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        listener = listen(ear("n.pidbox"))
        teller = threading.Timer(0.05, carrier.tell, [[notice("told")]])
        teller.start()
        began = time.monotonic()
        heard = listener.hear(DEADLINE)
        teller.join()
        assert [one.body for one in heard] == [b"told"]
        assert time.monotonic() - began < DEADLINE / 2

    def test_many_threads_tell(self, make_carrier: MakeCarrier, listen: Callable[..., Listener]) -> None:
        """Nothing is lost, and each teller's notices keep their order."""
        listener, carrier = listen(ear("n.pidbox")), make_carrier()

        def work(teller: int) -> None:
            for number in range(20):
                carrier.tell([notice(f"{teller}.{number}")])

        threads = [threading.Thread(target=work, args=(teller,)) for teller in range(4)]
        for thread in threads:
            thread.start()
        heard = hear(listener, 80)
        for thread in threads:
            thread.join()
        for teller in range(4):
            assert [one for one in heard if one.startswith(f"{teller}.")] == [f"{teller}.{n}" for n in range(20)]

    def test_large_notices(self, carrier: Broadcasting, listen: Callable[..., Listener]) -> None:
        listener = listen(ear("n.pidbox"))
        carrier.tell([notice("x" * 1_000_000), notice("last")])
        assert [len(body) for body in hear(listener, 2)] == [1_000_000, 4]
