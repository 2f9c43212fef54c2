"""`app.amqp` and its queues ([route.1] to [route.7], [wire.18])."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from kombu import Exchange, Queue
from kombu.common import Broadcast

from celery.app.amqp import Queues
from celery.utils.nodenames import worker_direct
from tests.compat.memory_apps import make_app


def shape(queue: Queue) -> tuple[str, str, str, str]:
    return queue.name, queue.exchange.name, queue.exchange.type, queue.routing_key


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("celery", "celery", "direct", "celery")),
        ({"task_default_queue": "d"}, ("d", "d", "direct", "d")),
        ({"task_default_queue": "d", "task_default_exchange": "e"}, ("d", "e", "direct", "d")),
        (
            {"task_default_exchange_type": "topic", "task_default_routing_key": "r.k"},
            ("celery", "celery", "topic", "r.k"),
        ),
    ],
)
def test_the_default_queue(settings: dict[str, Any], expected: Any) -> None:
    amqp = make_app(**settings).amqp
    assert shape(amqp.default_queue) == expected
    assert (amqp.default_exchange.name, amqp.default_exchange.type) == expected[1:3]
    assert list(amqp.queues) == list(amqp.queues.consume_from) == [expected[0]]


def test_the_default_queue_may_be_a_quorum_queue() -> None:
    amqp = make_app(task_default_queue_type="quorum", task_queue_max_priority=7).amqp
    assert amqp.default_queue.queue_arguments == {"x-queue-type": "quorum", "x-max-priority": 7}


def test_declared_queues_are_completed_in_place() -> None:
    own = [Queue("a"), Queue("b", routing_key="b.#"), Queue("c", Exchange("ec", "topic"))]
    queues = make_app(task_queues=own).amqp.queues
    assert [shape(queue) for queue in queues.values()] == [
        ("a", "celery", "direct", "celery"),
        ("b", "celery", "direct", "b.#"),
        ("c", "ec", "topic", "celery"),
    ]
    assert queues["a"] is own[0]


def test_queues_described_by_a_mapping() -> None:
    described = {
        "a": {"exchange": "ea", "routing_key": "ra"},
        "b": {},
        "c": {"exchange_type": "topic", "binding_key": "c.#"},
        "d": {"exchange": "ed", "exchange_type": "topic", "binding_key": "d.#", "queue_durable": False},
        "e": Queue("e", Exchange("ee"), "ke"),
    }
    queues = make_app(task_queues=described).amqp.queues
    assert [shape(queue) for queue in queues.values()] == [
        ("a", "ea", "direct", "ra"),
        ("b", "celery", "direct", "b"),
        ("c", "celery", "direct", "c.#"),
        ("d", "ed", "topic", "d.#"),
        ("e", "ee", "direct", "ke"),
    ]
    assert [queue.durable for queue in queues.values()] == [True, True, True, False, True]


def test_missing_queues_are_made_up_but_not_taken_from() -> None:
    queues = make_app(task_queues=[Queue("a")]).amqp.queues
    assert "m" not in queues
    assert queues.get("m") is None
    assert shape(queues["m"]) == ("m", "m", "direct", "m")
    assert queues.new_missing("n").name == "n"
    assert list(queues) == ["a", "m"]
    assert list(queues.consume_from) == ["a"]
    assert [spec.name for spec in queues.consume_specs()] == ["a"]


@pytest.mark.parametrize(
    ("settings", "kind", "arguments"),
    [
        ({"task_create_missing_queue_type": "classic"}, "direct", None),
        ({"task_create_missing_queue_type": "quorum"}, "direct", {"x-queue-type": "quorum"}),
        ({"task_create_missing_queue_exchange_type": "topic"}, "topic", None),
        ({"task_queue_max_priority": 7}, "direct", {"x-max-priority": 7}),
    ],
)
def test_kinds_of_missing_queues(settings: dict[str, Any], kind: str, arguments: Any) -> None:
    queue = make_app(**settings).amqp.queues["m"]
    assert (queue.exchange.type, queue.queue_arguments) == (kind, arguments)


def test_other_kinds_of_missing_queues_are_refused() -> None:
    queues = make_app(task_create_missing_queue_type="nope").amqp.queues
    with pytest.raises(ValueError, match="Invalid queue type 'nope'"):
        queues["m"]


def test_missing_queues_may_be_forbidden() -> None:
    queues = make_app(task_create_missing_queues=False).amqp.queues
    with pytest.raises(KeyError, match="m"):
        queues["m"]
    with pytest.raises(KeyError, match="m"):
        queues.select(["m"])


def test_a_subclass_may_choose_the_exchange_of_missing_queues() -> None:
    amqp = make_app().amqp
    amqp.autoexchange = lambda name, type: Exchange(f"x.{name}", type)
    assert shape(amqp.Queues([Queue("a")])["m"]) == ("m", "x.m", "direct", "m")


def test_a_queues_own_priority_wins() -> None:
    own = Queue("a", queue_arguments={"x-max-priority": 2})
    queues = make_app(task_queues=[own, Queue("b")], task_queue_max_priority=7).amqp.queues
    assert [queue.queue_arguments["x-max-priority"] for queue in queues.values()] == [2, 7]


def test_selection() -> None:
    queues = make_app(task_queues=[Queue("a"), Queue("b")]).amqp.queues
    queues.deselect(["a", "unknown"])
    assert list(queues.consume_from) == ["b"]
    queues.select(None)
    queues.select([])
    assert list(queues.consume_from) == ["b"]
    queues.select(["new", "a"])
    assert list(queues.consume_from) == ["new", "a"]
    queues.select("single")
    assert list(queues.consume_from) == ["single"]
    assert shape(queues.select_add("added", exchange="ex", routing_key="rk")) == ("added", "ex", "direct", "rk")
    assert list(queues.consume_from) == ["single", "added"]
    queues.add("unused")
    assert list(queues.consume_from) == ["single", "added"]
    queues.deselect("single")
    assert list(queues.consume_from) == ["added"]


def test_the_apps_selection_is_what_a_worker_takes_from() -> None:
    app = make_app()
    app.select_queues(["hipri", "celery"])
    assert [spec.name for spec in app.amqp.queues.consume_specs()] == ["hipri", "celery"]


def test_format() -> None:
    queues = make_app(task_queues=[Queue("b", Exchange("e", "topic"), "k"), Queue("a")]).amqp.queues
    first = ".> a                exchange=celery(direct) key=celery"
    second = ".> b                exchange=e(topic) key=k"
    assert queues.format() == f"{first}\n{second}"
    assert queues.format(indent=4) == f"    {first}\n    {second}"
    assert queues.format(indent=4, indent_first=False) == f"{first}\n    {second}"


def test_aliases() -> None:
    own = Queue("q", alias="nick")
    app = make_app(task_queues=[own])
    assert app.amqp.queues["nick"] is own
    assert app.amqp.queues.get("nick") is own
    assert list(app.amqp.queues) == ["q"]
    assert app.amqp.router.route_for("t", {"queue": "nick"})[0].routing_key == "q"


def test_a_broadcast_queue_is_each_workers_own() -> None:
    app = make_app(task_queues=[Broadcast("bc")])
    route, _ = app.amqp.router.route_for("t", {"queue": "bc"})
    assert (route.exchange, route.routing_key) == ("bc", "celery")
    assert route.queue is not None
    assert (route.queue.declare, route.queue.exchange_type, route.queue.auto_delete) == (False, "fanout", True)


def test_queues_change_with_the_settings_but_keep_what_was_added_by_hand() -> None:
    app = make_app()
    app.amqp.queues.select_add("extra")
    app.conf.task_default_queue = "later"
    assert list(app.amqp.queues) == ["later", "extra"]
    other = make_app()
    assert list(other.amqp.queues) == ["celery"]
    other.conf.task_default_queue = "later"
    assert list(other.amqp.queues.consume_from) == ["later"]
    assert other.amqp.router.route_for("t", {})[0].routing_key == "later"


def test_a_mapping_of_ones_own() -> None:
    assert list(Queues([Queue("x")]).consume_from) == ["x"]
    queues = Queues({"x": {}})
    assert shape(queues["y"]) == ("y", "y", "direct", "y")
    del queues["x"]
    assert list(queues) == ["y"]
    assert len(queues) == 1


def test_kombus_objects_are_at_hand() -> None:
    amqp = make_app().amqp
    import kombu

    assert amqp.Connection is amqp.BrokerConnection is kombu.Connection
    assert (amqp.Consumer, amqp.Producer) == (kombu.Consumer, kombu.Producer)
    assert (amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize, amqp.utc) == (1024, 1024, True)


def test_the_task_consumer_takes_the_selected_queues() -> None:
    app = make_app(broker_url="memory://")
    with app.connection_for_read() as connection:
        consumer = app.amqp.TaskConsumer(connection.default_channel)
        assert [queue.name for queue in consumer.queues] == ["celery"]
        assert "application/json" in consumer.accept


@pytest.mark.process
def test_publishing_needs_no_kombu_where_the_user_gave_none() -> None:
    program = """
import sys
from celery import Celery
app = Celery("t", broker="memory://")
app.conf.task_routes = {"a.*": "q"}
print(app.amqp.router.route_for("a.b", {})[0].routing_key, app.amqp.queues.format())
app.amqp.queues.select(["x", "y"])
print([m for m in sys.modules if m.startswith("kombu")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["q .> celery           exchange=celery(direct) key=celery", "[]"]


def test_a_workers_direct_queue() -> None:
    assert shape(worker_direct("w@host")) == ("w@host.dq2", "C.dq2", "direct", "w@host")


def test_descriptions_may_hold_kombus_objects() -> None:
    queues = make_app(task_queues={"a": {"exchange": Exchange("e", "topic"), "routing_key": "k"}}).amqp.queues
    assert shape(queues["a"]) == ("a", "e", "topic", "k")
