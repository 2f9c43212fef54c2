"""Types that travel: each with a value, and what it is on the wire."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import typing
import uuid
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from zoneinfo import ZoneInfo

import msgspec
from pydantic import BaseModel, Field

T = TypeVar("T")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Corner(enum.Enum):
    """Values that are neither text nor numbers."""

    TOP = (0, 1)
    SIDE = (1, 0)
    FAR = 1.5


class Priced(enum.Enum):
    LOW = Decimal("1.5")


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass(frozen=True)
class Order:
    id: uuid.UUID
    lines: list[Line]
    due: dt.date | None = None


@dataclasses.dataclass(frozen=True)
class Line:
    price: Decimal
    count: int


@dataclasses.dataclass
class Circle:
    radius: float


@dataclasses.dataclass
class Ring(Circle):
    hole: float


@dataclasses.dataclass
class Tree:
    value: int
    branches: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Plain:
    """As most classes: equal to nothing but itself."""

    name: str

    def __eq__(self, other: object) -> bool:
        raise AssertionError("the tests compare the names")

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Pair(Generic[T]):
    left: T
    right: T


class Span(NamedTuple):
    begin: dt.datetime
    end: dt.datetime


class Movie(TypedDict, total=False):
    title: typing.Required[str]
    seen: dt.date


class Event(msgspec.Struct):
    at: dt.datetime
    tags: set[str]


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    lives: int


class User(BaseModel):
    id: uuid.UUID
    name: str = "?"
    born: dt.date | None = None


class Team(BaseModel):
    members: list[User]
    boss: User | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]


class Aliased(BaseModel):
    value: int = Field(alias="v")


NOON = dt.datetime(2020, 1, 2, 12, 0, 0, 250)
UTC_NOON = NOON.replace(tzinfo=dt.UTC)
ID = uuid.UUID(int=1)
ID_TEXT = str(ID)
LINE = Line(Decimal("1.50"), 2)
LINE_DATA = {"price": "1.50", "count": 2}
USER = User(id=ID, born=dt.date(2000, 1, 2))
USER_DATA = {"id": ID_TEXT, "name": "?", "born": "2000-01-02"}

#: (annotation, value, data on the wire)
TYPES: list[tuple[Any, Any, Any]] = [
    (str, "é", "é"),
    (int, 2**80, 2**80),
    (float, 1.5, 1.5),
    (bool, True, True),
    (None, None, None),
    (bytes, b"\xff\x00", "/wA="),
    (bytearray, bytearray(b"\xff"), "/w=="),
    (uuid.UUID, ID, ID_TEXT),
    (Decimal, Decimal("1.50"), "1.50"),
    (Fraction, Fraction(1, 3), "1/3"),
    (complex, 1 + 2j, [1.0, 2.0]),
    (dt.datetime, NOON, "2020-01-02T12:00:00.000250"),
    (dt.datetime, UTC_NOON, "2020-01-02T12:00:00.000250Z"),
    (dt.date, dt.date(2020, 1, 2), "2020-01-02"),
    (dt.time, dt.time(1, 2, 3), "01:02:03"),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=7), "-PT86399.999993S"),
    (ZoneInfo, ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
    (Path, Path("/a/b"), "/a/b"),
    (PurePosixPath, PurePosixPath("a"), "a"),
    (IPv4Address, IPv4Address("10.0.0.1"), "10.0.0.1"),
    (IPv6Network, IPv6Network("fe80::/10"), "fe80::/10"),
    (Colour, Colour.RED, "red"),
    (Level, Level.LOW, 1),
    (Mode, Mode.FAST, "fast"),
    (Right, Right.READ | Right.WRITE, 3),
    (Corner, Corner.TOP, [0, 1]),
    (list[Corner], [Corner.FAR, Corner.SIDE], [1.5, [1, 0]]),
    (Literal["a", 1], "a", "a"),
    (UserId, UserId(5), 5),
    (Annotated[int, msgspec.Meta(ge=0)], 5, 5),
    (list, [1, "a", None], [1, "a", None]),
    (list[dt.date], [dt.date(2020, 1, 2)], ["2020-01-02"]),
    (tuple[int, uuid.UUID], (1, ID), [1, ID_TEXT]),
    (tuple[int, ...], (1, 2, 3), [1, 2, 3]),
    (set[int], {1, 2}, [1, 2]),
    (frozenset[Decimal], frozenset({Decimal(1)}), ["1"]),
    (deque[Point], deque([Point(1)]), [{"x": 1, "y": 0}]),
    (dict[str, list[Decimal]], {"a": [Decimal(1)]}, {"a": ["1"]}),
    (dict[int, str], {1: "a"}, {"1": "a"}),
    (dict[uuid.UUID, dict[dt.date, int]], {ID: {dt.date(2020, 1, 2): 3}}, {ID_TEXT: {"2020-01-02": 3}}),
    (OrderedDict[str, Point], OrderedDict(b=Point(1), a=Point(2)), {"b": {"x": 1, "y": 0}, "a": {"x": 2, "y": 0}}),
    (Counter[str], Counter("aab"), {"a": 2, "b": 1}),
    (Optional[uuid.UUID], ID, ID_TEXT),  # noqa: UP045 - both ways of writing it
    (uuid.UUID | None, None, None),
    (int | str | None, "5", "5"),
    (Union[dt.datetime, dt.date], dt.date(2020, 1, 2), "2020-01-02"),  # noqa: UP007
    (dt.date | dt.datetime, NOON, "2020-01-02T12:00:00.000250"),
    (Circle | Ring, Ring(1.0, 0.5), {"radius": 1.0, "hole": 0.5}),
    (list[Circle | Point | None], [Circle(1.0), Point(1), None], [{"radius": 1.0}, {"x": 1, "y": 0}, None]),
    (User | Team | Point, USER, USER_DATA),
    (Point, Point(1, 2), {"x": 1, "y": 2}),
    (Order, Order(ID, [LINE], dt.date(2020, 1, 2)), {"id": ID_TEXT, "lines": [LINE_DATA], "due": "2020-01-02"}),
    (Tree, Tree(1, [Tree(2)]), {"value": 1, "branches": [{"value": 2, "branches": []}]}),
    (Pair[uuid.UUID], Pair(ID, ID), {"left": ID_TEXT, "right": ID_TEXT}),
    (dict[str, Pair[LINE.__class__]], {"a": Pair(LINE, LINE)}, {"a": {"left": LINE_DATA, "right": LINE_DATA}}),
    (Span, Span(NOON, UTC_NOON), ["2020-01-02T12:00:00.000250", "2020-01-02T12:00:00.000250Z"]),
    (Movie, Movie(title="M", seen=dt.date(2020, 1, 2)), {"title": "M", "seen": "2020-01-02"}),
    (Event, Event(UTC_NOON, {"a"}), {"at": "2020-01-02T12:00:00.000250Z", "tags": ["a"]}),
    (Cat | Dog, Dog(1), {"type": "Dog", "lives": 1}),
    (User, USER, USER_DATA),
    (list[User], [USER, USER], [USER_DATA, USER_DATA]),
    (dict[str, User | None], {"a": USER, "b": None}, {"a": USER_DATA, "b": None}),
    (Team, Team(members=[USER]), {"members": [USER_DATA], "boss": None}),
    (Page[User], Page[User](items=[USER]), {"items": [USER_DATA]}),
    (Aliased, Aliased(v=1), {"v": 1}),
]  # fmt: skip
