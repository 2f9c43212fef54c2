"""Entrance. A task that may be sent once the transaction around it is committed (`[contrib.4]`, `[django.5]`)."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction

from celery.app.task import Task

__all__ = ["DjangoTask"]


class DjangoTask(Task):  # type: ignore[type-arg]  # for any function
    """A task with two more ways to be sent. Outside a transaction both send at once; neither gives a result."""

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`delay`, once the current transaction is committed; if it is rolled back, nothing is sent."""
        transaction.on_commit(partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`apply_async`, once the current transaction is committed; if it is rolled back, nothing is sent."""
        transaction.on_commit(partial(self.apply_async, *args, **kwargs))
