"""Which queues a message reaches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.bindings import Bindings, matches

WORDS = st.lists(st.sampled_from(["usa", "news", "weather", ""]), min_size=1, max_size=5)
PATTERN_WORDS = st.lists(st.sampled_from(["usa", "news", "*", "#"]), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("usa.#", "usa", True),
        ("usa.#", "usa.news.today", True),
        ("usa.#", "usable.news", False),
        ("#.news", "news", True),
        ("#.news", "usa.news", True),
        ("*.news", "news", False),
        ("*.news", "usa.news", True),
        ("*.news", "usa.east.news", False),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("#", "", True),
        ("#", "any.thing", True),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
    ],
)
def test_topic(pattern: str, key: str, expected: bool) -> None:
    assert matches("topic", pattern, key) is expected


@given(PATTERN_WORDS, WORDS)
def test_topic_is_a_pattern_over_words(pattern: list[str], key: list[str]) -> None:
    """The same said as a regular expression over words that each end with a dot."""
    parts = {"*": r"[^.]*\.", "#": r"(?:[^.]*\.)*"}
    expression = "".join(parts.get(word, re.escape(word) + r"\.") for word in pattern)
    expected = re.fullmatch(expression, "".join(word + "." for word in key)) is not None
    assert matches("topic", ".".join(pattern), ".".join(key)) is expected


def test_bindings() -> None:
    bindings = Bindings()
    for _ in range(2):
        bindings.bind("media", "direct", "image", "images")
    bindings.bind("media", "direct", "image", "backup")
    bindings.bind("all", "fanout", "", "one")
    assert bindings.queues("media", "image") == ["images", "backup"]
    assert bindings.queues("media", "video") == []
    assert bindings.queues("all", "whatever") == ["one"]
    assert bindings.queues("unknown", "image") == []
    assert bindings.queues("", "images") == ["images"]
