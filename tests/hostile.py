"""Two hundred exceptions that do everything an exception should not: by base class and by what it does.

Stands alone, so that a test may copy it into a project of its own.
"""

from __future__ import annotations

import sys
from typing import Any

BASES = {"plain": Exception, "key": KeyError, "os": OSError, "base": BaseException}
FIFTY_MEGABYTES = 50_000_000


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("hostile")


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt("hostile")


def leave(*_: Any, **__: Any) -> Any:
    raise SystemExit(3)


def loop(*args: Any, **kwargs: Any) -> Any:
    return loop(*args, **kwargs)


def needs_two(self: Any, one: Any, two: Any) -> None:
    BaseException.__init__(self, one)


def hidden(self: Any, name: str) -> Any:
    raise RuntimeError(f"nobody reads {name}")


class Silent:
    """An argument that cannot be shown."""

    __repr__ = __str__ = __reduce__ = fail


class Endless:
    __repr__ = __reduce__ = loop


class Leaving:
    __repr__ = __reduce__ = __str__ = leave


class Shouting(type):
    __repr__ = __str__ = fail

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__qualname__", "__module__", "__name__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


def itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


#: What is in the class.
BODIES: dict[str, dict[str, Any]] = {
    "init": {"__init__": needs_two},
    "repr": {"__repr__": fail},
    "str": {"__str__": fail},
    "repr loops": {"__repr__": loop, "__str__": loop},
    "repr interrupts": {"__repr__": interrupt, "__str__": interrupt},
    "repr leaves": {"__repr__": leave, "__str__": leave},
    "repr is no text": {"__repr__": lambda self: 7, "__str__": lambda self: None},
    "repr is endless": {"__repr__": lambda self: "r" * 1_000_000, "__str__": lambda self: "s" * 1_000_000},
    "reduce": {"__reduce__": fail},
    "reduce loops": {"__reduce__": loop},
    "reduce interrupts": {"__reduce__": interrupt},
    "reduce is nonsense": {"__reduce__": lambda self: (int, ("x",))},
    "reduce leaves": {"__reduce__": lambda self: (leave, ())},
    "setstate": {"__setstate__": fail},
    "getattr": {"__getattr__": hidden},
    "getattribute": {"__getattribute__": hidden},
    "getattr loops": {"__getattr__": loop},
    "class": {"__class__": property(fail)},
    "cause": {"__cause__": property(fail)},
    "context": {"__context__": property(fail), "__suppress_context__": property(fail)},
    "args": {"args": property(fail)},
    "notes": {"__notes__": property(fail)},
    "slots": {"__slots__": ("one",)},
    "eq": {"__eq__": fail, "__hash__": fail},
    "bool": {"__bool__": fail, "__len__": fail},
    "traceback": {"__traceback__": property(fail)},
    "module is a number": {"__module__": 7},
    "module is main": {"__module__": "__main__"},
    "module is away": {"__module__": "nobody.home"},
    "module is long": {"__module__": "m" * 100_000},
    "docs": {"__doc__": property(fail)},
}
#: What it is made with.
ARGUMENTS: dict[str, Any] = {
    "big": lambda: ("x" * FIFTY_MEGABYTES,),
    "many": lambda: tuple(range(100_000)),
    "big within": lambda: ([{"k": "x" * 100_000}] * 30,),
    "recursive": lambda: (itself(),),
    "deep": lambda: (nested(3000),),
    "silent": lambda: (Silent(), 1),
    "endless": lambda: (Endless(),),
    "leaving": lambda: (Leaving(), {"k": Leaving()}),
    "surrogate": lambda: ("\ud800\0\x1b[31m",),
    "number": lambda: (10**5000,),
    "bytes": lambda: (b"\xff\x00" * 50,),
    "function": lambda: (lambda: None, object, sys),
    "nan": lambda: (float("nan"), {1: 2, (3,): 4}, {5}),
}
NAMES = {
    "name has spaces": "no name",
    "name has nothing": "",
    "name is long": "N" * 100_000,
    "name is odd": "a.<locals>.\u2603",
    "name is a surrogate": "Sur\udc80",
    "name is a harmless function": "print",
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def kind(base: type[BaseException], name: str = "Hostile", meta: type = type, **body: Any) -> Any:
    """A class that no module holds."""
    return meta("Hostile", (base,), {"__qualname__": name, "__module__": __name__, **body})


def chained(exc: BaseException) -> BaseException:
    """With a cause, notes, and a cause of the cause that is the exception itself."""
    exc.__cause__ = ValueError("the cause")
    exc.__cause__.__context__ = exc
    exc.__notes__ = ["a note", 7, Silent()]
    return exc


def grouped(base: type[BaseException]) -> BaseException:
    inner = [kind(base, **BODIES["repr"])("inner"), *(base(n) for n in range(200))]
    return BaseExceptionGroup("group", [BaseExceptionGroup("more", inner), base("other")])


def make(label: str) -> BaseException:
    """The exception of that label: `<base>: <what it does>`."""
    of, _, what = label.partition(": ")
    base = BASES[of]
    if what in BODIES:
        made: Any = kind(base, **BODIES[what])
        return made("one", "two")  # type: ignore[no-any-return]
    if what in ARGUMENTS:
        return kind(base)(*ARGUMENTS[what]())  # type: ignore[no-any-return]
    if what in NAMES:
        return kind(base, NAMES[what])("named")  # type: ignore[no-any-return]
    if what == "metaclass":
        return kind(base, meta=Shouting)("meta")  # type: ignore[no-any-return]
    if what == "chain":
        return chained(kind(base)("chained"))
    if what == "group":
        return grouped(base)

    class Local(base):  # type: ignore[misc, valid-type]
        pass

    return Local("local", {"k": 1})


WHAT = [*BODIES, *ARGUMENTS, *NAMES, "metaclass", "chain", "group", "local"]
#: Fifty megabytes once are enough.
LABELS = [f"{of}: {what}" for of in BASES for what in WHAT if what != "big" or of == "plain"]
