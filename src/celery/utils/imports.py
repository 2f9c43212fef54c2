"""Adapter. Finding modules and the things in them by name ([util.7])."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

__all__ = [
    "NotAPackage", "cwd_in_path", "find_module", "gen_task_name", "import_from_cwd", "instantiate",
    "load_extension_class_names", "load_extension_classes", "module_file", "qualname", "reload_from_cwd",
    "symbol_by_name",
]  # fmt: skip

#: What the automatic name of a task begins with if its module runs as a script and the app has no name.
MAIN = "__main__"


class NotAPackage(Exception):
    """A submodule was asked of a module that is not a package."""


def qualname(obj: Any) -> str:
    """`module.name` of a class or function, or of an object's class. Nested ones go without their module."""
    if not hasattr(obj, "__name__") and hasattr(obj, "__class__"):
        obj = obj.__class__
    name = getattr(obj, "__qualname__", None) or obj.__name__
    return name if "." in name else f"{obj.__module__}.{name}"


def symbol_by_name(
    name: Any,
    aliases: Mapping[str, str] | None = None,
    imp: Callable[..., Any] | None = None,
    package: str | None = None,
    sep: str = ".",
    default: Any = None,
    **kwargs: Any,
) -> Any:
    """The object called `"module:attribute"`, `"module.attribute"` or `"module"`; what is not text is returned as is.

    `aliases` are short names. Where nothing is found, returns `default` if that is given, else raises ImportError or
    AttributeError.
    """
    if not isinstance(name, str):
        return name
    name = (aliases or {}).get(name) or name
    separator = ":" if ":" in name else sep
    module, _, attribute = name.rpartition(separator)
    if not module:
        module, attribute = attribute, ""
    elif not module.strip(".") and package is None:
        raise ValueError(f"expected a package to which {name!r} is relative, got none")
    try:
        found = (imp or importlib.import_module)(module, package=package, **kwargs)
        return getattr(found, attribute) if attribute else found
    except (ImportError, AttributeError):
        if default is None:
            raise
    return default


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class, given itself or by name."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Have the current directory on `sys.path` for as long as the block runs."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:  # removed under our feet: nothing to import from there
        yield
        return
    if cwd in sys.path:
        yield
        return
    sys.path.insert(0, cwd)
    try:
        yield
    finally:
        if cwd in sys.path:
            sys.path.remove(cwd)


def find_module(module: str, path: Any = None, imp: Callable[[str], ModuleType] | None = None) -> Any:
    """The spec of a module, the current directory included; None if there is none.

    Raises `NotAPackage` if the name asks for a submodule of a plain module, ImportError if its package is missing.
    """
    imp = imp or importlib.import_module
    with cwd_in_path():
        parent, _, _ = module.rpartition(".")
        if parent and not hasattr(imp(parent), "__path__"):
            raise NotAPackage(parent)
        return find_spec(module)


def import_from_cwd(module: str, imp: Callable[..., Any] | None = None, package: str | None = None) -> Any:
    """Import a module that may lie in the current directory, which wins over installed ones."""
    with cwd_in_path():
        return (imp or importlib.import_module)(module, package=package)


def reload_from_cwd(module: ModuleType, reloader: Callable[[ModuleType], Any] | None = None) -> Any:
    """Reload a module that may lie in the current directory."""
    with cwd_in_path():
        return (reloader or importlib.reload)(module)


def module_file(module: ModuleType) -> str | None:
    """The source file of a module."""
    name = module.__file__
    return name[:-1] if name is not None and name.endswith((".pyc", ".pyo")) else name


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """The automatic name of a task: `module.function` ([app.17]).

    A module that runs as a script goes by the app's main name.
    """
    module_name = module_name or MAIN
    if module_name == MAIN:
        module_name = app.main or MAIN
    return ".".join(part for part in (module_name, name) if part)


def load_extension_class_names(namespace: str) -> Iterator[tuple[str, str]]:
    """(name, "module:attribute") of each entry point in the group."""
    yield from _entry_points(namespace, tuple(sys.path))


@lru_cache(maxsize=32)
def _entry_points(namespace: str, path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Looking through all that is installed takes ten milliseconds or more: done once, until `sys.path` changes."""
    from importlib.metadata import entry_points

    return tuple((point.name, point.value) for point in entry_points(group=namespace))


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:
    """(name, class) of each entry point in the group; what cannot be imported is warned about and left out."""
    for name, value in load_extension_class_names(namespace):
        try:
            found = symbol_by_name(value)
        except (ImportError, SyntaxError) as exc:
            warnings.warn(f"Cannot load {namespace} extension {value!r}: {exc!r}", stacklevel=2)
        else:
            yield name, cast("Any", found)
