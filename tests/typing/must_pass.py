"""What must type-check: run by mypy and pyright, never by Python."""

import datetime as dt
from typing import assert_type

from celery import Celery, Task, shared_task
from celery.exceptions import Retry
from celery.result import AsyncResult, EagerResult

app = Celery("typed", broker="memory://")


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task(bind=True, max_retries=3)
def bound(self: Task[..., str], name: str, *, loud: bool = False) -> str:
    return f"{self.name} {name} {loud}"


@app.task(queue="lopri")
def with_options(text: str) -> list[str]:
    return [text]


@shared_task
def shared(n: float) -> float:
    return n


@shared_task(bind=True)
def shared_and_bound(self: Task[..., None], n: float) -> None: ...


@app.task(typed=True)
def typed(day: dt.date) -> list[dt.date]:
    return [day]


class Base(Task[[int], int]):
    def run(self, x: int) -> int:
        return x


assert_type(add(1, y=2), int)
assert_type(add.delay(1, 2), AsyncResult[int])
assert_type(add.delay(1).get(timeout=1), int)
assert_type(add.apply_async((1,), {"y": 2}, countdown=3, queue="lopri"), AsyncResult[int])
assert_type(bound.delay("x", loud=True), AsyncResult[str])
assert_type(bound("x"), str)
assert_type(with_options.delay("x").get(), list[str])
assert_type(shared.delay(1.5), AsyncResult[float])
assert_type(shared_and_bound.delay(1.5), AsyncResult[None])
assert_type(typed.delay(dt.date(2020, 1, 2)).get(), list[dt.date])
assert_type(Base().delay(3), AsyncResult[int])
assert_type(add.apply((1,), {"y": 2}, throw=True), EagerResult[int])
assert_type(add.s(1).apply(), EagerResult[int])


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=True)
def fetches(self: Task[..., str], url: str) -> str:
    try:
        return url.upper()
    except ValueError as exc:
        raise self.retry(exc=exc, countdown=3) from exc
    except KeyError as exc:
        self.retry(exc=exc, queue="slow")  # never comes back: nothing is missing below


@app.task(bind=True)
def goes_on(self: Task[..., None]) -> None:
    assert_type(self.retry(throw=False), Retry)
