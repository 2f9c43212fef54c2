"""Which way a call goes, as values: patterns, precedence and destinations ([route.8] to [route.12], [wire.17])."""

from __future__ import annotations

import fnmatch
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue, binding

from celery.routing import (
    Binding,
    DefaultRoute,
    ExchangeSpec,
    MapRoute,
    QueueSpec,
    destination,
    expand_route,
    merge_options,
    queue_spec,
)

names = st.text("ab.*x", min_size=1, max_size=6)
queues = st.sampled_from(["q1", "q2", "q3"])
options = st.dictionaries(st.sampled_from(["queue", "priority", "routing_key", "serializer"]), st.none() | queues)
ROUTES = {
    "feed.tasks.x": "exact",
    "feed.*": {"queue": "glob"},
    "feed.tasks.*": "later",
    re.compile(r"(video|image)\..*"): {"queue": "media", "priority": 3},
}


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("feed.tasks.x", {"queue": "exact"}),
        ("feed.tasks.y", {"queue": "glob"}),
        ("feed.", {"queue": "glob"}),
        ("video.encode", {"queue": "media", "priority": 3}),
        ("xvideo.encode", None),
        ("Feed.x", None),
        ("feed", None),
    ],
)
def test_a_map_of_routes(name: str, route: object) -> None:
    assert MapRoute(ROUTES)(name) == route
    assert MapRoute(list(ROUTES.items()))(name, (1,), {}, {}, task=None) == route


def test_only_a_star_makes_a_glob() -> None:
    route = MapRoute({"a[bc].?": "q", "a[bc]*": "r"})
    assert (route("ab.x"), route("a[bc].?")) == ({"queue": "r"}, {"queue": "q"})


def test_answers_are_copies() -> None:
    route = MapRoute({"a": {"queue": "q"}})
    answer = route("a")
    assert answer is not None
    answer["queue"] = "other"
    assert route("a") == {"queue": "q"}


@given(st.dictionaries(names, queues), names)
def test_exact_names_beat_patterns_and_the_first_pattern_wins(table: dict[str, str], name: str) -> None:
    globs = [(pattern, queue) for pattern, queue in table.items() if "*" in pattern]
    if name in table and "*" not in name:
        expected = table[name]
    else:
        expected = next((queue for pattern, queue in globs if fnmatch.fnmatchcase(name, pattern)), None)
    assert MapRoute(table)(name) == (None if expected is None else {"queue": expected})


@given(options, options)
def test_what_lies_over_wins_unless_it_is_none(under: dict[str, object], over: dict[str, object]) -> None:
    merged = merge_options(under, over)
    assert merged.keys() >= under.keys()
    for key, value in merged.items():
        assert value == (over[key] if over.get(key) is not None else under[key])


@given(options, options, options)
def test_merging_is_associative(a: dict[str, object], b: dict[str, object], c: dict[str, object]) -> None:
    left, right = merge_options(merge_options(a, b), c), merge_options(a, merge_options(b, c))
    assert {k: v for k, v in left.items() if v is not None} == {k: v for k, v in right.items() if v is not None}


def test_answers_of_routers() -> None:
    queue = SimpleNamespace(name="q", routing_key="k")
    assert expand_route(None) is None
    assert expand_route("q") == {"queue": "q"}
    assert expand_route(queue) == {"queue": queue}
    assert expand_route({"exchange": "e"}) == {"exchange": "e"}
    with pytest.raises(TypeError, match="expected a route as a queue's name or as options"):
        expand_route(3)


# ------------------------------------------------------------------------------------------------------ destinations

DIRECT = QueueSpec("tasks", exchange="other", routing_key="key")
TOPIC = QueueSpec("tq", exchange="te", exchange_type="topic", routing_key="t.#")
FANOUT = QueueSpec("fq", exchange="fe", exchange_type="fanout")
DEFAULT = DefaultRoute("dx", "dk")


@pytest.mark.parametrize(
    ("said", "queue", "exchange", "routing_key"),
    [
        ({}, DIRECT, "", "tasks"),
        ({"routing_key": "k"}, DIRECT, "", "tasks"),
        ({"exchange": "e"}, DIRECT, "", "tasks"),
        ({"exchange": "e", "routing_key": "k"}, DIRECT, "e", "k"),
        ({"exchange": SimpleNamespace(name="e"), "routing_key": "k"}, DIRECT, "e", "k"),
        ({"exchange_type": "topic"}, DIRECT, "other", "key"),
        ({"exchange": "e", "routing_key": "k", "exchange_type": "topic"}, DIRECT, "e", "k"),
        ({}, TOPIC, "te", "t.#"),
        ({"routing_key": "t.1"}, TOPIC, "te", "t.1"),
        ({}, FANOUT, "fe", "dk"),
        ({"exchange": "e"}, None, "e", "dk"),
        ({"routing_key": "k"}, None, "dx", "k"),
    ],
)
def test_destinations(said: dict[str, object], queue: QueueSpec | None, exchange: str, routing_key: str) -> None:
    route = destination(said, queue, DEFAULT)
    assert (route.exchange, route.routing_key, route.queue) == (exchange, routing_key, queue)


@pytest.mark.parametrize(
    ("said", "queue", "kind"),
    [
        ({}, TOPIC, "topic"),
        ({}, FANOUT, "fanout"),
        ({"exchange": "e"}, FANOUT, ""),  # of another exchange than its queue's nobody knows
        ({"exchange": "e", "exchange_type": "headers"}, FANOUT, "headers"),
        ({"exchange": SimpleNamespace(name="e", type="headers"), "routing_key": "k"}, DIRECT, "headers"),
        ({"exchange": "e", "exchange_type": "topic"}, None, "topic"),
        ({"exchange": "e"}, None, ""),
    ],
)
def test_types_of_exchanges(said: dict[str, object], queue: QueueSpec | None, kind: str) -> None:
    assert destination(said, queue, DEFAULT).exchange_type == kind


def test_a_queue_as_a_value() -> None:
    exchange = SimpleNamespace(name="e", type="topic", durable=False)
    queue = SimpleNamespace(
        name="q",
        exchange=exchange,
        routing_key="k",
        durable=False,
        queue_arguments={"x-a": 1},
        expires=1.5,
        max_length=7,
    )
    assert queue_spec(queue) == QueueSpec(
        "q", "e", "topic", "k", durable=False, arguments={"x-a": 1, "x-expires": 1500, "x-max-length": 7}
    )
    assert queue_spec(DIRECT) is DIRECT
    assert DIRECT.bound == (Binding(ExchangeSpec("other"), "key"),)
    assert QueueSpec("plain", routing_key="plain").bound == ()
    with pytest.raises(TypeError, match=r"expected a queue's name or a kombu\.Queue, got 3 \(int\)"):
        queue_spec(3)


def test_bindings_of_a_queue() -> None:
    """[route.13] [route.22] Those that are given as such are all that it has, as with kombu."""
    papers = Exchange("papers", type="headers", durable=False, auto_delete=True, arguments={"x": 1})
    (bound,) = queue_spec(
        Queue("q", papers, "k", binding_arguments={"format": "pdf"}, consumer_arguments={"c": 1})
    ).bound
    assert bound.exchange == ExchangeSpec("papers", "headers", durable=False, auto_delete=True, arguments={"x": 1})
    assert (bound.routing_key, bound.arguments) == ("k", {"format": "pdf"})
    several = Queue(
        "q", [binding(Exchange("b"), "2"), binding(Exchange("a", no_declare=True), "1", arguments={"z": 0})]
    )
    several.exchange = Exchange("default")  # as it is given to each queue of an app
    assert queue_spec(several).bound == (
        Binding(ExchangeSpec("a", no_declare=True), "1", {"z": 0}),
        Binding(ExchangeSpec("b"), "2"),
    )
    spec = queue_spec(Queue("q", Exchange("e"), no_declare=True, consumer_arguments={"c": 1}))
    assert (spec.no_declare, spec.consumer_arguments) == (True, {"c": 1})
