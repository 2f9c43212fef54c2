"""`@app.task(pydantic=True)`: data on the wire, models in the task. As Celery 5.7 was seen to do."""

from __future__ import annotations

import datetime as dt
import json
import sys
import uuid
from typing import Any, Optional, Union

import pytest
from kombu.exceptions import EncodeError
from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from celery.routing import QueueSpec
from tests.embedded import DEADLINE, working


class Order(BaseModel):
    number: int


class Bigger(Order):
    more: int = 2


class Receipt(BaseModel):
    text: str


class Meeting(BaseModel):
    at: dt.datetime
    note: str | None = None


class Renamed(BaseModel):
    value: int = Field(alias="v")


class Partly(BaseModel):
    value: int
    secret: str = Field(default="s", exclude=True)


contexts: list[Any] = []


class Curious(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def look(cls, value: int, info: ValidationInfo) -> int:
        contexts.append(info.context)
        return value


@pytest.fixture
def app() -> Celery:
    name = f"memory://{uuid.uuid4()}"
    return Celery("proj", broker=name, backend=name, set_as_current=False)


def task(app: Celery, function: Any, **options: Any) -> Any:
    return app.task(name="t", **{"pydantic": True, **options})(function)


def receive(order: Order) -> Receipt:
    return Receipt(text=f"{order!r}")


def maybe(order: Optional[Order] = None) -> Optional[Receipt]:  # noqa: UP045 - both ways of writing it
    return None if order is None else Receipt(text=f"{order!r}")


def maybe_too(order: Order | None = None) -> Receipt | None:
    return None if order is None else Receipt(text=f"{order!r}")


def sent(app: Celery, of: Any, *args: Any, _options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """Arguments as they lie on the queue, and the header that shows them."""
    of.apply_async(args, kwargs, **(_options or {}))
    consumer = app.assembly.broker.consume([QueueSpec("celery")])
    (delivery,) = consumer.fetch(1, 0)
    consumer.ack([delivery])
    consumer.close()
    message = delivery.message
    assert message is not None
    return json.loads(message.body)[:2], message.headers["argsrepr"], message.headers["kwargsrepr"]


# -- in the task -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"number": 1}, {"number": "1"}, Order(number=1)])
def test_data_becomes_a_model_and_the_returned_model_data(app: Celery, given: Any) -> None:
    assert task(app, receive)(given) == {"text": "Order(number=1)"}


def test_a_subclass_stays_what_it_is(app: Celery) -> None:
    assert task(app, receive)(Bigger(number=1)) == {"text": "Bigger(number=1, more=2)"}


@pytest.mark.parametrize("function", [maybe, maybe_too])
def test_optional_models(app: Celery, function: Any) -> None:
    t = task(app, function)
    assert (t(), t(None), t({"number": 1})) == (None, None, {"text": "Order(number=1)"})
    with pytest.raises(ValidationError):
        t({"number": "x"})


@pytest.mark.parametrize("given", [{"number": "x"}, {}, None, 5])
def test_what_does_not_fit_raises(app: Celery, given: Any) -> None:
    with pytest.raises(ValidationError, match="1 validation error for Order"):
        task(app, receive)(given)


def test_arguments_are_found_by_position_and_by_name(app: Celery) -> None:
    def many(x: int, order: Order, /, other: Order, *rest: Any, z: Order, **more: Any) -> str:
        return repr((x, order, other, rest, z, more))

    data = {"number": 1}
    assert task(app, many)("1", data, data, data, z=data, q=data) == repr(
        ("1", Order(number=1), Order(number=1), (data,), Order(number=1), {"q": data})
    )


def test_bound_tasks(app: Celery) -> None:
    def bound(self: Any, order: Order) -> Receipt:
        return Receipt(text=f"{self.name} {order!r} {self.request.args}")

    t = task(app, bound, bind=True)
    assert t({"number": 1}) == {"text": "t Order(number=1) ({'number': 1},)"}
    assert sent(app, t, Order(number=1))[0] == [[{"number": 1}], {}]


def test_unions_and_generics_are_left_alone(app: Celery) -> None:
    def either(order: Union[Order, Receipt], orders: list[Order]) -> list[Receipt]:  # noqa: UP007
        return [Receipt(text=repr((order, orders)))]

    assert task(app, either)({"number": 1}, [{"number": 1}]) == [Receipt(text="({'number': 1}, [{'number': 1}])")]


def test_only_the_annotated_model_is_dumped(app: Celery) -> None:
    def wrong(order: Order) -> Order:
        return Receipt(text="x")  # type: ignore[return-value]

    def unsaid(order: Order):  # type: ignore[no-untyped-def]
        return Receipt(text="x")

    def bigger(order: Order) -> Order:
        return Bigger(number=1)

    for function, returned in [
        (wrong, Receipt(text="x")),
        (unsaid, Receipt(text="x")),
        (bigger, {"number": 1, "more": 2}),
    ]:
        assert app.task(pydantic=True, name=function.__name__)(function)({"number": 1}) == returned


def test_without_it_nothing_happens(app: Celery) -> None:
    assert task(app, receive, pydantic=False)({"number": 1}) == Receipt(text="{'number': 1}")


def test_strict(app: Celery) -> None:
    def meet(meeting: Meeting) -> str:
        return repr(meeting)

    with pytest.raises(ValidationError, match="Input should be a valid datetime"):
        task(app, meet, pydantic_strict=True)({"at": "2020-01-01T00:00:00"})
    with pytest.raises(EncodeError):  # as data it would not be valid again
        app.tasks["t"].delay(Meeting(at=dt.datetime(2020, 1, 1)))


def test_context(app: Celery) -> None:
    def look(curious: Curious) -> None:
        pass

    contexts.clear()
    task(app, look, pydantic_context={"a": 1})({"value": 1})
    app.task(name="u", pydantic=True)(look)({"value": 1})
    own = {"celery_app": app, "celery_task_name": "u"}
    assert contexts == [{"a": 1, "celery_app": app, "celery_task_name": "t"}, own]
    app.tasks["u"].delay(Curious.model_construct(value=1))
    assert contexts[2:] == [own]


def meet(meeting: Meeting) -> Meeting:
    return meeting


@pytest.mark.parametrize(
    ("options", "dumped"),
    [
        ({}, {"at": "2020-01-01T00:00:00", "note": None}),
        ({"exclude_none": True}, {"at": "2020-01-01T00:00:00"}),
        ({"mode": "python"}, {"at": dt.datetime(2020, 1, 1), "note": None}),
    ],
)
def test_dump_kwargs(app: Celery, options: dict[str, Any], dumped: Any) -> None:
    t = task(app, meet, pydantic_dump_kwargs=options)
    assert t(Meeting(at=dt.datetime(2020, 1, 1))) == dumped
    (args, _), _, _ = sent(app, t, Meeting(at=dt.datetime(2020, 1, 1)))
    assert args[0].keys() == dumped.keys()


# -- at the caller ---------------------------------------------------------------------------------------------------


def test_models_are_sent_as_data(app: Celery) -> None:
    t = task(app, receive)
    assert sent(app, t, Order(number=1)) == ([[{"number": 1}], {}], "({'number': 1},)", "{}")
    assert sent(app, t, order=Order(number=1)) == ([[], {"order": {"number": 1}}], "()", "{'order': {'number': 1}}")
    assert sent(app, t, {"number": "x"})[0] == [[{"number": "x"}], {}]  # data is not checked before it arrives
    assert sent(app, t.s(Order(number=1)))[0] == [[{"number": 1}], {}]


@pytest.mark.parametrize("serializer", ["yaml", "msgpack"])
def test_with_every_serializer_but_pickle(app: Celery, serializer: str) -> None:
    app.conf.accept_content = ["json", "yaml", "msgpack", "pickle"]
    t = task(app, receive)
    with working(app):
        got = t.apply_async((Order(number=1),), serializer=serializer).get(timeout=DEADLINE)
        assert got == {"text": "Order(number=1)"}
        got = t.apply_async((Bigger(number=1),), serializer="pickle").get(timeout=DEADLINE)
        assert got == {"text": "Bigger(number=1, more=2)"}  # pickle carries what would else be refused


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, Bigger(number=1)),
        (Order, Receipt(text="x")),
        (list[Order], [Order(number=1)]),
        (Order | Receipt, Order(number=1)),
        (Any, Order(number=1)),
        (Renamed, Renamed(v=1)),
        (Partly, Partly(value=1, secret="other")),
    ],
)
def test_what_would_not_be_the_same_again_is_not_dumped(app: Celery, annotation: Any, value: Any) -> None:
    def take(value: Any) -> None:
        pass

    take.__annotations__["value"] = annotation
    with pytest.raises(EncodeError):
        task(app, take).delay(value)


def test_what_is_left_out_at_its_default_is_sent(app: Celery) -> None:
    def take(value: Partly) -> None:
        pass

    assert sent(app, task(app, take), Partly(value=1))[0] == [[{"value": 1}], {}]


def test_send_task_knows_nothing_of_models(app: Celery) -> None:
    task(app, receive)
    with pytest.raises(EncodeError):
        app.send_task("t", (Order(number=1),))


# -- from end to end -------------------------------------------------------------------------------------------------


def test_a_worker_gives_data_and_fails_what_does_not_fit(app: Celery) -> None:
    t = task(app, receive)
    with working(app):
        assert t.delay(Order(number=1)).get(timeout=DEADLINE) == {"text": "Order(number=1)"}
        wrong = t.delay({"number": "x"})
        failure = wrong.get(timeout=DEADLINE, propagate=False)
    assert wrong.state == "FAILURE"
    assert "1 validation error for Order" in wrong.traceback
    assert isinstance(failure, Exception)


def test_eager_runs(app: Celery) -> None:
    t = task(app, receive)
    assert t.apply((Order(number=1),)).get() == {"text": "Order(number=1)"}
    app.conf.task_always_eager = True
    assert t.delay(Order(number=1)).get() == {"text": "Order(number=1)"}
    with pytest.raises(ValidationError):
        t.delay({"number": "x"}).get()
    with pytest.raises(EncodeError):
        t.delay(Bigger(number=1))


def test_the_task_keeps_its_name_and_signature(app: Celery) -> None:
    t = task(app, receive)
    assert (t.__name__, t.__annotations__.keys()) == ("receive", {"order", "return"})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'order'"):
        t.delay()


def test_without_pydantic_it_says_what_to_install(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    app.finalize()
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'celery\[pydantic\]'"):
        task(app, receive)
