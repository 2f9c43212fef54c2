"""Our JSON and kombu's are one: whatever either writes, both read as the same value."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from decimal import Decimal
from typing import Any

import kombu.utils.json as kombu_json
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.exceptions import EncodeError

from celery import codecs as json


class Colour(str, enum.Enum):  # noqa: UP042 - users write both kinds
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


class Hooked:
    def __json__(self) -> str:
        return "hooked"


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(),
    st.text(st.characters(exclude_categories=())),  # lone surrogates included
    st.sampled_from(["__type__", "__value__", "datetime", Colour.RED, Number.ONE, Text("t"), Hooked()]),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=st.sampled_from([None, dt.UTC])),
    st.dates(),
    st.times(),
    st.binary(),
)
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), st.just("__type__"))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types all the way down, NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def outcome(function: Any, argument: Any) -> tuple[str, Any]:
    try:
        return "value", function(argument)
    except Exception as exc:  # noqa: BLE001 - the comparison is about any failure
        return "error", type(exc)


@given(values)
@example([float("nan"), float("inf"), 1e308, -0.0, 2**64, -(2**63) - 1])
@example({"__type__": "uuid", "__value__": {"hex": uuid.UUID(int=1).hex}})
@example({"\ud800": "\udfff"})
@example([Decimal("1.50"), (1, 2), {"a": {"b": [{}]}}])
def test_what_we_write_is_read_as_what_kombu_writes(value: Any) -> None:
    kind, theirs = outcome(kombu_json.dumps, value)
    if kind == "error":
        with pytest.raises(theirs):
            json.dumps(value)
        return
    ours = json.dumps(value)
    first, second = outcome(kombu_json.loads, theirs), outcome(kombu_json.loads, ours.decode())
    assert same(first, second) if first[0] == "value" else first == second


json_text = st.one_of(
    values.map(lambda v: outcome(kombu_json.dumps, v)).filter(lambda o: o[0] == "value").map(lambda o: o[1].encode()),
    st.binary(max_size=20),
    st.from_regex(rb"-?[0-9]{1,40}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)


@given(json_text)
@example(b"NaN")
@example(b"-Infinity")
@example(b"-0")
@example(b"1e400")
@example(b"123456789012345678901234567890")
@example(b'"\\ud800"')
@example(b'{"a": 1, "a": 2}')
@example(b"[" * 100_000)
@example(b'{"__type__": "nonsense", "__value__": 1}')
def test_what_we_read_is_what_kombu_reads(data: bytes) -> None:
    theirs = outcome(kombu_json.loads, data.decode("utf-8", "surrogatepass")) if _is_text(data) else ("error", None)
    ours = outcome(json.loads, data)
    assert ours[0] == theirs[0]
    if ours[0] == "value":
        assert same(ours[1], theirs[1])


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.mark.slow
@given(
    args=st.one_of(st.lists(values, max_size=3), st.tuples(values)),
    kwargs=st.one_of(st.just({}), st.dictionaries(st.text(max_size=5), values, max_size=2)),
    embed=st.one_of(st.just(NOTHING), st.just({**NOTHING, "chain": [{"task": "t"}]})),
)
@example(args=("\ud800",), kwargs={}, embed=NOTHING)
@example(args=(float("nan"),), kwargs={}, embed=NOTHING)
def test_bodies_are_what_kombu_would_have_written(args: Any, kwargs: Any, embed: Any) -> None:
    kind, theirs = outcome(kombu_json.dumps, (args, kwargs, embed))
    if kind == "error":
        with pytest.raises(EncodeError):
            json.encode_call((args, kwargs, embed), "json")
        return
    _, _, ours = json.encode_call((args, kwargs, embed), "json")
    assert same(kombu_json.loads(ours.decode()), kombu_json.loads(theirs))
