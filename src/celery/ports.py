"""Port. What the flow asks of the world: small protocols, and the values that cross them.

Every method that blocks has a deadline. Every method takes and gives lists: one message is a list of one. Adapters
translate their driver's errors into `kombu.exceptions.OperationalError` (server away, refused, silent: try again) or
`celery.exceptions.ImproperlyConfigured` (will never work as configured), always with `raise … from`.
"""

from __future__ import annotations

import time as _time
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import CodeType

    from celery.message import Message
    from celery.outcome import Arrival, Further, Outcome, Record
    from celery.routing import QueueSpec, Route

__all__ = [
    "Accompanied", "Answering", "BackendConfig", "Barrier", "Blaming", "Broadcasting", "Broker", "BrokerConfig",
    "Burying", "Clock", "Consumer", "DeadLetter", "DeadLetterBounds", "DeadLetters", "Deferring", "Delivery",
    "Depth", "Examinable", "Exhaustible", "Fenced", "Finding", "Firing", "Full", "Gathered", "Groups",
    "Inspectable", "Inspection", "Interruptible", "Job", "Joining", "Killable", "Listener", "Notice", "Pool",
    "Publication", "QueueStats", "Report", "Resizable", "Restartable", "Resting", "ResultBackend", "Runner",
    "Seated", "Sending", "Settled", "Streaming", "SystemClock", "Tracked", "Watching", "Yielding",
]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- brokers


class DeadLetterBounds(Struct, frozen=True):
    """How many dead letters a broker keeps of each queue; the oldest go first."""

    count: int = 10_000
    #: Messages, reasons and tracebacks together.
    size: int = 100 << 20
    #: Seconds.
    age: float = 30 * 86400.0


class BrokerConfig(Struct, frozen=True):
    """Everything that a broker adapter may need to connect. Never printed whole: `url` holds the password."""

    #: One URL, or several with `;` between for adapters that know what to do with them (`[broker.2]`).
    url: str
    #: `broker_transport_options`, as kombu names them.
    options: Mapping[str, Any] = field(default_factory=dict)
    ssl: Any = False
    connect_timeout: float = 4.0
    #: Connections that publishers may hold at once; None or 0: one is opened for each publish.
    pool_limit: int | None = 10
    #: Seconds that a publisher waits for one of them; None: as long as the adapter thinks fit.
    pool_timeout: float | None = None
    #: Names this process as a holder of deliveries (leases, tags). Unique for each worker start.
    node: str = ""
    dead_letters: DeadLetterBounds = DeadLetterBounds()
    #: `broker_failover_strategy`: in which order several URLs are tried.
    failover: Any = "round-robin"
    #: The type of an exchange that a message is sent to without a word about it; "" if nobody knows.
    exchange_type_of: Callable[[str], str] = lambda _: ""


class Publication(Struct, eq=False):
    """A message and where it goes."""

    message: Message
    route: Route


class Gathered(Struct, eq=False):
    """Given as the option `producer` of a call: its message is put here instead of being sent."""

    publications: list[Publication] = field(default_factory=list)
    #: What the calls hand on has been a message before, and is sent by somebody else; False: a caller makes them, and
    #: sends them with `Producer.send_gathered`.
    relayed: bool = True
    #: Those that somebody wants to hear of once they are sent: their sketches.
    untold: list[Any] = field(default_factory=list)


class Delivery(Struct, eq=False):
    """A message handed to this worker, to be settled exactly once: acked, rejected or deferred.

    `message` is None where the bytes that came are no task message; `error` then says why, and `raw` holds them.
    What is rejected for good takes `error` and `traceback` into its dead letter: whoever rejects it writes them.
    """

    #: The broker's own handle; opaque to everybody else.
    tag: Any
    #: Name of the queue that it was taken from.
    queue: str
    message: Message | None
    raw: bytes | None = None
    error: str = ""
    traceback: str = ""
    #: True: its run killed the process, which counts as one more of its deaths when it is requeued.
    died: bool = False
    #: True: it is in others' hands; to settle it changes nothing (`Fenced`).
    lost: bool = False


class Broker(Protocol):
    """Moves messages. Thread-safe and fork-safe: any thread may publish; a forked child gets connections of its own."""

    def publish(self, publications: Sequence[Publication]) -> None:
        """Put all on their queues, in order; returns once the broker has accepted them.

        `route.queue`, if given, is declared first (once for each queue and connection). Raises `OperationalError`;
        then any prefix may have been accepted, and publishing again keeps the ids.
        """

    def consume(self, queues: Sequence[QueueSpec]) -> Consumer:
        """Declare the queues and start taking from them. The consumer belongs to the calling thread."""

    def declare(self, queues: Sequence[QueueSpec]) -> None: ...

    def purge(self, queue: str) -> int:
        """Drop all waiting messages; returns how many there were."""

    def close(self) -> None:
        """Release every connection. Idempotent; the broker may be used again and then connects anew."""


class Consumer(Protocol):
    """Takes messages from a set of queues. Owned by one thread; nothing here is thread-safe."""

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """Take up to `limit` messages, equally from each queue (`limit` 0: none, only wait).

        Waits up to `timeout` seconds for the first one; returns early, possibly with nothing, as soon as one of the
        descriptors in `until_readable` is readable (the pool, or a wake-up from another thread). Between the broker
        handing out a message and its settlement it is in this worker's durable custody: after `kill -9` it comes back.
        """

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these; a tag that this worker lost meanwhile is passed over. May be sent with the next `fetch`,
        but within 50 ms; `flush` sends at once."""

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """`requeue`: give back, to be taken next, marked redelivered. Otherwise keep as a dead letter where the
        broker has a place for it (`Burying`), else drop."""

    def flush(self) -> None:
        """Send what `ack` and `reject` have gathered; on return the broker has it."""

    def add_queue(self, queue: QueueSpec) -> None: ...

    def cancel_queue(self, name: str) -> None: ...

    def close(self) -> None:
        """Flush, give back everything still held, release the connection. Idempotent."""


@runtime_checkable
class Deferring(Protocol):
    """A consumer that can park a delivery in the broker until it is due."""

    def defer(self, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """Park each until its wall-clock time (seconds since the epoch). It is then fetched again like any other.

        With a time of 0 it takes its old place on its queue at once, and is not marked as redelivered."""


class Settled(Struct, eq=False):
    """A delivery, and everything that its outcome leaves behind."""

    delivery: Delivery
    #: "ack" | "reject" | "requeue" | "done" (was acknowledged before, when the run began)
    disposition: str
    record: Record | None = None
    publications: Sequence[Publication] = ()
    #: What it means for other tasks of its flow.
    further: Further | None = None


class Full(Struct, eq=False):
    """A chord's barrier at which all members have arrived, and the chord's body, which is to be sent (`Arrival.body`).
    It is kept as full until `fire` or `fired`, so that a death in between loses nothing."""

    barrier: str
    body: bytes


class Firing(Struct, eq=False):
    """What becomes of a full barrier: the body's messages, or what its failure leaves behind."""

    barrier: str
    publications: Sequence[Publication] = ()
    records: Sequence[Record] = ()
    arrivals: Sequence[Arrival] = ()
    #: A member has failed: what the members came to is kept until it expires (`[rkeys.9]`).
    failed: bool = False
    #: Name of the group's document that holds the body, to be deleted once it is fired; "" if there is none.
    kept: str = ""


@runtime_checkable
class Joining(Protocol):
    """A consumer that can store results in the same step in which it settles, where both live on one server."""

    def join(self, backend: ResultBackend) -> bool:
        """Asked once, after `consume`. True: `settle` stores records too, all of a batch in one transaction."""

    def settle(self, settled: Sequence[Settled]) -> Sequence[Full]:
        """Records, publications, arrivals and settlement of a batch, in one step; returns barriers that are full now.
        A record whose delivery this worker lost meanwhile changes nothing."""

    def fire(self, firings: Sequence[Firing]) -> Sequence[Full]:
        """Send the bodies of full barriers and take the barriers away, in one step. One that somebody else has fired
        meanwhile is passed over. Returns those that have become full by this."""


@runtime_checkable
class Blaming(Protocol):
    """A consumer that counts, durably, how often the process died that had a message: `Message.deaths`.

    Where a process that held messages is gone, each of these that came for the first time is suspected: one death. Of
    those that were redelivered only the ones that had `begun` count one more. What is given back in good order counts
    none, unless the delivery says that it `died`.
    """

    def begun(self, deliveries: Sequence[Delivery]) -> None:
        """These, all of them redelivered, are about to run. On return the broker has it."""


@runtime_checkable
class Fenced(Protocol):
    """A consumer that can lose what it holds while it lives: it was frozen or cut off for longer than its lease, and
    others have taken over. Where custody ends with the process alone (a lock of the kernel's on SQLite, in memory the
    process itself) nobody does, however long it is frozen, and there is nothing to ask."""

    def lost(self) -> Sequence[Delivery]:
        """What was taken from us since this was last asked, each marked as `lost`. Costs nothing unless a lease may
        have run out. Raises `OperationalError`; the next call asks again."""


@runtime_checkable
class Yielding(Protocol):
    """A consumer that may find, when it acknowledges, that a delivery is not its own any more (`Fenced`)."""

    def give_up(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these at once; those that others have are marked as `lost`. Raises `OperationalError`; then it
        is not known whether they are acknowledged, and if they were, the next call marks them as lost."""


@runtime_checkable
class Accompanied(Protocol):
    """A consumer that can tell whether it is alone."""

    def others(self, *, ask: bool = False) -> int:
        """Other live consumers of this broker, as far as it is known: a count some seconds old, or if we `ask`, as the
        broker says now (then it raises `OperationalError` if it does not)."""


@runtime_checkable
class Depth(Protocol):
    """A broker that can count."""

    def depth(self, queue: str) -> int:
        """Messages waiting in the queue, not those held by workers."""


class DeadLetter(Struct, frozen=True):
    """A message that cannot be run, kept."""

    #: The broker's own name of it, not used for another.
    id: str
    #: Name of the queue that it was taken from, and goes back to.
    queue: str
    #: The bytes that came, whatever they are.
    envelope: bytes
    #: Why it was refused.
    reason: str
    #: Of the exception, where there was one; else "".
    traceback: str
    #: Wall-clock seconds since the epoch.
    died_at: float
    #: See `Blaming`.
    deaths: int = 0


class DeadLetters(Protocol):
    """The dead letters of a broker. Thread-safe. All raise `OperationalError`."""

    def queues(self) -> list[str]:
        """Names of the queues that have any, sorted."""

    def counts(self) -> dict[str, int]:
        """How many letters each queue has that has any."""

    def newest(self, queue: str, limit: int, before: str = "") -> list[DeadLetter]:
        """Up to `limit` letters of a queue, the newest first; of those older than the one with the id `before`."""

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        """Those of these ids that are there."""

    def requeue(self, ids: Sequence[str]) -> int:
        """Put each on its queue again as it came, its deaths forgotten; in the same step it is a letter no more.

        Returns how many there were."""

    def discard(self, ids: Sequence[str]) -> int:
        """Drop them for good; returns how many there were."""


@runtime_checkable
class Burying(Protocol):
    """A broker that keeps what its consumers reject."""

    @property
    def dead_letters(self) -> DeadLetters: ...


class QueueStats(Struct, frozen=True):
    """What a broker knows of a queue now. Messages are counted, dead letters are not among them (`DeadLetters`)."""

    name: str
    #: Messages that wait to be taken.
    waiting: int = 0
    #: Messages in the custody of workers.
    held: int = 0
    #: Messages that wait in the broker until they are due.
    parked: int = 0
    #: When the oldest of those waiting was sent, wall-clock seconds since the epoch; None: none waits, or nobody knows.
    oldest: float | None = None


class Resting(Struct, frozen=True):
    """A message that lies in the broker, in nobody's custody: looked at, not taken."""

    #: The broker's own name of it.
    id: str
    queue: str
    #: The bytes that came, whatever they are.
    envelope: bytes
    #: Wall-clock seconds since the epoch until which it is parked; None: it waits to be taken.
    due: float | None = None


class Inspection(Protocol):
    """Looks at queues and takes nothing. Thread-safe. All raise `OperationalError`."""

    def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """Of these queues, in this order; then of others that the broker knows to have any message, by name."""

    def peek(self, queue: str, limit: int) -> list[Resting]:
        """Up to `limit` of those that wait, the next to be taken first."""

    def parked(self, queues: Sequence[str], limit: int, after: Resting | None = None) -> list[Resting]:
        """Up to `limit` parked messages of these queues (none: of all), the first to be due first; of those that
        come after the one given."""

    def cancel(self, ids: Sequence[str]) -> list[str]:
        """Drop parked messages for good. Returns the ids of those that it dropped: the others are not parked any
        more."""


@runtime_checkable
class Inspectable(Protocol):
    """A broker that lets its queues be looked at."""

    @property
    def inspection(self) -> Inspection: ...


class Finding(Struct, frozen=True):
    """Something that was looked at, and how well it is."""

    #: "good"; "doubtful": it may lose or repeat work; "bad": it will not work.
    grade: str
    #: What is the case and, unless it is good, what comes of it and what to do.
    text: str


@runtime_checkable
class Examinable(Protocol):
    """A broker or a result backend that can say how well its server is set up."""

    def examine(self) -> Sequence[Finding]:
        """Ask the server. Raises `OperationalError` if it does not answer, `ImproperlyConfigured` if it never will."""

    def server_time(self) -> float | None:
        """What the server takes the time to be, wall-clock seconds since the epoch; None: it has no clock of its
        own."""


class Notice(Struct, eq=False):
    """Something told to whoever listens now: a control command, a reply, events. In nobody's custody: who does not
    listen, or dies, has missed it."""

    exchange: str
    #: "fanout", "topic" or "direct". Where exchanges are declared, this one is declared so.
    exchange_type: str
    routing_key: str
    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    #: Of the exchange.
    durable: bool = False


class Listener(Protocol):
    """Hears the notices that reach its mailboxes. Owned by one thread."""

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        """What has come, each once, in the order in which each teller told it.

        Waits up to `timeout` seconds for the first; returns early, possibly with nothing, as soon as one of the
        descriptors is readable. Raises `OperationalError`; the next call listens anew, and what was told meanwhile is
        missed.
        """

    def close(self) -> None:
        """Take the mailboxes away, where nobody else uses them, and release the connection. Idempotent."""


@runtime_checkable
class Broadcasting(Protocol):
    """A broker that carries notices (`[control.39]`). Thread-safe, like the broker."""

    def tell(self, notices: Sequence[Notice]) -> int | None:
        """To every mailbox that is bound to their exchanges and routing keys now. Raises `OperationalError`.

        How many listeners have been told, summed over the notices: never too few, but one that has just died may be
        among them. None: the broker does not say.
        """

    def listen(self, mailboxes: Sequence[QueueSpec]) -> Listener:
        """Hear what is told from now on: on return each mailbox is bound as it says. Belongs to the calling thread.

        Of mailboxes with one name on a direct exchange (a queue of replies) several may listen: each notice reaches one
        of them. On other exchanges each listener hears everything. Raises `OperationalError`.
        """


# --------------------------------------------------------------------------------------------------------- backends


class BackendConfig(Struct, frozen=True):
    """Everything that a backend adapter may need. Never printed whole: `url` holds the password."""

    url: str
    #: `result_backend_transport_options`.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds that a record is kept; None: for ever (`[state.13]`).
    expires: float | None = 86400.0
    #: Prepended to every key (`[rkeys.11]`).
    key_prefix: str = ""
    ssl: Any = False
    connect_timeout: float = 4.0
    #: Seconds that the record of a failure is kept, where the adapter can tell (`[new57.4]`); None: as any other.
    failure_expires: float | None = None
    #: Seconds that what is known of a chord or a group is kept; None: for ever (`[state.13]`).
    chord_expires: float | None = 86400.0
    #: Connections open at once; more threads wait for one.
    pool_limit: int | None = 10
    #: The state that an encoded document says, for a serializer of the user's own. None: it is one of kombu's four,
    #: whose documents adapters know.
    state_of: Callable[[bytes], str] | None = None
    #: Content type and encoding of documents, where they travel as messages (`[wire.23]`).
    content: tuple[str, str] = ("application/json", "utf-8")
    #: Such messages survive a restart of the broker (`result_persistent`).
    persistent: bool = False


class ResultBackend(Protocol):
    """Keeps records. Thread-safe and fork-safe, like `Broker`.

    A record of a task that is already SUCCESS is never overwritten (`[state.10]`).
    """

    def save(self, records: Sequence[Record]) -> None:
        """Store all; waiters wake. Raises `OperationalError`; saving again is harmless."""

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        """The encoded state document of each id, in order; None where nothing is known."""

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """Wait until at least one of the ids has a record in a ready state; returns all that have, as id → document.

        No polling of the server. An empty dict means that `timeout` seconds passed. `timeout` None waits for ever,
        but notices a lost connection. Any number of threads may wait at once.
        """

    def forget(self, ids: Sequence[str]) -> None: ...

    def close(self) -> None:
        """Release every connection. Idempotent; the backend may be used again and then connects anew."""


@runtime_checkable
class Watching(Protocol):
    """A backend that tells of states on the way too."""

    def watch(self, id: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """As `wait` for one id, calling `heard` in this thread with each document that is stored meanwhile, the final
        one included; or with the one that is there, if that is final already. None: `timeout` seconds passed."""


@runtime_checkable
class Streaming(Protocol):
    """A backend at which one can wait for many records without asking for each anew."""

    def each(self, ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, bytes]]:
        """Documents of those that are in a ready state, as they come to it, each once; ends with the last. Whenever
        nothing came for `patience()` seconds (None: for ever), an empty dict."""


@runtime_checkable
class Barrier(Protocol):
    """Counts the members of chords; the `barriers` of a backend that can do so by itself."""

    def open(self, id: str, size: int) -> None:
        """So many members are awaited. To be told before the last one can arrive; opening again begins anew, but for
        those who have arrived."""

    def grow(self, id: str, more: int) -> None:
        """So many members more."""

    def arrive(self, arrivals: Sequence[Arrival]) -> list[Full]:
        """Members have come to their ends, once each however often it is said. Returns barriers that are full now."""

    def parts(self, id: str) -> Iterator[list[bytes]]:
        """What the members came to, in the order of their places; in batches, so that no reply is too long."""

    def full(self) -> list[Full]:
        """Barriers that are full and that nobody seems to be about to fire: whoever was may have died."""

    def fired(self, id: str, *, failed: bool = False) -> None:
        """The body is on its way, or has failed: forget the barrier."""

    def standing(self, id: str) -> tuple[int | None, int]:
        """(members awaited, members arrived); (None, …) if nobody knows the barrier, or not any more."""


@runtime_checkable
class Sending(Protocol):
    """A barrier that sends bodies itself, since it can tell whether all of it is still in this worker's hands."""

    def fire(self, firings: Sequence[Firing]) -> Sequence[Full]:
        """See `Joining.fire`; in several steps, of which the last takes the barrier away."""


@runtime_checkable
class Groups(Protocol):
    """Keeps which results belong to a group; the `groups` of a backend that can."""

    def save_group(self, id: str, document: bytes) -> None:
        """Keep what is known of a group (`[state.12]`)."""

    def load_group(self, id: str) -> bytes | None: ...

    def delete_group(self, id: str) -> None: ...


# ------------------------------------------------------------------------------------------------------------ pools


class _Limited(Struct, eq=False, kw_only=True):
    """How long a run may last: seconds from its beginning, or None."""

    #: When `SoftTimeLimitExceeded` is raised inside the task (`[limit.2]`).
    soft_limit: float | None = None
    #: When the run is ended from outside (`[limit.1]`).
    hard_limit: float | None = None


class Job(_Limited, eq=False):
    """One run to be done by a pool."""

    #: Chosen by the caller, unique among the jobs that the pool holds.
    key: int
    message: Message


class Report(Struct):
    """What happened in a pool since it was last asked."""

    #: Keys of jobs that have begun, told at the latest together with their end, and within 20 ms otherwise.
    begun: Sequence[int] = ()
    finished: Sequence[tuple[int, Outcome]] = ()
    #: Jobs that the pool gives back: never begun (`take_back`, or a child died with them in its window).
    returned: Sequence[int] = ()
    #: Jobs whose process died while they ran: key and what was seen of the death ("signal 9 (SIGKILL)").
    lost: Sequence[tuple[int, str]] = ()
    #: Jobs that were ended because they ran past their hard limit: key and that limit (seconds). Not `lost` as well.
    timed_out: Sequence[tuple[int, float]] = ()
    #: Jobs that were told of their soft limit and still run: key and that limit (seconds).
    warned: Sequence[tuple[int, float]] = ()


class Runner(Protocol):
    """What a pool runs messages with: the tracer and its surroundings. Called in the pool's processes only."""

    def start(self, index: int) -> None:
        """Once in each child (from 0; kept across replacements), before its first run."""

    def run(self, message: Message) -> Outcome:
        """Run the task to its outcome. Raises nothing but `SystemExit` and `KeyboardInterrupt`."""

    def flush(self) -> object:
        """Write what is buffered (log lines). Called whenever outcomes are sent and before waiting for work."""

    def stop(self) -> None:
        """Once before a child ends in good order."""


@runtime_checkable
class Interruptible(Protocol):
    """A runner whose runs may be interrupted in certain functions. Without it there are no soft limits."""

    @property
    def interruptible(self) -> Mapping[CodeType, bool]:
        """True: the functions below which `SoftTimeLimitExceeded` may be raised at any instruction, since user code is
        called there, and whatever it raises becomes the run's outcome. False: those below which it may not, unless one
        of the others lies in between."""


class Pool(Protocol):
    """Runs messages. Made with a `Runner` and a concurrency; owned by one thread, which calls everything here."""

    def start(self) -> None: ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs; what no runner is free for waits inside. Callers keep to `free`."""

    def report(self) -> Report:
        """What happened since the last call; never blocks (a solo pool runs one waiting job here)."""

    def descriptors(self) -> Sequence[int]:
        """File descriptors that become readable when `report` has something to tell."""

    @property
    def free(self) -> int:
        """How many more jobs are worth handing over now: 1 a runner while tasks are long or unknown, many while they
        are short. 0 or less: none."""

    def take_back(self) -> None:
        """Ask for all jobs that have not begun; they come back as `returned`."""

    def stop(self, deadline: float) -> None:
        """Finish what runs (what never began is returned by a last `report`), kill what is left when `deadline`
        (monotonic seconds) has passed. Idempotent."""


@runtime_checkable
class Resizable(Protocol):
    """A pool that can have more or fewer runners while it works (`[pool.13]`)."""

    @property
    def size(self) -> int:
        """How many there are to be; any thread may ask."""

    def grow(self, n: int) -> None:
        """Raises `ValueError` beyond what the pool can have."""

    def shrink(self, n: int) -> None:
        """Each goes when it has finished what it runs. Raises `ValueError` if none would be left."""


@runtime_checkable
class Restartable(Protocol):
    """A pool whose processes can be made anew."""

    def restart(self) -> None:
        """Replace each when it has finished what it runs; the new ones know what this process has loaded by now."""


@runtime_checkable
class Answering(Protocol):
    """A pool whose processes can be asked whether they still answer. A busy one does, a frozen one does not."""

    def ask_after(self) -> None:
        """Called several times a second by the owner: asks each now and then."""

    def silent(self) -> Sequence[tuple[int, float]]:
        """Process id of each that owes an answer, and for how many seconds. Any thread may ask."""

    @property
    def pids(self) -> Sequence[int]:
        """Process ids of all. Any thread may ask."""


@runtime_checkable
class Exhaustible(Protocol):
    """A pool that cannot end every run, and so may be left with threads that it has given up."""

    @property
    def exhausted(self) -> bool:
        """So many that the process should be started anew, once what still runs in good order has ended."""


@runtime_checkable
class Killable(Protocol):
    def terminate(self, key: int, signal: int) -> None:
        """Stop the run of this job and no other; it is then reported as lost."""


@runtime_checkable
class Tracked(Protocol):
    """A pool of processes that can tell which one has a job."""

    def pid_of(self, key: int) -> int | None:
        """May be asked from any thread; None: no process has it."""


@runtime_checkable
class Seated(Protocol):
    """A pool that can tell how many jobs would begin at once."""

    @property
    def idle(self) -> int:
        """Runners that have nothing to do, and that nothing waits for."""


# ----------------------------------------------------------------------------------------------------------- clocks


class Clock(Protocol):
    def time(self) -> float:
        """Wall clock, seconds since the epoch: only ETA, expiry and dates."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point: every deadline."""


class SystemClock:
    """The machine's own clocks: the functions themselves, since they are asked several times for each message."""

    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)
