"""What users test with: apps for tests, workers in the test's process, the plugin's fixtures (area `test`)."""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
import time
from typing import Any

import pytest

from celery import Celery, _state, current_app, shared_task, states
from celery.contrib.testing import manager, mocks, tasks
from celery.contrib.testing.app import (
    DEFAULT_TEST_CONFIG,
    TestApp,
    Trap,
    UnitLogging,
    set_trap,
    setup_default_app,
)
from celery.contrib.testing.worker import (
    TestWorkController,
    setup_app_for_worker,
    start_worker,
    test_worker_started,
    test_worker_starting,
    test_worker_stopped,
)
from celery.exceptions import TimeoutError
from celery.worker import state
from tests.running import Traces

for signal in (test_worker_started, test_worker_starting, test_worker_stopped):
    signal.__test__ = False  # type: ignore[attr-defined]

DEADLINE = 10.0


@pytest.fixture
def app(request):
    made = Celery("mine", broker=f"memory://{request.node.name}", backend=f"memory://{request.node.name}")
    made.task(name="add", shared=False)(lambda x, y: x + y)
    return made


def surroundings():
    gc.collect()  # what is not in use closes its files now, or at any time
    root = logging.getLogger()
    return list(root.handlers), root.level, dict(os.environ)


class TestTestApp:
    def test_its_defaults(self):
        app = TestApp()
        assert app.main == "celery.tests"
        assert (app.conf.broker_url, app.conf.result_backend) == ("memory://", "cache+memory://")
        assert {key: app.conf[key] for key in DEFAULT_TEST_CONFIG} == DEFAULT_TEST_CONFIG
        assert type(app.log) is UnitLogging
        assert app.log.already_setup
        assert _state.default_app is None

    def test_arguments_outrank_the_configuration(self):
        app = TestApp(
            "n", broker="redis://", config={"broker_url": "sqs://", "task_serializer": "yaml"}, result_expires=3
        )
        assert (app.main, app.conf.broker_url) == ("n", "redis://")
        assert (app.conf.task_serializer, app.conf.result_expires) == ("yaml", 3)
        assert TestApp(config={"broker_url": "sqs://"}).conf.broker_url == "sqs://"

    def test_logging_is_the_tests_unless_asked_for(self):
        app = TestApp(enable_logging=True)
        assert not isinstance(app.log, UnitLogging)
        before, traces = surroundings(), Traces()
        TestApp().log.setup_logging_subsystem("DEBUG")
        assert surroundings() == before
        assert not traces.new

    def test_the_trap_names_what_was_asked_for(self):
        with pytest.raises(RuntimeError, match=r"Test depends on current_app.*'conf'"):
            _ = Trap().conf
        found = []

        def look():
            try:
                found.append(current_app.conf)
            except RuntimeError as exc:
                found.append(exc)

        with set_trap(None):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join(DEADLINE)
        assert "Test depends on current_app" in str(found[0])
        assert _state.default_app is None

    def test_a_trapped_test_can_name_an_app(self, app):
        with setup_default_app(app, use_trap=True):
            with pytest.raises(RuntimeError, match="current_app"):
                _ = current_app.tasks
            app.set_current()
            assert current_app.main == "mine"

    def test_tasks_of_imported_modules_stay(self, app, tmp_path, monkeypatch):
        (tmp_path / "imported_meanwhile.py").write_text(
            "from celery import shared_task\n\n@shared_task\ndef f(): ...\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        for _ in range(2):
            made = TestApp()
            with setup_default_app(made):
                made.loader.import_task_module("imported_meanwhile")
                assert "imported_meanwhile.f" in made.tasks

    def test_apps_and_shared_tasks_are_as_before(self, app):
        other = Celery("other")
        with setup_default_app(app):
            app.set_current()
            app.set_default()
            shared_task(name="shared-meanwhile")(lambda: 1)
            assert "shared-meanwhile" in app.tasks
        assert _state.default_app is None
        assert current_app._get_current_object() is other
        assert "shared-meanwhile" not in Celery("later").tasks

    def test_messages_left_behind_reach_no_other_test(self):
        def depth(app):
            return app.assembly.broker.depth("celery")

        waiting, mine = TestApp(), TestApp()
        waiting.assembly.broker.purge("celery")  # the broker is the process's own: others may have left something
        waiting.send_task("from-before")
        with setup_default_app(mine):
            mine.send_task("left")
            mine.send_task("left-too", countdown=60)
            assert depth(waiting) == 3
        assert depth(waiting) == 1
        with setup_default_app(waiting):  # an app that is still in use keeps what it may wait for
            with setup_default_app(mine):
                mine.send_task("left")
            assert depth(waiting) == 2
        assert depth(waiting) == 1
        waiting.assembly.broker.purge("celery")


class TestStartWorker:
    def test_it_runs_tasks_in_this_process(self, app):
        @app.task(shared=False)
        def where():
            return os.getpid(), threading.current_thread().name

        with start_worker(app) as worker:
            assert isinstance(worker, TestWorkController)
            assert where.delay().get(timeout=DEADLINE) == [os.getpid(), "celery-test-worker"]
            assert app.tasks["add"].delay(2, 3).get(timeout=DEADLINE) == 5
            assert worker.state is state
            assert state.total_count["add"]
        assert worker.exitcode == 0

    def test_the_ping_comes_first_and_finds_its_queue(self, app):
        app.conf.task_routes = {"*": {"queue": "nobodys"}}
        app.conf.task_ignore_result = True
        before = state.total_count["celery.ping"]
        with start_worker(app, queues=["a", "b"]):
            assert state.total_count["celery.ping"] == before + 1
        with start_worker(app, perform_ping_check=False) as worker:
            assert state.total_count["celery.ping"] == before + 1
            worker.ensure_started()

    def test_an_app_that_has_no_ping_gets_one(self):
        app = Celery("p", broker="memory://noping", backend="memory://noping", set_as_current=False)
        app.finalize()
        del app.tasks["celery.ping"]
        with start_worker(app):
            assert "celery.ping" in app.tasks
        assert tasks.ping() == "pong"

    def test_its_app_is_current_meanwhile(self, app):
        other = Celery("other")
        with start_worker(app):
            assert current_app._get_current_object() is app
            assert _state.default_app is app
        assert _state.default_app is None
        assert current_app._get_current_object() is other

    def test_signals(self, app):
        heard: list[tuple[Any, ...]] = []

        def starting(sender, **kwargs):
            heard.append(("starting", sender, sorted(kwargs)))

        def started(sender, worker, consumer, **_):
            heard.append(("started", sender, worker, consumer, threading.current_thread().name))

        def stopped(sender, worker, **_):
            heard.append(("stopped", sender, worker))

        test_worker_starting.connect(starting)
        test_worker_started.connect(started)
        test_worker_stopped.connect(stopped)
        try:
            with start_worker(app) as worker:
                pass
        finally:
            test_worker_starting.disconnect(starting)
            test_worker_started.disconnect(started)
            test_worker_stopped.disconnect(stopped)
        assert heard == [
            ("starting", app, ["signal"]),
            ("started", app, worker, worker.consumer, "celery-test-worker"),
            ("stopped", app, worker),
        ]

    def test_its_log_records_are_the_tests(self, app, caplog):
        before, traces = surroundings(), Traces()
        with start_worker(app):
            caplog.set_level(logging.INFO)  # levels may be changed while it runs
            result = app.tasks["add"].delay(1, 1)
            result.get(timeout=DEADLINE)
            lines = [record.getMessage() for record in caplog.records]
            assert lines[0] == f"Task add[{result.id}] received"
            assert lines[1].startswith(f"Task add[{result.id}] succeeded in ")
            caplog.set_level(logging.WARNING)
            caplog.clear()
            app.tasks["add"].delay(1, 1).get(timeout=DEADLINE)
            assert not caplog.records
        caplog.set_level(before[1])
        assert surroundings() == before
        assert not traces.new

    def test_the_level_opens_and_a_file_keeps_them(self, app, tmp_path, caplog):
        before, traces = surroundings(), Traces()
        path = tmp_path / "worker.log"
        with start_worker(app, loglevel="info", logfile=str(path)):
            result = app.tasks["add"].delay(1, 1)
            result.get(timeout=DEADLINE)
        assert f"INFO/MainProcess] Task add[{result.id}] received" in path.read_text()
        assert f"Task add[{result.id}] received" in caplog.messages
        assert surroundings() == before
        assert not traces.new

    @pytest.mark.slow
    def test_a_hundred_times(self, app):
        with start_worker(app):
            pass
        before, traces = surroundings(), Traces()
        for n in range(100):
            with start_worker(app):
                assert app.tasks["add"].delay(n, 1).get(timeout=DEADLINE) == n + 1
        assert surroundings() == before
        assert not traces.new

    def test_tasks_that_do_not_end_are_told(self, app):
        begun, leave = threading.Event(), threading.Event()

        @app.task(shared=False)
        def stuck():
            begun.set()
            leave.wait(DEADLINE)

        try:
            with (
                pytest.raises(RuntimeError, match="raising `shutdown_timeout` if your tasks"),
                start_worker(app, shutdown_timeout=0.05),
            ):
                assert stuck.delay() and begun.wait(DEADLINE)  # noqa: PT018
        finally:
            leave.set()
        for thread in threading.enumerate():  # its worker was given up, and ends now
            if thread.name == "celery-test-worker":
                thread.join(DEADLINE)
                assert not thread.is_alive()
        assert _state.default_app is None

    def test_what_the_test_raises_comes_out(self, app):
        traces = Traces()
        with pytest.raises(KeyError, match="mine"), start_worker(app):
            raise KeyError("mine")
        assert not traces.new

    @pytest.mark.slow
    def test_a_ping_without_an_answer(self, app, monkeypatch):
        app.finalize()
        monkeypatch.setattr(app.tasks["celery.ping"], "run", lambda: "what?")
        with pytest.raises(RuntimeError, match=r"expected .* 'pong', got 'what\?'"), start_worker(app):
            pass
        monkeypatch.setattr(app.tasks["celery.ping"], "run", lambda: time.sleep(0.2))
        with pytest.raises(TimeoutError), start_worker(app, ping_task_timeout=0.1):
            pass

    @pytest.mark.slow
    def test_a_worker_that_cannot_start(self, caplog):
        app = Celery("x", broker="redis://127.0.0.1:1", backend="memory://x", broker_connection_retry_on_startup=False)
        ended = pytest.raises(RuntimeError, match=r"ended before it was ready \(exit code 1\); its log says why")
        with ended, start_worker(app):
            pass
        assert "Unrecoverable error" in caplog.text
        app.conf.broker_connection_retry_on_startup = True
        app.conf.broker_url = "redis://u:secret@127.0.0.1:1"
        late = pytest.raises(RuntimeError, match=r"not ready within 0.05 seconds.*redis://u:\*\*@127")
        with late as caught, start_worker(app, ping_task_timeout=0.05):
            pass
        assert "secret" not in str(caught.value)
        assert "celery-test-worker" not in {thread.name for thread in threading.enumerate()}

    def test_reload_imports_modules(self, app, tmp_path, monkeypatch):
        (tmp_path / "reloaded_tasks.py").write_text(
            "from celery import shared_task\n\n@shared_task\ndef late():\n    return 'late'\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        with start_worker(app) as worker:
            worker.reload(["reloaded_tasks"])
            assert app.send_task("reloaded_tasks.late").get(timeout=DEADLINE) == "late"

    def test_messages_and_results_are_serialized(self, app):
        """Production's semantics: nothing is shared with the task but what the serializer can carry."""

        @app.task(shared=False)
        def kind(value):
            return type(value).__name__

        with start_worker(app):
            assert kind.delay((1, 2)).get(timeout=DEADLINE) == "list"
            with pytest.raises(Exception, match="not JSON serializable"):
                kind.delay(object())

    def test_what_was_not_acknowledged_comes_back(self, app):
        attempts = []

        @app.task(shared=False, acks_late=True, reject_on_worker_lost=True, bind=True, name="twice")
        def twice(self):
            attempts.append(self.request.delivery_info.get("redelivered"))
            if len(attempts) == 1:
                raise SystemExit(3)
            return "second"

        with start_worker(app, shutdown_timeout=DEADLINE) as first:
            result = twice.delay()
            assert first._done.wait(DEADLINE)
        with start_worker(app):
            assert result.get(timeout=DEADLINE) == "second"
        assert attempts == [False, True] or attempts == [None, True]


class TestSettingUp:
    def test_the_app_is_finalized_current_and_default(self, app):
        setup_app_for_worker(app, "error", None)
        assert app.finalized
        assert current_app._get_current_object() is app
        assert _state.default_app is app


class TestFixtures:
    """The plugin in this very process; `tests/wire/test_plugin.py` compares it with the real one."""

    def test_the_app(self, celery_app):
        assert celery_app.conf.broker_url == "memory://"
        assert _state._tls.current_app is None

    @pytest.mark.celery(result_backend="redis://", task_serializer="yaml")
    def test_the_marker(self, celery_app):
        assert (celery_app.conf.result_backend, celery_app.conf.task_serializer) == ("redis://", "yaml")

    def test_the_worker(self, celery_app, celery_worker):
        @celery_app.task
        def mul(x, y):
            return x * y

        celery_worker.reload()
        assert mul.delay(4, 4).get(timeout=DEADLINE) == 16

    def test_the_current_app(self, celery_app, depends_on_current_app):
        assert current_app._get_current_object() is celery_app


class TestMocks:
    def test_a_message(self):
        message = mocks.TaskMessage("add", "i", (1,), {"a": 2}, callbacks=["c"], shadow="s", foo=3)
        assert message.headers == {"id": "i", "task": "add", "shadow": "s", "foo": 3}
        assert message.payload == ((1,), {"a": 2}, {"callbacks": ["c"], "errbacks": None, "chain": None})
        assert json.loads(message.body) == [[1], {"a": 2}, {"callbacks": ["c"], "errbacks": None, "chain": None}]
        assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
        message.ack()
        message.ack.assert_called_once_with()
        assert len(mocks.TaskMessage("add").headers["id"]) == 36

    def test_a_message_of_protocol_1(self):
        message = mocks.TaskMessage1("add", "i", (1,), chain=["dropped"], eta="e")
        assert message.headers == {}
        assert json.loads(message.body) == {
            "task": "add", "id": "i", "args": [1], "kwargs": {}, "callbacks": None, "errbacks": None, "eta": "e",
        }  # fmt: skip

    def test_a_signatures_message(self, celery_app):
        add = celery_app.task(name="add", shared=False)(lambda x, y: x + y)
        signature = add.s(1, 2).set(link=[add.s(3)], countdown=10, expires=20, shadow="s", priority=3)
        message = mocks.task_message_from_sig(celery_app, signature)
        assert message.payload[:2] == ((1, 2), {})
        assert message.payload[2]["callbacks"] == [dict(add.s(3))]
        headers = message.headers
        assert (headers["id"], headers["shadow"], headers["priority"]) == (signature.id, "s", 3)
        assert headers["eta"] < headers["expires"]
        assert headers["eta"].endswith("+00:00")
        assert signature.options["link"] == [add.s(3)]
        single = mocks.task_message_from_sig(celery_app, add.s(1).set(link_error=add.s(4), eta="2030-01-01"))
        assert single.payload[2]["errbacks"] == [dict(add.s(4))]
        assert single.headers["eta"] == "2030-01-01"
        assert (
            mocks.task_message_from_sig(celery_app, add.s(1), TaskMessage=mocks.TaskMessage1).payload["task"] == "add"
        )

    def test_a_context(self):
        mock = mocks.ContextMock(foo=1)
        with mock as same:
            assert same is mock
        mock.__exit__.assert_called_once_with(None, None, None)
        with pytest.raises(KeyError), mock:
            raise KeyError


class TestAskingWorkers:
    """What a `Manager` learns by remote control."""

    @pytest.fixture
    def gate(self):
        gate = threading.Event()
        yield gate
        gate.set()

    @pytest.fixture
    def manage(self, app, gate):
        app.task(name="held", shared=False)(lambda: gate.wait(DEADLINE))
        with start_worker(app, pool="threads", concurrency=1, perform_ping_check=False):
            yield manager.Manager(app, block_timeout=DEADLINE)
            gate.set()

    def test_tasks_that_run_and_that_wait(self, manage, app, gate):
        running, waiting = app.tasks["held"].delay().id, app.tasks["add"].delay(1, 2)
        quick = {"interval_start": 0.01, "max_retries": 200}
        manage.assert_accepted([running], **quick)
        manage.assert_received([running], **quick)
        assert manage.query_task_states([running])["active"] == {running}
        ((_, known),) = manage.query_tasks([running])
        assert known[running][0] == "active"
        assert not manage.is_accepted([running, waiting.id])
        assert not manage.is_received([running, "nobody knows it"])
        with pytest.raises(manager.Sentinel):
            manage.assert_accepted(["nobody knows it"], interval=0.001, max_retries=1)
        gate.set()
        assert waiting.get(timeout=DEADLINE) == 3
        manage.wait_until_idle()
        assert not manage.is_accepted([running])

    def test_nobody_answers(self, app):
        manage = manager.Manager(app)
        manage.inspect = lambda timeout=0.01: app.control.inspect(timeout=0.01)
        assert not manage.is_accepted(["x"])
        with pytest.raises(manager.Sentinel, match="none answered"):
            manage.wait_until_idle()

    @pytest.mark.slow
    def test_workers_that_do_not_come_to_an_end(self, manage, app):
        app.tasks["held"].delay()
        manage.wait_for(
            lambda: manage.true_or_raise(lambda: any((manage.inspect(0.5).active() or {}).values())), manager.Sentinel
        )
        manage.block_timeout = 0.01
        with pytest.raises(TimeoutError, match="still run tasks"):
            manage.wait_until_idle()


class TestManager:
    @pytest.fixture
    def manage(self, celery_app):
        return manager.Manager(celery_app)

    def test_waiting_for_something(self, manage, capsys):
        manage = manager.Manager(manage.app)
        answers = [0, 0, 7]

        def look():
            return manage.true_or_raise(answers.pop, 0)

        quick = {"interval_start": 0.001, "interval_step": 0.001}
        assert manage.wait_for(look, manager.Sentinel, "luck", emit_warning=True, **quick) == 7
        assert capsys.readouterr().err.splitlines() == [
            "Still waiting for luck.  Trying again in 0.00 seconds: Sentinel()",
            "Still waiting for luck.  Trying again in 0.00 seconds: Sentinel()",
        ]
        answers[:] = [0] * 9
        noted: list[Any] = []
        with pytest.raises(manager.Sentinel):
            manage.wait_for(look, manager.Sentinel, errback=lambda *given: noted.append(given), max_retries=3, **quick)
        assert [retries for _, _, retries in noted] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            manage.wait_for(lambda: 1 / 0, manager.Sentinel)

    def test_making_sure_that_something_does_not_happen(self, manage):
        answers = [0, 0, 0, 0, 1]

        def look():
            return manage.true_or_raise(answers.pop, 0)

        manage.ensure_not_for_a_while(look, manager.Sentinel, max_retries=3, interval_start=0.001)
        with pytest.raises(AssertionError, match="Should not have happened: the flood"):
            manage.ensure_not_for_a_while(look, manager.Sentinel, "the flood", interval_start=0.001)

    def test_results(self, manage, capsys):
        manage = manager.Manager(manage.app)
        app = manage.app
        app.backend.mark_as_done("here", 1)
        app.backend.mark_as_failure("failed", KeyError("k"))
        here, gone, failed = (app.AsyncResult(id) for id in ("here", "gone", "failed"))
        assert manage.join(here) == 1
        assert isinstance(manage.join([here, failed])[1], KeyError)
        with pytest.raises(KeyError):
            manage.join(failed, propagate=True)
        assert manage.missing_results([here, gone]) == ["gone"]
        with pytest.raises(AssertionError, match="Missing task results"):
            manage.join([here, gone], timeout=0.001, max_retries=2)
        assert capsys.readouterr().out.count("!Still waiting for 1/2: [gone]: TimeoutError(") == 2
        assert manager.Manager(app, no_join=True).join(gone) is None

    def test_states(self, manage):
        app = manage.app
        app.backend.mark_as_done("s", 1)
        app.backend.store_result("r", None, states.STARTED)
        ends, runs, waits = (app.AsyncResult(id) for id in "srp")
        assert manage.assert_result_tasks_in_progress_or_completed([ends, runs])
        with pytest.raises(manager.Sentinel):
            manage.assert_result_tasks_in_progress_or_completed([ends, waits], interval=0.001, max_retries=1)
        assert manage.assert_task_state_from_result(lambda results: results, [waits])
