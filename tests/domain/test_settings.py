"""The table of settings, the checks of their values, and the search for a misspelt name."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.settings import BY_NAME, NEW_NAME, OLD_NAME, OURS, SETTINGS, complaint, nearest


def test_table_is_whole_and_without_doubles():
    assert len(SETTINGS) == len(BY_NAME) == 235 + len(OURS)
    assert len([setting for setting in SETTINGS if setting.declared]) == 207
    assert all(setting.description for setting in SETTINGS)


def test_every_declared_setting_has_one_old_name_and_back():
    assert len(OLD_NAME) == len(NEW_NAME) == 207
    assert {NEW_NAME[old] for old in OLD_NAME.values()} == set(OLD_NAME)


@pytest.mark.parametrize(
    ("name", "default", "old"),
    [
        ("broker_heartbeat_checkrate", 3.0, "BROKER_HEARTBEAT_CHECKRATE"),
        ("control_queue_exclusive", True, "CONTROL_QUEUE_EXCLUSIVE"),
        ("database_engine_options", {"pool_pre_ping": True, "pool_recycle": 3600}, "CELERY_RESULT_ENGINE_OPTIONS"),
        ("redis_socket_timeout", 120.0, "CELERY_REDIS_SOCKET_TIMEOUT"),
        ("result_backend_max_retries", math.inf, "CELERY_RESULT_BACKEND_MAX_RETRIES"),
        ("result_expires", timedelta(days=1), "CELERY_TASK_RESULT_EXPIRES"),
        ("worker_prefetch_multiplier", 4, "CELERYD_PREFETCH_MULTIPLIER"),
    ],
)
def test_defaults_and_old_names(name, default, old):
    assert BY_NAME[name].default == default
    assert BY_NAME[name].old == old


def test_no_default_is_refused():
    assert [setting.name for setting in SETTINGS if complaint(setting, setting.default)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_pool_limit", "ten"),
        ("result_expires", [1]),
        ("broker_transport_options", "max_retries=3"),
        ("accept_content", "json"),
        ("imports", 3),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    said = complaint(BY_NAME[name], value)
    assert said.startswith(f"Setting {name}: expected ")
    assert "got " + type(value).__name__ in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_pool_limit", "10"),
        ("broker_pool_limit", None),
        ("broker_use_ssl", {"ca_certs": "x"}),
        ("redis_backend_use_ssl", True),
        ("result_expires", timedelta(hours=1)),
        ("task_queues", ["a", "b"]),
        ("imports", "proj.tasks"),
        ("task_default_priority", 5),
        ("beat_schedule", {}),
    ],
)
def test_a_value_that_celery_takes_is_taken(name, value):
    assert complaint(BY_NAME[name], value) is None


def test_a_complaint_shows_no_secret():
    assert "hunter2" not in complaint(BY_NAME["redis_port"]._replace(name="redis_password"), "hunter2")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("task_serialiser", "task_serializer"),
        ("worker_concurency", "worker_concurrency"),
        ("BROKER_ULR", "BROKER_URL"),
        ("task_serializer", None),
        ("BROKER_URL", None),
        ("my_own_setting", None),
        ("DATABASES", None),
    ],
)
def test_misspelt_names_are_recognised(typed, meant):
    assert nearest(typed) == meant


@given(st.sampled_from(sorted(name for name in BY_NAME if name.islower() and len(name) > 8)), st.data())
def test_two_slips_in_the_middle_are_always_found(name, data):
    at = data.draw(st.integers(3, len(name) - 5))
    slip = name[:at] + "#" + name[at + 1] + "#" + name[at + 3 :]
    assert nearest(slip) is not None
