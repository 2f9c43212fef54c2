"""Application. What a loader is: hooks around processes and tasks, and the reading of configuration ([loader.2])."""

from __future__ import annotations

import importlib
import json
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.settings import BY_NAME, NEW_NAME
from celery.utils.collections import DictAttribute, force_mapping
from celery.utils.imports import NotAPackage, cwd_in_path, find_module, import_from_cwd, symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ["BaseLoader", "autodiscover_tasks", "find_related_module"]

_WITH_SUFFIX = "the configuration is named {name!r}, which is a file: did you mean the module {module!r}?"


class BaseLoader:
    """Reads configuration, imports task modules, and is told of what happens to processes and tasks."""

    builtin_modules: frozenset[str] = frozenset()
    configured = False
    override_backends: dict[str, str]
    worker_initialized = False

    _conf: Any = None

    def __init__(self, app: Celery, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()
        self.override_backends = {}

    def now(self, utc: bool = True) -> datetime:
        """Now: in UTC, or in local time without a zone."""
        return datetime.now(UTC) if utc else datetime.now()

    # -------------------------------------------------------------------------------------------------- hooks

    def on_task_init(self, task_id: str, task: Task[..., Any]) -> None:
        """Called before a task is run."""

    def on_process_cleanup(self) -> None:
        """Called after a task was run."""

    def on_worker_init(self) -> None:
        """Called when the worker starts."""

    def on_worker_shutdown(self) -> None:
        """Called when the worker stops."""

    def on_worker_process_init(self) -> None:
        """Called when a child process of the worker starts."""

    def init_worker(self) -> None:
        """Import the task modules and call `on_worker_init`; once."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        """Tell that the worker stops."""
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        """Tell that a child process of the worker starts."""
        self.on_worker_process_init()

    # ------------------------------------------------------------------------------------------------ modules

    def import_task_module(self, module: str) -> Any:
        """Import a module of tasks, and remember it."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> Any:
        """Import a module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(self, module: str, imp: Callable[..., Any] | None = None, package: str | None = None) -> Any:
        """Import a module that may lie in the current directory."""
        return import_from_cwd(module, imp or self.import_module, package=package)

    def import_default_modules(self) -> list[Any]:
        """Send `import_modules`, then import what `imports` and `include` name. Raises what a receiver raised."""
        for _, response in signals.import_modules.send(sender=self.app):
            if isinstance(response, Exception):
                raise response
        return [self.import_task_module(module) for module in self.default_modules]

    @property
    def default_modules(self) -> tuple[str, ...]:
        """What the settings `imports` and `include` name, and the loader's own."""
        conf = self.app.conf
        return (*self.builtin_modules, *_listed(conf.imports), *_listed(conf.include))

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str | None = "tasks") -> None:
        """Import `related_name` of each package, and remember what was found."""
        self.task_modules.update(module.__name__ for module in autodiscover_tasks(packages, related_name) if module)

    def find_module(self, module: str) -> Any:
        """The spec of a module, or None."""
        return find_module(module)

    # ------------------------------------------------------------------------------------------ configuration

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Read settings from an object, or from what its dotted name names. Returns whether that went well.

        Raises ImportError or AttributeError if there is nothing of that name, unless `silent`.
        """
        if isinstance(obj, str):
            try:
                obj = self._smart_import(obj, imp=self.import_from_cwd)
            except (ImportError, AttributeError):
                if silent:
                    return False
                raise
        self._conf = force_mapping(obj)
        overrides = self._conf.get("override_backends")
        if overrides is not None:
            self.override_backends = overrides
        return True

    def _smart_import(self, path: str, imp: Callable[..., Any] | None = None) -> Any:
        """`"module:attribute"`, `"module"`, or `"module.attribute"`, in this order."""
        imp = imp or self.import_module
        if ":" in path:
            return symbol_by_name(path, imp=imp)
        try:
            return imp(path)
        except ImportError as exc:
            if "." not in path:
                raise self._with_hint(path, exc) from exc
            missing = exc
        try:
            return symbol_by_name(path, imp=imp)
        except (ImportError, AttributeError):
            # The first error names what is missing: an import inside of the module, or the module.
            raise self._with_hint(path, missing) from missing

    def _import_config_module(self, name: str) -> Any:
        """Import a module of settings. Raises ImportError, with a hint for the name of a file ([loader.4])."""
        try:
            self.find_module(name)
        except NotAPackage as exc:
            raise self._with_hint(name, ImportError(f"{exc} is a module, not a package")) from exc
        return self.import_from_cwd(name)

    def _with_hint(self, name: str, error: ImportError) -> ImportError:
        if not name.endswith(".py"):
            return error
        return ImportError(_WITH_SUFFIX.format(name=name, module=name[:-3]), name=name)

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Any:
        """Settings of the module that the environment variable names, or none."""
        name = os.environ.get(env)
        return DictAttribute(self._import_config_module(name)) if name else {}

    @property
    def conf(self) -> Any:
        """What was read, before defaults; read now if it was not."""
        if self._conf is None:
            self._conf = self.read_configuration()
        return self._conf

    def cmdline_config_parser(
        self,
        args: Sequence[str],
        namespace: str = "celery",
        re_type: re.Pattern[str] = re.compile(r"\((\w+)\)"),
        extra_types: Mapping[str, Any] | None = None,
        override_types: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Settings from `key=value`, `.key=value` (in `namespace`) and `group.key=value` words ([app.25]).

        `(type)value` casts; else the setting's own type does. Raises ValueError for what cannot be read.
        """
        casts = {**_CASTS, **(extra_types or {})}
        names = {"list": "json", "dict": "json", "tuple": "json"} if override_types is None else override_types
        return dict(_read_word(word, namespace, re_type, casts, names) for word in args)


def _read_word(
    word: str, namespace: str, re_type: re.Pattern[str], casts: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"expected key=value, got {word!r}")
    group, dot, rest = key.partition(".")
    name = f"{group or namespace}_{rest}" if dot else key
    name = NEW_NAME.get(name, name)
    if dot and name not in BY_NAME:
        raise ValueError(f"expected the name of a setting before the =, got {word!r}: there is no {name}")
    explicit = re_type.match(text)
    if explicit:
        kind, text = explicit.group(1), text[explicit.end() :]
        kind = names.get(kind, kind)
    else:
        kind = str(BY_NAME[name].type) if name in BY_NAME else "string"
    try:
        return name, casts[kind](text)
    except KeyError:
        raise ValueError(f"{word!r}: expected one of the types {', '.join(sorted(casts))}, got {kind}") from None
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{name}: expected a value of type {kind}, got {text!r}: {exc}") from exc


def _boolean(text: str) -> bool:
    answer = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in answer:
        raise ValueError("expected true or false")
    return answer[text.lower()]


def _number_or_text(text: str) -> Any:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _sequence(text: str) -> Any:
    return tuple(json.loads(text)) if text.startswith("[") else tuple(part for part in text.split(",") if part)


#: Readers of the command line's values, by type.
_CASTS: dict[str, Callable[[str], Any]] = {
    "any": _number_or_text,
    "bool": _boolean,
    "bytes": str.encode,
    "dict": json.loads,
    "float": float,
    "int": int,
    "json": json.loads,
    "list": _sequence,
    "str": str,
    "string": str,
    "tuple": _sequence,
}


def _listed(value: Any) -> Sequence[str]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def autodiscover_tasks(packages: Iterable[str], related_name: str | None = "tasks") -> list[ModuleType | None]:
    """`find_related_module` of each package, each once; the current directory counts as it does for the app itself."""
    with cwd_in_path():
        return [find_related_module(package, related_name) for package in dict.fromkeys(packages)]


def find_related_module(package: str, related_name: str | None) -> ModuleType | None:
    """The module `related_name` of a package (or of the package that a dotted path to a class lies in), imported.

    None where there is no such module; an ImportError from inside of it is raised ([loader.5]).
    """
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError:
        # "package.apps.Config": Django's way of naming an app
        package, _, last = package.rpartition(".")
        if not package:
            raise
        return find_related_module(package, related_name) if last else None
    if not related_name:
        return found
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and name.startswith(exc.name):
            return None
        raise
    except AttributeError:
        return None
