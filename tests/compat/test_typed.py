"""Typed tasks: what arrives is what was sent, of the same type, or sending raises."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import json
import uuid
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from celery import Celery, Task, chain, signals
from celery.codecs.annotated import Codec
from celery.routing import QueueSpec
from tests.compat import typed_types as types
from tests.compat.typed_types import TYPES, Circle, Colour, Line, Plain, Point, Ring, User
from tests.embedded import DEADLINE, working

if TYPE_CHECKING:
    from celery.message import Message

T = TypeVar("T")


@pytest.fixture
def app() -> Celery:
    name = f"memory://{uuid.uuid4()}"
    return Celery("proj", broker=name, backend=name, set_as_current=False)


def taken(app: Celery) -> Message:
    consumer = app.assembly.broker.consume([QueueSpec("celery")])
    (delivery,) = consumer.fetch(1, 0)
    consumer.ack([delivery])
    consumer.close()
    assert delivery.message is not None
    return delivery.message


def typed(app: Celery, annotation: Any, returns: Any = None, body: Any = None, name: str = "t") -> Any:
    """A task with one parameter `value` of that annotation, which returns `returns` (or the same)."""

    def run(value: Any) -> Any:
        return body(value) if body else value

    run.__annotations__ = {"value": annotation, "return": returns or annotation}
    return app.task(name=name, typed=True)(run)


def same(one: Any, other: Any, ordered: bool = True) -> bool:
    """Equal, and of the same types all the way down; dicts in the same order, if `ordered`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        alike = one.keys() == other.keys() and all(same(one[key], other[key], ordered) for key in one)
        return alike and (not ordered or list(one) == list(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b, ordered) for a, b in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name), ordered) for name in names)
    return bool(one == other)


def test_sixty_types_arrive_and_come_back(app: Celery) -> None:
    """As arguments, by position and by name, and as results, through a worker."""
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value)
        return value

    tasks = [typed(app, annotation, body=note, name=f"t{n}") for n, (annotation, _, _) in enumerate(TYPES)]
    with working(app):
        results = [
            (task.delay(value), task.apply_async(kwargs={"value": value}))
            for task, (_, value, _) in zip(tasks, TYPES, strict=True)
        ]
        found = [[result.get(timeout=DEADLINE) for result in pair] for pair in results]
    for (annotation, value, _), pair in zip(TYPES, found, strict=True):
        for got in (*pair, seen.pop(0), seen.pop(0)):
            assert same(got, value), (annotation, got)
    assert len(TYPES) > 60
    assert not seen


@pytest.mark.parametrize(("annotation", "value", "data"), TYPES, ids=[str(case[0]) for case in TYPES])
def test_the_wire_has_plain_json(app: Celery, annotation: Any, value: Any, data: Any) -> None:
    typed(app, annotation).delay(value)
    ((sent,), _, _) = json.loads(taken(app).body)
    assert sent == data
    assert "__type__" not in json.dumps(sent)


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_with_every_serializer(app: Celery, serializer: str) -> None:
    app.conf.update(task_serializer=serializer, result_serializer=serializer, accept_content=[serializer])
    cases = TYPES
    if serializer == "msgpack":  # it holds no such number
        cases = [case for case in TYPES if case[2] != 2**80]
    if serializer == "yaml":  # it keeps no order
        cases = [case for case in TYPES if type(case[1]) is not OrderedDict]
    tasks = [typed(app, annotation, name=f"t{n}") for n, (annotation, _, _) in enumerate(cases)]
    with working(app):
        results = [task.delay(value) for task, (_, value, _) in zip(tasks, cases, strict=True)]
        for result, (_, value, _) in zip(results, cases, strict=True):
            assert same(result.get(timeout=DEADLINE), value, ordered=serializer != "yaml")


WRONG: list[tuple[Any, Any, type[Exception], str]] = [
    (int, "5", TypeError, "expected int, got '5' (str)"),
    (int, 1.5, TypeError, "expected int, got 1.5 (float)"),
    (str, 5, TypeError, "expected str, got 5 (int)"),
    (uuid.UUID, "no id", TypeError, "expected UUID, got 'no id' (str)"),
    (uuid.UUID, str(uuid.UUID(int=1)), TypeError, "it would arrive as UUID("),
    (bytes, "abcd", TypeError, "it would arrive as b'i"),
    (dt.date, "2020-01-01", TypeError, "expected date, got '2020-01-01' (str)"),
    (dt.date, dt.datetime(2020, 1, 1), ValueError, "expected date, got datetime.datetime(2020, 1, 1, 0, 0) (datetime)"),
    (Colour, "red", TypeError, "it would arrive as <Colour.RED: 'red'>"),
    (list[int], (1, 2), TypeError, "it would arrive as [1, 2]"),
    (list[int], ["a"], ValueError, "Expected `int`, got `str` - at `$[0]`"),
    (dict[str, Decimal], {"a": object()}, ValueError, "object has no plain data"),
    (Circle, Ring(1.0, 2.0), ValueError, "it would arrive as Circle(radius=1.0)"),
    (Point, {"x": 1, "y": 2}, TypeError, "it would arrive as Point(x=1, y=2)"),
    (Point, Point("a"), ValueError, "Expected `int`, got `str` - at `$.x`"),  # type: ignore[arg-type]
    (User, {"name": "a"}, TypeError, "Field required"),
    (list[User], [Point(1)], ValueError, "1 validation error for User"),
    (int | None, "x", TypeError, "expected int | None, got 'x' (str)"),
    (Circle | Point, 5, TypeError, "expected Circle | Point, got 5 (int)"),
    (str | Path, Path("a"), TypeError, "it would arrive as 'a'"),
    (dict[str, Any], {"a": uuid.UUID(int=1)}, ValueError, "it would arrive as {'a': '00000000"),
    (Annotated[int, msgspec.Meta(ge=0)], -1, ValueError, "Expected `int` >= 0"),
    (dict[tuple[int, int], str], {(1, 2): "a"}, ValueError, "Only dicts with str-like or number-like keys"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "error", "text"), WRONG, ids=[str(case[0]) for case in WRONG])
def test_wrong_arguments_raise_where_they_are_sent(
    app: Celery, annotation: Any, value: Any, error: type[Exception], text: str
) -> None:
    task = typed(app, annotation)
    for send in (lambda: task.delay(value), lambda: task.delay(value=value), lambda: task.s(value).apply_async()):
        with pytest.raises(error) as raised:
            send()
        assert str(raised.value).startswith("t: argument 'value': expected ")
        assert text in str(raised.value)
        assert type(raised.value) is error


def test_a_wrong_return_value_fails_the_task(app: Celery) -> None:
    task = typed(app, str, returns=int, body=str)
    with working(app):
        failure = task.delay("a").get(timeout=DEADLINE, propagate=False)
    assert type(failure) is TypeError
    assert str(failure) == "t: return value: expected int, got 'a' (str): Expected `int`, got `str`"


def test_wrong_arguments_from_others_fail_the_task(app: Celery) -> None:
    typed(app, uuid.UUID)
    with working(app):
        failure = app.send_task("t", ("no id",)).get(timeout=DEADLINE, propagate=False)
    assert type(failure) is TypeError
    assert "argument 'value': expected UUID, got 'no id' (str): Invalid UUID" in str(failure)


@dataclasses.dataclass
class Unequal:
    """Not comparable with anything, as arrays are."""

    name: str

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", [Plain("a"), Unequal("a")])
def test_values_that_cannot_be_compared(app: Celery, value: Any) -> None:
    names: list[str] = []
    task = typed(app, list[type(value)], body=lambda values: names.append(values[0].name) or values)
    with working(app):
        (got,) = task.delay([value]).get(timeout=DEADLINE)
    assert (type(got), got.name, names) == (type(value), "a", ["a"])


def test_not_a_number(app: Celery) -> None:
    codec = Codec(Circle)
    got = codec.load(codec.check(Circle(float("nan"))))
    assert got.radius != got.radius
    got = Codec(list[float]).load(Codec(list[float]).check([float("nan")]))
    assert got[0] != got[0]


class Hidden(BaseModel):
    value: int
    secret: str = Field("", exclude=True)


def test_what_a_model_leaves_out_may_not_matter(app: Celery) -> None:
    task = typed(app, Hidden)
    task.delay(Hidden(value=1))
    with pytest.raises(ValueError, match="it would arrive as Hidden"):
        task.delay(Hidden(value=1, secret="s"))


# -- parameters of all kinds -----------------------------------------------------------------------------------------


def everything(
    a: uuid.UUID,
    /,
    b: Decimal = Decimal(0),
    *rest: dt.date,
    c: Path,
    d: Any = None,
    e=None,
    **more: Point,  # type: ignore[no-untyped-def]
) -> tuple[Any, ...]:
    seen.append((a, b, rest, c, d, e, more))
    return ()


seen: list[Any] = []


def test_every_kind_of_parameter(app: Celery) -> None:
    task = app.task(name="t", typed=True)(everything)
    del task.run.__wrapped__.__annotations__["return"]
    seen.clear()
    day = dt.date(2020, 1, 2)
    with working(app):
        task.delay(types.ID, Decimal(1), day, day, c=Path("a"), d=types.ID, e=b"x", f=Point(1)).get(timeout=DEADLINE)
        task.delay(types.ID, c=Path("a")).get(timeout=DEADLINE)
        with pytest.raises(TypeError, match=r"argument 4: expected date, got 5 \(int\)"):
            task.delay(types.ID, Decimal(1), day, 5, c=Path("a"))
        with pytest.raises(TypeError, match="argument 'f': expected Point"):
            task.delay(types.ID, c=Path("a"), f=5)
    first, second = seen
    # What is not annotated, or as Any, travels as JSON has it: kombu's knows ids and bytes.
    assert first == (types.ID, Decimal(1), (day, day), Path("a"), types.ID, b"x", {"f": Point(1)})
    assert second == (types.ID, Decimal(0), (), Path("a"), None, None, {})


def test_arguments_are_counted_first(app: Celery) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        typed(app, int).delay()
    with pytest.raises(TypeError, match=r"must be a list or tuple"):
        typed(app, int).apply_async("x")


def test_bound_tasks_and_their_request(app: Celery) -> None:
    @app.task(bind=True, typed=True, name="bound")
    def bound(self: Any, at: dt.date) -> tuple[str, dt.date]:
        return repr(self.request.args), at

    day = dt.date(2020, 1, 2)
    with working(app):
        assert bound.delay(day).get(timeout=DEADLINE) == ("['2020-01-02']", day)


class Base(Task):
    abstract = True
    typed = True


class Adds(Base):
    name = "adds"
    extra = 1

    def run(self, x: Decimal, points: list[Point]) -> Point:
        assert type(x) is Decimal
        return Point(int(x) + self.extra, points[0].x)


def test_classes_of_typed_tasks(app: Celery) -> None:
    adds = app.register_task(Adds())

    @app.task(base=Base, name="by base")
    def by_base(x: Decimal) -> Decimal:
        return x

    with working(app):
        assert adds.delay(Decimal(1), [Point(5)]).get(timeout=DEADLINE) == Point(2, 5)
        assert by_base.delay(Decimal("1.0")).get(timeout=DEADLINE) == Decimal("1.0")
    with pytest.raises(TypeError, match=r"adds: argument 'x': expected Decimal, got 'a' \(str\)"):
        adds.delay("a", [])
    assert adds(Decimal(1), [Point(5)]) == Point(2, 5)
    assert inspect.signature(by_base.run).parameters.keys() == {"x"}


def test_called_as_a_function_it_is_the_function(app: Celery) -> None:
    task = typed(app, Point)
    value = Plain("anything")
    assert task(value) is value
    assert task.run(value) is value


# -- results ---------------------------------------------------------------------------------------------------------


def test_results_know_their_type(app: Celery) -> None:
    task = typed(app, Line)
    line = Line(Decimal("1.0"), 1)
    calls: list[Any] = []
    with working(app):
        result = task.delay(line)
        assert result.get(timeout=DEADLINE, callback=lambda id_, value: calls.append(value)) == line
    assert (result.result, result.info, result.maybe_throw(), calls) == (line, line, line, [line])
    assert task.AsyncResult(result.id).get(timeout=DEADLINE) == line
    assert app.AsyncResult(result.id, task_name="t").result == line
    # Who knows only the id reads the data.
    assert app.AsyncResult(result.id).get(timeout=DEADLINE) == {"price": "1.0", "count": 1}


def test_failures_and_other_states_are_left_alone(app: Celery) -> None:
    def fail(value: Any) -> Any:
        raise KeyError("a")

    task = typed(app, Point, body=fail)
    with working(app):
        failed = task.delay(Point(1))
        with pytest.raises(KeyError):
            failed.get(timeout=DEADLINE)
    app.backend.store_result("other", {"done": 1}, "PROGRESS")
    assert (task.AsyncResult("other").state, task.AsyncResult("other").info) == ("PROGRESS", {"done": 1})
    assert task.AsyncResult("unheard of").result is None


def test_a_result_of_another_shape_says_so(app: Celery) -> None:
    """From a worker with an older version of the task, say."""
    task = typed(app, Point)
    app.backend.store_result("old", {"z": 1}, "SUCCESS")
    result = task.AsyncResult("old")
    assert result.successful()
    with pytest.raises(TypeError, match=r"t: return value: expected Point, got \{'z': 1\}"):
        result.get(timeout=DEADLINE)


def test_a_link_gets_the_data_and_reads_it(app: Celery) -> None:
    first = typed(app, Line, name="first")
    second = typed(app, Line, name="second")
    line = Line(Decimal("1.0"), 1)
    with working(app):
        result = first.apply_async((line,), link=second.s())
        assert result.get(timeout=DEADLINE) == line
        (child,) = result.children
        assert second.AsyncResult(child.id).get(timeout=DEADLINE) == line


@pytest.mark.parametrize("eager", [False, True])
def test_calls_for_many_arguments(app: Celery, eager: bool) -> None:
    """map, starmap and chunks, by themselves and embedded, take and give what a call does."""
    move = app.task(name="move", typed=True)(_moved)
    points = [Point(1), Point(2), Point(3)]
    moved = [Point(1, 7), Point(2, 7), Point(3, 7)]
    app.conf.task_always_eager = eager
    with working(app):
        assert move.map([Point(1, 6)]).apply_async().get(timeout=DEADLINE) == [Point(1, 7)]
        pairs = [(point, 7) for point in points]
        assert move.starmap(iter(pairs)).apply_async().get(timeout=DEADLINE) == moved
        assert move.starmap(pairs).apply().get() == moved
        assert move.chunks(pairs, 2)().get(timeout=DEADLINE) == [moved[:2], moved[2:]]
        after = chain(move.si(Point(0)), move.starmap(pairs))
        assert after().get(timeout=DEADLINE) == moved
        with pytest.raises(TypeError, match="argument 'point': expected Point"):
            move.map([5]).apply_async().get(timeout=DEADLINE)


def _moved(point: Point, by: int = 1) -> Point:
    return Point(point.x, point.y + by)


def test_many_arguments_travel_as_data(app: Celery) -> None:
    move = app.task(name="move", typed=True)(_moved)
    move.map([Point(1, 2)]).apply_async()
    assert json.loads(taken(app).body)[1]["it"] == [{"x": 1, "y": 2}]
    chain(move.si(Point(0)), move.chunks([(Point(1, 2), 3)], 1)).apply_async()
    assert json.loads(taken(app).body)[2]["chain"][0]["kwargs"]["it"] == [[{"x": 1, "y": 2}, 3]]


def test_a_retry_sends_the_data_again(app: Celery) -> None:
    """A retry's arguments are those of the request: data. It counts as sent by `retries`."""
    task = typed(app, uuid.UUID)
    task.apply_async((str(types.ID),), retries=1)
    assert json.loads(taken(app).body)[0] == [str(types.ID)]
    with pytest.raises(TypeError):
        task.apply_async(("no id",), retries=1)


def test_eager_runs_give_the_type_too(app: Celery) -> None:
    seen: list[Any] = []
    task = typed(app, Line, body=lambda value: seen.append(value) or value)
    line = Line(Decimal("1.0"), 1)
    assert task.apply((line,)).get() == line
    app.conf.task_always_eager = True
    assert task.delay(line).get() == line
    assert task.delay(line).result == line
    assert seen == [line] * 3
    with pytest.raises(TypeError, match="argument 'value': expected Line"):
        task.delay("x")


def test_a_task_that_retries(app: Celery) -> None:
    """With its own arguments, which are data by now, and with others."""
    tries: list[Any] = []

    @app.task(bind=True, typed=True, name="again", default_retry_delay=0)
    def again(self: Any, at: dt.date, line: Line) -> Line:
        tries.append((at, line))
        if self.request.retries == 0:
            raise self.retry()
        if self.request.retries == 1:
            raise self.retry(args=(dt.date(2030, 1, 2), line))
        return line

    day, line = dt.date(2020, 1, 2), Line(Decimal("1.0"), 1)
    with working(app):
        assert again.delay(day, line).get(timeout=DEADLINE) == line
    assert tries == [(day, line), (day, line), (dt.date(2030, 1, 2), line)]
    tries.clear()
    assert again.apply((day, line)).get() == line
    assert len(tries) == 3


def test_autoretry_wraps_the_typed_body(app: Celery) -> None:
    tries: list[Any] = []

    @app.task(typed=True, autoretry_for=(KeyError,), retry_backoff=False, default_retry_delay=0, name="auto")
    def auto(at: dt.date) -> dt.date:
        tries.append(at)
        if len(tries) < 3:
            raise KeyError(1)
        return at

    with working(app):
        assert auto.delay(dt.date(2020, 1, 2)).get(timeout=DEADLINE) == dt.date(2020, 1, 2)
    assert tries == [dt.date(2020, 1, 2)] * 3


# -- other Celeries --------------------------------------------------------------------------------------------------


def test_what_kombu_tags_is_read(app: Celery) -> None:
    """A real Celery sends ids, dates and decimals with a tag that says so."""
    cases = [c for c in TYPES if type(c[1]) in (uuid.UUID, Decimal, dt.datetime, dt.date, dt.time, bytes)]
    got: list[Any] = []
    for number, (annotation, _, _) in enumerate(cases):
        typed(app, annotation, body=lambda value: got.append(value) or value, name=f"t{number}")
    with working(app):
        for number, (_, value, _) in enumerate(cases):
            assert app.send_task(f"t{number}", (value,)).get(timeout=DEADLINE) is not None
    assert len(cases) > 6
    assert all(map(same, got, [value for _, value, _ in cases]))


def test_listeners_see_the_data(app: Celery) -> None:
    """Signals and hooks are told what travels: they write it down, and cannot know the types."""
    task = typed(app, Point)
    heard: list[Any] = []

    def prerun(args: Any = None, **_: Any) -> None:
        heard.append(args)

    def success(result: Any = None, **_: Any) -> None:
        heard.append(result)

    signals.task_prerun.connect(prerun)
    signals.task_success.connect(success)
    try:
        with working(app):
            task.delay(Point(1)).get(timeout=DEADLINE)
    finally:
        signals.task_prerun.disconnect(prerun)
        signals.task_success.disconnect(success)
    assert heard == [[{"x": 1, "y": 0}], {"x": 1, "y": 0}]


# -- declarations ----------------------------------------------------------------------------------------------------


class Session:
    pass


@dataclasses.dataclass
class Holder:
    shape: Circle | Point


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Session, "argument 'value' is annotated Session, which cannot travel: no plain data is known for Session"),
        (dict[str, list[Session]], "no plain data is known for Session"),
        (Holder, "Type unions may not contain more than one dataclass"),
        (types.Priced, "the value of Priced.LOW is no plain data: Decimal('1.5')"),
        (type, "no plain data is known for type"),
    ],
)
def test_what_cannot_travel_is_refused_where_it_is_declared(app: Celery, annotation: Any, text: str) -> None:
    app.finalize()
    with pytest.raises(TypeError) as raised:
        typed(app, annotation, returns=int)
    assert str(raised.value).startswith("typed task t: ")
    assert text in str(raised.value)


def test_names_that_are_defined_later(app: Celery) -> None:
    app.finalize()
    globals().pop("Late", None)

    @app.task(typed=True, name="late")
    def late(value: Late) -> Late:  # type: ignore[name-defined]  # noqa: F821
        return value

    with pytest.raises(TypeError, match=r"typed task late: an annotation names what is not there .*'Late'"):
        late.delay(1)
    globals()["Late"] = Decimal
    late.delay(Decimal(1))
    assert json.loads(taken(app).body)[0] == ["1"]


def test_typed_or_pydantic_but_not_both(app: Celery) -> None:
    app.finalize()
    with pytest.raises(TypeError, match="typed=True or pydantic=True, got both"):
        app.task(typed=True, pydantic=True)(lambda x: x)


def test_type_variables_say_nothing(app: Celery) -> None:
    def generic(value: T, others: list[int]) -> T:
        return value

    task = app.task(name="t", typed=True)(generic)
    task.delay({"a": 1}, [1])
    with pytest.raises(ValueError, match="others"):
        task.delay({"a": 1}, ["x"])


def test_other_tasks_have_no_types(app: Celery) -> None:
    task = app.task(name="t")(lambda value: value)
    assert (task.typed, task._types) == (False, None)
    assert app.AsyncResult("x")._task_name is None


# -- algebra ---------------------------------------------------------------------------------------------------------


class Box(msgspec.Struct, Generic[T]):
    value: T


LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (str, st.text(st.characters(exclude_categories=("Cs",)))),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=-5.5))]))),
    (dt.timedelta, st.timedeltas(min_value=dt.timedelta(days=-20000), max_value=dt.timedelta(days=20000))),
    (bytes, st.binary()),
    (Colour, st.sampled_from(Colour)),
    (Path, st.sampled_from([Path("/a/b"), Path("c")])),
    (Point, st.builds(Point, st.integers(), st.integers())),
    (Line, st.builds(Line, st.decimals(allow_nan=False), st.integers())),
    (User, st.builds(User, id=st.uuids(), name=st.text("abc"), born=st.none() | st.dates())),
]  # fmt: skip


def _grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def around(case: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        kind, values = case
        return st.sampled_from(
            [
                (list[kind], st.lists(values, max_size=3)),
                (tuple[kind, ...], st.lists(values, max_size=3).map(tuple)),
                (dict[str, kind], st.dictionaries(st.text("ab"), values, max_size=3)),
                (kind | None, st.none() | values),
                (Box[kind], values.map(Box)),
                (tuple[kind, int], st.tuples(values, st.integers())),
            ]
        )

    return inner.flatmap(around)


@given(
    case=st.recursive(st.sampled_from(LEAVES), _grow, max_leaves=4),
    data=st.data(),
)
def test_every_value_of_every_type_comes_back(case: tuple[Any, st.SearchStrategy[Any]], data: st.DataObject) -> None:
    """Through JSON, as itself; its data is its own data; reading it twice is reading it once."""
    annotation, values = case
    value = data.draw(values)
    codec = Codec(annotation)
    plain = codec.check(value)
    got = codec.load(json.loads(json.dumps(plain)))
    assert same(got, value)
    assert json.dumps(codec.dump(plain)) == json.dumps(plain)
    assert same(codec.load(got), got)


@given(case=st.sampled_from(LEAVES), other=st.sampled_from(LEAVES), data=st.data())
def test_nothing_arrives_as_something_else(case: Any, other: Any, data: st.DataObject) -> None:
    """A value of one type sent as another: refused, or equal to what arrives."""
    value = data.draw(other[1])
    codec = Codec(case[0])
    try:
        plain = codec.check(value)
    except (TypeError, ValueError, msgspec.ValidationError):
        return
    assert codec.load(plain) == value
