"""The adapters do what the model says: random walks through the model, each step done to a real broker, and looked at.

Leases and due times pass by hand: a test that waited for them could not be at the same instant in both.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celery.backends.memory import MemoryBackend
from celery.backends.redis_store import RedisStore
from celery.backends.sqlite import SqliteBackend
from celery.brokers.memory import MemoryBroker
from celery.brokers.redis import RedisBroker
from celery.brokers.redis_scripts import SWEEP
from celery.brokers.sqlite import SqliteBroker
from celery.ports import BackendConfig, BrokerConfig, Settled
from tests.contracts.backend import record
from tests.contracts.broker import message, spec, to
from tests.model.custody import HELD, RAN, RUNS, TOLD, Kind, Model, State
from tests.running import wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery.ports import Delivery

WALKS = 400 if os.environ.get("CHAOS") else 36
STEPS = 40
LATE, EARLY, DELAYED, APART = Kind(), Kind(late=False), Kind(delayed=True), Kind(joined=False)
AGAIN = Kind(retries=True, delayed=True)
MIXES = [(LATE, DELAYED, EARLY), (AGAIN, LATE, APART), (DELAYED, Kind(retries=True, joined=False), EARLY)]
FAR, PAST = 1e6, 100.0
#: Without a push, few walks would come to where a holder wakes up too late.
OFTEN = {"SIGSTOP", "SIGCONT", "lease runs out", "tick.lua", "kill -9", "Endings.lost, restore.lua"}
WEIGHTS = dict.fromkeys(OFTEN, 4) | {"lease runs out": 20, "tick.lua": 12, "SIGCONT": 1, "RedisConsumer.lost": 20}


class Real:
    """A broker, a store beside it, and two consumers. Message m is alone on queue m, so that it can be asked for."""

    #: Rules that nothing here can be made to do, or that a fault of another kind stands for.
    impossible = frozenset({"fetch.lua, answer lost", "kombu's sweep"})

    def __init__(self, broker: Any, store: Any, messages: int) -> None:
        self.broker, self.store = broker, store
        self.queues = [f"q{m}" for m in range(messages)]
        self.consumers = [broker.consume([spec(name) for name in self.queues]) for _ in range(2)]
        for consumer in self.consumers:
            assert consumer.join(store)
        #: What the model calls (worker, number) of a message.
        self.deliveries: dict[tuple[int, tuple[int, int]], Delivery] = {}
        for m in range(messages):
            self.publish(m)

    def publish(self, m: int) -> None:
        self.broker.publish(to(self.queues[m], message(m)))

    def fetch(self, w: int, m: int) -> list[Delivery]:
        """Ask for message m alone."""
        for other, name in enumerate(self.queues):
            if other != m:
                self.consumers[w].cancel_queue(name)
        found: list[Delivery] = []
        for _ in range(len(self.queues) + 1):  # what is due of other queues may come back first
            found = found or self.consumers[w].fetch(1, 0.0)
        for name in self.queues:
            self.consumers[w].add_queue(spec(name))
        return found

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.close()
        self.broker.close()
        self.store.close()

    def make_due(self, m: int) -> None:
        raise NotImplementedError

    def seen(self, m: int) -> tuple[int, int, Counter[int]]:
        """How many copies can be taken, are parked, and are held by each worker."""
        raise NotImplementedError


class RealMemory(Real):
    impossible = Real.impossible | {"kill -9", "SIGSTOP", "sweep.lua"}

    def __init__(self, folder: Path, messages: int) -> None:
        name = f"memory://{time.monotonic_ns()}"
        super().__init__(MemoryBroker(BrokerConfig(name)), MemoryBackend(BackendConfig(name)), messages)

    def make_due(self, m: int) -> None:
        server = self.broker.server
        server._parked = sorted(
            (time.time() - PAST if item[2] == self.queues[m] else due, item) for due, item in server._parked
        )

    def seen(self, m: int) -> tuple[int, int, Counter[int]]:
        parked = [due <= time.time() for due, item in self.broker.server._parked if item[2] == self.queues[m]]
        held = Counter(
            w for w, one in enumerate(self.consumers) for item in one._held.values() if item[2] == self.queues[m]
        )
        return self.broker.depth(self.queues[m]) + sum(parked), len(parked) - sum(parked), held


class RealSqlite(Real):
    #: A lease ends with its process; a frozen one keeps it.
    impossible = Real.impossible | {"SIGSTOP", "sweep.lua"}
    numbers = count()

    def __init__(self, folder: Path, messages: int) -> None:
        self.path = folder / f"{next(self.numbers)}.sqlite3"
        url = f"sqlite:///{self.path}"
        super().__init__(SqliteBroker(BrokerConfig(url)), SqliteBackend(BackendConfig(url)), messages)
        self.holders = [consumer._holder for consumer in self.consumers]
        for consumer in self.consumers:
            consumer._next_reclaim = float("inf")  # only when the model says so

    def execute(self, sql: str, *values: Any) -> list[Any]:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def make_due(self, m: int) -> None:
        due = time.time() - PAST
        self.execute("UPDATE messages SET due = ? WHERE holder = -1 AND queue = ?", due, self.queues[m])

    def seen(self, m: int) -> tuple[int, int, Counter[int]]:
        rows = self.execute("SELECT holder, due FROM messages WHERE queue = ?", self.queues[m])
        due = sum(holder == 0 or (holder == -1 and due <= time.time()) for holder, due in rows)
        held = Counter(self.holders.index(holder) for holder, _ in rows if holder > 0)
        return due, len(rows) - due - held.total(), held

    def kill(self, w: int) -> None:
        consumer = self.consumers[w]
        consumer._locks.release(consumer._holder)  # as the kernel does
        consumer._handle.close()
        consumer._holder = 0

    def tick(self, w: int) -> None:
        self.consumers[w]._reclaim()


class RealRedis(Real):
    numbers = count()

    def __init__(self, server: RedisServer, messages: int) -> None:
        self.server = server
        options = {"lease_timeout": FAR, "visibility_timeout": FAR}
        server.call("FLUSHALL")
        broker = RedisBroker(BrokerConfig(server.url(), options))
        super().__init__(broker, RedisStore(BackendConfig(server.url())), messages)
        self.layout = broker.layout
        self.holders = [consumer.holder.encode() for consumer in self.consumers]
        for consumer in self.consumers:  # the keeper looks once, and from then on when `tick` lets it
            wait_until(lambda of=consumer: of._keeper._sweep_at, "the keeper's first look")
            consumer._keeper.stop()

    def make_due(self, m: int) -> None:
        due = time.time() - PAST
        for tag in self.server.call("ZRANGE", self.layout.due, 0, -1):
            entry = self.server.call("HGET", self.layout.unacked, tag)
            if entry is None or entry.endswith(b'"q%d"]' % m):
                self.server.call("ZADD", self.layout.due, due, tag)
                self.server.call("ZADD", self.layout.unacked_index, "XX", due - FAR, tag)

    def seen(self, m: int) -> tuple[int, int, Counter[int]]:
        due, parked, held = self.broker.depth(self.queues[m]), 0, Counter[int]()
        flat = self.server.call("HGETALL", self.layout.unacked)
        for tag, entry in zip(flat[::2], flat[1::2], strict=True):
            score = self.server.call("ZSCORE", self.layout.due, tag)
            if not entry.endswith(b'"q%d"]' % m):
                continue
            assert self.server.call("ZSCORE", self.layout.unacked_index, tag) is not None
            if score is None:
                held[self.holders.index(tag.rpartition(b".")[0])] += 1
            elif float(score) <= time.time():
                due += 1
            else:
                parked += 1
        return due, parked, held

    def leases(self) -> list[tuple[bool, bool]]:
        return [
            (
                bool(self.server.call("EXISTS", self.layout.leases.encode() + holder)),
                bool(self.server.call("SISMEMBER", self.layout.holders, holder)),
            )
            for holder in self.holders
        ]

    def kill(self, w: int) -> None:
        self.consumers[w]._lose()

    def expire(self, w: int) -> None:
        self.server.call("DEL", self.layout.leases.encode() + self.holders[w])

    def tick(self, w: int) -> None:
        keeper = self.consumers[w]._keeper
        keeper._tick()
        if keeper._doubted:  # without a lease: believed only if the next look finds the same
            keeper._doubted = dict.fromkeys(keeper._doubted, 0.0)
            keeper._tick()

    def sweep(self, tag: bytes) -> None:
        self.server.call("ZADD", self.layout.unacked_index, "XX", 1, tag)
        sweep = (*self.layout.arguments, FAR, self.layout.mutex, 100)
        assert self.consumers[0]._broker._pool.run([SWEEP.call((), sweep)]) == [1]


class Walk:
    """One walk: the model takes a step at random, the real broker the same."""

    def __init__(self, model: Model, real: Real, seed: int) -> None:
        self.model, self.real = model, real
        self.state = model.first()
        self.random = random.Random(seed)
        self.trace: list[str] = []
        #: Early ones whose acknowledgement is out.
        self.acked: set[tuple[int, tuple[int, int]]] = set()

    def run(self) -> Counter[str]:
        names: Counter[str] = Counter()
        for _ in range(STEPS):
            steps = [step for step in self.model.steps(self.state) if self._possible(step)]
            if not steps:
                break
            rules = sorted({step[0] for step in steps})
            name = self.random.choices(rules, [WEIGHTS.get(rule, 1) for rule in rules])[0]
            name, w, m, after, _ = self.random.choice([step for step in steps if step[0] == name])
            self.trace.append(f"{name} (worker {w}, message {m})")
            names[name] += 1
            before, self.state = self.state, after
            if name == "settle.lua" and self.model.kinds[m].late:
                ((tag, _),) = before.mail[m].hands - after.mail[m].hands
                names["settle.lua, stale"] += tag not in before.mail[m].unacked
            self._do(name, w, m, before)
            self._compare()
        return +names

    def _possible(self, step: Any) -> bool:
        name = step[0]
        if name == "lease runs out" and not hasattr(self.real, "expire"):
            return False  # with its process: see "kill -9"
        if name == "tick.lua":
            return hasattr(self.real, "tick")
        # A fetch puts back what is due by itself, and a keeper does what it has begun.
        return name not in self.real.impossible and not name.startswith(("due.lua", "restore.lua", "strike.lua"))

    def _do(self, name: str, w: int, m: int, before: State) -> None:
        real, consumer = self.real, self.real.consumers[w]
        if name == "fetch.lua":
            (tag,) = {held for held, _ in self.state.mail[m].hands} - {held for held, _ in before.mail[m].hands}
            (delivery,) = real.fetch(w, m)
            assert delivery.message is not None
            assert delivery.message.id == str(m)
            real.deliveries[m, tag] = delivery
            self.acked.discard((m, tag))
        elif name == "time":
            real.make_due(m)
        elif name == "kill -9":
            real.kill(w)  # type: ignore[attr-defined]
            if not hasattr(real, "expire"):
                self._follow("lease runs out", w)
        elif name == "lease runs out":
            real.expire(w)  # type: ignore[attr-defined]
        elif name == "tick.lua":
            real.tick(w)  # type: ignore[attr-defined]
            while self.state.workers[w].errand is not None:
                self._follow("restore.lua" if self.state.workers[w].errand[0] == "restore" else "strike.lua", w)
        elif name == "RedisConsumer.close":
            consumer.close()
        elif name == "RedisConsumer.lost":
            self._lose(w, before)
        elif name == "sweep.lua":
            (tag,) = before.mail[m].unacked - self.state.mail[m].unacked
            real.sweep(real.deliveries[m, tag].tag)  # type: ignore[attr-defined]
        elif m >= 0:
            self._settle(name, w, m, before)

    def _settle(self, name: str, w: int, m: int, before: State) -> None:
        real, consumer, kind = self.real, self.real.consumers[w], self.model.kinds[m]
        mail, after = before.mail[m], self.state.mail[m]
        if name == "ack_commands" and mail.hands == after.hands:  # an early one: it stays in hand
            (tag,) = mail.unacked - after.unacked
            self.acked.add((m, tag))
            consumer.ack([real.deliveries[m, tag]])
            consumer.flush()
            return
        if name in ("Engine._begin", "Engine._take, finished"):
            return
        ((tag, phase),) = mail.hands - after.hands
        delivery = real.deliveries[m, tag]
        again = kind.retries and mail.attempt == 0
        follow = to(real.queues[m], message(m)) if again else []
        if name == "defer.lua":
            consumer.defer([(delivery, time.time() + FAR)])
        elif name == "Endings.lost, restore.lua":
            assert phase == RUNS
            consumer.reject([delivery], requeue=True)
            consumer.flush()
        elif name == "settle.lua":
            assert phase == RAN
            if not kind.late and (m, tag) not in self.acked:
                consumer.ack([delivery])  # gathered when it began, and not sent yet
                consumer.flush()
            done = "ack" if kind.late else "done"
            consumer.settle([Settled(delivery, done, record(str(m), "RETRY" if again else "SUCCESS"), follow)])
        elif name == "Settler.settle, publish":
            real.broker.publish(follow)
        else:
            assert (name, phase) == ("ack_commands", TOLD)
            consumer.ack([delivery])
            consumer.flush()

    def _lose(self, w: int, before: State) -> None:
        """All that it dropped is told as lost, and nothing that it still holds."""
        self.real.consumers[w].lost()
        for m, mail in enumerate(before.mail):
            for tag, phase in mail.hands:
                if tag[0] == w and phase == HELD:
                    dropped = (tag, phase) not in self.state.mail[m].hands
                    assert self.real.deliveries[m, tag].lost == dropped, "\n".join(self.trace)

    def _follow(self, name: str, w: int) -> None:
        """The step that must come next."""
        (step,) = [s for s in self.model.steps(self.state) if s[0].startswith(name) and s[1] == w]
        self.state = step[3]

    def _compare(self) -> None:
        for m, mail in enumerate(self.state.mail):
            parked = len(mail.parked & mail.unacked)
            can = mail.queue + (parked if mail.due else 0)
            held = Counter(w for w, _ in mail.unacked - mail.parked)
            expected = (can, 0 if mail.due else parked, held)
            assert self.real.seen(m) == expected, "\n".join([f"message {m}", *self.trace])
            if self.model.kinds[m].joined:
                document = self.real.store.load([str(m)])[0]
                ended = document is not None and b"SUCCESS" in document
                assert ended == (mail.ended > 0), "\n".join([f"result of {m}", *self.trace])
        if isinstance(self.real, RealRedis):
            expected_leases = [(worker.lease, worker.listed) for worker in self.state.workers]
            assert self.real.leases() == expected_leases, "\n".join(self.trace)


def walk_all(make: Any, expected: set[str], seeds: range = range(WALKS)) -> None:
    names: Counter[str] = Counter()
    for seed in seeds:
        model = Model(MIXES[seed % len(MIXES)], faults=seed // 3 % 4)
        real = make(len(model.kinds))
        try:
            names += Walk(model, real, seed).run()
        finally:
            real.close()
    assert expected <= set(names), expected - set(names)


ALL = {
    "fetch.lua", "defer.lua", "time", "Engine._begin", "Engine._take, finished", "settle.lua", "ack_commands",
    "Settler.settle, publish", "Endings.lost, restore.lua", "RedisConsumer.close",
}  # fmt: skip


def test_memory_does_what_the_model_says(tmp_path: Path) -> None:
    walk_all(lambda messages: RealMemory(tmp_path, messages), ALL)


def test_sqlite_does_what_the_model_says_in_a_few_walks(tmp_path: Path) -> None:
    """Seeds in which all that can happen does: kills too."""
    walk_all(lambda messages: RealSqlite(tmp_path, messages), ALL | {"kill -9", "tick.lua"}, range(6, 9))


@pytest.mark.slow
def test_sqlite_does_what_the_model_says(tmp_path: Path) -> None:
    walk_all(lambda messages: RealSqlite(tmp_path, messages), ALL | {"kill -9", "tick.lua"})


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.server
def test_redis_does_what_the_model_says(server: RedisServer) -> None:
    more = {
        "kill -9", "tick.lua", "SIGSTOP", "SIGCONT", "lease runs out", "sweep.lua", "settle.lua, stale",
        "RedisConsumer.lost",
    }  # fmt: skip
    walk_all(lambda messages: RealRedis(server, messages), ALL | more)
