"""Calls from end to end of the sending side: options of the call, the task and the settings (area `call`)."""

from __future__ import annotations

import json
import threading

import pytest
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from celery import Celery, Task, _state, signals
from celery.routing import QueueSpec
from tests.compat.apps import memory_app as app
from tests.compat.apps import state

__all__ = ["app", "state"]


@pytest.fixture
def add(app):
    return app.task(name="add")(lambda x, y=0: x + y)


def taken(app, queue="celery"):
    """The one message of a queue."""
    consumer = app.assembly.broker.consume([QueueSpec(queue)])
    (delivery,) = consumer.fetch(1, 0)
    consumer.ack([delivery])
    consumer.close()
    return delivery.message


def in_a_task(task, function, **request):
    _state.push_current_task(task)
    task.push_request(id="outer", called_directly=False, **request)
    try:
        return function(), list(task.request.children)
    finally:
        task.pop_request()
        _state.pop_current_task()


def test_delay_and_apply_async_give_the_result_of_the_message(app, add):
    for result in (add.delay(1, y=2), add.apply_async((1,), {"y": 2}), add.apply_async([1], {"y": 2})):
        assert type(result) is app.AsyncResult
        message = taken(app)
        assert (message.id, message.task) == (result.id, "add")
        assert json.loads(message.body)[:2] == [[1], {"y": 2}]


def test_an_id_of_ones_own(app, add):
    assert add.apply_async((1,), task_id="mine").id == "mine"
    assert taken(app).id == "mine"


def test_messages_that_need_not_survive(app, add):
    """[opt.1]: by the setting, by the queue, or by the call, in this order of weight."""
    app.conf.update(
        task_default_delivery_mode="transient",
        task_queues=[Queue("celery"), Queue("safe", Exchange("safe", delivery_mode=2), "safe")],
    )
    add.delay(1)
    add.apply_async((1,), queue="safe")
    add.apply_async((1,), queue="safe", delivery_mode=1)
    modes = [taken(app, queue).properties["delivery_mode"] for queue in ("celery", "safe", "safe")]
    assert modes == [1, 2, 1]


def test_children_are_noted_in_the_running_task(app, add):
    result, children = in_a_task(add, lambda: add.delay(1))
    assert children == [result]
    message = taken(app)
    assert (message.headers["parent_id"], message.headers["root_id"]) == ("outer", "outer")
    _, children = in_a_task(add, lambda: add.apply_async((1,), add_to_parent=False))
    assert children == []
    taken(app)
    _, children = in_a_task(add, lambda: app.send_task("add", (1,), add_to_parent=False))
    assert children == []


@pytest.mark.parametrize("where", ["call", "task", "settings"])
def test_the_serializer_of_the_call_then_the_tasks_then_the_settings(app, where):
    app.conf.task_serializer = "pickle" if where == "settings" else "yaml"
    task = app.task(name="t", serializer="pickle" if where == "task" else None if where == "settings" else "yaml")(
        lambda x: x
    )
    task.apply_async((1,), **({"serializer": "pickle"} if where == "call" else {}))
    assert taken(app).content_type == "application/x-python-serialize"


@pytest.mark.parametrize("where", ["call", "task", "settings"])
def test_the_compression_of_the_call_then_the_tasks_then_the_settings(app, where):
    app.conf.task_compression = "zlib" if where == "settings" else "bzip2"
    task = app.task(name="t", **{"settings": {}, "call": {"compression": "bzip2"}}.get(where, {"compression": "zlib"}))(
        lambda x: x
    )
    task.apply_async((1,), **({"compression": "zlib"} if where == "call" else {}))
    assert taken(app).headers["compression"] == "application/x-gzip"


def test_ignored_results_say_so(app, add):
    result = add.apply_async((1,), ignore_result=True)
    assert result.ignored
    assert taken(app).headers["ignore_result"] is True


def test_results_by_id(app, add):
    result = add.AsyncResult("some-id")
    assert (result.id, result.app) == ("some-id", app)
    assert result.backend is add.backend
    app.backend.mark_as_done("some-id", 42)
    assert result.get(timeout=1) == 42


def test_receivers_change_what_is_sent_and_hear_that_it_was(app, add):
    heard = []

    def before(sender, body, exchange, routing_key, headers, properties, declare, retry_policy, **_):
        heard.append((sender, exchange, routing_key, [queue.name for queue in declare], retry_policy["max_retries"]))
        retry_policy["max_retries"] = 99
        headers["trace"] = "on"
        properties["app_id"] = "edited"
        body[0].append(7)

    def after(sender, body, exchange, routing_key, headers, **_):
        heard.append((sender, body[0], exchange, routing_key, headers["trace"]))

    signals.before_task_publish.connect(before, sender="add")
    signals.after_task_publish.connect(after, sender="add")
    try:
        add.apply_async([1], retry_policy={"max_retries": 1})
        app.send_task("other", queue="elsewhere")
    finally:
        signals.before_task_publish.disconnect(before, sender="add")
        signals.after_task_publish.disconnect(after, sender="add")
    message = taken(app)
    assert (message.headers["trace"], message.properties["app_id"]) == ("on", "edited")
    assert json.loads(message.body)[0] == [1, 7]
    assert heard == [("add", "", "celery", ["celery"], 1), ("add", [1, 7], "", "celery", "on")]
    assert app.conf.task_publish_retry_policy["max_retries"] == 3


def test_task_sent_is_told_to_those_who_listen(app, add):
    heard = []

    def sent(sender, task_id, task, args, kwargs, eta, taskset, **_):
        heard.append((sender, task_id, task, args, kwargs, eta, taskset))

    signals.task_sent.connect(sent)
    try:
        add.apply_async((1,), {"y": 2}, task_id="i")
    finally:
        signals.task_sent.disconnect(sent)
    assert heard == [("add", "i", "add", (1,), {"y": 2}, None, None)]


def test_publishing_that_fails_raises_the_tasks_operational_error(state):
    made = Celery("x", broker="redis://127.0.0.1:1/0", task_publish_retry_policy={"interval_step": 0})
    task = made.task(name="t")(lambda: 1)
    assert Task.OperationalError is OperationalError
    with pytest.raises(task.OperationalError):
        task.delay()
    with pytest.raises(task.OperationalError):
        task.apply_async(retry=False)


def test_many_threads_call_at_once(app, add):
    ids = []
    threads = [
        threading.Thread(target=lambda: ids.extend(add.delay(n).id for n in range(50))) for _ in range(4)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(ids)) == 200
    assert app.assembly.broker.depth("celery") == 200


@pytest.mark.parametrize("options", [{"priority": "high"}, {"time_limit": "x"}, {"link": 5}, {"exchange": 5}])
def test_an_option_that_could_only_fail_later_is_refused_before_anything_is_sent(app, options):
    """A text for a priority would have been on the queue, and in the way of all others."""
    task = app.task(name="refusing")(lambda: None)
    (name,) = options
    with pytest.raises(TypeError, match=rf"^{name}: expected "):
        task.apply_async((), **options)
    with pytest.raises(TypeError, match=rf"^{name}: expected "):
        app.send_task("elsewhere", **options)
    assert app.assembly.broker.depth("celery") == 0
    with pytest.raises(TypeError, match=r"^task refused: max_retries: expected a number"):
        app.task(name="refused", max_retries="three")(lambda: None).apply()
