"""A mixed fleet on Redis: each Celery runs what the other sends, and both read the same result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.running import wait_until
from tests.wire import golden
from tests.wire.mixed import MIXED, OURS, PAIRS, SIDES, THEIRS

if TYPE_CHECKING:
    from tests.wire.mixed import Fleet

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]


def everywhere(fleet: Fleet, call: str) -> list[dict[str, Any]]:
    """Send the call on each of the four ways; what both clients read of each, without what is theirs alone."""
    sent = [(fleet.clients[sender].send(call, queue=runner), runner) for sender, runner in PAIRS]
    return [neutral(fleet.read(identifier), identifier, runner) for identifier, runner in sent]


def neutral(found: dict[str, Any], identifier: str, runner: str) -> dict[str, Any]:
    text = json.dumps(found).replace(identifier, "<id>").replace(f'"{runner}"', '"<queue>"')
    answer: dict[str, Any] = json.loads(text)
    if answer.get("traceback"):
        answer["traceback"] = answer["traceback"].strip().splitlines()[-1]
    return answer


def differing(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    return {key: (expected[key], found[key]) for key in expected if expected[key] != found[key]}


def same(fleet: Fleet, call: str) -> dict[str, Any]:
    """What every way of sending and running the call comes to."""
    expected, *others = everywhere(fleet, call)
    for pair, found in zip(PAIRS[1:], others, strict=True):
        assert found == expected, pair
    return expected


VALUES = {
    "add.apply_async((2, 3))": 5,
    "add.apply_async(kwargs={'x': 'a', 'y': 'b'})": "ab",
    "app.send_task('fleet.add', (2, 3))": 5,
    "echo.apply_async(('Ærø – 東京 🎉', None, True, 1.5, 2**70), {'é': [{}]})": None,
    "size.apply_async(('é' * 4096,))": [4096, "é", "é"],
    "size.apply_async(('x' * 8192,))": [8192, "x", "x"],
    "size.apply_async(('é' * 2**20,))": [2**20, "é", "é"],
    "echo.apply_async(('x' * 8192,))": [["x" * 8192], {}],
    "echo.apply_async(([],), {'k': {}})": [[[]], {"k": {}}],
}


@pytest.mark.parametrize("call", VALUES, ids=lambda call: call[:40])
def test_values(fleet: Fleet, call: str) -> None:
    found = same(fleet, call)
    assert (found["state"], found["raised"], found["traceback"]) == ("SUCCESS", None, None)
    assert (found["successful"], found["failed"], found["children"]) == (True, False, [])
    assert VALUES[call] is None or found["value"][1] == VALUES[call]


TYPES = "__import__('datetime').datetime(2020, 1, 1), b'\\xff', __import__('decimal').Decimal('1.50')"


@pytest.mark.parametrize(
    "options",
    ["serializer='json'", "serializer='pickle'", "compression='zlib'", "compression='bzip2'",
     "compression='gzip', serializer='pickle'", "serializer='yaml', compression='lzma'"],
)  # fmt: skip
def test_serializers_and_compression(fleet: Fleet, options: str) -> None:
    arguments = "1, 'é'" if "yaml" in options else f"(1, 2), {TYPES}" + (", {3}" if "pickle" in options else "")
    found = same(fleet, f"types.apply_async(({arguments},), {options})")
    assert found["state"] == "SUCCESS"


def test_msgpack(fleet: Fleet) -> None:
    assert same(fleet, "types.apply_async((1, 'é', [None]), serializer='msgpack')")["state"] == "SUCCESS"


@pytest.mark.parametrize("what", ["date", "decimal", "uuid", "bytes", "tuple", "nan", "huge", "keys", "result"])
def test_results_of_any_type(fleet: Fleet, what: str) -> None:
    assert same(fleet, f"give.apply_async(({what!r},))")["state"] == "SUCCESS"


@pytest.mark.parametrize("kind", ["builtin", "own", "opaque", "unicode", "nested"])
def test_failures(fleet: Fleet, kind: str) -> None:
    """The same exception type, arguments and text whoever ran the task and whoever reads it."""
    found = same(fleet, f"fail.apply_async(({kind!r},))")
    assert (found["state"], found["failed"]) == ("FAILURE", True)
    assert found["raised"]


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("awkward", "builtins.Exception: <class 'fleet.Awkward'>(['1 and 2'])"),
     ("unknown", "celery.exceptions.Unknown: ('who', 5)")],
)  # fmt: skip
def test_exceptions_that_cannot_be_pickled(fleet: Fleet, kind: str, raised: str) -> None:
    """Theirs stores a wrapper, which both read; ours the exception itself, of which both make what they can."""
    by_ours, by_theirs = (fleet.read(fleet.clients[OURS].send(f"fail.apply_async(({kind!r},))", r)) for r in SIDES)
    assert (by_ours["state"], by_ours["raised"]) == ("FAILURE", raised)
    assert by_theirs["raised"].startswith(f"celery.utils.serialization.UnpickleableExceptionWrapper: {kind.title()}(")


def test_tracebacks_show_the_task(fleet: Fleet) -> None:
    for runner in SIDES:
        found = fleet.read(fleet.clients[THEIRS].send("fail.apply_async(('builtin',))", runner))
        assert "raise ERRORS[kind]()" in found["traceback"]
        assert found["traceback"].startswith("Traceback (most recent call last):")


REQUESTS = [
    "request.apply_async(())",
    "request.apply_async((), priority=4)",
    "request.apply_async((), headers={'foo': 'bar', 'colour': 'blue'})",
    "request.apply_async((), colour='green')",
    "request.apply_async((), time_limit=90, soft_time_limit=50.5, shadow='other', retries=2)",
    "request.apply_async((), group_id='G', group_index=3, root_id='ROOT', parent_id='PARENT')",
    "request.apply_async((), argsrepr='(<secret>)', kwargsrepr='{}', correlation_id='C', reply_to='R')",
    "request.apply_async((), eta='2020-01-01T00:00:00+00:00', expires='2099-01-01T00:00:00+02:00')",
    "request.apply_async((), link=note.s('unheard').set(queue='nobody'), ignore_result=False)",
    "app.send_task('fleet.request', (), headers={'foo': [1]})",
    "request.apply_async((), stamped_headers=['mon'], mon='x')",
]


@pytest.mark.parametrize("call", REQUESTS, ids=lambda call: call[:60])
def test_requests(fleet: Fleet, call: str) -> None:
    """The running task reads the same attributes of its request."""
    found = everywhere(fleet, call)
    for answer in found:
        assert answer["value"][1].pop("origin").startswith("gen")
    for pair, answer in zip(PAIRS[1:], found[1:], strict=True):
        assert differing(found[0]["value"][1], answer["value"][1]) == {}, pair


@pytest.mark.parametrize("pair", MIXED)
def test_protocol_1(fleet: Fleet, pair: tuple[str, str]) -> None:
    sender, runner = pair
    client = fleet.clients[sender]
    client("app.conf.task_protocol = 1")
    try:
        sent = [
            client.send(call, queue=runner)
            for call in (
                "add.apply_async((2, 3))",
                "types.apply_async(({3}, b'a'), serializer='pickle', compression='zlib')",
                "request.apply_async((), countdown=0.2, headers={'foo': 'bar'}, group_id='G', retries=1)",
            )
        ]
    finally:
        client("app.conf.task_protocol = 2")
    found = [fleet.read(identifier)["value"][1] for identifier in sent]
    assert found[0] == 5
    assert found[1] == ["set: {3}", "bytes: b'a'"]
    assert (found[2]["id"], found[2]["group"], found[2]["retries"]) == (sent[2], "G", 1)
    assert found[2]["headers"]["foo"] == "bar"


@pytest.mark.parametrize("pair", MIXED)
@pytest.mark.parametrize(
    "options",
    ["countdown=0.7", "eta=soon(True)", "eta=soon(False)", "eta=soon(True).isoformat()"],
    ids=["countdown", "aware", "naive", "text"],
)
def test_eta(fleet: Fleet, pair: tuple[str, str], options: str) -> None:
    sender, runner = pair
    before = time.time()
    found = fleet.read(fleet.clients[sender].send(f"when.apply_async((), {options})", runner))
    assert before + 0.65 < found["value"][1] < before + 3


@pytest.mark.parametrize("zone", ["'Asia/Kolkata', enable_utc=False", "'Asia/Kolkata', enable_utc=True"])
@pytest.mark.parametrize("pair", MIXED)
def test_eta_from_another_time_zone(fleet: Fleet, pair: tuple[str, str], zone: str) -> None:
    """A sender whose app lives in another zone; the worker runs it at the same moment."""
    sender, runner = pair
    client = fleet.clients[sender]
    before = time.time()
    client(f"other = Celery('other', broker=app.conf.broker_url, set_as_current=False)\n"
           f"other.conf.update(timezone={zone})")  # fmt: skip
    identifier = client.send("other.send_task('fleet.when', (), countdown=0.7)", runner)
    assert before + 0.65 < fleet.read(identifier)["value"][1] < before + 3


@pytest.mark.parametrize("options", ["expires=-1", "expires='2020-01-01T00:00:00+00:00'"])
def test_what_has_expired_is_revoked(fleet: Fleet, options: str) -> None:
    found = same(fleet, f"add.apply_async((1, 2), {options})")
    assert found["state"] == "REVOKED"
    assert found["raised"] == "celery.exceptions.TaskRevokedError: expired"


@pytest.mark.parametrize("pair", PAIRS)
def test_started_and_custom_states(fleet: Fleet, pair: tuple[str, str]) -> None:
    sender, runner = pair
    name = f"go-{sender}-{runner}"
    states = {
        fleet.clients[sender].send(f"{task}.apply_async(({name!r},))", runner): state
        for task, state in (("progress", "PROGRESS"), ("started", "STARTED"))
    }
    for identifier, state in states.items():
        for client in fleet.clients.values():
            wait_until(lambda c=client, i=identifier: c(f"app.AsyncResult({i!r}).state") != "PENDING", "its state")
            found, info = client(f"r = app.AsyncResult({identifier!r}); (r.state, r.info)")
            assert found == state
            if state == "PROGRESS":
                assert info == {"done": 1, "of": 2}
            else:
                assert sorted(info) == ["hostname", "pid"]
                assert info["hostname"] == f"{runner}@fleet"
    fleet.touch(name)
    for identifier in states:
        assert fleet.read(identifier)["value"][1] == "done"


@pytest.mark.parametrize("pair", PAIRS)
def test_ignored_results_are_not_kept(fleet: Fleet, pair: tuple[str, str]) -> None:
    """By the task's own word, by the call's, and for a sender who does not know the task."""
    sender, runner = pair
    client = fleet.clients[sender]
    name = f"silent-{sender}-{runner}"
    sent = [
        client.send(f"silent.apply_async(({name + '-1'!r},))", runner),
        client.send(f"app.send_task('fleet.silent', ({name + '-2'!r},))", runner),
        client.send("add.apply_async((1, 2), ignore_result=True)", runner),
    ]
    kept = client.send(f"silent.apply_async(({name + '-3'!r},), ignore_result=False)", runner)
    assert fleet.read(kept)["value"][1] == "never kept"
    for number in (1, 2, 3):
        fleet.wait_for(f"{name}-{number}")
    fleet.read(client.send("add.apply_async((1, 2))", runner))
    assert [fleet.server.call("EXISTS", f"celery-task-meta-{identifier}") for identifier in sent] == [0, 0, 0]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_link_is_called_with_the_result(fleet: Fleet, pair: tuple[str, str]) -> None:
    """The callback is run by the other side's worker, and is a child of the task."""
    sender, runner = pair
    other = THEIRS if runner == OURS else OURS
    identifier = fleet.clients[sender].send(f"add.apply_async((2, 3), link=add.s(10).set(queue={other!r}))", runner)
    (child,) = fleet.read(identifier)["children"]
    assert fleet.read(child)["value"][1] == 15


@pytest.mark.parametrize("pair", PAIRS)
def test_the_request_of_a_callback(fleet: Fleet, pair: tuple[str, str]) -> None:
    """Ids, headers and priority that a callback gets from its parent and from its signature."""
    sender, runner = pair
    other = THEIRS if runner == OURS else OURS
    link = f"request.si().set(queue={other!r}, priority=3, headers={{'foo': 'bar'}})"
    identifier = fleet.clients[sender].send(f"add.apply_async((2, 3), link={link}, root_id='ROOT')", runner)
    (child,) = fleet.read(identifier)["children"]
    found = fleet.read(child)["value"][1]
    assert (found["id"], found["root_id"], found["parent_id"]) == (child, "ROOT", identifier)
    assert found["headers"] == {"foo": "bar"}
    assert found["delivery_info"]["priority"] == 3
    assert (found["argsrepr"], found["args"], found["callbacks"]) == ("()", [], None)


@pytest.mark.parametrize("pair", PAIRS)
def test_several_links(fleet: Fleet, pair: tuple[str, str]) -> None:
    sender, runner = pair
    other = THEIRS if runner == OURS else OURS
    name = f"link-{sender}-{runner}"
    link = f"[note.s({name!r}).set(queue={other!r}), note.si({name + '-alone'!r}).set(queue={runner!r})]"
    fleet.clients[sender].send(f"add.apply_async((2, 3), link={link})", runner)
    assert json.loads(fleet.wait_for(f"note-{name}")) == [5, name]
    assert json.loads(fleet.wait_for(f"note-{name}-alone")) == [f"{name}-alone"]


@pytest.mark.parametrize("pair", PAIRS)
def test_children(fleet: Fleet, pair: tuple[str, str]) -> None:
    """A task that sends a task: both clients see the child, wherever it ran."""
    sender, runner = pair
    found = fleet.read(fleet.clients[sender].send(f"parent.apply_async(({OURS!r},))", runner))
    assert found["children"] == [found["value"][1]]
    child = fleet.read(found["value"][1])
    assert child["value"][1] == 3


@pytest.mark.parametrize("sender", SIDES)
def test_routes(fleet: Fleet, sender: str) -> None:
    """Both routers send a task of one name to the same queue."""
    fleet.clients[sender]("routed.delay().id")
    assert fleet.server.call("LLEN", "routed") == 1
    fleet.server.call("DEL", "routed")


@pytest.mark.parametrize("sender", SIDES)
def test_forget(fleet: Fleet, sender: str) -> None:
    """What either forgets is gone for both."""
    identifier = fleet.clients[sender].send("add.apply_async((1, 2))", OURS)
    fleet.read(identifier)
    fleet.clients[sender](f"app.AsyncResult({identifier!r}).forget()")
    for client in fleet.clients.values():
        assert client(f"app.AsyncResult({identifier!r}).state") == "PENDING"
