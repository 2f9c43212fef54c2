"""Apps for one test: what they leave in the process is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from celery import Celery, _state

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def state() -> Iterator[None]:
    """The current app, the default app and the announcements of shared tasks are as before, afterwards."""
    default, current, finalizers = _state.default_app, _state._tls.current_app, dict(_state._on_app_finalizers)
    _state.set_default_app(None)
    _state._set_current_app(None)
    yield
    _state.set_default_app(default)
    _state._set_current_app(current)
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(finalizers)


@pytest.fixture
def memory_app(state: None) -> Iterator[Celery]:
    """The current app, with a broker and results of its own in memory; asked for as `app` where it is imported so."""
    name = f"memory://{uuid4()}"
    app = Celery("proj", broker=name, backend=name)
    yield app
    app.close()


@pytest.fixture
def app(state: None) -> Celery:
    return Celery("proj", broker="memory://", backend="cache+memory://")
