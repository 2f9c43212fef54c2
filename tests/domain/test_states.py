"""Task states: their sets, and how they compare ([task.45], [task.46])."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import states
from celery.states import NONE_PRECEDENCE, PRECEDENCE, precedence, state

NAMED = ("PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "REVOKED", "REJECTED", "RETRY", "IGNORED")
any_state = st.sampled_from([*NAMED, "PROGRESS"]).map(state)


def test_names_are_their_values() -> None:
    assert [getattr(states, name) for name in NAMED] == list(NAMED)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("READY_STATES", "SUCCESS FAILURE REVOKED"),
        ("UNREADY_STATES", "PENDING RECEIVED STARTED REJECTED RETRY"),
        ("EXCEPTION_STATES", "RETRY FAILURE REVOKED"),
        ("PROPAGATE_STATES", "FAILURE REVOKED"),
        ("ALL_STATES", "PENDING RECEIVED STARTED SUCCESS FAILURE RETRY REVOKED"),
    ],
)
def test_sets(name: str, members: str) -> None:
    assert getattr(states, name) == frozenset(members.split())


def test_success_is_highest_and_custom_states_stand_at_none() -> None:
    assert PRECEDENCE == ["SUCCESS", "FAILURE", None, "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"]
    assert precedence("PROGRESS") == NONE_PRECEDENCE == 2
    assert state("SUCCESS") > state("FAILURE") > state("PROGRESS") > state("REVOKED") > state("PENDING")


@given(any_state, any_state)
def test_comparison_follows_precedence(one: state, other: state) -> None:
    assert (one > other) == (other < one) == (precedence(one) < precedence(other))
    assert (one >= other) == (other <= one) == (not one < other)
