"""Which tasks travel in batches, and how much a child may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.concurrency.pacing import HORIZON, MOST_BYTES, MOST_JOBS, SHORT, Pacing
from celery.message import Message


def message(name: str = "add", **options: object) -> Message:
    headers = {"task": name, "id": "i", **options.pop("headers", {})}
    return Message(headers, b"[[], {}, {}]", **options)


def learnt(runs: list[float]) -> Pacing:
    pacing = Pacing()
    for runtime in runs:
        pacing.observe("add", runtime)
    return pacing


@pytest.mark.parametrize(
    ("runs", "short"),
    [
        ([], False),
        ([0.001] * 7, False),  # too few to judge
        ([0.001] * 8, True),
        ([0.006] * 8, False),
        ([0.001] * 61 + [1.0] * 3, True),  # 3 of 64: the 95th percentile is short
        ([0.001] * 60 + [1.0] * 4, False),
        ([1.0] * 64 + [0.001] * 64, True),  # it has become short
        ([0.001] * 64 + [1.0] * 8, False),  # it has become long
    ],
)
def test_a_name_is_short_if_95_of_100_runs_are(runs: list[float], short: bool) -> None:
    assert (learnt(runs).cost(message()) is not None) is short


def test_its_cost_is_the_mean_of_its_runs_and_a_little() -> None:
    cost = learnt([0.001, 0.003] * 32).cost(message())
    assert cost is not None
    assert 0.002 < cost < 0.0021


def test_redelivered_messages_go_alone_however_short() -> None:
    pacing = learnt([0.0] * 64)
    assert pacing.cost(message()) is not None
    assert pacing.cost(message("mul")) is None
    assert pacing.cost(message(redelivered=True)) is None
    assert pacing.cost(message(headers={"timelimit": [1, 1]})) is not None  # limits are exact in batches too


def test_what_is_remembered_is_bounded() -> None:
    pacing = Pacing()
    for n in range(5000):
        for _ in range(8):
            pacing.observe(f"task{n}", 0.0)
    known = [n for n in range(5000) if pacing.cost(message(f"task{n}")) is not None]
    assert known == list(range(4000, 5000))


def test_the_window_grows_with_demand_and_shrinks_without() -> None:
    pacing = Pacing()
    pacing.handed(HORIZON / 1000)
    grown = []
    while (room := pacing.room(0, 0.0, 0)) < 1000:
        grown.append(room)
        pacing.demand(room, room)
    assert grown == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    pacing.demand(1000, 900)
    assert pacing.room(0, 0.0, 0) == 1000
    pacing.demand(1000, 10)
    assert pacing.room(0, 0.0, 0) == 20
    pacing.demand(20, 0)
    assert pacing.room(0, 0.0, 0) == 1


def test_a_job_that_goes_alone_ends_the_taking_of_many() -> None:
    pacing = Pacing()
    for _ in range(10):
        pacing.demand(1, 1)
    assert pacing.room(0, 0.0, 0) > 100
    pacing.single()
    assert pacing.room(0, 0.0, 0) == 1


@given(
    wanted=st.lists(st.integers(0, 20), max_size=20),
    cost=st.floats(1e-6, SHORT),
    jobs=st.integers(0, 3000),
    backlog=st.floats(0, 1),
    size=st.integers(0, 2 * MOST_BYTES),
)
def test_room_is_bounded_by_count_time_and_bytes(
    wanted: list[int], cost: float, jobs: int, backlog: float, size: int
) -> None:
    pacing = Pacing()
    pacing.handed(cost)
    for n in wanted:
        pacing.demand(n, n)
    room = pacing.room(jobs, backlog, size)
    assert room >= 0
    if not jobs:
        assert 1 <= room <= MOST_JOBS  # an idle child always has room for one
    elif room:
        assert jobs + room <= MOST_JOBS
        assert backlog + room * cost <= HORIZON * (1 + 1e-9)
        assert size < MOST_BYTES
