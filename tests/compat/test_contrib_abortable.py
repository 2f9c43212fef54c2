"""Tasks that can be asked to stop (`[contrib.1]`)."""

from __future__ import annotations

import threading

import pytest

from celery import states
from celery.contrib.abortable import ABORTED, AbortableAsyncResult, AbortableTask
from celery.contrib.testing.worker import start_worker

DEADLINE = 10.0


def test_a_running_task_sees_that_it_was_aborted(celery_app):
    begun, seen = threading.Event(), threading.Event()

    @celery_app.task(bind=True, base=AbortableTask, shared=False)
    def count(self):
        assert not self.is_aborted()
        begun.set()
        assert seen.wait(DEADLINE)
        return "stopped" if self.is_aborted() else "finished"

    with start_worker(celery_app):
        result = count.delay()
        assert type(result) is AbortableAsyncResult
        assert begun.wait(DEADLINE)
        result.abort()
        assert (result.is_aborted(), result.state, result.ready()) == (True, ABORTED, False)
        assert count.is_aborted(task_id=result.id)
        seen.set()
        assert result.get(timeout=DEADLINE) == "stopped"
    assert (result.is_aborted(), result.state) == (False, states.SUCCESS)
    result.abort()
    assert result.state == states.SUCCESS


def test_results_by_id_and_plain_calls(celery_app):
    task = celery_app.task(bind=True, base=AbortableTask, shared=False)(lambda self: self.is_aborted())
    result = task.AsyncResult("some")
    assert (type(result), result.app, result.is_aborted()) == (AbortableAsyncResult, celery_app, False)
    assert task() is False
    assert ABORTED not in states.READY_STATES
    with pytest.raises(result.TimeoutError):
        result.get(timeout=0.01)
