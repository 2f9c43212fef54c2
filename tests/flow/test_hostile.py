"""Exceptions that do everything an exception should not: the worker stays up, and whoever waits is told (PAINS 33)."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from tests import hostile
from tests.flow.engine import DEADLINE
from tests.flow.test_worker_embedded import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")
#: Those through which all of them go; a failure is the same mapping of text in the others.
WHOLE = ("json",)
TEXT = 65_536


@pytest.fixture(params=SERIALIZERS)
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("hostile", broker=name, backend=name, set_as_current=False)
    app.conf.update(result_serializer=request.param, result_accept_content=[request.param])

    @app.task(name="misbehave")
    def misbehave(label: str) -> None:
        raise hostile.make(label)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    yield app
    app.close()


@pytest.mark.slow
def test_two_hundred_hostile_exceptions(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """[state.4] [state.5] [state.6]: FAILURE with readable text of at most 64 KB, in every serializer."""
    assert len(hostile.LABELS) >= 200
    whole = app.conf.result_serializer in WHOLE
    labels = hostile.LABELS if whole else hostile.LABELS[::5]
    caplog.set_level(logging.CRITICAL, "celery.app.trace")  # pytest's handler raises what formatting raises
    store: Any = app.assembly.store
    with Running(app) as worker:
        sent = {label: app.tasks["misbehave"].delay(label) for label in labels}
        for label, result in sent.items():
            check(app, label, result, store)
        assert app.tasks["add"].delay(1, 2).get(timeout=DEADLINE) == 3
    assert worker.exitcode == 0


def check(app: Celery, label: str, result: Any, store: Any) -> None:
    (meta,) = store.wait([result.id], 10 * DEADLINE).values()
    assert len(meta) <= TEXT, f"{label}: {len(meta)} bytes"
    assert result.state == "FAILURE", label
    text = result.traceback
    assert "Traceback (most recent call last)" in text, (label, text[:200])
    assert len(text.encode("utf-8", "surrogatepass")) <= TEXT, label
    with pytest.raises(BaseException) as raised:
        result.get(timeout=0)
    assert type(raised.value).__module__ != "kombu.exceptions", f"{label}: {raised.value!r}"


def test_the_cause_and_the_notes_stand_in_the_traceback(app: Celery) -> None:
    with Running(app):
        result = app.tasks["misbehave"].delay("plain: chain")
        result.get(timeout=DEADLINE, propagate=False)
    text = result.traceback
    assert "ValueError: the cause" in text
    assert "a note" in text
    assert text.index("the cause") < text.index("direct cause of the following") < text.index("chained")


@pytest.mark.slow
def test_fifty_megabytes_take_no_time(app: Celery) -> None:
    began = time.monotonic()
    with Running(app):
        result = app.tasks["misbehave"].delay("plain: big")
        failure = result.get(timeout=DEADLINE, propagate=False)
    assert "characters left out" in str(failure) or "..." in str(failure)
    assert time.monotonic() - began < DEADLINE
