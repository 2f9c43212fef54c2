"""test_sessions.py: fixtures of session scope."""

import pytest
from shared_tasks import Classy
from test_functions import GET, where

from celery import current_app


@pytest.fixture(scope="session")
def celery_class_tasks():
    return [Classy]


def test_session(note, celery_session_app, celery_session_worker):
    note("where", where(celery_session_app))
    note("conf", [celery_session_app.conf.broker_url, celery_session_app.conf.result_expires])
    note("class", celery_session_app.tasks["classy"].delay(4).get(**GET))
    note("included", celery_session_app.send_task("shared_tasks.include", (1,)).get(**GET))


def test_is_kept(note, celery_session_app, celery_session_worker):
    @celery_session_app.task
    def late():
        return current_app.main

    celery_session_worker.reload()
    note("late", late.delay().get(**GET))
    note("where", where(celery_session_app))


def test_beside_another(note, celery_session_app, celery_app):
    note("where", [where(celery_session_app), where(celery_app)])
