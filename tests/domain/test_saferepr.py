"""The safe repr: the same as Celery's where it is fixed here, bounded and ending everywhere."""

import re
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.saferepr import saferepr

Pair = namedtuple("Pair", "a b")


class Long:
    def __repr__(self):
        return "R" * 50


class Bad:
    def __repr__(self):
        raise ValueError("secret")


@pytest.mark.parametrize(
    ("value", "maxlen", "levels", "text"),
    [
        ((), None, 3, "()"),
        ((1,), None, 3, "(1,)"),
        ({"a": 1, "b": [1.5, None, True]}, None, 3, "{'a': 1, 'b': [1.5, None, True]}"),
        ({1}, None, 3, "{1}"),
        (frozenset([1]), None, 3, "frozenset({1})"),
        ([set(), frozenset()], None, 3, "[set(), frozenset()]"),
        (Pair(1, 2), None, 3, "(1, 2)"),
        (OrderedDict(a=1), None, 3, "{'a': 1}"),
        ("it's", None, 3, r"'it\'s'"),
        (["a\\b\n"], None, 3, "['a\\b\n']"),
        (b"\xff\x00", None, 3, "b'ff00'"),
        ([b"it's"], None, 3, "[b'it's']"),
        ([[1, [2, [3, [4]]]]], None, 3, "[[1, [2, [...]]]]"),
        (((1,), {}, {1}), None, 1, "((...,), {...}, {...})"),
        ([[[[[1]]]]], None, 0, "[[[[[1]]]]]"),
        ({(1, 2): 3}, None, 1, "{(1, 2): 3}"),
        ("a" * 12, 12, 3, "'" + "a" * 12 + "...'"),
        ("a" * 11, 12, 3, "'" + "a" * 11 + "'"),
        ("hello world foo bar", 12, 3, "'hello world...'"),
        ([1, 2, 3, 4], 12, 3, "[1, 2, 3, 4]"),
        ([1, 2, 3, 4, 5], 12, 3, "[1, 2, 3, 4, , ...]"),
        ([1, 2, 3, 4, 5], 14, 3, "[1, 2, 3, 4, 5...]"),
        ([[1, 2]], 1, 3, "[, ...]"),
        ([[1, 2, 3], [4]], 9, 3, "[[1, 2, 3...], ...]"),
        ({"a": [1, 2]}, 4, 3, "{'a', ...}"),
        ({"a": [1, 2]}, 8, 3, "{'a': [1..., ...]}"),
        ({"k" * 20: 1, "b": 2}, 10, 3, "{'kkkkkkkkk...', ...}"),
        (((1,),), 3, 3, "((1...,),)"),
        ([Long()], 30, 3, "[" + "R" * 29 + "...]"),
        ([b"\xff" * 10], 4, 3, "[b'ffffff...']"),
        ([[1], [1]], None, 3, "[[1], [1]]"),
        (["\ud800"], None, 3, "['\ufffd']"),
    ],
)
def test_as_in_celery(value, maxlen, levels, text):
    assert saferepr(value, maxlen, levels) == text


def test_a_container_in_itself():
    endless = [1]
    endless.append(endless)
    assert re.fullmatch(r"\[1, <Recursion on list with id=\d+>\]", saferepr(endless))
    knot = {}
    knot["a"] = [knot]
    assert "Recursion on dict" in saferepr(knot, maxlevels=0)


def test_the_same_container_twice_is_no_recursion():
    shared = [1]
    assert saferepr([shared, {"x": {shared[0]}}, shared]) == "[[1], {'x': {1}}, [1]]"


def test_what_has_no_repr():
    assert re.fullmatch(r"\[<Unrepresentable <class '.*Bad'>0x[0-9a-f]+: ValueError>\]", saferepr([Bad()]))
    assert saferepr((10**5000,), 50).startswith("(<Unrepresentable <class 'int'>")


@pytest.mark.slow
def test_deep_nesting_does_not_exhaust_the_stack():
    deep = []
    for _ in range(20_000):
        deep = [deep]
    assert len(saferepr(deep, maxlevels=0)) == 40_002


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
_keys = st.text(max_size=5) | st.integers()
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(_keys, inner, max_size=4)
        | st.frozensets(_keys, max_size=3)
    ),
    max_leaves=40,
)


@given(_values, st.integers(1, 200), st.integers(1, 5))
def test_is_bounded(value, maxlen, levels):
    # Beyond the limit: the last ellipsis, quotes, closing brackets, and escapes or hex digits that double a character.
    assert len(saferepr(value, maxlen, levels)) <= 3 * maxlen + 40


_numbers = st.recursive(
    st.integers(),
    lambda inner: st.lists(inner, max_size=5) | st.tuples(inner) | st.dictionaries(st.integers(), inner, max_size=4),
    max_leaves=40,
)


@given(_numbers, st.integers(1, 60))
def test_brackets_are_always_closed(value, maxlen):
    text = saferepr(value, maxlen)
    assert [text.count(bracket) for bracket in "([{"] == [text.count(bracket) for bracket in ")]}"]


@given(st.lists(st.integers() | st.none() | st.booleans() | st.text("abc xyz.", max_size=10), max_size=8).map(tuple))
def test_short_plain_values_are_their_own_repr(value):
    assert saferepr(value, 1024) == repr(value)


@given(_values, st.integers(1, 120))
def test_the_quick_way_comes_to_the_same_as_the_long_one(value, maxlen):
    class Slow(list):  # not a plain list: never taken the quick way
        pass

    assert saferepr([value], maxlen) == saferepr(Slow([value]), maxlen)
