"""What the architecture tests let pass, each with its reason. An entry that nothing needs any more fails too."""

from __future__ import annotations

PUBLIC = "a public signature of Celery's"
SENDING = "sending needs none of it"

#: Packages that are imported where they are first needed: package → reason.
LATE_PACKAGES: dict[str, str] = {
    "kombu": "0.1 s to import; a program that only sends and waits needs none of it",
    "billiard": "its exceptions are made when one is raised or asked for",
    "click": "its exceptions are made when one is asked for",
    "eventlet": "optional driver",
    "gevent": "optional driver",
    "pydantic": "optional; only tasks that ask for its models need it",
    "setproctitle": "optional driver",
    "tblib": "optional driver",
}

#: Other imports inside functions: (module, imported) → reason.
LATE_IMPORTS: dict[tuple[str, str], str] = {
    ("celery.platforms", "multiprocessing"): "slow to import, and only processes that show a title ask for its name",
    ("celery.app.search", "celery.app.base"): "most apps are called `app`, and found without it",
    ("celery.utils.imports", "importlib.metadata"): "20 ms to import, and no program that only sends needs it",
    ("celery.patching", "eventlet"): "optional driver",
    ("celery.patching", "eventlet.debug"): "optional driver",
    ("celery.patching", "gevent"): "optional driver",
    ("celery._state", "celery.app.base"): "the default app is made only where nobody has made one",
    ("celery.app.declaring", "celery.app.validating"): "only pydantic tasks need it",
    ("celery.app.task", "celery.app.typed"): "only typed tasks need it",
    ("celery.app.checking", "inspect"): "slow to import, and counting the arguments mostly suffices",
    ("celery.utils.dispatch.signal", "inspect"): "slow to import, and a plain function's code says what it takes",
    ("celery.utils.text", "pprint"): "it loads dataclasses and inspect, and only reports are pretty",
    ("celery.app.utils", "platform"): "only bug reports ask for it",
    ("celery.app.assembly", "celery.app.runner"): SENDING,
    ("celery.app.assembly", "celery.app.trace"): SENDING,
    ("celery.app.assembly", "celery.documents"): SENDING,
    ("celery.app.assembly", "celery.tracer"): SENDING,
    ("celery.brokers.redis", "celery.brokers.redis_consumer"): SENDING,
    ("celery.drivers.redis", "celery.drivers.redis_errors"): "its base is kombu's, and few servers refuse anything",
    ("celery.drivers.redis", "ssl"): "5 ms to import, and only rediss:// needs it",
}

#: Imports that go up: (module, imported) → reason.
UPWARD: dict[tuple[str, str], str] = {}

#: Modules of more than 400 code lines.
LONG_MODULES: dict[str, str] = {"src/celery/settings.py": "one table: a row a setting"}

#: Functions ("module:Class.name") of more than 50 code lines.
LONG_FUNCTIONS: dict[str, str] = {}

#: Functions whose blocks nest deeper than 3.
DEEP_FUNCTIONS: dict[str, str] = {}

#: Functions of more than 8 parameters.
WIDE_FUNCTIONS: dict[str, str] = {
    "celery.app.base:Celery.__init__": PUBLIC,
    "celery.app.base:Celery.connection": PUBLIC,
    "celery.app.base:Celery.send_task": PUBLIC,
    "celery.bin.celery:celery": "click hands each option over by its name",
    "celery.bin.worker:detach": PUBLIC,
    "celery.bin.worker:worker": "click hands each option over by its name",
    "celery.app.pickling:AppPickler.build_standard_kwargs": PUBLIC,
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
IMPURE_ALLOWED: dict[tuple[str, str], str] = {}
