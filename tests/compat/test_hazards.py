"""Combinations of settings that lose or repeat work are told at start, and refused under strict settings (pain 41)."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import pytest

from celery import Celery
from celery.app.hazards import hazards
from celery.exceptions import ImproperlyConfigured
from celery.worker import WorkController

LIMITS = "not below its hard one"
CASES: list[tuple[dict[str, Any], str]] = [
    ({"task_soft_time_limit": 10, "task_time_limit": 10}, LIMITS),
    ({"task_soft_time_limit": 11, "task_time_limit": 10}, LIMITS),
    ({"task_annotations": {"t": {"soft_time_limit": 9, "time_limit": 8}}}, "The soft time limit of t (9 s)"),
    ({"task_time_limit": 5, "task_annotations": {"t": {"soft_time_limit": 9}}}, "The soft time limit of t (9 s)"),
    ({"task_reject_on_worker_lost": True}, "Set task_acks_late too"),
    ({"task_annotations": {"t": {"reject_on_worker_lost": True}}}, "t has reject_on_worker_lost without acks_late"),
    ({"worker_deduplicate_successful_tasks": True, "result_backend": "disabled://"}, "Set result_backend"),
    ({"task_serializer": "pickle"}, "task_serializer is 'pickle', which the accepted content ['json'] leaves out"),
    ({"result_serializer": "yaml"}, "no result can be read back"),
    ({"result_accept_content": ["pickle"]}, "no result can be read back"),
    ({"task_always_eager": True}, "task_always_eager is on"),
]
HARMLESS: list[dict[str, Any]] = [
    {},
    {"task_soft_time_limit": 9, "task_time_limit": 10},
    {"task_soft_time_limit": 9},
    {"task_time_limit": 9, "task_annotations": {"t": {"soft_time_limit": 8}}},
    {"task_reject_on_worker_lost": True, "task_acks_late": True},
    {"task_annotations": {"t": {"reject_on_worker_lost": True, "acks_late": True}}},
    {"worker_deduplicate_successful_tasks": True},
    {"task_serializer": "pickle", "accept_content": ["pickle", "json"]},
    {"task_serializer": "application/json"},
    {"task_serializer": "of-somebody-s-own"},
]


def app_of(settings: dict[str, Any]) -> Celery:
    name = f"memory://{uuid4()}"
    app = Celery("hazards", broker=name, backend=name, set_as_current=False)
    app.conf.update(settings)
    app.task(name="t")(print)
    app.finalize()
    return app


def told(settings: dict[str, Any]) -> list[str]:
    app = app_of(settings)
    return list(hazards(app, app.conf.task_soft_time_limit, app.conf.task_time_limit))


@pytest.mark.parametrize(("settings", "says"), CASES)
def test_what_loses_or_repeats_work(settings: dict[str, Any], says: str) -> None:
    (text,) = told(settings)
    assert says in text
    assert text.endswith(".")


@pytest.mark.parametrize("settings", HARMLESS)
def test_what_does_not(settings: dict[str, Any]) -> None:
    assert told(settings) == []


def test_a_worker_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        WorkController(app=app_of({}), pool="solo", soft_time_limit=3, time_limit=2)
    assert "soft time limit (3 s) is not below its hard one (2 s)" in caplog.text


def test_a_worker_with_strict_settings_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_STRICT_SETTINGS", "1")
    app = app_of({"task_always_eager": True, "task_reject_on_worker_lost": True})
    with pytest.raises(ImproperlyConfigured) as refused:
        WorkController(app=app, pool="solo")
    assert "- task_reject_on_worker_lost is on" in str(refused.value)
    assert "- task_always_eager is on" in str(refused.value)
    WorkController(app=app_of({}), pool="solo")
