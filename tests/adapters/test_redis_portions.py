"""How many messages a worker asks Redis for at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.redis_portions import Portions

NEAR, MILLISECOND = 0.0001, 0.001


def portions(size: int, way: float) -> Portions:
    made = Portions()
    made.met(way)
    made.came([b"x" * size] * 20, 1.0)
    return made


@given(wanted=st.integers(1, 10**6), sizes=st.lists(st.integers(0, 10**5), max_size=50), way=st.floats(0, 100))
def test_at_least_one_and_never_more_than_there_is_room_for(wanted: int, sizes: list[int], way: float) -> None:
    made = portions(1, way)
    made.came([b"x" * size for size in sizes], way)
    assert 1 <= made.limit(wanted) <= min(wanted, 2000)


def test_the_larger_the_fewer() -> None:
    limits = [portions(size, NEAR).limit(10**6) for size in (100, 1_000, 10_000, 1_000_000, 10_000_000)]
    assert limits == sorted(limits, reverse=True)
    assert (limits[0], limits[-1]) == (2000, 1)
    assert 200 < limits[1] < 1000
    assert 20 < limits[2] < 100


@pytest.mark.parametrize("size", [1_000, 10_000])
def test_the_farther_the_more(size: int) -> None:
    near, far, farther, farthest = (
        portions(size, way).limit(10**6) for way in (NEAR, 3 * MILLISECOND, 6 * MILLISECOND, 1.0)
    )
    assert near < far <= farther <= farthest <= min(2000, 8 * near)


def test_a_way_that_seemed_far_was_a_busy_moment() -> None:
    made = portions(10_000, 0.1)
    before = made.limit(10**6)
    made.came([], NEAR)
    assert made.limit(10**6) < before
    made.met(0.1)  # another server
    assert made.limit(10**6) == before
