"""What must not type-check: each line with a mark has an error, and no other line has. Never run by Python."""

from celery import Celery, Task, shared_task

app = Celery("typed", broker="memory://")


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task(bind=True)
def bound(self: Task[..., str], name: str) -> str:
    return name


@shared_task
def shared(n: float) -> float:
    return n


add.delay("x")  # error: text for a number
add.delay()  # error: x is missing
add.delay(1, 2, 3)  # error: one too many
add.delay(1, z=2)  # error: no such parameter
add("x")  # error: text for a number
text: str = add(1)  # error: it returns a number
result: str = add.delay(1).get()  # error: it returns a number
bound.delay(1)  # error: a number for text
bound.delay(bound, "x")  # error: self is not the caller's affair
shared.delay("x")  # error: text for a number
add.apply_async(args=1)  # error: arguments are a sequence
add.apply(args=1)  # error: arguments are a sequence
add.retry(countdown="soon")  # error: text for a number
