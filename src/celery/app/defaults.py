"""Application. The table of settings as Celery's `NAMESPACES` of `Option`s (`[conf.12]`)."""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.settings import (
    BY_NAME,
    GROUPS,
    NEW_NAME,
    OLD_NAME,
    SETTINGS,
    Setting,
)
from celery.settings import (
    DEFAULT_PROCESS_LOG_FMT as DEFAULT_PROCESS_LOG_FMT,
)
from celery.settings import (
    DEFAULT_TASK_LOG_FMT as DEFAULT_TASK_LOG_FMT,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    #: Name → option, or group → its options by the rest of their names. Made when first asked for.
    NAMESPACES: dict[str, Any]

__all__ = ("DEFAULTS", "NAMESPACES", "Option", "find", "flatten")

DEFAULT_POOL = "prefork"
DEFAULT_ACCEPT_CONTENT = ("json",)
DEFAULT_SECURITY_DIGEST = "sha256"
OLD_NS, OLD_NS_BEAT, OLD_NS_WORKER = {"celery_{0}"}, {"celerybeat_{0}"}, {"celeryd_{0}"}

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _to_bool(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return _WORDS[value.lower()]
    except KeyError:
        raise TypeError(f"expected one of {', '.join(_WORDS)} as a truth value, got {value!r}") from None


class Option:
    """One setting: its default, the type that text is cast to, its old names and its deprecation."""

    alt: str | None = None
    deprecate_by: str | None = None
    remove_by: str | None = None
    old: frozenset[str] | set[str] = frozenset()
    typemap: Mapping[str, Callable[[Any], Any]] = {
        "string": str,
        "str": str,
        "bytes": lambda value: value.encode() if isinstance(value, str) else bytes(value),
        "int": int,
        "float": float,
        "any": lambda value: value,
        "bool": _to_bool,
        "dict": dict,
        "tuple": tuple,
        "list": list,
    }

    def __init__(self, default: Any = None, *args: Any, type: str = "string", **kwargs: Any) -> None:
        self.default = default
        self.type = type
        for name, value in kwargs.items():
            setattr(self, name, value)

    def to_python(self, value: Any) -> Any:
        """Cast a command line's text to the setting's type."""
        return self.typemap[self.type](value)

    def __repr__(self) -> str:
        return f"<Option: type->{self.type} default->{self.default!r}>"


class searchresult(NamedTuple):  # noqa: N801 - Celery's name
    """Where a setting was found: `namespace` is None for a whole name, and `type` is the option."""

    namespace: str | None
    key: str
    type: Any


def _option(setting: Setting) -> Option:
    extra = {"alt": setting.alt, "deprecate_by": setting.deprecate_by, "remove_by": setting.remove_by}
    extra = {name: value for name, value in extra.items() if value}
    return Option(setting.default, type=setting.type, old={setting.old.lower()} if setting.old else set(), **extra)


@cache
def _namespaces() -> dict[str, Any]:
    tree: dict[str, Any] = {setting.name: _option(setting) for setting in _DECLARED if not setting.group}
    tree.update((group, {}) for group in GROUPS)
    for setting in _DECLARED:
        if setting.group:
            tree[setting.group][setting.name.partition("_")[2]] = _option(setting)
    return tree


def flatten(
    d: Mapping[str, Any], root: str = "", keyfilter: Callable[..., Iterable[tuple[str, Any]]] | None = None
) -> Iterator[tuple[str, Any]]:
    """Full names and options of a tree of namespaces."""
    stack: deque[tuple[str, Mapping[str, Any]]] = deque([(root, d)])
    while stack:
        namespace, options = stack.popleft()
        for key, option in options.items():
            if isinstance(option, dict):
                stack.append((f"{namespace}{key}_", option))
            elif keyfilter is not None:
                yield from keyfilter(namespace, key, option)
            else:
                yield namespace + key, option


_DECLARED = [setting for setting in SETTINGS if setting.declared]
DEFAULTS: dict[str, Any] = {setting.name: setting.default for setting in _DECLARED}
SETTING_KEYS: set[str] = set(DEFAULTS)

_OLD_DEFAULTS: dict[str, Any] = {OLD_NAME[name]: value for name, value in DEFAULTS.items()}
_OLD_SETTING_KEYS: set[str] = set(_OLD_DEFAULTS)
_TO_OLD_KEY, _TO_NEW_KEY = OLD_NAME, NEW_NAME


def find(name: str, namespace: str = "celery") -> searchresult:
    """Look for a setting, first in `namespace`, then in all others, then by its whole name. Raises `KeyError`."""
    key = name.lower()
    namespaces = _namespaces()
    for group in dict.fromkeys((namespace.lower(), *GROUPS)):
        options = namespaces.get(group)
        if isinstance(options, dict) and key in options:
            return searchresult(group, key, options[key])
        if key == group and isinstance(options, dict):
            return searchresult(None, key, options)
    if key in DEFAULTS:
        group = BY_NAME[key].group
        option = namespaces[group][key.partition("_")[2]] if group else namespaces[key]
        return searchresult(None, key, option)
    raise KeyError(name)


def find_deprecated_settings(source: Mapping[str, Any]) -> list[str]:
    """Names of the settings set in `source` that are deprecated."""
    return [setting.name for setting in _DECLARED if setting.deprecate_by and source.get(setting.name) is not None]


def __getattr__(name: str) -> Any:
    if name == "NAMESPACES":
        return _namespaces()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
