"""A fresh process that makes an app and a task and is ready to send; the clock of whoever starts it runs."""

from celery import Celery

app = Celery("start_up", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")


@app.task
def add(x: int, y: int) -> int:
    return x + y


#: What sending needs, made but not connected: each implementation has its own name for it.
ready = add.name, app.assembly.producer if hasattr(app, "assembly") else app.producer_pool
