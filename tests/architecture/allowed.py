"""What the architecture tests let pass, each with its reason. An entry that nothing needs any more fails too."""

from __future__ import annotations

#: Imports inside functions: (module, imported) → reason. "*" as module: anywhere.
LAZY_IMPORTS: dict[tuple[str, str], str] = {}

#: Imports that go up: (module, imported) → reason.
UPWARD: dict[tuple[str, str], str] = {}

#: Modules of more than 400 code lines.
LONG_MODULES: dict[str, str] = {}

#: Functions ("module:Class.name") of more than 50 code lines.
LONG_FUNCTIONS: dict[str, str] = {}

#: Functions whose blocks nest deeper than 3.
DEEP_FUNCTIONS: dict[str, str] = {}

#: Functions of more than 8 parameters.
WIDE_FUNCTIONS: dict[str, str] = {}

#: What only some rooms may import: the third-party package → the modules (prefixes) that may.
DRIVERS: dict[str, tuple[str, ...]] = {
    "redis": ("celery.drivers.redis", "celery.brokers.redis", "celery.backends.redis"),
    "hiredis": ("celery.drivers.redis",),
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
