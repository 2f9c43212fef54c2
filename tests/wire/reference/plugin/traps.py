"""test_traps.py: no implicit app."""

import pytest

from celery import current_app


@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True


def test_trap(note, celery_app):
    with pytest.raises(RuntimeError) as caught:
        current_app.conf  # noqa: B018
    note("error", str(caught.value)[:27])


def test_depends(note, celery_app, depends_on_current_app):
    note("current", current_app._get_current_object() is celery_app)


def test_worker(note, celery_app, celery_worker):
    note("included", celery_app.send_task("shared_tasks.include", (1,)).get(timeout=20))
