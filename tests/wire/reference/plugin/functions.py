"""test_functions.py: fixtures of function scope."""

import logging
import threading

import pytest

from celery import _state, current_app
from celery.contrib import pytest as plugin
from celery.contrib.testing import worker as testing_worker
from celery.contrib.testing.app import DEFAULT_TEST_CONFIG

GET = {"timeout": 20}


def where(app):
    """Which app is current here, in another thread, and by default."""
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(current_app._get_current_object() is app))
    thread.start()
    thread.join()
    return [current_app._get_current_object() is app, *elsewhere, _state.default_app is app]


def test_fixtures(note):
    for name in sorted(dir(plugin)):
        found = getattr(plugin, name)
        marker = getattr(found, "_fixture_function_marker", None)
        if marker is not None:
            note(name, [marker.scope, marker.autouse])
    note("configuration", {key: sorted(v) if isinstance(v, set) else v for key, v in DEFAULT_TEST_CONFIG.items()})
    note("level", testing_worker.WORKER_LOGLEVEL)


def test_defaults(note, celery_enable_logging, celery_worker_pool, celery_class_tasks, use_celery_app_trap):
    note("defaults", [celery_enable_logging, celery_worker_pool, celery_class_tasks, use_celery_app_trap])


def test_app(note, celery_app):
    note("where", where(celery_app))
    conf = celery_app.conf
    note(
        "conf", [conf.broker_url, conf.result_backend, conf.result_expires, conf.timezone, sorted(conf.accept_content)]
    )
    note("app", [celery_app.main, celery_app.finalized, celery_app.strict_typing, celery_app.set_as_current])
    note("logging", celery_app.log.already_setup)
    note("task class", celery_app.Task.kind)
    note("ping", "celery.ping" in celery_app.tasks)


@pytest.mark.celery(result_backend="redis://", task_serializer="pickle")
def test_marker(note, celery_app):
    note("conf", [celery_app.conf.result_backend, celery_app.conf.task_serializer, celery_app.conf.result_expires])


@pytest.mark.celery(result_expires=1)
class TestMarkers:
    def test_of_the_class(self, note, celery_app):
        note("conf", celery_app.conf.result_expires)

    @pytest.mark.celery(task_serializer="pickle")
    def test_the_closest_counts(self, note, celery_app):
        note("conf", [celery_app.conf.result_expires, celery_app.conf.task_serializer])


def test_current(note, celery_app, depends_on_current_app):
    note("where", where(celery_app))


def test_afterwards(note):
    note("where", current_app.main)


def test_worker(note, celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    @celery_app.task(bind=True)
    def request(self):
        return [self.request.is_eager, self.request.called_directly, self.request.delivery_info["routing_key"]]

    @celery_app.task
    def fail():
        raise KeyError("k")

    celery_worker.reload()
    note("where", where(celery_app))
    note("result", [mul.name, mul.delay(4, 4).get(**GET)])
    note("request", request.apply_async(queue="side").get(**GET))
    note("name", celery_worker.hostname.startswith("gen"))
    with pytest.raises(KeyError):
        fail.delay().get(**GET)
    note("included", celery_app.send_task("shared_tasks.include", (1,)).get(**GET))
    note("worker", [type(celery_worker).__name__, celery_worker.concurrency, celery_worker.logger_queue])
    note("taken from", sorted(celery_app.amqp.queues.consume_from))
    note("state", [celery_worker.state.__name__, celery_worker.state.total_count[mul.name]])


def test_log(note, celery_app, celery_worker, caplog):
    @celery_app.task
    def add(x, y):
        logging.getLogger("mine").info("adding")
        return x + y

    celery_worker.reload()
    with caplog.at_level(logging.INFO):
        assert add.delay(1, 2).get(**GET) == 3
    note("records", [record.getMessage() for record in caplog.records if record.name == "mine"])


def test_left_behind(celery_app):
    @celery_app.task(name="left")
    def left():
        raise AssertionError("another test's task")

    left.delay()


def test_not_run_by_another(note, celery_app, celery_worker, caplog):
    assert celery_app.send_task("shared_tasks.include", (1,)).get(**GET)
    note("records", [record.levelname for record in caplog.records if record.levelno >= logging.WARNING])


@pytest.fixture
def heard():
    found, receivers = [], []
    for name in ("test_worker_starting", "test_worker_started", "test_worker_stopped"):

        def receive(sender=None, name=name, **given):
            found.append([name, type(sender).__name__, sorted(given), type(given.get("worker")).__name__])

        receivers.append(receive)
        getattr(testing_worker, name).connect(receive)
    return found, receivers


def test_start_worker(note, celery_app, heard):
    with testing_worker.start_worker(
        celery_app, perform_ping_check=False, hostname="me@here", queues=["side"]
    ) as worker:
        note("name", worker.hostname)
        note("where", where(celery_app))
        note("taken from", sorted(celery_app.amqp.queues.consume_from))
    note("heard", heard[0])


def test_start_worker_and_an_error(note, celery_app, heard):
    with pytest.raises(ZeroDivisionError), testing_worker.start_worker(celery_app):
        1 / 0  # noqa: B018
    note("heard", heard[0])


def test_a_task_that_does_not_end(note, celery_app):
    begun, leave = threading.Event(), threading.Event()

    @celery_app.task
    def stuck():
        begun.set()
        leave.wait(20)

    with pytest.raises(RuntimeError) as caught, testing_worker.start_worker(celery_app, shutdown_timeout=0.1):  # noqa: PT012
        stuck.delay()
        begun.wait(20)
    note("error", str(caught.value))
    leave.set()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(1)
