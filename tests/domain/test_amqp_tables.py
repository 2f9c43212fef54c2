"""AMQP's tables: the bytes of py-amqp, and never anything but ValueError for what is none."""

from __future__ import annotations

import contextlib
import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from celery.drivers.amqp_frames import packed, properties_of
from celery.drivers.amqp_tables import read_table, write_table

NAMES = st.one_of(st.sampled_from(["id", "task", "retries"]), st.text(max_size=20))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=30),
    st.binary(max_size=10), st.decimals(-1000, 1000, places=2),
    st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2100, 1, 1)),
)  # fmt: skip
VALUES: Any = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)


@given(TABLES)
def test_they_are_those_of_py_amqp(values: dict[str, Any]) -> None:
    written = write_table(values)
    assert written == dumps("F", [values])
    (expected,), end = loads("F", written, 0)
    assert read_table(written, 0) == (expected, end)


@pytest.mark.parametrize(
    "value",
    [b"x\0\0\0\x01\xff", b"b\xff", b"B\xff", b"s\xff\xfe", b"U\xff\xfe", b"u\xff\xfe", b"i\xff\xff\xff\xff",
     b"l" + b"\xff" * 8, b"f\x3f\xc0\0\0", b"D\2\0\0\0\x7d", b"S\0\0\0\x01\xff"],
)  # fmt: skip
def test_kinds_that_others_write(value: bytes) -> None:
    data = (len(value) + 2).to_bytes(4, "big") + b"\x01k" + value
    assert read_table(data, 0)[0] == loads("F", data, 0)[0][0]
    inside = b"A" + len(value).to_bytes(4, "big") + value
    data = (len(inside) + 2).to_bytes(4, "big") + b"\x01k" + inside
    assert read_table(data, 0)[0] == loads("F", data, 0)[0][0]


@given(TABLES, st.data())
def test_what_is_none_is_a_value_error(values: dict[str, Any], data: st.DataObject) -> None:
    """Cut short, or with one byte changed: another table, or ValueError."""
    written = packed({"headers": values, "priority": 1, "correlation_id": "c"})
    place = data.draw(st.integers(0, len(written) - 1))
    other = data.draw(st.binary(min_size=1, max_size=1))
    for broken in (written[:place], written[:place] + other + written[place + 1 :]):
        with contextlib.suppress(ValueError):
            properties_of(broken)


def test_what_a_header_cannot_have() -> None:
    for value, says in ((object(), "object"), (2**63, "64 bits"), ({"a": {1}}, "set")):
        with pytest.raises(ValueError, match=says):
            write_table({"k": value})
    with pytest.raises(ValueError, match="255"):
        write_table({"k" * 256: 1})


def test_decimals_without_a_fraction() -> None:
    assert read_table(write_table({"k": Decimal("1E+2")}), 0)[0] == {"k": Decimal(100)}
