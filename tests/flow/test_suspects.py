"""Redelivered messages in the engine: when they run, and which are parked. A pool's runs end when the test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.outcome import Record, Success
from celery.ports import Report
from celery.worker.admission import TaskPolicy
from tests.flow.engine import DEADLINE, House, document, spec, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import Job


class Hands:
    """A pool whose runs end when the test says so."""

    def __init__(self, size: int = 2, spare: int = 0) -> None:
        self.size, self.spare = size, spare
        self.running: dict[str, Job] = {}
        self._lost: list[tuple[int, str]] = []
        self._finished: list[tuple[int, Any]] = []

    def start(self) -> None:
        pass

    def submit(self, jobs: Sequence[Job]) -> None:
        self.running.update({job.message.id: job for job in jobs})

    def report(self) -> Report:
        lost, self._lost = self._lost, []
        finished, self._finished = self._finished, []
        return Report(begun=[key for key, _ in (*lost, *finished)], lost=lost, finished=finished)

    def descriptors(self) -> Sequence[int]:
        return ()

    @property
    def free(self) -> int:
        return self.size + self.spare - len(self.running)

    @property
    def idle(self) -> int:
        return self.size - len(self.running)

    def take_back(self) -> None:
        pass

    def stop(self, deadline: float) -> None:
        self._lost += [(job.key, "stopped") for job in self.running.values()]
        self.running.clear()

    def die(self, id: str) -> None:
        job = self.running.pop(id)
        self._lost.append((job.key, "signal 9"))

    def finish(self, id: str) -> None:
        job = self.running.pop(id)
        self._finished.append((job.key, Success(Record(id, "SUCCESS", document("SUCCESS", 1)))))

    def runs(self, *ids: str) -> None:
        until(lambda: set(self.running) == set(ids), f"{ids} run, not {set(self.running)}")


def letters(house: House) -> list[Any]:
    found: list[Any] = house.broker.dead_letters.newest("q", 100)
    return found


def give_back(house: House, *, deaths: int = 0) -> None:
    """Take what is on the queue and give it back, so often as if its process had died."""
    for _ in range(max(deaths, 1)):
        consumer = house.broker.consume([])
        consumer.add_queue(house.engine()._parts.queues[0])
        held = consumer.fetch(100, 0.0)
        for delivery in held:
            delivery.died = bool(deaths)
        consumer.reject(held, requeue=True)
        consumer.close()


def test_a_child_that_dies_three_times_parks_its_message() -> None:
    pool = Hands()
    house = House(pool=pool, max_deaths=3)
    id = house.send("careful", 1, 2)
    with house.running():
        for _ in range(3):
            pool.runs(id)
            pool.die(id)
        assert house.result(id)["status"] == "FAILURE"
        until(lambda: letters(house), "it is a dead letter")
    (letter,) = letters(house)
    assert letter.deaths == 3
    assert "3 processes died" in letter.reason
    assert "signal 9" in letter.reason
    assert house.depth() == 0


def test_without_end_if_the_setting_says_so() -> None:
    pool = Hands()
    house = House(pool=pool, max_deaths=0)
    id = house.send("careful", 1, 2)
    with house.running():
        for _ in range(10):
            pool.runs(id)
            pool.die(id)
        pool.runs(id)
        pool.finish(id)
        assert house.result(id)["status"] == "SUCCESS"
    assert letters(house) == []


def test_the_first_death_is_the_last_if_the_setting_says_so() -> None:
    pool = Hands()
    house = House(pool=pool, max_deaths=1)
    id = house.send("careful", 1, 2)
    with house.running():
        pool.runs(id)
        pool.die(id)
        assert house.result(id)["status"] == "FAILURE"
        until(lambda: letters(house), "it is a dead letter")


def test_a_suspicion_alone_parks_nobody() -> None:
    """With one death, perhaps a neighbour's, it runs even where one death is one too many."""
    pool = Hands()
    house = House(pool=pool, max_deaths=1)
    id = house.send("careful", 1, 2)
    give_back(house, deaths=1)
    with house.running():
        pool.runs(id)
        pool.finish(id)
        assert house.result(id)["status"] == "SUCCESS"


def test_who_died_too_often_is_not_run() -> None:
    pool = Hands()
    house = House(pool=pool, max_deaths=3)
    id = house.send("careful", 1, 2)
    give_back(house, deaths=3)
    with house.running():
        assert house.result(id)["status"] == "FAILURE"
        until(lambda: letters(house), "it is a dead letter")
    assert pool.running == {}
    assert [lost for lost, _ in house.notes.losses] == [id]


def test_redelivered_ones_wait_for_a_free_runner_and_go_first() -> None:
    pool = Hands(size=2)
    house = House(pool=pool)
    old = [house.send("late", n) for n in range(3)]
    give_back(house)
    new = house.send("late", 9)
    with house.running():
        pool.runs(old[0], old[1])
        pool.finish(old[0])
        pool.runs(old[1], old[2])
        pool.finish(old[1])
        pool.runs(old[2], new)
        pool.finish(old[2])
        pool.finish(new)
        assert house.result(new)["status"] == "SUCCESS"


def test_on_its_last_chance_it_has_the_worker_for_itself() -> None:
    pool = Hands(size=2, spare=2)
    house = House(pool=pool, max_deaths=3)
    last = house.send("late", 1)
    give_back(house, deaths=2)
    give_back(house)
    others = [house.send("late", n) for n in range(2)]
    with house.running():
        pool.runs(last)
        until(lambda: len(house.notes.received_ids) == 3, "all are taken")
        assert set(pool.running) == {last}
        pool.finish(last)
        pool.runs(*others)
        for id in others:
            pool.finish(id)
            assert house.result(id)["status"] == "SUCCESS"


def test_once_acknowledged_others_may_run_beside_it() -> None:
    """It cannot come back, so nobody can be blamed in its place."""
    pool = Hands(size=2)
    house = House(pool=pool, max_deaths=3)
    last = house.send("add", 1, 2)
    give_back(house, deaths=2)
    other = house.send("late", 1)
    with house.running() as engine:
        pool.runs(last)
        pool.report = lambda: Report(begun=[engine.held[key].key for key in list(engine.held)])  # type: ignore[method-assign]
        pool.runs(last, other)
        del pool.report  # type: ignore[attr-defined]
        pool.finish(last)
        pool.finish(other)
        assert house.result(other)["status"] == "SUCCESS"


def test_a_stop_gives_back_those_that_wait_and_counts_nothing() -> None:
    pool = Hands(size=1, spare=1)
    house = House(pool=pool)
    first, second = house.send("late", 1), house.send("late", 2)
    give_back(house)
    with house.running() as engine:
        pool.runs(first)
        until(lambda: len(engine.reserved()) == 2, "the other waits")
        engine.stop()
        until(lambda: house.depth() == 1, "it is given back")
        pool.finish(first)
    assert house.depth() == 1
    assert house.store.wait([first], DEADLINE)
    give_back(house)
    consumer = house.broker.consume([])
    consumer.add_queue(house.engine()._parts.queues[0])
    (held,) = consumer.fetch(10, 0.0)
    assert (held.message.id, held.message.deaths) == (second, 0)
    consumer.close()


def test_what_is_acknowledged_first_begins_when_the_broker_has_let_go() -> None:
    """Only as many as have a runner, and in their turn; the others stay in the broker's custody."""
    pool = Hands(size=2, spare=3)
    house = House(pool=pool)
    house.policies["add"] = TaskPolicy("add", acks_first=True)
    consumer = house.broker.consume([spec("q")])
    house.broker = type("One", (), {"consume": lambda self, queues: consumer, "close": lambda self: None})()
    sent = [house.send("add", n) for n in range(5)]
    with house.running() as engine:
        until(lambda: len(pool.running) == 2, "two run")
        assert list(pool.running) == sent[:2]
        assert [one.acknowledged for one in engine.held.values()] == [True, True]
        assert len(consumer._held) == 3
        pool.die(sent[0])
        until(lambda: sent[2] in pool.running, "the next one runs")
        assert len(consumer._held) == 2
        for n in (1, 2, 3, 4):
            until(lambda n=n: sent[n] in pool.running, "its turn")
            pool.finish(sent[n])
            house.result(sent[n])
    assert house.result(sent[0])["status"] == "FAILURE"
    assert house.depth() == 0


def test_what_was_acknowledged_first_and_never_began_is_sent_again_at_the_end() -> None:
    class Returning(Hands):
        """Hands back what it has."""

        def take_back(self) -> None:
            self.back, self.running = [job.key for job in self.running.values()], {}

        def report(self) -> Report:
            back, self.back = getattr(self, "back", []), []
            return Report(returned=back)

    pool = Returning(size=1)
    house = House(pool=pool)
    house.policies["add"] = TaskPolicy("add", acks_first=True)
    task_id = house.send("add", 1)
    with house.running():
        until(lambda: pool.running, "it is handed over")
    assert house.depth() == 1
    again = House(house.url)
    with again.running():
        assert again.result(task_id)["result"] == 1
