"""Which queues a message reaches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.bindings import Bindings, matches, pattern_of
from celery.routing import Binding, ExchangeSpec

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
        bindings.bind(Binding(ExchangeSpec("media"), "image"), "images")
    bindings.bind(Binding(ExchangeSpec("media"), "image"), "backup")
    bindings.bind(Binding(ExchangeSpec("all", "fanout")), "one")
    assert bindings.queues("media", "image") == ["images", "backup"]
    assert bindings.queues("media", "video") == []
    assert bindings.queues("all", "whatever") == ["one"]
    assert bindings.queues("unknown", "image") == []
    assert bindings.queues("", "images") == ["images"]
    bindings.unbind("images")
    assert bindings.queues("media", "image") == ["backup"]


VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["pdf", "1"]))
NAMES = st.sampled_from(["format", "pages", "x-own"])
HOW = st.sampled_from([None, "all", "any", "all-with-x", "any-with-x"])


@given(HOW, st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_headers(how: str | None, wanted: dict[str, object], headers: dict[str, object]) -> None:
    """By counting: those that are looked at, and those that agree. 1 is neither "1" nor true."""
    arguments = wanted if how is None else {**wanted, "x-match": how}
    pattern = pattern_of(Binding(ExchangeSpec("papers", "headers"), "ignored", arguments))
    looked_at = [name for name in wanted if name != "x-own" or (how or "").endswith("-with-x")]
    agree = [name for name in looked_at if name in headers and wanted[name] in (None, headers[name])]
    agree = [name for name in agree if wanted[name] is None or type(wanted[name]) is type(headers[name])]
    expected = bool(agree) if (how or "all").startswith("any") else len(agree) == len(looked_at)
    assert matches("headers", pattern, "whatever", headers) is expected
