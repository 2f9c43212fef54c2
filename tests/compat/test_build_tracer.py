"""The seam `celery.app.trace.build_tracer`: what monitoring packages put in its place, a test for each kind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import wrapt

from celery.app import trace
from celery.app.task import Task
from celery.exceptions import Ignore, Reject, Retry
from celery.outcome import Failure, Ignored, Rejected, Retrying, Success
from tests.flow.bench import Bench, Heard, document
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def say(bench: Bench) -> Any:
    """A task that does as it is told."""

    @bench.app.task(name="say", bind=True)
    def say(self: Any, what: str = "value") -> str:
        if what == "value":
            return f"{what} of {self.request.id}"
        raise {
            "error": ValueError("no"),
            "ignore": Ignore("i"),
            "reject": Reject("r", requeue=False),
            "requeue": Reject("r", requeue=True),
            "retry": Retry("again", exc=KeyError("cause")),
            "exit": SystemExit(3),
        }[what]

    return say


KINDS = {
    "value": Success, "error": Failure, "ignore": Ignored, "reject": Rejected, "requeue": Rejected, "retry": Retrying,
}  # fmt: skip


class Wrapper:
    """A `build_tracer` around the one before it, as sentry's is."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.built: list[tuple[Any, ...]] = []
        self.traced: list[Any] = []
        self.answers: list[Any] = []

    def __call__(self, name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        self.built.append((name, task, args, kwargs))
        traced = self.original(name, task, *args, **kwargs)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.traced.append((args, kwargs))
            answer = traced(*args, **kwargs)
            self.answers.append(answer)
            return answer

        return wrapped


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch) -> Wrapper:
    wrapper = Wrapper(trace.build_tracer)
    monkeypatch.setitem(vars(trace), "build_tracer", wrapper)
    return wrapper


# -- nobody has replaced anything ------------------------------------------------------------------------------


def test_untouched_the_bridge_is_not_used(bench: Bench, say: Any) -> None:
    bench.run(say)
    assert say.__trace__ is None
    assert trace.replaced("build_tracer") is None


# -- wrapped ---------------------------------------------------------------------------------------------------


def test_a_wrapper_is_called_as_ever(bench: Bench, say: Any, wrapper: Wrapper) -> None:
    first = bench.run(say, headers={"trace-id": "t"}, link_error=say.si())
    second = bench.run(say)
    assert wrapper.built == [("say", say, (bench.app.loader, "w@here"), {"app": bench.app})], "once for each task"
    (args, kwargs), (again, _) = wrapper.traced
    assert (args[:3], kwargs) == ((first.record.id, [], {}), {})
    request = args[3]
    assert type(request) is dict
    assert (request["id"], request["task"], request["trace-id"]) == (first.record.id, "say", "t")
    assert (request["timelimit"], request["is_eager"], request["hostname"]) == ([None, None], False, "w@here")
    assert (request["errbacks"][0]["task"], request["callbacks"], request.get("headers")) == ("say", None, None)
    assert again[0] == second.record.id


@pytest.mark.parametrize("what", KINDS)
def test_outcomes_pass_a_wrapper_unchanged(bench: Bench, say: Any, wrapper: Wrapper, what: str) -> None:
    say.apply_async((what,))
    message = bench.take()
    outcome = bench.run_message(message)
    plain = Bench()
    plain.app.tasks.register(say)
    del vars(trace)["build_tracer"]
    expected = plain.run_message(message)
    assert type(outcome) is type(expected) is KINDS[what]
    assert (outcome.record is None) == (expected.record is None)
    if outcome.record is not None:
        ours, theirs = document(outcome), document(expected)
        assert {**ours, "date_done": None, "traceback": None} == {**theirs, "date_done": None, "traceback": None}
    assert getattr(outcome, "requeue", None) == getattr(expected, "requeue", None)
    (answer,) = wrapper.answers
    assert type(answer) is trace.trace_ok_t
    if what == "value":
        value = f"value of {message.id}"
        assert (answer.retval, answer.info, answer.retstr) == (value, None, repr(value))
        assert answer.runtime > 0
    else:
        states = {"error": "FAILURE", "ignore": "IGNORED", "retry": "RETRY"}
        assert (answer.info.state, answer.retstr) == (states.get(what, "REJECTED"), None)
        assert answer.retval.traceback


def test_callbacks_travel_with_the_outcome(bench: Bench, say: Any, wrapper: Wrapper) -> None:
    outcome = bench.run(say, link=say.si())
    assert (len(outcome.follow), bench.waiting()) == (1, [])
    assert len(document(outcome)["children"]) == 1


def test_signals_are_sent_once_and_hooks_see_the_state(bench: Bench, say: Any, wrapper: Wrapper) -> None:
    with Heard("task_prerun", "task_success", "task_postrun") as heard:
        bench.run(say)
    assert heard.order == ["task_prerun", "task_success", "task_postrun"]


def test_leaving_the_process_goes_through(bench: Bench, say: Any, wrapper: Wrapper) -> None:
    say.apply_async(("exit",))
    with pytest.raises(SystemExit):
        bench.run_message(bench.take())
    assert say.request.id is None


def test_what_was_reached_stands_if_the_wrapper_raises(
    bench: Bench, say: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = trace.build_tracer

    def build_tracer(*args: Any, **kwargs: Any) -> Any:
        traced = original(*args, **kwargs)

        def wrapped(*args: Any) -> Any:
            traced(*args)
            raise RuntimeError("monitoring")

        return wrapped

    monkeypatch.setitem(vars(trace), "build_tracer", build_tracer)
    assert isinstance(bench.run(say), Success)
    assert "what wraps its tracer raised" in caplog.text


def test_the_body_is_patched_on_the_instance(bench: Bench, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentry does so where `__call__` is not overridden, while the tracer is built."""
    original = trace.build_tracer

    def build_tracer(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        assert not trace.task_has_custom(task, "__call__")
        run = task.run
        task.run = lambda *a, **k: run(*a, **k).replace("value", "patched")
        return original(name, task, *args, **kwargs)

    monkeypatch.setitem(vars(trace), "build_tracer", build_tracer)
    outcome = bench.run(say)
    assert document(outcome)["result"] == f"patched of {outcome.record.id}"


def test_call_is_patched_on_the_class(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so where it is."""
    calls: list[str] = []

    class Custom(Task[..., Any]):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("custom")
            return super().__call__(*args, **kwargs)

    @bench.app.task(name="t", base=Custom, bind=True)
    def t(self: Any) -> str:
        return str(self.request.id)

    original = trace.build_tracer

    def build_tracer(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        assert trace.task_has_custom(task, "__call__")
        called = type(task).__call__

        def patched(*a: Any, **k: Any) -> Any:
            calls.append("patched")
            return called(*a, **k)

        type(task).__call__ = patched
        return original(name, task, *args, **kwargs)

    monkeypatch.setitem(vars(trace), "build_tracer", build_tracer)
    outcome = bench.run(t)
    assert (calls, document(outcome)["result"]) == (["patched", "custom"], outcome.record.id)


def test_a_proxy_of_the_task_is_what_is_called(bench: Bench, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """New Relic passes a wrapt proxy on, by position or by name."""
    calls: list[str] = []

    class TaskProxy(wrapt.ObjectProxy):  # type: ignore[misc, name-defined]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("call")
            return self.__wrapped__(*args, **kwargs)

        def run(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("run")
            return self.__wrapped__.run(*args, **kwargs)

    original = trace.build_tracer

    def build_tracer(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        return original(name, *args, task=TaskProxy(task), **kwargs) if not args else original(
            name, TaskProxy(task), *args, **kwargs
        )  # fmt: skip

    monkeypatch.setitem(vars(trace), "build_tracer", build_tracer)
    outcome = bench.run(say)
    assert (calls, document(outcome)["result"]) == (["run"], f"value of {outcome.record.id}")


# -- replaced --------------------------------------------------------------------------------------------------


def own_tracer(name: str, task: Any, loader: Any = None, hostname: Any = None, app: Any = None, **kwargs: Any) -> Any:
    """A tracer of somebody's own, with the names that celery-aio-pool imports."""

    def traced(uuid: str, args: Any, kwargs: Any, request: dict[str, Any] | None = None) -> Any:
        context = trace.Context(request or {}, args=args, called_directly=False, kwargs=kwargs)
        trace._task_stack.push(task)
        task.request_stack.push(context)
        trace.send_prerun(sender=task, task_id=uuid, task=task, args=args, kwargs=kwargs)
        try:
            value = task.run(*args, **kwargs)
            task.backend.mark_as_done(uuid, value, context, not trace.get_actual_ignore_result(task, context))
            return trace.trace_ok_t(value, None, 0.5, trace.saferepr(value))
        except trace.Reject as exc:
            info = trace.TraceInfo(trace.REJECTED, exc)
        except trace.Ignore as exc:
            info = trace.TraceInfo(trace.IGNORED, exc)
        except trace.Retry as exc:
            info = trace.TraceInfo(trace.RETRY, exc)
        except Exception as exc:  # noqa: BLE001 - a task may raise anything
            info = trace.TraceInfo(trace.FAILURE, exc)
        finally:
            task.request_stack.pop()
            trace._task_stack.pop()
        return trace.trace_ok_t(info.handle_error_state(task, context), info, 0.5, None)

    return traced


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("how", ["module", "task"])
def test_a_tracer_of_somebody_s_own(
    bench: Bench, say: Any, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    if how == "module":
        monkeypatch.setitem(vars(trace), "build_tracer", own_tracer)
    else:
        say.__trace__ = own_tracer("say", say)
    result = say.apply_async((what,), link_error=say.si())
    message = bench.take()
    with Heard("task_failure", "task_retry") as heard:
        outcome = bench.run_message(message)
    assert type(outcome) is KINDS[what]
    assert (outcome.record, outcome.follow) == (None, []), "it has stored and sent by itself"
    assert getattr(outcome, "requeue", False) == (what == "requeue")
    states = {"value": "SUCCESS", "error": "FAILURE", "retry": "RETRY"}
    assert result.state == states.get(what, "PENDING")
    assert heard.order == {"error": ["task_failure"], "retry": ["task_retry"]}.get(what, [])
    assert [sent.task for sent in bench.waiting()] == (["say"] if what == "error" else [])


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
@pytest.mark.parametrize("answer", [None, RuntimeError("tracer")])
def test_a_tracer_that_fails_fails_the_task(
    bench: Bench, say: Any, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def traced(*args: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    say.__trace__ = traced
    with Heard("task_internal_error") as heard:
        outcome = bench.run(say)
    assert (type(outcome), document(outcome)["status"], heard.order) == (Failure, "FAILURE", ["task_internal_error"])


# -- called by hand --------------------------------------------------------------------------------------------


def test_by_hand_it_stores_and_sends(bench: Bench, say: Any) -> None:
    traced = trace.build_tracer(say.name, say, app=bench.app)
    answer = traced("i", (), {}, {"callbacks": [say.si()]})
    assert (answer.retval, answer.info) == ("value of i", None)
    assert bench.app.AsyncResult("i").get(timeout=1) == "value of i"
    assert [message.task for message in bench.waiting()] == ["say"]
    failed = traced("j", ("error",), {}, None)
    assert (failed.info.state, repr(failed.info.retval)) == ("FAILURE", "ValueError('no')")
    assert bench.app.AsyncResult("j").state == "FAILURE"
    with pytest.raises(ValueError, match="task_id must not be empty"):
        traced(None, (), {}, None)


def test_eagerly_it_stores_nothing_and_may_propagate(bench: Bench, say: Any) -> None:
    answer = trace.build_tracer(say.name, say, app=bench.app, eager=True)("i", ("error",), {}, {"is_eager": True})
    assert (answer.info.state, bench.app.AsyncResult("i").state) == ("FAILURE", "PENDING")
    with pytest.raises(ValueError, match="no"):
        trace.build_tracer(say.name, say, app=bench.app, eager=True, propagate=True)("i", ("error",), {})


def test_old_ways_of_running_a_task(bench: Bench, say: Any) -> None:
    body = json.dumps([["value"], {}, {}])
    assert trace.trace_task(say, "i", (), {}, app=bench.app).retval == "value of i"
    assert say.__trace__ is not None
    trace.setup_worker_optimizations(bench.app, "w@here")
    try:
        first = trace.trace_task_ret("say", "j", {"id": "j"}, body, "application/json", "utf-8", app=bench.app)
        failed, text, runtime = trace.fast_trace_task("say", "k", {"id": "k"}, body, "application/json", "utf-8")
    finally:
        trace.reset_worker_optimizations(bench.app)
    assert (first[:2], failed, text) == ((0, "'value of j'"), 0, "'value of k'")
    assert runtime is not None
    assert say.__trace__ is None


def test_internal_errors_are_reported(say: Any) -> None:
    with pytest.warns(RuntimeWarning, match="Exception raised outside body: KeyError"):
        einfo = trace.report_internal_error(say, KeyError("x"))
    assert repr(einfo.exception.exc) == "KeyError('x')"


@pytest.mark.parametrize("name", ["nosuch", "__path__"])
def test_other_names_are_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(trace, name)


# -- real packages ---------------------------------------------------------------------------------------------

#: Modules that these packages import and that are not there yet: an empty place that says so.
LATER = """
import importlib.util, sys, types
for module, names in (
    ("celery.beat", ["Scheduler"]),
    ("celery.schedules", ["crontab", "schedule"]),
    ("celery.worker.request", ["Request"]),
):
    if importlib.util.find_spec(module) is None:
        sys.modules[module] = types.ModuleType(module)
        for name in names:
            setattr(sys.modules[module], name, type(name, (), {"apply_entry": None, "tick": None}))
"""

SENTRY = (
    LATER
    + """
import json, sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
seen = []
class Kept(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        seen.extend(item.payload.json for item in envelope.items)
sentry_sdk.init(
    dsn="http://key@127.0.0.1:1/1", transport=Kept, traces_sample_rate=1.0, default_integrations=False,
    integrations=[CeleryIntegration()],
)
from tests.flow.bench import Bench
bench = Bench()
@bench.app.task(name="ok")
def ok(): return 1
@bench.app.task(name="bad")
def bad(): raise ValueError("no")
kinds = [type(bench.run(ok)).__name__, type(bench.run(bad)).__name__]
sentry_sdk.flush()
print(json.dumps({
    "kinds": kinds,
    "transactions": [e["transaction"] for e in seen if e.get("type") == "transaction"],
    "errors": [e["exception"]["values"][-1]["type"] for e in seen if "exception" in e],
    "task": [e["contexts"]["trace"]["op"] for e in seen if e.get("type") == "transaction"],
}))
"""
)

OTEL = (
    LATER
    + """
import json
from opentelemetry import trace as otel
from opentelemetry.instrumentation.celery import CeleryInstrumentor
class Span(otel.NonRecordingSpan):
    def __init__(self, name): super().__init__(otel.INVALID_SPAN_CONTEXT); self.name = name; self.status = None
    def is_recording(self): return True
    def set_status(self, status, description=None): self.status = status.status_code.name
    def end(self, end_time=None): ended.append((self.name, self.status))
class Tracer(otel.NoOpTracer):
    def start_span(self, name, *args, **kwargs): return Span(name)
class Provider(otel.TracerProvider):
    def get_tracer(self, *args, **kwargs): return Tracer()
ended = []
CeleryInstrumentor().instrument(tracer_provider=Provider(), skip_dep_check=True)
from tests.flow.bench import Bench
bench = Bench()
@bench.app.task(name="ok")
def ok(): return 1
@bench.app.task(name="bad")
def bad(): raise ValueError("no")
kinds = [type(bench.run(ok, link=ok.si())).__name__, type(bench.run(bad)).__name__]
print(json.dumps({"kinds": kinds, "spans": ended}))
"""
)


def program(source: str) -> dict[str, Any]:
    """Run it in a process of its own: these packages patch for good. Returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": ""},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.slow
def test_sentry() -> None:
    seen = program(SENTRY)
    assert seen["kinds"] == ["Success", "Failure"]
    assert seen["errors"] == ["ValueError"]
    assert (seen["transactions"], seen["task"]) == (["ok", "bad"], ["queue.task.celery"] * 2)


@pytest.mark.slow
def test_opentelemetry() -> None:
    seen = program(OTEL)
    assert seen["kinds"] == ["Success", "Failure"]
    names = [name for name, _ in seen["spans"]]
    assert names == ["apply_async/ok", "apply_async/ok", "run/ok", "apply_async/bad", "run/bad"]
    assert seen["spans"][-1] == ["run/bad", "ERROR"]


def test_a_run_that_nobody_settles_tells_its_flow(bench: Bench) -> None:
    """The rest of its chain fails with it, and its chord is told."""
    app: Any = bench.app

    @app.task(name="flowing")
    def flowing() -> None:
        raise KeyError("oops")

    app.assembly.barriers.open("chord", 1)
    later = {**app.signature("later"), "options": {"task_id": "later-id"}}
    body = {**app.signature("body"), "options": {"task_id": "body-id"}}
    request = {"chain": [later], "chord": body, "group": "chord", "group_index": 0}
    trace.build_tracer("flowing", flowing, app=app)("flowing-id", (), {}, request)
    assert repr(app.AsyncResult("later-id").result) == "KeyError('oops')"
    assert "Dependency flowing-id" in str(app.AsyncResult("body-id").result)
