"""Application. The panel: every command that a worker obeys, or answers, and what is said of it (`[control.37]`).

The commands themselves are plain functions beside this module: looks in `looking`, orders in `ordering`. Each is called
as `command(state, **arguments)` in the thread that hears commands; what it returns is the reply, None sends none.
"""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from celery.worker import looking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("Panel", "control_command", "controller_info_t", "inspect_command")


class controller_info_t(NamedTuple):  # noqa: N801 - its public name
    """What is known of a command beside its function."""

    alias: str | None
    #: "control" (it changes something) or "inspect" (it only looks).
    type: str
    #: Whether `celery inspect` and `celery control` list it.
    visible: bool
    #: Seconds that a caller waits for replies who says nothing else.
    default_timeout: float
    help: str
    #: The arguments as the command line shows them.
    signature: str | None
    #: Name and type of each argument, in the order of the command line.
    args: Sequence[tuple[str, Any]] | None
    #: Name of the argument that takes all that is left on the command line.
    variadic: str | None


class Panel(UserDict[str, Any]):
    """The commands by their names. One for all workers of a process, like the class attributes that it consists of."""

    #: Name or alias → function.
    data: ClassVar[dict[str, Callable[..., Any]]] = {}  # type: ignore[misc]
    #: Name → what is known of it.
    meta: ClassVar[dict[str, controller_info_t]] = {}

    @classmethod
    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a command of a function: as a decorator, with or without arguments (see `_register`)."""
        return cls._register(**kwargs)(*args) if args else cls._register(**kwargs)

    @classmethod
    def _register(
        cls,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",
        visible: bool = True,
        default_timeout: float = 1.0,
        help: str | None = None,
        signature: str | None = None,
        args: Sequence[tuple[str, Any]] | None = None,
        variadic: str | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            known_as = name or function.__name__
            text = help or (function.__doc__ or "").strip().partition("\n")[0]
            cls.data[known_as] = function
            cls.meta[known_as] = controller_info_t(
                alias, type, visible, default_timeout, text, signature, args, variadic
            )
            if alias:
                cls.data[alias] = function
            return function

        return register


def control_command(**kwargs: Any) -> Any:
    """Make a function a command that changes something; the keywords are those of `Panel.register`."""
    return Panel.register(type="control", **kwargs)


def inspect_command(**kwargs: Any) -> Any:
    """Make a function a command that only looks."""
    return Panel.register(type="inspect", **kwargs)


ping = inspect_command(default_timeout=0.2)(looking.ping)
