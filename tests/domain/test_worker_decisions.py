"""What a worker decides, as pure functions: admission and settlement."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.message import Message
from celery.outcome import Failure, Ignored, Rejected, Retrying, Success
from celery.worker.admission import RUN, Drop, Refuse, TaskPolicy, Wait, admit, moment
from celery.worker.settlement import ACK, DONE, REJECT, REQUEUE, lost_disposition, run_disposition

JSON = frozenset(["application/json"])
NOW = 1_800_000_000.0
EARLY, LATE = TaskPolicy("t"), TaskPolicy("t", acks_late=True)
CAREFUL = TaskPolicy("t", acks_late=True, reject_on_worker_lost=True)

moments = st.floats(min_value=0, max_value=4e9).map(lambda at: round(at, 6))
zones = st.integers(-14 * 4, 14 * 4).map(lambda quarters: dt.timezone(dt.timedelta(minutes=15 * quarters)))


def message(content_type: str = "application/json", **headers: object) -> Message:
    return Message({"task": "t", "id": "1", **headers}, b"[[], {}, {}]", content_type=content_type)


def iso(at: float, zone: dt.timezone = dt.UTC) -> str:
    return dt.datetime.fromtimestamp(at, zone).isoformat()


@given(moments, zones)
def test_a_moment_is_the_same_in_every_zone(at: float, zone: dt.timezone) -> None:
    assert moment(iso(at, zone)) == pytest.approx(at, abs=2e-6)
    assert moment(at) == at


@given(st.datetimes(dt.datetime(1970, 1, 3), dt.datetime(9999, 12, 29), timezones=st.timezones(), allow_imaginary=True))
def test_a_moment_is_the_same_whatever_the_clocks_do(at: dt.datetime) -> None:
    """In hours that a change of the clocks repeats or leaves out, and in thousands of years: `[call.34]`."""
    due = moment(at.isoformat())
    assert due == pytest.approx(at.timestamp(), abs=1e-4)
    admitted = admit(message(eta=at.isoformat()), EARLY, JSON, NOW)
    assert admitted == (Wait(due) if due > NOW else RUN)


def test_a_moment_without_zone_is_utc() -> None:
    assert moment("1970-01-02T00:00:00") == 86400.0
    assert moment("1970-01-02T00:00:00Z") == 86400.0


@given(moments, moments)
def test_time_decides(eta: float, expires: float) -> None:
    decided = admit(message(eta=iso(eta), expires=iso(expires)), EARLY, JSON, NOW)
    if expires <= NOW - 1e-5:
        assert decided == Drop()
    elif eta > NOW + 1e-5 and expires > NOW + 1e-5:
        assert isinstance(decided, Wait)
        assert decided.until == pytest.approx(eta, abs=2e-6)
    elif eta < NOW - 1e-5 and expires > NOW + 1e-5:
        assert decided is RUN


def test_usual_messages_run() -> None:
    assert admit(message(), EARLY, JSON, NOW) is RUN
    assert admit(message("application/x-yaml"), EARLY, None, NOW) is RUN


@pytest.mark.parametrize(
    ("given", "policy", "kind"),
    [
        (message(), None, "unknown"),
        (message("application/x-python-serialize"), EARLY, "content"),
        (message(eta="soon"), EARLY, "invalid"),
        (message(expires="later"), EARLY, "invalid"),
        (message(expires=float("nan")), EARLY, "invalid"),
    ],
)
def test_the_rest_is_refused_with_its_reason(given: Message, policy: TaskPolicy | None, kind: str) -> None:
    decided = admit(given, policy, JSON, NOW)
    assert isinstance(decided, Refuse)
    assert decided.kind == kind
    assert decided.reason


OUTCOMES = [Success(), Failure(), Failure(acknowledge=False), Retrying(), Ignored(), Rejected(), Rejected(requeue=True)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (EARLY, [ACK, ACK, ACK, ACK, ACK, REJECT, ACK]),
        (LATE, [ACK, ACK, REJECT, ACK, ACK, REJECT, REQUEUE]),
    ],
)
def test_settlement(policy: TaskPolicy, expected: list[str]) -> None:
    assert [run_disposition(outcome, policy, acknowledged=False) for outcome in OUTCOMES] == expected
    assert {run_disposition(outcome, policy, acknowledged=True) for outcome in OUTCOMES} == {DONE}


def test_lost_runs_come_back_only_if_the_task_asked_for_it() -> None:
    assert [lost_disposition(policy, acknowledged=False) for policy in (EARLY, LATE, CAREFUL)] == [ACK, ACK, REQUEUE]
    assert lost_disposition(CAREFUL, acknowledged=True) == DONE
