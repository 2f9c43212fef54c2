"""Tasks: declaring, naming, binding, checking, calling and their requests (areas `app`, `task`, `call`)."""

from __future__ import annotations

import functools
import inspect
import pickle
import threading
import warnings
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import Celery, Task, _state, current_task, shared_task
from celery.app.assembly import Assembly
from celery.app.registry import TaskRegistry
from celery.app.task import BaseTask
from celery.current import Context
from celery.exceptions import CDeprecationWarning, DuplicateTaskNameWarning, InvalidTaskError, NotRegistered
from celery.utils.heads import argument_checker
from tests.compat.apps import app, state

__all__ = ["app", "state"]


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 2) -> int:
        """Sum of two."""
        return x + y

    return add


# ----------------------------------------------------------------------------------------------------------- declaring


def test_a_declared_task_is_a_promise_that_passes_for_the_task(app, add):
    assert not app.finalized
    assert len(app._pending) == 1
    assert add.name == f"{__name__}.add"
    task = add._get_current_object()
    assert task is app.tasks[add.name]
    assert add == task
    assert hash(add) == hash(task)
    assert repr(add) == repr(task)
    assert isinstance(add, app.Task)
    assert isinstance(add, Task)
    assert (add.__doc__, add.__name__, add.__module__) == ("Sum of two.", "add", __name__)
    assert add.__wrapped__(3) == 5
    assert inspect.signature(add.__wrapped__).parameters.keys() == {"x", "y"}
    assert add(1, y=3) == 4
    assert task.__qualname__.endswith("add.<locals>.add")


def test_tasks_pickle_by_name(app, add):
    app.finalize()
    assert pickle.loads(pickle.dumps(add)) is add._get_current_object()
    assert pickle.loads(pickle.dumps(app.tasks[add.name])) is add._get_current_object()


def test_options_become_attributes(app):
    @app.task(name="other.name", bind=True, max_retries=9, anything=3)
    def task(self, x):
        return self, x

    assert (task.name, task.max_retries, task.anything) == ("other.name", 9, 3)
    assert task(1)[0] is task._get_current_object()


def test_decorator_refuses_what_it_cannot_use(app):
    with pytest.raises(TypeError, match="exactly 1 argument"):
        app.task(lambda: 1, 2)
    with pytest.raises(TypeError, match="must be a callable"):
        app.task(3)


def test_filter_lazy_and_base(app):
    class Base(app.Task):
        abstract = True

    seen = app.task(name="filtered", filter=lambda task: ("filtered", task))(lambda: 1)
    assert seen[0] == "filtered"
    now = app.task(name="now", lazy=False, base=Base)(lambda: 1)
    assert type(now).__mro__[1] is Base
    assert "now" in app._tasks


def test_finalizing_happens_once_and_is_told(app, add):
    told = []
    app.on_after_finalize.connect(lambda sender, **kw: told.append(sender), weak=False)
    threads = [threading.Thread(target=app.finalize) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert app.finalized
    assert told == [app]
    assert add.name in app._tasks


def test_finalizing_may_be_forbidden(state):
    made = Celery("x", autofinalize=False)

    @made.task
    def task(): ...

    with pytest.raises(RuntimeError, match="Contract breach"):
        _ = made.tasks
    with pytest.raises(RuntimeError):
        _ = task.name
    assert repr(task) == "<PromiseProxy unbound>"
    made.finalize()
    assert task.name in made.tasks


def test_a_taken_name_keeps_its_task_and_warns_once(app):
    first = app.task(name="dup")(lambda: "first")
    second = app.task(name="dup")(lambda: "second")
    third = app.task(name="dup")(lambda: "third")
    assert first() == "first"
    with pytest.warns(DuplicateTaskNameWarning, match="dup"):
        assert second() == "first"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert third() == "first"


def test_tasks_reach_every_app_unless_they_are_not_shared(app, add):
    app.task(shared=False, name="private")(lambda: 1)
    other = Celery("other")
    assert add.name in other.tasks
    assert other.tasks[add.name].app is other
    assert app.tasks[add.name].app is app
    assert "private" in app.tasks
    assert "private" not in other.tasks


def test_an_app_s_own_task_wins_over_another_s_of_that_name(app):
    def declare(made, answer):
        return made.task(name="same.name")(lambda: answer)

    first, other = declare(app, 1), Celery("other")
    second = declare(other, 2)
    assert (second(), first()) == (2, 1)
    assert Celery("third").tasks["same.name"]() in (1, 2)


def test_shared_tasks_follow_the_current_app(app):
    app.finalize()

    @shared_task(name="shared.one", max_retries=7)
    def one():
        return 1

    assert "shared.one" in app.tasks  # finalized already
    later = Celery("later")
    assert one.app is later
    app.set_current()
    assert one.app is app
    assert (one(), one.max_retries) == (1, 7)
    with pytest.raises(TypeError, match="already shared"):
        shared_task(one)


def test_class_tasks(app):
    class Greet(Task):
        def run(self, name):
            return f"hello {name}"

    task = app.register_task(Greet())
    assert task.name == f"{__name__}.Greet"
    assert app.tasks[task.name] is task
    assert task.app is app
    assert task("x") == "hello x"
    assert app.register_task(Greet, name="greet").name == "greet"
    with pytest.raises(NotImplementedError):
        Task().run()


def test_automatic_names(state):
    class Named(Celery):
        def gen_task_name(self, name, module):
            return f"custom.{name}"

    assert Celery("proj").gen_task_name("f", "__main__") == "proj.f"
    assert Celery().gen_task_name("f", "__main__") == "__main__.f"
    assert Celery("proj").gen_task_name("f", "mod") == "mod.f"
    made = Named("proj")
    assert made.task(lambda: 1).name == "custom.<lambda>"


def test_registry(app, add):
    with pytest.raises(NotRegistered, match="nope"):
        _ = app.tasks["nope"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("nope")
    app.tasks.unregister(add)
    assert add.name not in app.tasks
    registry = TaskRegistry()
    with pytest.raises(InvalidTaskError):
        registry.register(type("Unnamed", (Task,), {"name": None}))
    registry.register(type("Named", (Task,), {"name": "n", "type": "periodic"}))
    assert isinstance(registry["n"], Task)
    assert (list(registry.periodic()), list(registry.regular())) == (["n"], [])
    assert TaskRegistry.NotRegistered is NotRegistered


def test_third_parties_may_hang_things_on_tasks(app, add):
    task = add._get_current_object()
    task.__otel_task_span = {}
    task.run = lambda x, y: "replaced"
    assert weakref.ref(task)() is task
    assert add(1, 2) == "replaced"


def test_attributes_are_copied_from_the_settings_when_bound(app):
    app.conf.update(task_track_started=True, task_acks_late=True, task_serializer="yaml", task_acks_on_failure=False)

    @app.task(track_started=False)
    def task(): ...

    assert (task.track_started, task.acks_late, task.serializer) == (False, True, "yaml")
    assert (task.acks_on_failure, task.acks_on_timeout) == (False, True)
    app.conf.task_acks_late = False
    assert task.acks_late is True


def test_annotations(app):
    app.conf.task_annotations = ({"*": {"rate_limit": "1/s", "max_retries": 1}}, {"noted": {"max_retries": 2}})

    @app.task(name="noted")
    def noted(): ...

    assert (noted.rate_limit, noted.max_retries) == ("1/s", 2)
    app.finalize()
    noted.bind(app)
    assert noted.max_retries == 2


def test_annotated_methods_are_wrapped_once(app):
    calls = []

    def around(method):
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            calls.append(args[-1])
            return method(*args, **kwargs)

        return wrapper

    app.conf.task_annotations = {"*": {"@run": around}}
    task = app.task(name="around")(lambda x: x)
    app.finalize()
    assert task.run(3) == 3
    assert calls == [3]


def test_task_may_be_subscripted_and_subclassed(app):
    assert Task[int] != Task[..., str]

    class Mine(Task[[int], int]):
        name = "mine"

        def run(self, x):
            return x

    assert app.register_task(Mine())(4) == 4
    assert BaseTask is Task


def test_hook_on_bound(app):
    class Hooked(app.Task):
        @classmethod
        def on_bound(cls, app):
            cls.bound_to = app

    task = app.task(base=Hooked, name="hooked")(lambda: 1)
    assert task.bound_to is app


# ----------------------------------------------------------------------------------------------------------- checking


def one(a): ...
def defaults(a, b=1, c=2): ...
def variadic(a, *rest): ...
def keywords(a, *, k, d=3, **more): ...
def positional(a, b, /, c, *, d): ...
def nothing(): ...


def closure():
    cell = 1

    def inner(a, b=2):
        return lambda: (a, cell)

    return inner


def generator(a, b=1):
    yield a


async def coroutine(a, b=1): ...


FUNCTIONS = [one, defaults, variadic, keywords, positional, nothing, closure(), generator, coroutine]


@pytest.mark.parametrize("fun", FUNCTIONS)
@given(args=st.lists(st.just(0), max_size=5), kwargs=st.dictionaries(st.sampled_from("abckdz"), st.just(0), max_size=4))
def test_arguments_are_checked_as_python_would(fun, args, kwargs):
    try:
        inspect.signature(fun).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=rf"{fun.__name__}\(\)"):
            argument_checker(fun)(*args, **kwargs)
    else:
        assert argument_checker(fun)(*args, **kwargs) is None


@pytest.mark.parametrize("fun", [f for f in FUNCTIONS if f is not nothing])
@given(args=st.lists(st.just(0), max_size=5), kwargs=st.dictionaries(st.sampled_from("bckdz"), st.just(0), max_size=4))
def test_a_bound_task_s_first_parameter_is_not_the_caller_s_affair(fun, args, kwargs):
    try:
        inspect.signature(functools.partial(fun, None)).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            argument_checker(fun, bound=True)(*args, **kwargs)
    else:
        assert argument_checker(fun, bound=True)(*args, **kwargs) is None


def test_other_callables_are_checked_by_their_signature():
    check = argument_checker(functools.partial(defaults, 1))
    check(b=2)
    with pytest.raises(TypeError):
        check(z=1)
    argument_checker(max)(1, 2, 3)


def test_wrong_arguments_raise_at_the_caller(app, add):
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'x'"):
        add.delay()
    with pytest.raises(TypeError, match=r"add\(\) takes from 1 to 2 positional arguments but 3 were given"):
        add.delay(1, 2, 3)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'z'"):
        add.apply_async((1,), {"z": 3})
    with pytest.raises(TypeError, match="must be a list or tuple"):
        add.apply_async("ab")
    with pytest.raises(TypeError, match="mapping"):
        add.apply_async((1,), [1])


# ------------------------------------------------------------------------------------------------------------- calling


class Sent(Assembly):
    """An assembly that publishes nothing: it keeps what reaches it."""

    def __init__(self, app):
        super().__init__(app)
        self.calls = []

    def send(self, name, args, kwargs, options, task=None):
        self.calls.append((name, args, kwargs, options, task))
        return f"sent {name}"


@pytest.fixture
def sent(app):
    app.__dict__["assembly"] = Sent(app)
    return app.assembly.calls


def test_calls_reach_the_assembly_with_the_task_s_options_below_the_call_s(app, sent):
    @app.task(name="t", queue="lopri", expires=30, priority=3, typing=False)
    def task(): ...

    with pytest.warns(CDeprecationWarning, match="task_routes"):  # [task.4]
        assert task.delay(1, a=2) == "sent t"
    name, args, kwargs, options, sender = sent[-1]
    assert (name, args, kwargs, sender) == ("t", (1,), {"a": 2}, task)
    assert options == {"queue": "lopri", "expires": 30, "priority": 3, "serializer": "json"}
    task.apply_async((1,), task_id="i", queue="hipri", expires=None, countdown=3)
    assert sent[-1][3].items() >= {"task_id": "i", "queue": "hipri", "expires": None, "countdown": 3}.items()
    assert task._get_exec_options()["delivery_mode"] is None


def test_send_task_needs_no_task_but_takes_its_options(app, sent):
    app.task(name="known", queue="lopri", time_limit=9, expires=5)(lambda: 1)
    with pytest.warns(CDeprecationWarning, match="'queue'"):
        app.finalize()
    app.send_task("unknown", (1,), countdown=3, headers={"a": 1})
    assert sent[-1] == ("unknown", (1,), None, {"countdown": 3, "headers": {"a": 1}, "priority": 0}, None)
    app.send_task("known", time_limit=None, add_to_parent=False)
    _, _, _, options, task = sent[-1]
    assert task is app.tasks["known"]
    assert options == {
        "queue": "lopri", "serializer": "json", "expires": 5, "time_limit": None, "add_to_parent": False,
        "ignore_result": None, "priority": 0,
    }  # fmt: skip


def test_sending_by_name_does_not_finalize(app, sent):
    app.send_task("x")
    assert not app.finalized


def test_a_replaced_send_task_is_called(app, add, sent, monkeypatch):
    seen = []
    monkeypatch.setattr(Celery, "send_task", lambda self, name, args, kwargs, **kw: seen.append((name, args, kw)))
    add.apply_async((1, 2), countdown=3)
    assert seen[0][:2] == (add.name, (1, 2))
    assert seen[0][2]["countdown"] == 3
    assert seen[0][2]["task_type"] is add._get_current_object()
    assert not sent


def test_a_replaced_apply_async_is_called_by_delay(app, add, monkeypatch):
    monkeypatch.setattr(Task, "apply_async", lambda self, *args, **kwargs: (self.name, args))
    assert add.delay(1, 2) == (add.name, ((1, 2), {}))


def test_shadow_names(app, sent):
    class Shadowed(app.Task):
        def shadow_name(self, args, kwargs, options):
            return f"shadow of {args[0]}"

    task = app.task(base=Shadowed, name="s")(lambda x: x)
    task.delay(3)
    assert sent[-1][3]["shadow"] == "shadow of 3"
    task.apply_async((3,), shadow="mine")
    assert sent[-1][3]["shadow"] == "mine"


def test_impossible_limits(app, sent):
    task = app.task(soft_time_limit=10, time_limit=5)(lambda: 1)
    with pytest.raises(ValueError, match="soft_time_limit must be less"):
        task.delay()


def test_signatures_of_tasks(app, add):
    assert (add.s(1).args, add.s(1, y=3).kwargs) == ((1,), {"y": 3})
    assert add.si(1).immutable
    assert not add.s(1).immutable
    assert add.signature((1,), {"y": 2}, queue="q").options["queue"] == "q"
    assert add.subtask((1,))["task"] == add.name
    assert app.signature(add.name).type is add._get_current_object()


# ------------------------------------------------------------------------------------------------------------ requests


def test_a_direct_call_has_a_request_of_its_own(app):
    @app.task(bind=True)
    def task(self, x):
        assert current_task.name == self.name
        assert app.current_task is self
        assert app.current_worker_task is None
        return self.request.called_directly, self.request.args, self.request.id

    assert not current_task
    assert task(1) == (True, (1,), None)
    assert _state.get_current_task() is None
    assert task.request.id is None


def test_the_worker_s_task_is_found_below_direct_calls(app, add):
    @app.task(bind=True)
    def outer(self):
        return _state.get_current_worker_task(), _state.get_current_task()

    outer.push_request(id="w", called_directly=False)
    add.push_request(id="d")
    _state._task_stack.push(outer._get_current_object())
    _state._task_stack.push(add._get_current_object())
    try:
        assert _state.get_current_worker_task() is outer._get_current_object()
        assert app.current_task is add._get_current_object()
    finally:
        _state._task_stack.pop()
        _state._task_stack.pop()
        add.pop_request()
        assert outer.pop_request().id == "w"


def test_super_call_keeps_the_worker_s_request(app):
    class Calling(app.Task):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    @app.task(base=Calling, bind=True)
    def task(self):
        return self.request.id

    task.push_request(id="from-worker", called_directly=False)
    assert task() == "from-worker"
    assert task() is None  # a direct call within the run is a request of its own
    assert task.pop_request().id == "from-worker"
    assert task.pop_request() is None


def test_requests_belong_to_their_thread(app, add):
    add.push_request(id="here")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(add.request.id))
    thread.start()
    thread.join()
    assert (add.request.id, seen) == ("here", [None])
    add.pop_request()


def test_context_shows_only_the_user_s_headers():
    message = {"id": "i", "task": "t", "lang": "py", "argsrepr": "", "kwargsrepr": "", "retries": 1, "foo": 3, "_x": 1}
    context = Context(message, hostname="h")
    context.later = 4
    assert context.headers == {"foo": 3, "_x": 1}
    assert (context.foo, context.later, context.retries, context.hostname) == (3, 4, 1, "h")
    assert Context({"id": "i"}).headers is None
    assert Context({"headers": None, "foo": 1}).headers == {"foo": 1}
    assert Context({"headers": {}, "foo": 1}).headers == {}
    assert Context.headers is None
    assert message.keys() == {"id", "task", "lang", "argsrepr", "kwargsrepr", "retries", "foo", "_x"}


def test_context_limits():
    context = Context(timelimit=[9, 4])
    assert (context.time_limit, context.soft_time_limit) == (9, 4)
    context.update(timelimit=5)
    assert (context.timelimit, context.time_limit, context.soft_time_limit) == (None, None, None)
    context.update({"timelimit": [7, None]})
    assert (context.time_limit, context.soft_time_limit) == (7, None)


def test_context_defaults_and_children():
    context = Context()
    assert (context.called_directly, context.retries, context.is_eager, context.delivery_info) == (True, 0, False, None)
    assert (context.get("nope", 5), context.get("id", 5)) == (5, None)
    with pytest.raises(AttributeError, match="nope"):
        _ = context.nope
    context.children.append(1)
    assert (context.children, Context().children) == ([1], [])
    context.clear()
    assert context.children == []


def test_context_as_options_leaves_out_the_broker_s_history():
    message = {"id": "a", "callbacks": [1], "timelimit": [2, 1], "foo": 3, "x-death": [1], "x-first-death-queue": "q"}
    options = Context(message).as_execution_options()
    assert options["headers"] == {"foo": 3}
    assert (options["task_id"], options["link"], options["time_limit"], options["soft_time_limit"]) == ("a", [1], 2, 1)


def test_trail(app, add):
    add.push_request(id="x")
    assert add.add_trail("child") == "child"
    assert add.request.children == ["child"]
    add.trail = False
    add.add_trail("other")
    assert add.request.children == ["child"]
    add.pop_request()


def test_attributes_have_celerys_defaults():
    """[task.1]"""
    own = {
        "typing": None, "max_retries": 3, "default_retry_delay": 180, "rate_limit": None, "ignore_result": None,
        "trail": True, "send_events": True, "store_errors_even_if_ignored": None, "serializer": None,
        "time_limit": None, "soft_time_limit": None, "track_started": None,
        "acks_late": None, "acks_on_failure_or_timeout": None,
        "acks_on_failure": None, "acks_on_timeout": None, "reject_on_worker_lost": None, "retry_on_worker_lost": None,
        "throws": (), "expires": None, "priority": None, "resultrepr_maxsize": 1024, "store_eager_result": None,
        "Strategy": "celery.worker.strategy:default", "Request": "celery.worker.request:Request", "abstract": True,
    }  # fmt: skip
    assert {name: getattr(Task, name) for name in own} == own
