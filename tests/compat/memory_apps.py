"""Apps for the tests of this folder, each with a broker and results of its own in memory."""

from __future__ import annotations

from itertools import count
from typing import Any

from celery import Celery

_numbers = count()


def make_app(**settings: Any) -> Celery:
    """An app with the task `tasks.add`."""
    number = next(_numbers)
    settings.setdefault("broker_url", f"memory://compat-{number}")
    settings.setdefault("result_backend", f"memory://compat-{number}")
    app = Celery("tasks", set_as_current=False)
    app.conf.update(settings)
    app.task(name="tasks.add")(add)
    return app


def add(x: int, y: int) -> int:
    return x + y
