"""The monitor's index: whatever happens to rows, it is what sorting all of them would give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery.events.table import Ordered, Table

CHANGES = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 5)), max_size=60)


def shown(rows: dict[str, int], reverse: bool, least: int = 0) -> list[str]:
    return [uuid for _, uuid in sorted(((v, k) for k, v in rows.items() if v >= least), reverse=reverse)]


@given(CHANGES, st.booleans(), st.integers(0, 12), st.integers(0, 12), st.sets(st.sampled_from("abcdefghij")))
def test_a_table_is_sorted_filtered_and_sliced(
    changes: list[tuple[str, int]], reverse: bool, start: int, count: int, kept: set[str]
) -> None:
    things: dict[str, int] = {}
    table: Table[int] = Table(lambda value: value, lambda value: value >= 2, reverse)
    for uuid, value in changes:
        things[uuid] = value
        table.put(uuid, value)
    expected = shown(things, reverse, 2)
    assert [uuid for uuid, _ in table.window(start, count)] == expected[start : start + count]
    assert [table.position(uuid) for uuid in expected] == list(range(len(expected)))
    assert all(table.position(uuid) is None for uuid in things.keys() - set(expected))
    assert (len(table), table.known) == (len(expected), len(things))

    table.keep(kept)
    left = {uuid: value for uuid, value in things.items() if uuid in kept}
    assert [uuid for uuid, _ in table.window(0, 99)] == shown(left, reverse, 2)
    table.rearrange(lambda value: -value, None, not reverse)
    mirrored = {uuid: -value for uuid, value in left.items()}
    assert [uuid for uuid, _ in table.window(0, 99)] == shown(mirrored, not reverse, -99)


def test_many_rows() -> None:
    """Longer than one stretch, in an order in which stretches are split and emptied."""
    rows = [((n * 7919) % 10_007, str(n)) for n in range(10_007)]
    ordered = Ordered(rows[:3000])
    for row in rows[3000:]:
        ordered.add(row)
    assert ordered.slice(0, len(ordered)) == sorted(rows)
    assert [ordered.index(row) for row in sorted(rows)[::501]] == list(range(0, 10_007, 501))
    for row in rows[1000:]:
        ordered.remove(row)
    assert ordered.slice(10, 20) == sorted(rows[:1000])[10:20]
    assert len(ordered) == 1000
