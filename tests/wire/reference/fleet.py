"""The project of a mixed fleet: one file, run by this project and by the real Celery, as worker and as client."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import patience  # noqa: F401
from kombu.serialization import register

from celery import Celery, chain, chord, group
from celery.exceptions import Ignore, Reject


def _reversed(value: Any) -> bytes:
    return b"\xff" + json.dumps(value).encode("utf-16")[::-1]


# A text and a binary one of the user's own; no JSON, and the bytes are no UTF-8.
register("own-text", lambda v: json.dumps(v)[::-1], lambda t: json.loads(t[::-1]), "application/x-own-text", "utf-8")
register("own-bytes", _reversed, lambda b: json.loads(bytes(b)[:0:-1].decode("utf-16")), "application/x-own", "binary")

FOLDER = Path(os.environ["FLEET_FOLDER"])

app = Celery("fleet", broker=os.environ["FLEET_URL"], backend=os.environ["FLEET_RESULTS"])
app.conf.update(
    accept_content=["json", "pickle", "yaml", "msgpack", "own-text", "own-bytes"],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_routes={
        "fleet.routed": {"queue": os.environ.get("FLEET_ROUTED", "routed")},
        "celery.accumulate": {"queue": "theirs"},
    },
    **json.loads(os.environ.get("FLEET_CONF", "{}")),
)

#: Attributes of the request that both must read alike.
READ = """
    id task root_id parent_id group group_index retries timelimit eta expires shadow argsrepr kwargsrepr lang origin
    ignore_result stamped_headers stamps callbacks errbacks chain chord args kwargs correlation_id is_eager
    called_directly headers colour
""".split()


class OwnError(Exception):
    """One that every process of the fleet knows."""


class Awkward(Exception):
    """Its constructor does not take what it keeps as arguments."""

    def __init__(self, a: Any, b: Any) -> None:
        super().__init__(f"{a} and {b}")


class Unknown(Exception):
    __module__ = "nowhere.to.be.found"


ERRORS: dict[str, Any] = {
    "builtin": lambda: KeyError("a", 1),
    "own": lambda: OwnError("why", {"n": [1, None]}),
    "awkward": lambda: Awkward(1, 2),
    "unknown": lambda: Unknown("who", 5),
    "opaque": lambda: ValueError(object, {1, 2}),
    "unicode": lambda: RuntimeError("Ærø 東京 \ud800"),
    "nested": lambda: ExceptionGroupLike("many", [ValueError(1)]),
    "reject": lambda: Reject("no", requeue=False),
}


class ExceptionGroupLike(Exception):
    pass


def wait_for(name: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not (FOLDER / name).exists():
        if time.monotonic() > end:
            raise TimeoutError(name)
        time.sleep(0.01)


@app.task
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task
def total(*numbers: Any) -> Any:
    """The sum of all numbers in lists of lists."""
    return sum(total(*n) if isinstance(n, list) else n for n in numbers)


@app.task
def numbers(*values: Any) -> list[Any]:
    return list(values)


@app.task(bind=True)
def replaced(self: Any, x: Any) -> None:
    raise self.replace(add.s(x, 100).set(queue=self.request.delivery_info["routing_key"]))


@app.task(bind=True)
def spread(self: Any, x: Any) -> None:
    queue = self.request.delivery_info["routing_key"]
    raise self.replace(group(add.s(x, n).set(queue=queue) for n in range(3)))


@app.task(bind=True)
def joined(self: Any, x: Any) -> Any:
    self.add_to_chord(add.s(x, 1000).set(queue=self.request.delivery_info["routing_key"]))
    return x


@app.task
def errback(request: Any, exc: Any, traceback: Any) -> None:
    (FOLDER / f"errback-{request.id}").write_text(f"{type(exc).__name__}: {exc}")


@app.task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@app.task
def types(*args: Any) -> list[str]:
    return [f"{type(arg).__name__}: {arg!r}" for arg in args]


CANVAS = (chain, chord, group)


@dataclasses.dataclass
class Stay:
    guest: uuid.UUID
    until: dt.date


#: What the real Celery does not know of, it keeps as an attribute of the task.
@app.task(typed=True)
def typed(stay: Stay, more: list[Stay]) -> Stay:
    return stay if isinstance(stay, dict) else Stay(stay.guest, more[0].until)


@app.task(typed=True)
def moved(day: dt.date) -> str:
    return type(day).__name__


@app.task
def size(text: str) -> list[Any]:
    return [len(text), text[:1], text[-1:]]


@app.task
def give(what: str) -> Any:
    """Values that an argument could not have been."""
    import datetime as dt
    import decimal
    import uuid

    return {
        "date": dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),  # noqa: UP017
        "decimal": decimal.Decimal("1.50"),
        "uuid": uuid.UUID(int=1),
        "bytes": b"\xff",
        "tuple": (1, (2,)),
        "nan": float("nan"),
        "huge": 2**100,
        "keys": {1: "a", None: "b"},
        "result": app.AsyncResult("other"),
    }[what]


@app.task(bind=True)
def request(self: Any) -> dict[str, Any]:
    found = {name: getattr(self.request, name, "<none>") for name in READ}
    info = dict(self.request.delivery_info)
    found["delivery_info"] = {k: info.get(k) for k in ("exchange", "routing_key", "priority", "redelivered")}
    return json.loads(json.dumps(found, default=repr))


@app.task(name="fleet.routed", bind=True)
def routed(self: Any) -> str:
    return self.request.delivery_info["routing_key"]


@app.task
def fail(kind: str) -> None:
    raise ERRORS[kind]()


@app.task
def ignore() -> None:
    raise Ignore


@app.task(bind=True)
def progress(self: Any, name: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 1, "of": 2})
    wait_for(name)
    return "done"


@app.task(track_started=True)
def started(name: str) -> str:
    wait_for(name)
    return "done"


@app.task(ignore_result=True)
def silent(name: str) -> str:
    (FOLDER / name).touch()
    return "never kept"


@app.task(bind=True)
def parent(self: Any, queue: str) -> str:
    return add.apply_async((1, 2), queue=queue).id


@app.task(bind=True, ignore_result=True)
def heard(self: Any, name: str) -> None:
    with (FOLDER / f"heard-{name}").open("a") as file:
        file.write(f"{self.request.hostname}\n")


@app.task
def note(*args: Any) -> None:
    """Says on disk what it was called with: for callbacks."""
    path = FOLDER / f"note-{args[-1]}"
    path.with_suffix(".part").write_text(json.dumps(args))
    path.with_suffix(".part").rename(path)


@app.task(bind=True, acks_late=True)
def linger(self: Any, name: str) -> list[Any]:
    """The first worker stays here until it is killed; whoever gets the message again answers."""
    redelivered = bool(self.request.delivery_info["redelivered"])
    if not redelivered:
        (FOLDER / f"{name}-held").write_text(str(os.getpid()))
        wait_for(f"{name}-never")
    return [redelivered, self.request.id]


@app.task(bind=True, acks_late=True)
def stay(self: Any, name: str) -> str:
    """Notes where it runs; stays until it is told to go."""
    with (FOLDER / f"{name}-runs").open("a") as file:
        file.write(f"{self.request.hostname}\n")
    wait_for(f"{name}-go", 60)
    return str(self.request.hostname)


@app.task
def when() -> float:
    return time.time()


@app.task
def order(name: str) -> None:
    with (FOLDER / "order").open("a") as lines:
        lines.write(f"{name}\n")
