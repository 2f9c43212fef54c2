"""Whatever lies on a queue: the worker goes on, says in bounded words what came, and keeps it as a dead letter."""

from __future__ import annotations

import json
import logging
import random
import uuid
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.app.dead_letters import dead_letters_of, described
from celery.message import MalformedMessage, Message
from tests.flow.engine import DEADLINE, until
from tests.flow.test_worker_embedded import Running
from tests.fuzz import FUZZ, Fuzzer, certainly_no_task

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters that one log line may have.
MOST = 20_000
COUNT = 100_000 if FUZZ else 2_000


class Lines(logging.Handler):
    """Counts log lines and looks at each."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.longest = 0
        self.levels: Counter[str] = Counter()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.longest = max(self.longest, len(text))
        self.levels[record.levelname] += 1
        if len(self.kept) < 100:
            self.kept.append(text)


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    logger = logging.getLogger("celery")
    logger.addHandler(lines)
    logger.propagate = False
    yield lines
    logger.removeHandler(lines)


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("hostile", broker=name, backend=name, set_as_current=False)
    app.conf.update(
        dead_letter_max_count=2 * COUNT, dead_letter_max_size=1 << 40, worker_unknown_task_grace=0,
        broker_connection_retry_on_startup=True, worker_redirect_stdouts=False,
    )  # fmt: skip

    @app.task(name="add")
    def add(x: Any = 0, y: Any = 0) -> Any:
        return x

    @app.task(name="late", acks_late=True)
    def late(*args: Any, **kwargs: Any) -> None:
        return None

    yield app
    app.close()


def put(app: Celery, *messages: bytes) -> None:
    server = app.assembly.broker.server  # type: ignore[attr-defined]
    with server.changed:
        for message in messages:
            server.put("celery", message)


def taken(app: Celery) -> list[bytes]:
    """Take what waits off the queue."""
    consumer = app.assembly.broker.consume([app.amqp.queues.spec("celery")])
    deliveries = consumer.fetch(10_000, 0.0)
    consumer.ack(deliveries)
    consumer.close()
    return [d.message.to_envelope() if d.message else d.raw or b"" for d in deliveries]


def letters(app: Celery) -> list[Any]:
    return dead_letters_of(app).newest("celery", 3 * COUNT)


def envelope(**changes: Any) -> bytes:
    document = {
        "body": b64encode(b"[[1, 2], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "add", "id": str(uuid.uuid4())},
        "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "celery"}},
    }
    return json.dumps({**document, **changes}).encode()


def encoded(body: bytes) -> str:
    return b64encode(body).decode()


NESTED = b"[" * 100_000 + b"]" * 100_000
SECRET = "correct horse battery staple"
NO_TASK = "expected a task message"
HOSTILE = {
    "broken JSON": (b'{"body": ', NO_TASK),
    "nothing": (b"", NO_TASK),
    "noise of 10 MB": (random.Random(1).randbytes(10_000_000), NO_TASK),
    "text of 10 MB": (b'"' + b"x" * 10_000_000 + b'"', NO_TASK),
    "nested without end": (NESTED, NO_TASK),
    "headers nested without end": (envelope().replace(b'"add"', b'"add", "deep": ' + NESTED), NO_TASK),
    "a list": (b"[1, 2, 3]", NO_TASK),
    "no headers": (envelope(headers={}), NO_TASK),
    "headers are a list": (envelope(headers=["task"]), NO_TASK),
    "no body": (envelope(body=None), NO_TASK),
    "no task": (envelope(headers={"id": "1"}), NO_TASK),
    "no id": (envelope(headers={"task": "add"}), NO_TASK),
    "task is a number": (envelope(headers={"task": 7, "id": "1"}), NO_TASK),
    "unknown task": (envelope(headers={"task": "nobody.knows", "id": "1"}), "unknown task 'nobody.knows'"),
    "name of 1 MB": (envelope(headers={"task": "n" * 1_000_000, "id": "1"}), "unknown task 'nnn"),
    "header of 1 MB": (envelope(headers={"task": "nobody", "id": "1", "x": "y" * 1_000_000}), "unknown task 'nobody'"),
    "refused content type": (envelope(**{"content-type": "application/x-python-serialize"}), "pickle"),
    "unheard-of content type": (envelope(**{"content-type": "text/sonnet"}), "text/sonnet"),
    "body is no base64": (envelope(body="***"), "expected JSON"),
    "body is no JSON": (envelope(body=encoded(b"{")), "expected JSON"),
    "body of the wrong shape": (envelope(body=encoded(b'{"args": 1}')), "body"),
    "body without kwargs": (envelope(body=encoded(b"[[], 7, {}]")), "body"),
    "body nested without end": (envelope(body=encoded(NESTED)), ""),
    "no compression": (envelope(headers={"task": "add", "id": "1", "compression": "origami"}), "origami"),
    "compressed noise": (envelope(headers={"task": "add", "id": "1", "compression": "gzip"}), ""),
    "eta is no date": (envelope(headers={"task": "add", "id": "1", "eta": "tomorrow"}), "ETA"),
    "expires never": (envelope(headers={"task": "add", "id": "1", "expires": "x"}), "expires"),
    "protocol 1, broken": (envelope(headers={}, body=encoded(b'{"task": 1}')), "task"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_message_is_kept_and_told_of(app: Celery, lines: Lines, kind: str) -> None:
    raw, said = HOSTILE[kind]
    put(app, raw)
    with Running(app) as worker:
        after = app.tasks["add"].delay(1, 2)
        assert after.get(timeout=DEADLINE) == 1
        until(lambda: letters(app), "it is a dead letter")
    assert worker.exitcode == 0
    (letter,) = letters(app)
    assert letter.envelope == raw
    assert said in letter.reason
    assert len(letter.reason) <= 2_100
    assert lines.levels["WARNING"] + lines.levels["ERROR"] + lines.levels["CRITICAL"] == 1, lines.kept
    assert lines.longest < MOST
    json.dumps(described(letter, whole=True))


def has_its_time(data: bytes) -> bool:
    """Put off or dropped by what its headers say, whatever the rest of it is like."""
    try:
        message = Message.from_envelope(data)
    except MalformedMessage:
        return False
    return message.eta is not None or message.expires is not None


def follows(data: bytes) -> bool:
    """Sent by a run: a callback whose name the fuzzer has changed is refused as well, when its time has come."""
    return Message.from_envelope(data).headers.get("parent_id") is not None


@pytest.mark.parametrize(
    ("pool", "count"),
    [
        *([] if FUZZ else [pytest.param("solo", 200, id="solo-few")]),
        pytest.param("solo", COUNT, id="solo", marks=pytest.mark.slow),
        pytest.param("prefork", COUNT, id="prefork", marks=pytest.mark.process),
    ],
)
def test_fuzzed_messages(app: Celery, lines: Lines, pool: str, count: int) -> None:
    """Of thousands each is either run, dropped as its headers say, put off, or kept byte for byte."""
    add, late = app.tasks["add"], app.tasks["late"]
    add.delay(1, 2)
    add.apply_async((1,), {"y": [None, "ü"]}, link=late.s(), link_error=late.s(), priority=5, shadow="other")
    late.apply_async(("x" * 50,), compression="gzip", retries=2, headers={"own": {"a": [1]}}, expires=3600)
    late.apply_async((), {"k": 1}, countdown=3600, time_limit=10, soft_time_limit=5, ignore_result=True)
    samples = taken(app)
    app.conf.task_protocol = 1
    add.delay(3, 4)
    samples += taken(app)
    samples.append(envelope())
    assert len(samples) == 6
    fuzzer = Fuzzer(samples, random.Random(20261128))
    sent = [fuzzer.message() for _ in range(count)]
    put(app, *sent)
    with Running(app, pool=pool) as worker:
        end = DEADLINE * (1 + count / 500)
        until(lambda: app.assembly.broker.depth("celery") == 0, "all are taken", end)  # type: ignore[attr-defined]
        until(lambda: not worker.consumer.reserved(), "all are settled", end)
        assert add.delay(5, 6).get(timeout=DEADLINE) == 5
    assert worker.exitcode == 0
    kept = Counter(letter.envelope for letter in letters(app))
    refused = [data for data in sent if certainly_no_task(data, ["add", "late"]) and not has_its_time(data)]
    changed = [data for data in kept - Counter(sent) if not follows(data)]
    lost = list(Counter(refused) - kept)
    assert not changed, f"a letter is not what came: {changed[:3]}"
    assert not lost, f"something was refused and is not kept: {lost[:3]}"
    assert len(refused) > count / 5, "the fuzz is too mild"
    assert kept.total() < count, "the fuzz is too harsh"
    assert lines.longest < MOST
    print(
        f"{count} fuzzed messages, {pool}: {kept.total()} are dead letters ({len(refused)} surely no call of a task), "
        f"{count - kept.total()} run, dropped or put off; log lines: {dict(lines.levels)}, the longest "
        f"{lines.longest} characters"
    )


def test_no_password_of_the_broker_is_shown(lines: Lines) -> None:
    app = Celery("hostile", broker=f"memory://user:{SECRET.split()[0]}@{uuid.uuid4()}", set_as_current=False)
    put(app, b"junk", envelope(headers={"task": "nobody", "id": "1"}))
    with Running(app):
        until(lambda: len(letters(app)) == 2, "both are dead letters")
    assert not [line for line in lines.kept if SECRET.split()[0] in line]
    assert not [letter for letter in letters(app) if SECRET.split()[0] in letter.reason]
    app.close()
