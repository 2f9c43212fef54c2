"""Commands that only look. The shapes of the replies are Celery 5.7's, as observed there."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import pytest

from celery.worker import control, memory, state
from celery.worker.control import Panel, control_command, inspect_command
from tests.flow.commanding import Commanded, reset
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def house() -> Iterator[Commanded]:
    house = Commanded(broker_transport_options={"password": "hush"})
    yield house
    reset()
    house.app.close()


#: Name → type, alias, arguments, variadic, signature, timeout; as Celery 5.7 registers them.
COMMANDS: dict[str, tuple[Any, ...]] = {
    "add_consumer": ("control", None, "queue exchange exchange_type routing_key", None,
                     "<queue> [exchange [type [routing_key]]]", 1.0),
    "autoscale": ("control", None, "max min", None, "[max [min]]", 1.0),
    "cancel_consumer": ("control", None, "queue", None, "<queue>", 1.0),
    "disable_events": ("control", None, "", None, None, 1.0),
    "election": ("control", None, "", None, None, 1.0),
    "enable_events": ("control", None, "", None, None, 1.0),
    "heartbeat": ("control", None, "", None, None, 1.0),
    "pool_grow": ("control", None, "n", None, "[N=1]", 1.0),
    "pool_restart": ("control", None, "", None, None, 1.0),
    "pool_shrink": ("control", None, "n", None, "[N=1]", 1.0),
    "rate_limit": ("control", None, "task_name rate_limit", None,
                   "<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>", 1.0),
    "revoke": ("control", None, "", "task_id", "[id1 [id2 [... [idN]]]]", 1.0),
    "revoke_by_stamped_headers": ("control", None, "", "headers", "[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
                                  1.0),
    "shutdown": ("control", None, "", None, None, 1.0),
    "terminate": ("control", None, "signal", "task_id", "<signal> [id1 [id2 [... [idN]]]]", 1.0),
    "time_limit": ("control", None, "task_name soft hard", None, "<task_name> <soft_secs> [hard_secs]", 1.0),
    "active": ("inspect", "dump_active", "", None, None, 1.0),
    "active_queues": ("inspect", None, "", None, None, 1.0),
    "clock": ("inspect", None, "", None, None, 1.0),
    "conf": ("inspect", "dump_conf", "with_defaults", None, "[include_defaults=False]", 1.0),
    "hello": ("inspect", None, "", None, None, 1.0),
    "memdump": ("inspect", None, "samples", None, "[n_samples=10]", 1.0),
    "memsample": ("inspect", None, "", None, None, 1.0),
    "objgraph": ("inspect", None, "type num max_depth", None, "[object_type=Request] [num=200 [max_depth=10]]", 60.0),
    "ping": ("inspect", None, "", None, None, 0.2),
    "query_task": ("inspect", None, "", "ids", "[id1 [id2 [... [idN]]]]", 1.0),
    "registered": ("inspect", "dump_tasks", "", "taskinfoitems", "[attr1 [attr2 [... [attrN]]]]", 1.0),
    "report": ("inspect", None, "", None, None, 1.0),
    "reserved": ("inspect", "dump_reserved", "", None, None, 1.0),
    "revoked": ("inspect", "dump_revoked", "", None, None, 1.0),
    "scheduled": ("inspect", "dump_schedule", "", None, None, 1.0),
    "stats": ("inspect", None, "", None, None, 1.0),
}  # fmt: skip


def test_every_command_of_celery_is_there_with_what_is_known_of_it() -> None:
    for name, (kind, alias, arguments, variadic, signature, timeout) in COMMANDS.items():
        meta = Panel.meta[name]
        found = (meta.type, meta.alias, " ".join(arg for arg, _ in meta.args or ()), meta.variadic, meta.signature)
        assert found == (kind, alias, arguments, variadic, signature), name
        assert meta.default_timeout == timeout, name
        assert meta.help.endswith(".") or meta.help.endswith(")."), name
        assert meta.visible == (name != "hello")
        assert Panel.data[name] is Panel.data[alias or name] is getattr(control, name)


def test_users_register_commands_of_their_own(house: Commanded) -> None:
    @control_command(args=[("n", int)], signature="[N=1]")
    def hold_more(state: Any, n: int = 1) -> dict[str, Any]:
        """Hold more messages.

        And more is said below.
        """
        state.consumer.qos.increment_eventually(n)
        return {"ok": state.consumer.qos.value}

    @inspect_command()
    def whose(state: Any) -> dict[str, Any]:
        """Say who this is."""
        return {"host": state.hostname, "same": state.app is house.app, "set": state.tset([1, 1])}

    try:
        assert Panel.meta["hold_more"] == (
            None, "control", True, 1.0, "Hold more messages.", "[N=1]", [("n", int)], None,
        )  # fmt: skip
        assert (Panel.meta["whose"].type, Panel.meta["whose"].help) == ("inspect", "Say who this is.")
        with house.running(prefetch_multiplier=4, hostname="w@here"):
            assert house.tell("hold_more", n=3) == {"ok": 7}
            assert house.worker.prefetch == 7
            assert house.tell("whose") == {"host": "w@here", "same": True, "set": {1}}
            house.state.consumer.qos.decrement_eventually(5)
            assert house.state.consumer.qos.value == 2
    finally:
        for name in ("hold_more", "whose"):
            del Panel.data[name], Panel.meta[name]


def test_it_answers_and_says_what_it_is(house: Commanded) -> None:
    with house.running(hostname="w@here"):
        assert house.tell("ping") == {"ok": "pong"}
        assert house.tell("ping", whatever=1) == {"ok": "pong"}
        before = house.tell("clock")["clock"]
        house.app.clock.forward()
        assert house.tell("clock") == {"clock": before + 1}
        assert "software -> celery" in house.tell("report")["ok"]
        stats = house.tell("stats")
        assert {"total", "pid", "clock", "uptime", "pool", "broker", "prefetch_count", "rusage"} <= stats.keys()
        assert stats["pid"] == os.getpid()
        assert stats["pool"]["max-concurrency"] == 1
        assert isinstance(stats["clock"], str)
        assert house.tell("hello", from_node="w@here") is None
        told = house.tell("hello", from_node="x@there", revoked={"gone": 1e12})
        assert told["revoked"] == ["gone"] == house.tell("revoked")
        assert told["clock"] == house.app.clock.value


def test_settings_are_shown_without_secrets(house: Commanded) -> None:
    with house.running():
        shown = house.tell("conf")
        assert shown["broker_transport_options"] == {"password": "********"}
        assert "task_serializer" not in shown
        assert house.tell("dump_conf", with_defaults=True)["task_serializer"] == "json"
        assert not [key for key in shown if key.startswith("__")]


def test_what_runs_and_what_waits(house: Commanded) -> None:
    with house.running(prefetch_multiplier=3, hostname="w@here"):
        first = house.held("first", priority=3)
        waiting = house.quick.apply_async(("second",), {}, headers={"k": 1})
        (info,) = house.tell("active")
        assert list(info) == [
            "id", "name", "args", "kwargs", "type", "hostname", "time_start", "acknowledged", "delivery_info",
            "worker_pid",
        ]  # fmt: skip
        assert (info["id"], info["name"], info["args"], info["type"]) == (first.id, "hold", ["first"], "hold")
        assert (info["hostname"], info["acknowledged"]) == ("w@here", True)
        assert info["delivery_info"] == {
            "exchange": "", "routing_key": "celery", "priority": 3, "redelivered": False,
        }  # fmt: skip
        assert house.tell("active", safe=True)[0]["args"] == "('first',)"
        found = house.tell("query_task", ids=[first.id, "unknown"])
        assert found == {first.id: ["active", info]}
        assert house.tell("query_task", ids=first.id) == found
        house.gate.set()
        assert waiting.get(timeout=10) == "second"
        until(lambda: not house.tell("active"), "all have ended")
        assert house.tell("reserved") == house.tell("scheduled") == []


def test_what_is_held_and_does_not_run_is_reserved(house: Commanded) -> None:
    house.app.conf.task_annotations = {"quick": {"rate_limit": "1/h"}}
    with house.running():
        house.quick.delay(1).get(timeout=10)
        second = house.quick.delay(2)
        until(lambda: [info["id"] for info in house.tell("reserved")] == [second.id], "it waits for its rate")
        (info,) = house.tell("reserved")
        assert (info["time_start"], info["acknowledged"], info["worker_pid"]) == (None, False, None)
        assert house.tell("query_task", ids=[second.id])[second.id][0] == "reserved"
        assert house.tell("active") == []


def test_what_waits_in_memory_for_its_time_is_scheduled(house: Commanded) -> None:
    with house.running() as worker:
        room: Any = worker.consumer._waiting
        room._deferring = None  # as with a broker that cannot park
        eta = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        result = house.quick.apply_async(("later",), eta=eta)
        (entry,) = until(lambda: house.tell("scheduled"), "it waits")
        assert entry["eta"] == eta.isoformat()
        assert entry["priority"] == 6
        assert entry["request"]["id"] == result.id
        assert house.tell("query_task", ids=[result.id])[result.id][0] == "scheduled"
        assert house.tell("revoke", task_id=result.id) == {"ok": f"tasks { {result.id} } flagged as revoked"}
        until(lambda: not house.tell("scheduled"), "what is revoked is not kept until its time")


def test_tasks_and_queues(house: Commanded) -> None:
    house.quick.rate_limit = "10/m"
    with house.running():
        names = house.tell("registered")  # others of this process may have shared theirs
        assert [name for name in names if name.split()[0] in ("hold", "quick", "spin")] == [
            "hold", "quick [rate_limit=10/m]", "spin",
        ]  # fmt: skip
        assert not [name for name in names if name.startswith("celery.")]
        assert "hold [max_retries=3]" in house.tell("dump_tasks", taskinfoitems=["max_retries", "nothing"])
        assert "celery.chord" in house.tell("registered", builtins=True)
        (queue,) = house.tell("active_queues")
        assert queue == {
            "name": "celery",
            "exchange": {
                "name": "celery", "type": "direct", "arguments": None, "durable": True, "passive": False,
                "auto_delete": False, "delivery_mode": None, "no_declare": False,
            },
            "routing_key": "celery", "queue_arguments": None, "binding_arguments": None, "consumer_arguments": None,
            "durable": True, "exclusive": False, "auto_delete": False, "no_ack": False, "alias": None, "bindings": [],
            "no_declare": None, "expires": None, "message_ttl": None, "max_length": None, "max_length_bytes": None,
            "max_priority": None,
        }  # fmt: skip


def test_memory(house: Commanded, monkeypatch: pytest.MonkeyPatch) -> None:
    with house.running():
        first = house.tell("memsample")
        assert first.endswith(("KB", "MB", "GB"))
        house.tell("memsample")
        text = house.tell("memdump", samples=1)
        assert text.splitlines()[:2] == ["- rss (samples):", f"-    > {first},"]
        assert text.splitlines()[-1].startswith("- rss (end): ")
        assert "samples" not in house.tell("memdump")
        monkeypatch.setattr(memory, "psutil", None)
        assert house.tell("memsample") is None
        assert house.tell("memdump") == "- rss: (psutil not installed).\n"
        with pytest.raises(ImportError, match="objgraph"):
            house.tell("objgraph")


def test_arguments_that_cannot_be_decoded_are_shown_as_text(house: Commanded) -> None:
    with house.running():
        house.held({"a": 1})
        one = next(iter(house.worker.consumer.held.values()))
        assert one.shown is not None
        one.shown._payload_read, one.shown._body = None, b"{"
        assert house.tell("active")[0]["args"] == "({'a': 1},)"


def test_looks_are_answered_while_the_loop_is_busy(house: Commanded) -> None:
    """A solo task runs in the loop's own thread."""
    with house.running(pool="solo"):
        house.hold.delay("busy")
        until(lambda: house.ran, "it runs")
        assert house.tell("ping") == {"ok": "pong"}
        assert house.tell("stats")["total"] == {"hold": 1}
        assert len(house.tell("reserved")) == 1
        house.gate.set()


def test_the_events_of_a_worker_are_switched(house: Commanded) -> None:
    with house.running():
        assert house.tell("enable_events") == {"ok": "task events enabled"}
        assert house.state.consumer.event_dispatcher.groups >= {"task", "worker"}
        assert house.tell("disable_events") == {"ok": "task events disabled"}
        assert "task" not in house.state.consumer.event_dispatcher.groups
        assert house.tell("heartbeat") is None


def test_who_has_no_dispatcher_and_no_gossip_says_so(house: Commanded) -> None:
    with house.running():
        house.state.consumer = type("Consumer", (), {"event_dispatcher": None, "gossip": None})
        with pytest.raises(RuntimeError, match="dispatcher"):
            house.tell("enable_events")
        with pytest.raises(RuntimeError, match="gossip"):
            house.tell("election", id="1", topic="t")


class Dispatcher:
    """Of the public kind: groups that are told, and what was sent."""

    def __init__(self, groups: set[str]) -> None:
        self.groups = groups
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, type: str, **fields: Any) -> None:
        self.sent.append((type, fields))


def test_events_are_switched_on_and_off(house: Commanded) -> None:
    with house.running():
        dispatcher = Dispatcher({"worker"})
        house.state.consumer = type("Consumer", (), {"event_dispatcher": dispatcher, "gossip": None})
        texts = [house.tell(f"{word}_events")["ok"] for word in ("enable", "enable", "disable", "disable", "enable")]
        assert texts == [
            "task events enabled", "task events already enabled", "task events disabled",
            "task events already disabled", "task events enabled",
        ]  # fmt: skip
        dispatcher.groups.clear()  # everything is told, as with -E
        assert house.tell("enable_events") == {"ok": "task events already enabled"}
        assert house.tell("disable_events") == {"ok": "task events disabled"}
        assert dispatcher.groups == {"worker"}
        assert house.tell("heartbeat") is None
        assert dispatcher.sent == [("worker-heartbeat", {"freq": 5, **state.SOFTWARE_INFO})]
