"""What a project says of queues, exchanges and routes holds with workers, and alike on every broker."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from celery import Celery, signals
from celery.apps.worker import Worker
from celery.utils.nodenames import worker_direct
from celery.worker import WorkController
from tests.flow.engine import until
from tests.flow.test_worker_embedded import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers import RedisServer

    MakeApp = Callable[..., Celery]

RABBIT = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]
BROKERS = ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.server), pytest.param("rabbit", marks=RABBIT)]


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a broker with nothing in it."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4()}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/broker.db"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url()
    return str(request.getfixturevalue("rabbit_url"))


class Ran:
    """What has run: which worker, with what, from where."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, Any, str, str]] = []

    def what(self) -> list[Any]:
        return [run[1] for run in self.runs]

    def wait_for(self, *what: Any) -> None:
        """These have run, each so often, in whatever order, and nothing else."""
        until(lambda: len(self.runs) >= len(what), f"{what} have run")
        assert Counter(self.what()) == Counter(what)


@pytest.fixture
def ran() -> Ran:
    return Ran()


@pytest.fixture
def make_app(url: str, ran: Ran) -> Iterator[MakeApp]:
    made: list[Celery] = []

    def make(*queues: Any, **settings: Any) -> Celery:
        app = Celery("routed", broker=url, set_as_current=False)
        app.conf.update({"task_queues": list(queues), "worker_enable_remote_control": False, **settings})

        @app.task(name="note", bind=True, ignore_result=True)
        def note(self: Any, what: Any) -> None:
            info = self.request.delivery_info
            ran.runs.append((self.request.hostname, what, info["exchange"], info["routing_key"]))

        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


def send(app: Celery, what: Any, **options: Any) -> None:
    app.tasks["note"].apply_async((what,), **options)


def test_broadcast(make_app: MakeApp, ran: Ran) -> None:
    """[route.14] Each worker runs it once; who comes later has missed it; other queues go on as ever."""

    def queues() -> list[Any]:  # each process has read the project, and made names of its own
        return [Broadcast("all"), Queue("work")]

    client = make_app(*queues(), task_routes={"note": {"queue": "all"}}, task_default_queue="work")
    numbers = itertools.count()

    def heard_by(n: int) -> bool:
        send(client, f"try {next(numbers)}")
        return len({run[0] for run in ran.runs}) == n

    with ExitStack() as stack:
        for name in ("one@here", "two@here"):
            stack.enter_context(Running(make_app(*queues(), task_default_queue="work"), hostname=name))
        until(lambda: heard_by(2), "both listen")
        send(client, "all of them")
        send(client, "any of them", queue="work")
        until(lambda: {"all of them", "any of them"} <= set(ran.what()), "it has run")
        until(lambda: ran.what().count("all of them") == 2, "both have run it")
        first = [run for run in ran.runs if run[1] == "all of them"]
        assert sorted(run[0] for run in first) == ["one@here", "two@here"]
        stack.enter_context(Running(make_app(*queues(), task_default_queue="work"), hostname="three@here"))
        until(lambda: heard_by(3), "the third listens")
        assert not [run for run in ran.runs if run[0] == "three@here" and run[1] == "all of them"]
    assert ran.what().count("all of them") == 2
    assert ran.what().count("any of them") == 1


def test_queues_and_routes_of_a_project(make_app: MakeApp, ran: Ran) -> None:
    """[route.13] [route.15] [route.22] Topics, headers, several bindings, routes with routing keys, options of a call,
    a worker's own queue."""
    media = Exchange("media", type="topic")
    app = make_app(
        Queue("images", media, routing_key="media.image.#"),
        Queue("large", media, routing_key="#.large"),
        Queue("forms", Exchange("papers", type="headers"), binding_arguments={"x-match": "all", "format": "form"}),
        Queue("news", [binding(Exchange("world", type="topic"), "*.news"), binding(Exchange("local"), "town")]),
        task_routes=[("no*", {"queue": "images", "routing_key": "media.image.small"})],
        task_default_queue="images",
    )
    app.conf.worker_direct = True
    with Running(app, hostname="direct@here"):
        send(app, "first")
        ran.wait_for("first")  # from now on everything is bound
        send(app, "to him", queue=worker_direct("direct@here"))
        send(app, "to him too", exchange="C.dq2", routing_key="direct@here")
        send(app, "to another", exchange="C.dq2", routing_key="other@here")
        send(app, "by its route")
        send(app, "both", routing_key="media.image.large")
        send(app, "by the queue", queue="large", routing_key="media.film.large")
        send(app, "form", queue="forms", headers={"format": "form"})
        send(app, "letter", queue="forms", headers={"format": "letter"})
        send(app, "world", exchange="world", routing_key="it.news")
        send(app, "local", exchange=Exchange("local"), routing_key="town")
        send(app, "nobody", exchange="world", routing_key="it.weather")
        send(app, "last")
        ran.wait_for(
            "first",
            "to him",
            "to him too",
            "by its route",
            "both",
            "both",
            "by the queue",
            "form",
            "world",
            "local",
            "last",
        )
    places = {(exchange, key) for _, what, exchange, key in ran.runs if what == "both"}
    assert places <= {("media", "media.image.large"), ("", "images"), ("", "large")}


def test_queues_are_chosen_and_added_while_it_runs(make_app: MakeApp, ran: Ran) -> None:
    """[route.7] [control.34] -Q and -X; then with an exchange and a routing key of its own."""
    topic = Exchange("t", type="topic")
    queues = [Queue("a", topic, routing_key="a.#"), Queue("b", topic, routing_key="b.#"), Queue("c")]
    app = make_app(*queues, task_default_queue="c", worker_enable_remote_control=True)
    with Running(app, queues="a,b", exclude_queues="b"):
        send(app, "a", queue="a", routing_key="a.1")
        send(app, "b", queue="b", routing_key="b.1")
        send(app, "c")
        ran.wait_for("a")
        said = app.control.add_consumer("late", "t", "topic", "*.late", reply=True, timeout=20, limit=1)
        assert "ok" in str(said)
        send(app, "late", exchange="t", exchange_type="topic", routing_key="x.late")
        ran.wait_for("a", "late")


@pytest.mark.parametrize("added", [False, True])
def test_a_receiver_adds_queues_before_the_worker_begins(make_app: MakeApp, ran: Ran, added: bool) -> None:
    """[route.24]"""
    app = make_app(Queue("mine"), task_default_queue="mine")

    def more(sender: str, instance: WorkController, **_: Any) -> None:
        assert sender == "adding@here"
        instance.app.amqp.queues.select_add(Queue("of " + sender, Exchange("x", type="topic"), "#.added"))

    if added:
        signals.celeryd_after_setup.connect(more)
    try:
        with Running(app, Worker, hostname="adding@here", quiet=True):
            send(app, "first")
            ran.wait_for("first")
            send(app, "added", exchange="x", exchange_type="topic", routing_key="now.added")
            send(app, "last")
            ran.wait_for(*["first", "last"], *(["added"] if added else []))
    finally:
        signals.celeryd_after_setup.disconnect(more)
