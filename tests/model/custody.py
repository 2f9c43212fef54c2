"""A model of custody: who has a message, step by step, while workers die, freeze and wake.

Every rule is one atomic step of the code and bears its name: a script of `brokers/lua/`, or a function of the consumer,
its keeper or the engine. What lies between two rules may be cut off by a kill. `explore` walks every state that can be
reached; `tests/model/test_custody.py` says what must hold in each.

The model is of Redis, the broker with the most that can go wrong. SQLite is the part of it in which a lease ends with
its process and at no other time; memory the part in which nobody dies.
"""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

#: (worker, number): what a worker holds a message under; a number that nobody remembers any more may come again.
Tag: TypeAlias = tuple[int, int]

#: What a worker knows of a delivery of its own. LOST: fetched, but the answer never came.
HELD, RUNS, RAN, TOLD, ACKED, LOST = "held", "runs", "ran", "told", "acked", "lost"
ALIVE, FROZEN, DEAD, GONE = "alive", "frozen", "dead", "gone"


class Kind(NamedTuple):
    """What is sent."""

    late: bool = True
    delayed: bool = False
    #: The first attempt asks for a second one, delayed if the first was.
    retries: bool = False
    #: Results live on the broker's server: settle.lua.
    joined: bool = True


class Mail(NamedTuple):
    """A message: where it is, and what has come of it."""

    queue: int = 1
    #: Tags in `unacked`, and in the index of what is parked.
    unacked: frozenset[Tag] = frozenset()
    parked: frozenset[Tag] = frozenset()
    #: What is in memory of workers: (tag, phase).
    hands: frozenset[tuple[Tag, str]] = frozenset()
    due: bool = True
    attempt: int = 0
    runs: int = 0
    #: Settlements that ended it.
    ended: int = 0


class Worker(NamedTuple):
    status: str = ALIVE
    lease: bool = True
    #: It stands in `holders`.
    listed: bool = True
    #: What its keeper is about to do with another holder that tick.lua has told it is dead: ("restore", whom).
    errand: tuple[str, int] | None = None
    #: The heir, by tick.lua: whose keeper may strike it off unless it renews its lease before.
    heir: int | None = None
    #: It has renewed a lease that had run out, and had an heir: it is yet to ask what that one took.
    lapsed: bool = False


class State(NamedTuple):
    workers: tuple[Worker, ...]
    mail: tuple[Mail, ...]
    #: Deaths, freezes and lost answers so far.
    faults: int = 0


#: A rule's name, the worker and message that it is about, the state after it, and what it broke.
Step: TypeAlias = tuple[str, int, int, State, str]


class Change(NamedTuple):
    """What a rule does to one message, and beside it."""

    name: str
    worker: int
    mail: Mail
    broke: str = ""
    #: The worker's lease is renewed in the same step.
    renews: bool = False
    fault: bool = False


@dataclass
class Model:
    """`faults`: how many deaths, freezes, lost answers and clean stops there may be. `bugs` are mistakes that the code
    does not make: each must be found out."""

    kinds: tuple[Kind, ...]
    workers: int = 2
    faults: int = 1
    bugs: frozenset[str] = frozenset()
    #: Changes of a message depend on little, and are asked for again and again.
    _known: dict[Any, list[Change]] = field(default_factory=dict)

    def first(self) -> State:
        return State((Worker(),) * self.workers, tuple(Mail(due=not kind.delayed) for kind in self.kinds))

    # ---------------------------------------------------------------------------------------------------- the rules

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        alive = tuple(worker.status == ALIVE for worker in state.workers)
        spare = state.faults < self.faults
        for m, mail in enumerate(state.mail):
            key = (self.kinds[m], mail, alive, spare)
            if key not in self._known:
                self._known[key] = list(self._changes(*key))
            for name, w, changed, broke, renews, fault in self._known[key]:
                after = State(
                    renew(state, w).workers if renews else state.workers,
                    (*state.mail[:m], changed, *state.mail[m + 1 :]),
                    state.faults + fault,
                )
                yield name, w, m, after, broke
        for w, worker in enumerate(state.workers):
            if worker.status == ALIVE:
                yield from self._keeper(state, w, worker)
                yield from self._lost(state, w, worker)
                yield from self._close(state, w)
            yield from self._fate(state, w, worker)

    def _changes(self, kind: Kind, mail: Mail, alive: tuple[bool, ...], spare: bool) -> Iterator[Change]:
        for w in range(len(alive)):
            if alive[w]:
                yield from self._consumer(kind, mail, w, spare)
                for tag, phase in mail.hands:
                    if tag[0] == w:
                        yield from self._delivery(kind, mail, tag, phase, spare)
        if not mail.due:
            yield Change("time", -1, mail._replace(due=True))
        yield from self._sweep(mail, alive)

    def _consumer(self, kind: Kind, mail: Mail, w: int, spare: bool) -> Iterator[Change]:
        if mail.queue:
            tag = (w, unused(w, mail))
            taken = mail._replace(queue=mail.queue - 1, unacked=mail.unacked | {tag})
            if "fetch pops before it records" in self.bugs or (
                "early messages are acknowledged when fetched" in self.bugs and not kind.late
            ):
                taken = mail._replace(queue=mail.queue - 1)
            yield Change("fetch.lua", w, hand(taken, tag, HELD), renews=True)
            if spare and self._may_fail(w):
                yield Change("fetch.lua, answer lost", w, hand(taken, tag, LOST), renews=True, fault=True)
        if mail.due and mail.parked:
            back = mail.queue + len(mail.parked & mail.unacked)
            yield Change(
                "due.lua", w, mail._replace(queue=back, unacked=mail.unacked - mail.parked, parked=frozenset())
            )

    def _delivery(self, kind: Kind, mail: Mail, tag: Tag, phase: str, spare: bool) -> Iterator[Change]:
        """What a worker does with a delivery of its own."""
        w = tag[0]
        without = mail._replace(hands=mail.hands - {(tag, phase)})
        if phase == LOST:
            if "suspects are forgotten" not in self.bugs:
                yield Change("Keeper._look_for", w, give_back(without, tag))
        elif phase == HELD and "fetch pops before it records" in self.bugs and tag not in mail.unacked:
            yield Change("(records)", w, mail._replace(unacked=mail.unacked | {tag}))
        elif phase == HELD and not mail.due:
            parked = without
            if tag in mail.unacked:
                parked = without._replace(parked=mail.parked | {tag})
                if "parking acknowledges" in self.bugs:
                    parked = parked._replace(unacked=mail.unacked - {tag})
            yield Change("defer.lua", w, parked)
        elif phase == HELD:
            yield Change("Engine._begin", w, hand(without, tag, RUNS)._replace(runs=mail.runs + 1))
        elif phase == RUNS:
            if not kind.late and tag in mail.unacked:
                yield Change("ack_commands", w, mail._replace(unacked=mail.unacked - {tag}))
            yield Change("Engine._take, finished", w, hand(without, tag, RAN))
            if kind.late and spare and self._may_fail(w):  # reject_on_worker_lost
                yield Change("Endings.lost, restore.lua", w, give_back(without, tag), fault=True)
        else:
            yield from self._settle(kind, mail, tag, phase)

    def _settle(self, kind: Kind, mail: Mail, tag: Tag, phase: str) -> Iterator[Change]:
        w = tag[0]
        without = mail._replace(hands=mail.hands - {(tag, phase)})
        dropped = without._replace(unacked=mail.unacked - {tag})
        #: Which attempt a worker has in hand is in its message; here it is the first until that has been followed up.
        again = kind.retries and mail.attempt == 0
        if phase == RAN and kind.joined:
            held = tag in mail.unacked or not kind.late
            if held or "settle is not fenced" in self.bugs:
                after = self._follow(kind, dropped) if again else dropped._replace(ended=mail.ended + 1)
                yield Change("settle.lua", w, after, "" if held else "a stale holder changed something")
            else:
                yield Change("settle.lua", w, dropped)
        elif phase == RAN:  # the store keeps the record, then what follows goes out
            told = hand(without, tag, TOLD)
            if "acknowledged before what follows is out" in self.bugs:
                yield Change("ack_commands", w, told._replace(unacked=mail.unacked - {tag}))
            else:
                yield Change("Settler.settle, publish", w, self._follow(kind, told) if again else told)
        elif "acknowledged before what follows is out" in self.bugs and again:
            yield Change("Settler.settle, publish", w, self._follow(kind, without))
        else:
            ends = (tag in mail.unacked or not kind.late) and not (kind.retries and mail.queue)
            yield Change("ack_commands", w, dropped._replace(ended=mail.ended + ends))

    def _follow(self, kind: Kind, mail: Mail) -> Mail:
        return mail._replace(queue=mail.queue + 1, attempt=1, due=not kind.delayed)

    def _keeper(self, state: State, w: int, worker: Worker) -> Iterator[Step]:
        dead = [other for other, one in enumerate(state.workers) if other != w and one.listed and not one.lease]
        after = renew(state, w)
        if worker.errand is None and dead:
            heired = after.workers[dead[0]]._replace(heir=w)
            after = worker_put(change(after, w, errand=("restore", dead[0])), dead[0], heired)
        if after != state:
            yield "tick.lua", w, -1, after, ""
        if worker.errand is None:
            return
        step, other = worker.errand
        lives = state.workers[other].lease
        renewed = lives or ("strike looks at the lease alone" not in self.bugs and state.workers[other].heir != w)
        idle = change(state, w, errand=None)
        if step == "restore" and lives and "take-over without a look at the lease" not in self.bugs:
            yield "restore.lua, it lives", w, other, idle, ""
        elif step == "restore":
            after, broke = change(state, w, errand=("strike", other)), ""
            for m, mail in enumerate(state.mail):
                for tag in mail.unacked - mail.parked:
                    if tag[0] == other:
                        after = put(after, m, give_back(after.mail[m], tag))
                        broke = "taken from the living" if lives else ""
            yield "restore.lua", w, other, after, broke
        elif renewed and "strike without a look" not in self.bugs:
            yield "strike.lua, it has lived", w, other, idle, ""
        else:
            yield "strike.lua", w, other, change(idle, other, listed=False), ""

    def _lost(self, state: State, w: int, worker: Worker) -> Iterator[Step]:
        """What was taken from it and has not begun is dropped (fence.lua); what runs goes on."""
        if not worker.lapsed:
            return
        after = change(state, w, lapsed=False)
        for m, mail in enumerate(state.mail):
            for tag, phase in mail.hands:
                gone = tag not in mail.unacked or "all is dropped after a lapse" in self.bugs
                if tag[0] == w and phase == HELD and gone:
                    after = put(after, m, after.mail[m]._replace(hands=after.mail[m].hands - {(tag, phase)}))
        yield "RedisConsumer.lost", w, -1, after, ""

    def _close(self, state: State, w: int) -> Iterator[Step]:
        """A clean stop, once nothing runs and nothing is unsettled; one worker stays."""
        others = [one.status for other, one in enumerate(state.workers) if other != w]
        if not any(status in (ALIVE, FROZEN) for status in others) or state.faults >= self.faults:
            return
        if not self._may_fail(w):
            return
        after = worker_put(state, w, Worker(GONE, lease=False, listed=False))._replace(faults=state.faults + 1)
        for m, mail in enumerate(state.mail):
            for tag, phase in mail.hands:
                if tag[0] == w and phase != HELD:
                    return
                if tag[0] == w:
                    left = after.mail[m]
                    left = left._replace(hands=left.hands - {(tag, phase)})
                    after = put(after, m, left if "close gives nothing back" in self.bugs else give_back(left, tag))
        yield "RedisConsumer.close", w, -1, after, ""

    def _may_fail(self, w: int) -> bool:
        """They are all alike: if but one fails, let it be the first."""
        return w == 0 or self.faults > 1

    def _fate(self, state: State, w: int, worker: Worker) -> Iterator[Step]:
        """What happens to a worker from outside."""
        if worker.status in (DEAD, FROZEN) and worker.lease:
            yield "lease runs out", w, -1, worker_put(state, w, worker._replace(lease=False)), ""
        if worker.status == FROZEN:
            yield "SIGCONT", w, -1, worker_put(state, w, worker._replace(status=ALIVE)), ""
        if worker.status == ALIVE and state.faults < self.faults and self._may_fail(w):
            more = state._replace(faults=state.faults + 1)
            yield "SIGSTOP", w, -1, worker_put(more, w, worker._replace(status=FROZEN)), ""
            if any(one.status in (ALIVE, FROZEN) for other, one in enumerate(state.workers) if other != w):
                dead = worker_put(more, w, worker._replace(status=DEAD, errand=None))
                mail = tuple(one._replace(hands=frozenset(h for h in one.hands if h[0][0] != w)) for one in dead.mail)
                yield "kill -9", w, -1, dead._replace(mail=mail), ""

    def _sweep(self, mail: Mail, alive: tuple[bool, ...]) -> Iterator[Change]:
        """sweep.lua, or real Celery's: what was not scored anew for the visibility timeout. A holder that lives does
        that for what it knows to hold; what is parked is swept once it is due, and by real Celery alone."""
        for tag in mail.unacked:
            known = alive[tag[0]] and any(held == tag and phase != LOST for held, phase in mail.hands)
            if tag in mail.parked:
                if mail.due:
                    yield Change("kombu's sweep", -1, give_back(mail, tag))
            elif not known:
                yield Change("sweep.lua", -1, give_back(mail, tag))
            elif "what is held is not scored anew" in self.bugs:
                yield Change("sweep.lua", -1, give_back(mail, tag), "taken from the living")


# ------------------------------------------------------------------------------------------------------ small changes


def put(state: State, m: int, mail: Mail) -> State:
    return state._replace(mail=(*state.mail[:m], mail, *state.mail[m + 1 :]))


def worker_put(state: State, w: int, worker: Worker) -> State:
    return state._replace(workers=(*state.workers[:w], worker, *state.workers[w + 1 :]))


def hand(mail: Mail, tag: Tag, phase: str) -> Mail:
    return mail._replace(hands=mail.hands | {(tag, phase)})


def give_back(mail: Mail, tag: Tag) -> Mail:
    """Back to the queue, if it is still held under this tag."""
    if tag not in mail.unacked:
        return mail
    return mail._replace(queue=mail.queue + 1, unacked=mail.unacked - {tag})


def change(state: State, w: int, **changed: Any) -> State:
    return worker_put(state, w, state.workers[w]._replace(**changed))


def renew(state: State, w: int) -> State:
    """The lease is there again; whoever wanted to inherit does no longer, if it was gone."""
    worker = state.workers[w]
    if worker.lease and worker.listed:
        return state
    lapsed = worker.lapsed or (not worker.lease and worker.heir is not None)
    return change(state, w, lease=True, listed=True, heir=worker.heir if worker.lease else None, lapsed=lapsed)


def unused(w: int, mail: Mail) -> int:
    """The first number that nothing anywhere refers to."""
    known = mail.unacked | mail.parked | {tag for tag, _ in mail.hands}
    number = 0
    while (w, number) in known:
        number += 1
    return number


# ------------------------------------------------------------------------------------------------------- what holds


def broken(model: Model, state: State) -> str:
    """What must never be; "" where all is well."""
    for kind, mail in zip(model.kinds, state.mail, strict=True):
        copies = mail.queue + len(mail.unacked)
        if not (copies or mail.ended or (not kind.late and mail.runs)):
            return "lost"
        if kind.late and kind.joined and copies + mail.ended != 1:
            return "not in exactly one place"
        attempts = 1 + mail.attempt
        if mail.runs > (attempts + state.faults if kind.joined else attempts * (1 + state.faults)):
            return "ran again without a fault"
        for w, _ in mail.unacked - mail.parked:
            if state.workers[w].status in (DEAD, GONE) and not state.workers[w].listed:
                return "held by nobody"
    return ""


def finished(state: State) -> bool:
    return all(not mail.queue and not mail.unacked and not mail.hands for mail in state.mail)


@dataclass
class Explored:
    states: int
    #: The shortest way to a state where something is broken, and what; or to one that cannot be finished.
    trace: list[str]
    broken: str


def explore(model: Model) -> Explored:
    """Walk all states, the nearest first; then see whether each can still come to its end, without waiting for the
    visibility timeout."""
    collecting = gc.isenabled()
    gc.disable()  # millions of small tuples, and not one cycle
    try:
        return _explore(model)
    finally:
        if collecting:
            gc.enable()


def _explore(model: Model) -> Explored:
    first = model.first()
    came: dict[State, tuple[State, str] | None] = {first: None}
    before: dict[State, list[State]] = {}
    todo = deque([first])
    while todo:
        state = todo.popleft()
        for name, w, m, after, broke in model.steps(state):
            step = f"{name} (worker {w}, message {m})"
            if after not in came:
                came[after] = (state, step)
                todo.append(after)
                broke = broke or broken(model, after)
            if broke:
                return Explored(len(came), [*_trace(came, state), step], broke)
            if "sweep" not in name:
                before.setdefault(after, []).append(state)
    good = {state for state in came if finished(state)}
    todo = deque(good)
    while todo:
        for state in before.get(todo.popleft(), ()):
            if state not in good:
                good.add(state)
                todo.append(state)
    stuck = next((state for state in came if state not in good), None)
    return Explored(len(came), [] if stuck is None else _trace(came, stuck), "" if stuck is None else "never ends")


def _trace(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    steps = []
    while (link := came[state]) is not None:
        state, step = link
        steps.append(step)
    return steps[::-1]
