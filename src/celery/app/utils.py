"""Application. The settings of an app: layers of mappings, read by new and by old names (`[conf.1]` to `[conf.14]`)."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from itertools import count
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Any, cast

import celery
from celery.app.defaults import DEFAULTS, find, find_deprecated_settings, searchresult
from celery.exceptions import CDeprecationWarning, ImproperlyConfigured
from celery.settings import BY_NAME, NEW_NAME, OLD_NAME, complaint, nearest
from celery.utils.text import pretty

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = (
    "PendingConfiguration", "Settings", "appstr", "bugreport", "detect_settings", "filter_hidden_settings",
    "sanitize_url", "unknown_keys",
)  # fmt: skip

logger = logging.getLogger(__name__)

#: A setting whose name has one of these in it is not shown.
HIDDEN_SETTINGS = re.compile("API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE)
_MASK = "********"
_MISSING = object()
#: Defaults of these types need no copy: most of the 400, for each app.
_PLAIN = frozenset({NoneType, bool, int, float, str, bytes})

#: Numbers of writes, over all settings of the process: two different states never bear the same one.
_versions = count(1)


class Settings(MutableMapping[str, Any]):
    """Layers of settings: runtime changes, added defaults, the configuration's source, the built-in defaults.

    Each setting is read and written by its new name, its old name (`CELERY_…`, `BROKER_…`) or its name in the
    namespace (`prefix`), as an item or as an attribute; one layer may use one style and the next another. Layers are
    read each time, never copied, so a source that changes is seen to change.

    `version` is another number after each write. Unlike the items of the same name, the attributes `broker_url`,
    `broker_read_url`, `broker_write_url` and `result_backend` look into the environment first (`[conf.7]`), and they,
    `task_default_exchange` and `task_default_routing_key` fall back to other settings (`[conf.8]`).
    """

    maps: list[MutableMapping[str, Any]]
    prefix: str
    deprecated_settings: set[str]
    version: int
    #: What a key is passed through on its way in; None: nothing.
    key_t: Callable[[str], str] | None

    def __init__(
        self,
        changes: MutableMapping[str, Any] | None = None,
        defaults: Iterable[Mapping[str, Any]] | None = None,
        keys: Any = None,
        prefix: str | None = None,
        *,
        deprecated_settings: set[str] | None = None,
    ) -> None:
        self.__dict__.update(
            maps=[{} if changes is None else changes, *(defaults or ())],
            prefix=_with_underscore(prefix),
            key_t=None,
            deprecated_settings=deprecated_settings or set(),
            version=next(_versions),
            _observers=[],
            _candidates={},
        )

    # ------------------------------------------------------------------------------------------------------ layers

    @property
    def changes(self) -> MutableMapping[str, Any]:
        """What was set at run time, or when the app was made."""
        return self.maps[0]

    @property
    def defaults(self) -> list[MutableMapping[str, Any]]:
        """All layers below the changes."""
        return self.maps[1:]

    def add_defaults(self, defaults: Any) -> None:
        """Put a layer just below the changes: above the source and above what was added before (`[conf.5]`)."""
        self.maps.insert(1, defaults() if callable(defaults) else defaults)
        self._touch()

    def swap_with(self, other: Settings) -> None:
        """Become what `other` is."""
        mine = self.__dict__
        for name in ("maps", "prefix", "key_t", "deprecated_settings", "_observers"):
            mine[name] = other.__dict__[name]
        mine["_candidates"] = {}
        self._touch()

    def bind_to(self, callback: Callable[..., None]) -> None:
        """Have `callback` called with what each `update` was given."""
        self.__dict__["_observers"].append(callback)

    def copy(self) -> Settings:
        """The same layers under a copy of the changes."""
        return Settings(
            dict(self.changes), self.maps[1:], prefix=self.prefix, deprecated_settings=set(self.deprecated_settings)
        )

    __copy__ = copy

    def without_defaults(self) -> Settings:
        """All layers but the built-in defaults."""
        return Settings({}, self._loaded_maps()[:-1], prefix=self.prefix)

    def __reduce__(self) -> tuple[Any, ...]:
        layers = [_plain(layer) for layer in self._loaded_maps()]
        return _rebuild, (layers, self.prefix, self.deprecated_settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Settings:
        layers = [deepcopy(_plain(layer), memo) for layer in self._loaded_maps()]
        return _rebuild(layers, self.prefix, set(self.deprecated_settings))

    def _loaded_maps(self) -> list[MutableMapping[str, Any]]:
        first = self.maps[0]
        return first.data.maps if isinstance(first, PendingConfiguration) else self.maps

    def _touch(self) -> None:
        self.__dict__["version"] = next(_versions)

    # ----------------------------------------------------------------------------------------------------- reading

    def _names(self, key: str) -> tuple[str, ...]:
        """Every name that a setting may have in a layer, the first one found counts."""
        known: tuple[str, ...] | None = self.__dict__["_candidates"].get(key)
        if known is None:
            new, prefix = NEW_NAME.get(key, key), self.prefix
            if prefix and new is key and key.startswith(prefix):
                new = key.removeprefix(prefix).lower()
            names = [prefix + new.upper()] if prefix else []
            names += [new, OLD_NAME.get(new, new), key]
            known = self.__dict__["_candidates"][key] = tuple(dict.fromkeys(names))
        return known

    def __getitem__(self, key: str) -> Any:
        names = self._names(key)
        for layer in self.maps:
            for name in names:
                value = layer.get(name, _MISSING)
                if value is not _MISSING:
                    return value
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a setting, `default` if no layer has it."""
        try:
            return self[key]
        except KeyError:
            return default

    def first(self, *keys: str) -> Any:
        """The first value that is not None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by copy, pickle and inspect: never a setting, and must not load anything
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and any(name in layer for layer in self.maps for name in self._names(key))

    def __iter__(self) -> Iterator[str]:
        seen: dict[str, None] = {}
        for layer in reversed(self._loaded_maps()):
            seen.update(dict.fromkeys(map(self._new_name, layer)))
        return iter(seen)

    def _new_name(self, key: str) -> str:
        return self._names(key)[1 if self.prefix else 0]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(self.maps)

    def __repr__(self) -> str:
        return f"<Settings: {len(self.maps)} layers, version {self.version}>"

    def iterkeys(self) -> Iterator[str]:
        """As `iter(self)`."""
        return iter(self)

    def iteritems(self) -> Iterator[tuple[str, Any]]:
        """As `iter(self.items())`."""
        return iter(self.items())

    def itervalues(self) -> Iterator[Any]:
        """As `iter(self.values())`."""
        return iter(self.values())

    # ----------------------------------------------------------------------------------------------------- writing

    def __setitem__(self, key: str, value: Any) -> None:
        """Set at run time, above all other layers. Raises `ImproperlyConfigured` if no such value could ever work."""
        changes, names = self.maps[0], self._names(key)
        _check(names, value)
        for name in names:
            if name != key and name in changes:
                del changes[name]
        changes[key] = value
        self._touch()

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delitem__(self, key: str) -> None:
        """Take back what was set at run time; the layers below are not touched."""
        found = [name for name in self._names(key) if name in self.maps[0]]
        if not found:
            raise KeyError(f"{key}: not set at run time")
        for name in found:
            del self.maps[0][name]
        self._touch()

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError as error:
            raise AttributeError(*error.args) from None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set many at run time, then tell who has bound to it."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value
        for callback in self.__dict__["_observers"]:
            callback(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> None:
        """Set, unless some layer has the setting. Returns nothing, so that asking loads nothing (`[conf.6]`)."""
        if key not in self:
            self[key] = default

    def pop(self, key: str, *default: Any) -> Any:
        """Take back what was set at run time and return it."""
        if not any(name in self.maps[0] for name in self._names(key)) and default:
            return default[0]
        value = self.get(key)
        del self[key]
        return value

    def clear(self) -> None:
        """Take back all that was set at run time."""
        self.maps[0].clear()
        self._touch()

    # ------------------------------------------------------------------------------ settings that look further afield

    @property
    def broker_url(self) -> Any:
        """URL, or several; `CELERY_BROKER_URL` wins."""
        return os.environ.get("CELERY_BROKER_URL") or self.first("broker_url", "broker_host")

    @property
    def broker_read_url(self) -> Any:
        """URL to consume from; `CELERY_BROKER_READ_URL` wins."""
        return os.environ.get("CELERY_BROKER_READ_URL") or self.get("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """URL to publish to; `CELERY_BROKER_WRITE_URL` wins."""
        return os.environ.get("CELERY_BROKER_WRITE_URL") or self.get("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        """URL, alias or class; `CELERY_RESULT_BACKEND` wins."""
        return os.environ.get("CELERY_RESULT_BACKEND") or self.get("result_backend")

    @property
    def task_default_exchange(self) -> Any:
        """The default queue's name, unless it is set."""
        return self.first("task_default_exchange", "task_default_queue")

    @property
    def task_default_routing_key(self) -> Any:
        """The default queue's name, unless it is set."""
        return self.first("task_default_routing_key", "task_default_queue")

    @property
    def timezone(self) -> Any:
        """As set, or Django's `TIME_ZONE`, or None (`[conf.9]`)."""
        return self.first("timezone", "TIME_ZONE")

    # ----------------------------------------------------------------------------------------------- introspection

    def finalize(self) -> None:
        """Load the configuration, if that has not been done."""
        self._loaded_maps()

    def find_option(self, name: str, namespace: str = "") -> searchresult:
        """Where a setting is: namespace, key, option. Raises `KeyError`."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Value of `name`, which may lack its group's name. Raises `KeyError`."""
        found = self.find_option(name, namespace=namespace)
        return self.get_by_parts(found.namespace, found.key)

    def get_by_parts(self, *parts: str | None) -> Any:
        """Value of the setting whose name is made of these words. Raises `KeyError`."""
        return self["_".join(part for part in parts if part)]

    def value_set_for(self, key: str) -> bool:
        """Is it set anywhere but in the built-in defaults?"""
        return key in self.without_defaults()

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """All settings that differ from their defaults (or all), secrets starred (`[conf.11]`)."""
        shown = self if with_defaults else self.without_defaults()
        table = {key: value for key, value in shown.items() if not _is_hidden(key, value)}
        return filter_hidden_settings(table) if censored else table

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """The table as text, a setting a line."""
        table = self.table(with_defaults, censored)
        return "\n".join(f"{key}: {pretty(value, width=50)}" for key, value in table.items())

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn once of each deprecated setting or name in use; says whether there were any (`[conf.13]`)."""
        for setting in find_deprecated_settings(self.without_defaults()):
            option = BY_NAME[setting]
            _warn(
                f"The setting {setting!r} is scheduled for deprecation in version {option.deprecate_by} and removal "
                f"in version {option.remove_by}: use {option.alt} instead"
            )
        for name in sorted(self.deprecated_settings):
            _warn(f"The {name!r} setting is deprecated and scheduled for removal in 6.0.0: use {NEW_NAME[name]}")
        return bool(self.deprecated_settings)


class PendingConfiguration(MutableMapping[str, Any]):
    """Settings that have not been loaded: written at once, loaded by the first read (`[conf.6]`).

    `conf` is the app's own dict of values known beforehand; `callback` loads and gives the settings.
    """

    def __init__(self, conf: MutableMapping[str, Any], callback: Callable[[], Settings]) -> None:
        self.__dict__.update(_before=conf, _callback=callback, _settings=None)

    @property
    def data(self) -> Settings:
        """The loaded settings."""
        mine = self.__dict__
        if mine["_settings"] is None:
            mine["_settings"] = mine["_callback"]()
        return cast("Settings", mine["_settings"])

    @property
    def _target(self) -> MutableMapping[str, Any]:
        mine = self.__dict__
        return cast("MutableMapping[str, Any]", mine["_before"] if mine["_settings"] is None else mine["_settings"])

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._target[key] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __delitem__(self, key: str) -> None:
        del self._target[key]

    def __contains__(self, key: object) -> bool:
        return key in self._target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.data, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return repr(self.data)

    def clear(self) -> None:
        """Forget what was set beforehand."""
        self._target.clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set many, without loading."""
        self._target.update(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set what is not set yet, without loading."""
        return self._target.setdefault(key, default)


def detect_settings(
    conf: Mapping[str, Any] | None,
    preconf: MutableMapping[str, Any] | None = None,
    ignore_keys: Iterable[str] | None = None,
    prefix: str | None = None,
    all_keys: Iterable[str] | None = None,
    old_keys: Iterable[str] | None = None,
    strict: bool = False,
) -> Settings:
    """Settings from a configuration source and from what was set before it was read.

    Raises `ImproperlyConfigured` for a source that mixes old and new names (`[conf.3]`), or for a value that can never
    work. A key that is like a setting's name but no such name is told of once, as a warning. `strict`: such a key is an
    error, as is every other that is no setting and looks like one (in lower case, or in the namespace).
    """
    source: Mapping[str, Any] = {} if conf is None else conf
    changes = {} if preconf is None else preconf
    new_keys, was_new = set(BY_NAME if all_keys is None else all_keys), set(NEW_NAME if old_keys is None else old_keys)
    keys = set(source or changes) - set(ignore_keys or ())
    new, old = keys & new_keys, keys & was_new
    prefix = _with_underscore(prefix)
    if new and old and not prefix:
        raise ImproperlyConfigured(_mixed(new, old))
    defaults = {name: value if type(value) in _PLAIN else deepcopy(value) for name, value in DEFAULTS.items()}
    settings = Settings(changes, [source, defaults], prefix=prefix, deprecated_settings=set() if prefix else old)
    unknown = {
        key: text
        for layer in (changes, source)
        for key in list(layer)
        if (text := _look_at(settings, layer, key, strict))
    }
    if unknown and strict:
        raise ImproperlyConfigured(
            "Expected only settings that exist (strict settings), got:\n"
            + "".join(f"  {text}\n" for text in unknown.values())
            + "Correct or remove them, or leave out --strict-settings: other packages' keys are let through then."
        )
    for text in unknown.values():
        logger.warning("%s", text)
    return settings


def _look_at(settings: Settings, layer: Mapping[str, Any], key: Any, strict: bool) -> str | None:
    """Check one key of a source: its value, or whether it is a slip of the keyboard. Says what is wrong with its name.

    Raises `ImproperlyConfigured` for a value that can never work.
    """
    if not isinstance(key, str) or key.startswith("_"):
        return None
    names = settings._names(key)
    if any(name in BY_NAME for name in names):
        _check(names, layer[key])
        return None
    prefix = settings.prefix
    if prefix and not key.startswith(prefix):
        return None
    meant = nearest(key.removeprefix(prefix).lower() if prefix else key)
    if meant:
        return f"Unknown setting {key!r}: did you mean {prefix + meant.upper() if prefix else meant!r}?"
    if strict and (prefix or key.islower()) and not _is_hidden(key, layer[key]):
        return f"Unknown setting {key!r}: no setting has a name like it"
    return None


def unknown_keys(settings: Settings) -> list[str]:
    """What is wrong with the name of each key that looks like a setting and is none."""
    layers = settings._loaded_maps()[:-1]
    found = (_look_at(settings, layer, key, True) for layer in layers for key in list(layer))
    return list(dict.fromkeys(text for text in found if text))


def _mixed(new: set[str], old: set[str]) -> str:
    """Those in the minority are to be renamed."""
    wrong, names, style = (old, NEW_NAME, "new") if len(new) >= len(old) else (new, OLD_NAME, "old")
    renames = "\n".join(f"  {name:<36} -> {names.get(name, name)}" for name in sorted(wrong))
    return (
        f"Expected all settings of a configuration to have new names (task_serializer), or all to have old names "
        f"(CELERY_TASK_SERIALIZER), got {len(new)} new and {len(old)} old ones. "
        f"Rename these to the {style} style:\n\n{renames}\n"
    )


def _check(names: Iterable[str], value: Any) -> None:
    setting = next((BY_NAME[name] for name in names if name in BY_NAME), None)
    wrong = complaint(setting, value) if setting else None
    if wrong:
        raise ImproperlyConfigured(wrong)


def _with_underscore(prefix: str | None) -> str:
    return prefix + "_" if prefix and not prefix.endswith("_") else prefix or ""


def _rebuild(layers: list[dict[str, Any]], prefix: str, deprecated: set[str]) -> Settings:
    return Settings(layers[0], layers[1:], prefix=prefix, deprecated_settings=deprecated)


def _plain(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer as a dict that pickle takes: a source may be a module, with functions and modules in it."""
    return {key: value for key, value in layer.items() if not _is_hidden(key, value)}


def _is_hidden(key: Any, value: Any) -> bool:
    if not isinstance(key, str) or key.startswith("_"):
        return True
    return isinstance(value, ModuleType) or (callable(value) and key not in BY_NAME and key not in NEW_NAME)


def _warn(text: str) -> None:
    warnings.warn(CDeprecationWarning(text), stacklevel=3)


# ------------------------------------------------------------------------------------------------------------ showing


def sanitize_url(url: str, mask: str = _MASK) -> str:
    """The URL (or several, with `;` between them) without its password, and without the keys of an Azure account."""
    url = re.sub(r"(AccountKey|SharedAccessKey|SharedAccessSignature)=[^;]+", rf"\1={mask}", url)
    return ";".join(_sanitize_one(part, mask) for part in url.split(";"))


def _sanitize_one(url: str, mask: str) -> str:
    scheme, separator, rest = url.partition("://")
    # The last @ ends the credentials, even where a password has a / or an @ of its own that nobody quoted.
    credentials, at, host = rest.rpartition("@")
    if not separator or not at:
        return url
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{colon and colon + mask}@{host}"


def filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy with stars for secrets, also in nested dicts and lists, and for passwords in URLs (`[conf.11]`)."""
    return {key: _censored(key, value) for key, value in conf.items()}


def _censored(key: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return filter_hidden_settings(value)
    if isinstance(key, str) and HIDDEN_SETTINGS.search(key):
        return _MASK
    if isinstance(value, str):
        return sanitize_url(value)
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_censored(None, item) for item in value)
    return value


def appstr(app: Celery) -> str:
    """The app's name and address, to tell apps apart in messages."""
    return f"{app.main or '__main__'} at {id(app):#x}"


def bugreport(app: Celery) -> str:
    """Versions, platform and settings as text, for a bug report."""
    import platform

    import billiard
    import kombu

    try:
        connection = app.connection()
        transport = connection.transport
        driver = f"{transport.driver_name}:{transport.driver_version()}"
        kind = transport.driver_type if isinstance(connection.transport_cls, type) else connection.transport_cls
    except Exception:  # noqa: BLE001 - whatever is wrong with the broker's driver, the report must still be made
        driver = kind = ""
    loader = type(app.loader)
    return (
        f"\nsoftware -> celery:{celery.VERSION_BANNER} kombu:{kombu.__version__} py:{platform.python_version()}"
        f"\n            billiard:{billiard.__version__} {driver}"
        f"\nplatform -> system:{platform.system()} arch:{', '.join(part for part in platform.architecture() if part)}"
        f"\n            kernel version:{platform.release()} imp:{platform.python_implementation()}"
        f"\nloader   -> {loader.__module__}.{loader.__qualname__}"
        f"\nsettings -> transport:{kind} results:{sanitize_url(str(app.conf.result_backend or 'disabled'))}"
        f"\n\n{app.conf.humanize()}\n"
    )


def __getattr__(name: str) -> Any:
    if name == "find_app":  # has to import the app, which imports this module
        from celery.app.search import find_app

        return find_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
