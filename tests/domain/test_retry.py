"""Back-off, and the arguments of a retry."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.retry import RetryPolicy, delay, rebind

FACTORS = st.integers(1, 1000)
RETRIES = st.integers(0, 5000)
LIMITS = st.integers(0, 10**6)


@given(FACTORS, RETRIES, LIMITS)
def test_the_delay_doubles_up_to_its_limit(factor, retries, limit):
    assert delay(factor, retries, limit) == min(limit, factor * 2**retries)


@given(FACTORS, RETRIES, LIMITS, st.data())
def test_jitter_is_any_part_of_the_delay(factor, retries, limit, data):
    whole = delay(factor, retries, limit)
    asked = []
    jittered = delay(factor, retries, limit, lambda n: asked.append(n) or data.draw(st.integers(0, n - 1)))
    assert asked == [whole + 1]
    assert 0 <= jittered <= whole


@pytest.mark.parametrize(
    ("backoff", "first"), [(True, 1), (1, 1), (0.5, 1), (2.7, 2), (40, 40), (None, None), (False, None), (0, None)]
)
def test_the_factor_is_a_whole_number_of_at_least_one(backoff, first):
    policy = RetryPolicy.of({"retry_backoff": backoff, "retry_jitter": False})
    assert policy.wait(0, lambda n: n) == first


def test_a_policys_defaults():
    policy = RetryPolicy.of({"retry_backoff": True})
    assert (policy.errors, policy.exempt, policy.arguments) == ((), (), {})
    assert policy.wait(20, lambda n: n - 1) == 600
    assert policy.wait(20, lambda n: 0) == 0


def test_exceptions_may_be_one_or_several_and_nothing_else():
    assert RetryPolicy.of({"autoretry_for": KeyError}).errors == (KeyError,)
    assert RetryPolicy.of({"autoretry_for": [KeyError, OSError]}).errors == (KeyError, OSError)
    with pytest.raises(TypeError, match="dont_autoretry_for: expected exception classes, got 'KeyError'"):
        RetryPolicy.of({"dont_autoretry_for": ["KeyError"]})


def body(a, b=0, c=0, *, k=0, **rest):
    return {"a": a, "b": b, "c": c, "k": k, **rest}


NAMES = ["a", "b", "c"]
SIGNATURE = inspect.signature(body)


@st.composite
def calls(draw):
    """Arguments that fit `body`."""
    args = tuple(draw(st.lists(st.integers(), min_size=0, max_size=3)))
    left = [name for name in [*NAMES, "k", "other"] if name not in NAMES[: len(args)]]
    names = draw(st.sets(st.sampled_from(left)) if left else st.just(set()))
    if not args:
        names = names | {"a"}
    return args, {name: draw(st.integers()) for name in names}


@given(calls(), st.lists(st.integers(), min_size=1, max_size=3))
def test_given_positions_win_over_names_of_the_call(call, args):
    new_args, new_kwargs = rebind(NAMES, call, args, None)
    assert new_args == args
    bound = SIGNATURE.bind(*new_args, **new_kwargs).arguments  # raises where a name is bound twice
    assert [bound[name] for name in NAMES[: len(args)]] == args


@given(calls(), st.dictionaries(st.sampled_from([*NAMES, "k", "other"]), st.integers()))
def test_given_names_win_over_positions_of_the_call(call, kwargs):
    if not call[0]:
        kwargs.setdefault("a", 1)
    new_args, new_kwargs = rebind(NAMES, call, None, kwargs)
    result = body(*new_args, **new_kwargs)
    assert {name: result[name] for name in kwargs} == kwargs
    kept = {name: value for name, value in zip(NAMES, call[0], strict=False) if name not in kwargs}
    assert {name: result[name] for name in kept} == kept


@given(calls(), calls())
def test_both_or_neither_are_taken_as_they_are(call, other):
    assert rebind(NAMES, call, None, None) == call
    assert rebind(NAMES, call, *other) == other


def test_a_parameter_without_a_name_is_bound_by_position_alone():
    assert rebind([None, "b"], ((1, 2), {}), None, {"a": 9, "b": 8}) == ((1, 8), {"a": 9})
