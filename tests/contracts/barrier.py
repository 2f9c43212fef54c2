"""What every `Barrier` and `Groups` does, and every consumer that settles arrivals in the step of their records."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from celery.outcome import Arrival, Further
from celery.ports import Firing, Settled
from tests.contracts.backend import record, results
from tests.contracts.broker import message, spec, take, to

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = b"application/json\nthe body"


def member(index: int | None, name: str = "", barrier: str = "b", more: int = 0) -> Arrival:
    name = name or f"m{index}"
    return Arrival(barrier, name, index, name.encode(), BODY + barrier.encode(), more)


class BarrierContract:
    """Subclass it and override the fixtures."""

    @pytest.fixture
    def broker(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def backend(self) -> Any:
        """On the same server as the broker."""
        raise NotImplementedError

    @pytest.fixture
    def let_claims_lapse(self) -> Callable[[], None]:
        """Whoever filled a barrier has had its time to fire it."""
        raise NotImplementedError

    @pytest.fixture
    def barriers(self, backend: Any) -> Any:
        return backend.barriers

    def parts(self, barriers: Any, name: str = "b") -> list[bytes]:
        return [part for batch in barriers.parts(name) for part in batch]

    # -- counting ----------------------------------------------------------------------------------------------------

    def test_the_last_member_fills_it(self, barriers: Any) -> None:
        barriers.open("b", 3)
        assert barriers.arrive([member(2)]) == []
        assert barriers.standing("b") == (3, 1)
        assert barriers.arrive([member(0)]) == []
        (full,) = barriers.arrive([member(1)])
        assert (full.barrier, full.body) == ("b", BODY + b"b")
        assert self.parts(barriers) == [b"m0", b"m1", b"m2"]

    def test_a_member_counts_once(self, barriers: Any) -> None:
        barriers.open("b", 2)
        for _ in range(3):
            assert barriers.arrive([member(0)]) == []
        assert barriers.standing("b") == (2, 1)
        assert [full.barrier for full in barriers.arrive([member(1), member(1)])] == ["b"]
        assert barriers.arrive([member(1)]) == []  # whoever filled it is about to fire it
        assert self.parts(barriers) == [b"m0", b"m1"]

    def test_nothing_is_full_whose_size_nobody_knows(self, barriers: Any) -> None:
        assert barriers.standing("b") == (None, 0)
        assert barriers.arrive([member(0)]) == []
        assert barriers.standing("b") == (None, 1)
        barriers.open("b", 2)
        assert [full.barrier for full in barriers.arrive([member(1)])] == ["b"]

    def test_members_are_added(self, barriers: Any) -> None:
        barriers.open("b", 2)
        barriers.grow("b", 1)
        assert barriers.arrive([member(0, more=1), member(1)]) == []
        assert barriers.arrive([member(0, more=1)]) == []  # told again, it adds no more
        assert barriers.standing("b") == (4, 2)
        assert barriers.arrive([member(None, "x")]) == []
        assert len(barriers.arrive([member(None, "y")])) == 1
        assert sorted(self.parts(barriers)[2:]) == [b"x", b"y"]

    def test_barriers_are_apart(self, barriers: Any) -> None:
        barriers.open("b", 1)
        barriers.open("c", 1)
        assert [full.barrier for full in barriers.arrive([member(0), member(0, barrier="c")])] == ["b", "c"]

    def test_many_members_come_in_batches(self, barriers: Any) -> None:
        barriers.open("b", 2500)
        assert len(barriers.arrive([member(index) for index in reversed(range(2500))])) == 1
        batches = list(barriers.parts("b"))
        assert len(batches) > 2
        assert [part for batch in batches for part in batch] == [b"m%d" % index for index in range(2500)]

    def test_one_of_many_threads_fills_it(self, barriers: Any) -> None:
        barriers.open("b", 160)
        found: list[Any] = []

        def arrive(first: int) -> None:
            for index in range(first, 160, 8):
                found.extend(barriers.arrive([member(index)]))
                found.extend(barriers.arrive([member(index)]))

        threads = [threading.Thread(target=arrive, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 1

    # -- firing ------------------------------------------------------------------------------------------------------

    def test_fired_it_is_forgotten(self, barriers: Any, let_claims_lapse: Callable[[], None]) -> None:
        barriers.open("b", 1)
        barriers.arrive([member(0)])
        barriers.fired("b")
        let_claims_lapse()
        assert barriers.full() == []
        assert self.parts(barriers) == []
        barriers.open("b", 1)  # a chord that is begun anew
        assert len(barriers.arrive([member(0)])) == 1

    def test_a_redelivered_member_does_not_fire_it_again(self, barriers: Any) -> None:
        barriers.open("b", 1)
        barriers.arrive([member(0)])
        barriers.fired("b")
        assert barriers.arrive([member(0)]) == []
        assert self.parts(barriers) == []

    def test_what_failed_is_kept(self, barriers: Any) -> None:
        barriers.open("b", 1)
        barriers.arrive([member(0)])
        barriers.fired("b", failed=True)
        assert self.parts(barriers) == [b"m0"]
        assert barriers.arrive([member(0)]) == []

    def test_one_left_full_is_found(self, barriers: Any, let_claims_lapse: Callable[[], None]) -> None:
        barriers.open("b", 1)
        barriers.arrive([member(0)])
        assert barriers.full() == []  # whoever filled it has some time
        let_claims_lapse()
        (full,) = barriers.full()
        assert (full.barrier, full.body) == ("b", BODY + b"b")
        assert barriers.full() == []  # and so has whoever found it
        barriers.fired("b")

    # -- in one step -------------------------------------------------------------------------------------------------

    def held(self, broker: Any, backend: Any, count: int) -> tuple[Any, list[Any]]:
        broker.publish(to("q", *(message(n) for n in range(count))))
        consumer = broker.consume([spec("q")])
        assert consumer.join(backend)
        return consumer, take(consumer, count)

    def test_arrivals_are_settled_with_records(self, broker: Any, backend: Any) -> None:
        backend.barriers.open("b", 2)
        consumer, (one, two) = self.held(broker, backend, 2)
        further = Further([record("later", "FAILURE", b"since it failed")], [member(0)])
        assert not consumer.settle([Settled(one, "ack", record("0", "SUCCESS", b"x"), (), further)])
        assert results(backend.load(["0", "later"])) == [b"x", b"since it failed"]
        (full,) = consumer.settle([Settled(two, "ack", None, (), Further([], [member(1)]))])
        assert full.barrier == "b"
        consumer.close()

    def test_a_lost_delivery_does_not_arrive(self, broker: Any, backend: Any) -> None:
        backend.barriers.open("b", 1)
        consumer, (one,) = self.held(broker, backend, 1)
        consumer.reject([one], requeue=True)
        consumer.flush()
        assert not consumer.settle([Settled(one, "ack", None, (), Further([], [member(0)]))])
        assert backend.barriers.standing("b") == (1, 0)
        consumer.close()

    def test_a_body_is_sent_once(self, broker: Any, backend: Any) -> None:
        backend.barriers.open("b", 1)
        consumer, (one,) = self.held(broker, backend, 1)
        other = broker.consume([spec("bodies")])
        assert other.join(backend)
        (full,) = consumer.settle([Settled(one, "ack", None, (), Further([], [member(0)]))])
        firing = Firing(full.barrier, to("bodies", message("body")))
        assert not consumer.fire([firing])
        assert not other.fire([firing])
        assert broker.depth("bodies") == 1
        assert self.parts(backend.barriers) == []
        consumer.close()
        other.close()

    def test_a_failed_body_arrives_at_the_chord_around_it(self, broker: Any, backend: Any) -> None:
        backend.barriers.open("b", 1)
        backend.barriers.open("outer", 1)
        consumer, (one,) = self.held(broker, backend, 1)
        consumer.settle([Settled(one, "ack", None, (), Further([], [member(0)]))])
        outer = member(0, "body", barrier="outer")
        (full,) = consumer.fire([Firing("b", (), [record("body", "FAILURE", b"why")], [outer], failed=True)])
        assert full.barrier == "outer"
        assert results(backend.load(["body"])) == [b"why"]
        consumer.close()

    # -- groups ------------------------------------------------------------------------------------------------------

    def test_groups_are_kept(self, backend: Any) -> None:
        groups = backend.groups
        assert groups.load_group("g") is None
        groups.save_group("g", b"one")
        groups.save_group("g", b"two")
        assert groups.load_group("g") == b"two"
        groups.delete_group("g")
        assert groups.load_group("g") is None
