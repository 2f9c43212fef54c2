"""Buffers and layered settings of `celery.utils.collections` ([util.5]). Expectations are what Celery 5.7 answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.collections import BufferMap, ConfigurationView, Evictable, Messagebuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

pairs = st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=40)


@given(st.lists(st.integers(), max_size=30), st.integers(0, 10))
def test_a_buffer_keeps_the_newest(items: Sequence[int], most: int) -> None:
    buffer = Messagebuffer(most)
    for item in items:
        buffer.put(item)
    kept = items[max(0, len(items) - most) :]
    assert list(reversed(buffer)) == kept[::-1]
    assert (len(buffer), bool(buffer), repr(buffer)) == (len(kept), bool(kept), f"<Messagebuffer: {len(kept)}/{most}>")
    assert list(buffer) == list(kept)  # which takes them out
    assert not buffer
    with pytest.raises(Evictable.Empty):
        buffer.take()


def test_taking_in_order() -> None:
    buffer = Messagebuffer(None, [1, 2])
    buffer.extend([3])
    assert (buffer[0], 3 in buffer, buffer.take(), buffer.take(), buffer.take(), buffer.take("none")) == (
        1, True, 1, 2, 3, "none",
    )  # fmt: skip


@given(pairs, st.integers(1, 12))
def test_a_map_of_buffers_holds_so_much_in_all(puts: Sequence[tuple[str, int]], most: int) -> None:
    buffers = BufferMap(most)
    for key, item in puts:
        buffers.put(key, item)
        assert buffers.total <= most
        assert buffers[key][len(buffers[key]) - 1] == item  # the newest is never the one that goes
    assert buffers.total == min(most, len(puts))
    for key in list(buffers):
        kept = list(reversed(buffers[key]))[::-1]
        assert kept == [item for name, item in puts if name == key][-len(kept) :] or not kept


def test_whose_turn_it_is() -> None:
    buffers = BufferMap(5, [("z", [0])])
    assert buffers.take("z") == 0
    buffers.put("a", 3)
    buffers.put("b", 4)
    buffers.extend("b", [5, 6])
    assert (repr(buffers), buffers.take("a"), list(buffers)[-1]) == ("<BufferMap: 4/5>", 3, "a")
    for key in ("a", "nobody"):
        with pytest.raises(BufferMap.Empty):
            buffers.take(key)
    assert buffers.take("nobody", 7) == 7
    buffers.extend("c", range(10))
    assert {key: list(items) for key, items in buffers.items()} == {"c": [5, 6, 7, 8, 9]}


def test_settings_in_layers() -> None:
    view = ConfigurationView(
        {"a": 1}, [{"b": 2, "c": None}, {"CELERY_X": 3}], keys=[lambda key: f"CELERY_{key.upper()}"]
    )
    assert (view["a"], view.b, view["x"], view.get("no", 9), "x" in view, "no" in view) == (1, 2, 3, 9, True, False)
    assert (view.first("no", "c", "b"), view.first("no")) == (2, None)
    assert (list(view), dict(view.items())) == (["CELERY_X", "b", "c", "a"], {"a": 1, "b": 2, "c": None, "CELERY_X": 3})
    view["n"] = 4
    view.m = 5
    view.update({"k": 6})
    assert view.changes == {"a": 1, "n": 4, "m": 5, "k": 6}
    view.add_defaults({"b": 7})
    assert view["b"] == 7
    view.clear()
    assert (view.changes, "a" in view, view["b"]) == ({}, False, 7)
    with pytest.raises(KeyError, match="none"):
        view["none"]
    with pytest.raises(AttributeError, match="none"):
        view.none  # noqa: B018
    view.swap_with(ConfigurationView({}, [{"celery_y": 8}], prefix="celery"))
    assert (view["y"], view.y, "x" in view) == (8, 8, False)
