"""`task_routes` and the options of calls, through an app ([route.8] to [route.12])."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kombu import Exchange, Queue

from celery.app.routes import MapRoute, Router, expand_router_string, prepare
from celery.exceptions import QueueNotFound
from celery.routing import QueueSpec, Route
from tests.compat.memory_apps import make_app


def by_argument(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> Any:
    """A router that looks at the call."""
    return {"queue": f"n{args[0]}", "priority": options.get("hint")} if args else None


class ForTask:
    """A router of the old kind."""

    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> str | None:
        return "old" if task == "zz" else None


def destination_of(name: str, options: dict[str, Any] | None = None, args: Any = (), **settings: Any) -> Any:
    app = make_app(**settings)
    route, left = app.amqp.router.route_for(name, options or {}, args, {}, None)
    return route.exchange, route.routing_key, route.queue.name if route.queue else None, left


ROUTES = {"feed.*": "glob", "feed.x": {"queue": "exact"}, re.compile("v|w"): {"queue": "media", "priority": 3}}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("other", {}, ("", "celery", "celery", {})),
        ("feed.x", {}, ("", "exact", "exact", {})),
        ("feed.y", {"queue": "mine"}, ("", "mine", "mine", {})),
        ("v", {}, ("", "media", "media", {"priority": 3})),
        ("v", {"priority": 9}, ("", "media", "media", {"priority": 9})),
        ("v", {"priority": None}, ("", "media", "media", {"priority": 3})),
        ("v", {"queue": "mine", "serializer": "yaml"}, ("", "mine", "mine", {"priority": 3, "serializer": "yaml"})),
        ("v", {"queue": None}, ("", "media", "media", {"priority": 3})),
        ("other", {"exchange": "e", "routing_key": "k"}, ("e", "k", "celery", {})),
        ("other", {"routing_key": "k"}, ("", "celery", "celery", {})),
        ("other", {"queue": ""}, ("", "celery", "celery", {})),
    ],
)
def test_the_call_outranks_the_routes_and_they_the_default(name: str, options: Any, expected: Any) -> None:
    assert destination_of(name, options, task_routes=ROUTES) == expected


def test_a_second_call_is_routed_like_the_first() -> None:
    app = make_app(task_routes=ROUTES)
    router = app.amqp.router
    first = router.route_for("v", {"priority": 9}, (), {}, None)
    assert first[1] == {"priority": 9}
    assert router.route_for("v", {}, (), {}, None) == (first[0], {"priority": 3})
    assert router.route_for("v", {"serializer": "yaml"}, (), {}, None) == (
        first[0],
        {"priority": 3, "serializer": "yaml"},
    )
    given = {"expires": 3}
    assert router.route_for("other", {}, (), {}, None)[1] == {}
    assert router.route_for("other", given, (), {}, None)[1] == {"expires": 3}


@pytest.mark.parametrize(
    "routes",
    [
        by_argument,
        [by_argument],
        "tests.compat.test_routes.by_argument",
        "tests.compat.test_routes:by_argument",
        [{"else": "q"}, by_argument],
        [("else", "q"), by_argument],
    ],
)
def test_functions_see_the_call(routes: Any) -> None:
    assert destination_of("zz", {"hint": 4}, (7,), task_routes=routes) == ("", "n7", "n7", {"hint": 4, "priority": 4})
    assert destination_of("zz", {}, (), task_routes=routes)[1] == "celery"
    router = make_app(task_routes=routes).amqp.router
    keys = [router.route_for("zz", {}, (n,), {}, None)[0].routing_key for n in (1, 2)]
    assert keys == ["n1", "n2"], "an answer that depends on the arguments was remembered"


@pytest.mark.parametrize("routes", [ForTask, ForTask(), "tests.compat.test_routes.ForTask", [None or ForTask()]])
def test_objects_with_route_for_task(routes: Any) -> None:
    assert destination_of("zz", task_routes=routes)[1] == "old"
    assert destination_of("other", task_routes=routes)[1] == "celery"


def test_pairs_that_are_neighbours_are_one_map() -> None:
    routes = [("a*", "glob"), ("ab", "exact")]
    assert destination_of("ab", task_routes=routes)[1] == "exact"
    assert destination_of("ab", task_routes=[routes])[1] == "exact"
    assert destination_of("ab", task_routes=[{"a*": "glob"}, {"ab": "exact"}])[1] == "glob"


def test_an_empty_answer_ends_the_search() -> None:
    assert destination_of("a", task_routes=[{"a": {}}, {"a": "later"}])[1] == "celery"


def test_prepare() -> None:
    assert prepare(None) == ()
    assert [type(router) for router in prepare({"a": "b"})] == [MapRoute]
    assert list(prepare(by_argument)) == [by_argument]
    assert isinstance(expand_router_string("tests.compat.test_routes.ForTask"), ForTask)
    with pytest.raises(TypeError, match="task_routes: expected a mapping"):
        prepare([3])
    with pytest.raises(ImportError):
        prepare("no.such.router")


def test_routes_may_change() -> None:
    app = make_app()
    assert app.amqp.router.route_for("a", {})[0].routing_key == "celery"
    app.conf.task_routes = {"a": "new"}
    assert app.amqp.router.route_for("a", {})[0].routing_key == "new"


def test_the_exchange_may_say_how_to_deliver() -> None:
    declared = [Queue("t", Exchange("t", delivery_mode="transient"), "t")]
    assert destination_of("a", {"queue": "t"}, task_queues=declared)[3] == {"delivery_mode": 1}
    assert destination_of("a", {"queue": "t", "delivery_mode": 2}, task_queues=declared)[3] == {"delivery_mode": 2}


def test_a_queue_given_as_an_object() -> None:
    queue = Queue("tq", Exchange("te", "topic"), routing_key="t.#")
    assert destination_of("a", {"queue": queue}) == ("te", "t.#", "tq", {})
    assert destination_of("a", {"queue": queue, "routing_key": "t.1"}) == ("te", "t.1", "tq", {})
    assert destination_of("a", task_routes={"a": queue})[:2] == ("te", "t.#")


def test_what_is_no_queue_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a queue's name or a kombu\.Queue, got 3"):
        destination_of("a", {"queue": 3})


def test_unknown_queues_may_be_forbidden() -> None:
    with pytest.raises(QueueNotFound, match="Queue 'nn' missing from task_queues"):
        destination_of("a", {"queue": "nn"}, task_create_missing_queues=False)


def test_the_old_interface_gives_kombu_queues() -> None:
    router = make_app(task_routes={"a": {"queue": "q", "priority": 3}}).amqp.router
    decided = router.route({"countdown": 3, "exchange": None}, "a")
    assert decided.pop("queue") == Queue("q", Exchange("q"), "q")
    assert decided == {"countdown": 3, "priority": 3}
    assert router.expand_destination("q")["queue"].name == "q"
    assert router.lookup_route("none") is None
    assert router.query_router(by_argument, "t", (1,), {}, {}, None) == {"queue": "n1", "priority": None}


def test_a_router_over_queues_of_ones_own() -> None:
    app, queue = make_app(), Queue("q")
    router = Router([MapRoute({"a": "q", "b": "r"})], {"q": queue}, create_missing=False, app=app)
    assert router.route({}, "a")["queue"] is queue
    with pytest.raises(QueueNotFound):
        router.route({}, "b")
    creating = Router([MapRoute({"b": "r"})], {"q": queue}, create_missing=True, app=app)
    assert creating.route({}, "b")["queue"].name == "r"


def test_changed_queues_change_the_destination() -> None:
    app = make_app()
    assert app.amqp.router.route_for("a", {"queue": "q"})[0] == Route("", "q", QueueSpec("q", "q", "direct", "q"))
    assert app.amqp.router.route_for("a", {})[0].exchange == ""
    app.amqp.queues["celery"] = Queue("celery", Exchange("te", "topic"), "t")
    assert app.amqp.router.route_for("a", {})[0].exchange == "te"
