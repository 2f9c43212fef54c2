"""What the architecture tests let pass, each with its reason. An entry that nothing needs any more fails too."""

from __future__ import annotations

PUBLIC = "a public signature of Celery's"
SENDING = "sending needs none of it"

#: Packages that are imported where they are first needed: package → reason.
LATE_PACKAGES: dict[str, str] = {
    "concurrent": "threads: only for those who await results",
    "kombu": "0.1 s to import; a program that only sends and waits needs none of it",
    "billiard": "its exceptions are made when one is raised or asked for",
    "click": "its exceptions are made when one is asked for",
    "eventlet": "optional driver",
    "gevent": "optional driver",
    "objgraph": "optional; only who draws objects needs it",
    "pydantic": "optional; only tasks that ask for its models need it",
    "setproctitle": "optional driver",
    "redis": "the client is for those who ask for it; results need none",
    "tblib": "optional driver",
    "vine": "promises are made for those who ask for one",
}

#: Other imports inside functions: (module, imported) → reason.
LATE_IMPORTS: dict[tuple[str, str], str] = {
    ("celery.result", "celery.awaiting"): "asyncio: only for those who await",
    ("celery.result", "celery.standing"): "stands on this module",
    ("celery.__main__", "celery.bin.celery"): "green pools are patched for before anything else is imported",
    ("celery.platforms", "multiprocessing"): "slow to import, and only processes that show a title ask for its name",
    (
        "celery.app.trace",
        "celery.app.bridge",
    ): "it stands on this module; only those who replace its names ask for them",
    ("celery.app.search", "celery.app.base"): "most apps are called `app`, and found without it",
    ("celery.utils.imports", "importlib.metadata"): "20 ms to import, and no program that only sends needs it",
    ("celery.patching", "eventlet"): "optional driver",
    ("celery.patching", "eventlet.debug"): "optional driver",
    ("celery.patching", "gevent"): "optional driver",
    ("celery._state", "celery.app.base"): "the default app is made only where nobody has made one",
    ("celery.app.retrying", "inspect"): "slow to import, and a retry with the same arguments needs none of it",
    ("celery.app.declaring", "celery.app.validating"): "only pydantic tasks need it",
    ("celery.app.task", "celery.app.typed"): "only typed tasks need it",
    ("celery.utils.functional", "inspect"): "slow to import, and few ask what a function takes",
    ("celery.utils.heads", "inspect"): "slow to import, and counting the arguments mostly suffices",
    ("celery.utils.dispatch.signal", "inspect"): "slow to import, and a plain function's code says what it takes",
    ("celery.utils.text", "pprint"): "it loads dataclasses and inspect, and only reports are pretty",
    ("celery.app.utils", "platform"): "only bug reports ask for it",
    ("celery.app.assembly", "celery.app.kombu_transport"): "kombu: 0.1 s, and our own sending needs none of it",
    ("celery.app.assembly", "celery.app.eager"): SENDING,
    ("celery.app.assembly", "celery.app.runner"): SENDING,
    ("celery.app.assembly", "celery.app.chords"): SENDING,
    ("celery.app.builtins", "celery.app.unlocking"): SENDING,
    ("celery.app.unlocking", "celery.worker.consumer.firings"): "of a worker, that clients of a backend need not load",
    ("celery.app.assembly", "celery.app.following"): SENDING,
    ("celery.app.assembly", "celery.backends.base"): SENDING,
    ("celery.app.assembly", "celery.app.trace"): SENDING,
    ("celery.app.assembly", "celery.pending"): SENDING,
    ("celery.app.assembly", "celery.documents"): SENDING,
    ("celery.app.storing", "celery.documents"): SENDING,
    ("celery.app.assembly", "celery.backends.bridge"): SENDING,
    ("celery.result", "celery.utils.graph"): "few results are drawn as graphs",
    ("celery.app.assembly", "celery.tracer"): SENDING,
    ("celery.app.assembly", "celery.tracer_parts"): SENDING,
    ("celery.brokers.redis", "celery.brokers.redis_consumer"): SENDING,
    ("celery.brokers.amqp", "celery.brokers.amqp_advice"): SENDING,
    ("celery.brokers.redis", "celery.brokers.redis_advice"): SENDING,
    ("celery.brokers.redis", "celery.brokers.redis_dead"): SENDING,
    ("celery.brokers.redis", "celery.brokers.redis_listening"): SENDING,
    ("celery.brokers.redis", "celery.brokers.redis_inspecting"): SENDING,
    ("celery.brokers.redis", "celery.drivers.redis_checks"): SENDING,
    ("celery.backends.redis_store", "celery.drivers.redis_checks"): SENDING,
    ("celery.concurrency.prefork", "celery.concurrency.spawned"): "multiprocessing is slow to import; forks need none",
    ("celery.drivers.redis", "celery.drivers.redis_errors"): "its base is kombu's, and few servers refuse anything",
    ("celery.drivers.redis", "celery.drivers.redis_tls"): "ssl: 5 ms to import, and only TLS needs it",
    ("celery.app.adapters", "celery.drivers.kombu"): "it stands on kombu, which no broker of ours needs",
    ("celery.app.connecting", "celery.drivers.kombu"): "it stands on kombu, which only those need who ask for it",
    ("celery.drivers.kombu", "celery.drivers.kombu_files"): "it stands on a transport, which only its URL asks for",
    ("celery.drivers.redis", "celery.drivers.redis_failover"): "for lists of servers, and it stands on this module",
}

#: Imports that go up: (module, imported) → reason.
UPWARD: dict[tuple[str, str], str] = {
    (f"celery.concurrency.{name}", "celery.concurrency.classic"): "`TaskPool`, Celery's own name there, asked for late"
    for name in ("eventlet", "gevent", "solo", "thread")
} | {("celery.concurrency.prefork", "celery.app.runner"): "names of Celery's own that packages wrap, asked for late"}

#: Modules of more than 400 code lines.
LONG_MODULES: dict[str, str] = {"src/celery/settings.py": "one table: a row a setting"}

#: Functions ("module:Class.name") of more than 50 code lines.
LONG_FUNCTIONS: dict[str, str] = {}

#: Functions whose blocks nest deeper than 3.
DEEP_FUNCTIONS: dict[str, str] = {}

#: Functions of more than 8 parameters.
WIDE_FUNCTIONS: dict[str, str] = {
    "celery.app.control:Control.broadcast": PUBLIC,
    "celery.app.base:Celery.__init__": PUBLIC,
    "celery.concurrency.base:apply_target": PUBLIC,
    "celery.app.base:Celery.connection": PUBLIC,
    "celery.app.base:Celery.send_task": PUBLIC,
    "celery.bin.celery:celery": "click hands each option over by its name",
    "celery.bin.queues:parked_messages": "click hands each option over by its name",
    "celery.bin.worker:detach": PUBLIC,
    "celery.bin.worker:worker": "click hands each option over by its name",
    "celery.app.task:Task.apply": PUBLIC,
    "celery.canvas.chains:_chain.prepare_steps": PUBLIC,
    "celery.canvas.chords:_chord.run": PUBLIC,
    "celery.events.records:Worker.__init__": PUBLIC,
    "celery.events.state:State.__init__": PUBLIC,
    "celery.app.bridge:build_tracer": PUBLIC,
    "celery.app.bridge:fast_trace_task": PUBLIC,
    "celery.app.pickling:AppPickler.build_standard_kwargs": PUBLIC,
    "celery.worker.consumer.deliveries:Receiver.__init__": "keyword-only: what the engine hands over, once",
    "celery.events.dispatcher:EventDispatcher.__init__": PUBLIC,
    "celery.events.receiver:EventReceiver.__init__": PUBLIC,
    "celery.worker.control:Panel._register": PUBLIC,
    "celery.worker.request:Request.__init__": PUBLIC,
    "celery.worker.request:create_request_cls": PUBLIC,
    "celery.contrib.migrate:move": PUBLIC,
    "celery.contrib.migrate:start_filter": PUBLIC,
    "celery.contrib.testing.manager:ManagerMixin.wait_for": PUBLIC,
    "celery.contrib.testing.mocks:TaskMessage": PUBLIC,
    "celery.message:Message.__init__": "keyword-only: the fields of a message",
    "celery.producer:Producer.__init__": "keyword-only: what the assembly hands over, once",
    "celery.result:AsyncResult.get": PUBLIC,
    "celery.utils.time:ffwd.__init__": PUBLIC,
    "celery.message:headers_v2": "keyword-only: the headers of protocol 2",
}

#: What only some rooms may import: the third-party package → the modules (prefixes) that may.
DRIVERS: dict[str, tuple[str, ...]] = {
    "redis": ("celery.drivers.redis", "celery.brokers.redis", "celery.backends.redis"),
    "hiredis": ("celery.drivers.redis", "celery.brokers.redis", "celery.backends.redis"),
    "sqlite3": ("celery.drivers.sqlite", "celery.brokers.sqlite", "celery.backends.sqlite"),
    "amqp": ("celery.drivers.amqp", "celery.brokers.amqp", "celery.backends.rpc"),
}

#: What the pure floor must not touch: no I/O, threads, clock, environment or logging.
IMPURE = frozenset(
    {"asyncio", "billiard", "kombu", "logging", "multiprocessing", "os", "pathlib", "select", "selectors",
     "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time"}
)  # fmt: skip

#: (pure module, impure import) → reason.
IMPURE_ALLOWED: dict[tuple[str, str], str] = {
    ("celery.utils.collections", "time"): "a set that forgets by the clock, where it is not told the time",
}
