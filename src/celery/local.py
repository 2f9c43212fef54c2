"""Domain. Proxies: stand-ins that find their object when they are used ([util.13])."""

from __future__ import annotations

import operator
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PromiseProxy", "Proxy", "class_property", "maybe_evaluate", "try_import"]

#: name → module that has it: few ask for modules that load their names late.
_HOMES = dict.fromkeys(("LazyModule", "getappattr", "recreate_module"), "celery.utils.lazy_modules")
#: Special methods that Python looks up on the type, so that `__getattr__` never sees them. Those of asyncio and of
#: paths are left out: by their mere presence a proxy would pass for an awaitable or a path.
_OPERATORS = (
    "lt le eq ne gt ge getitem setitem delitem contains "
    "add sub mul matmul truediv floordiv mod lshift rshift and xor or "
    "iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior neg pos abs invert index"
).split()
_BUILTINS: dict[str, Callable[..., Any]] = {
    "bytes": bytes, "complex": complex, "divmod": divmod, "float": float, "format": format, "hash": hash, "int": int,
    "iter": iter, "len": len, "pow": pow, "round": round, "str": str,
}  # fmt: skip
#: Those for which there is neither an operator nor a built-in function.
_METHODS = (
    "enter exit radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror"
).split()


class _Mirrored(str):
    """Text for the class; for an instance, the attribute of the object that it stands for."""

    __slots__ = ("attribute",)
    attribute: str

    def __new__(cls, attribute: str, text: str) -> _Mirrored:
        self = str.__new__(cls, text)
        self.attribute = attribute
        return self

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else instance._get_attribute(self.attribute)


class Proxy:
    """Behaves like the object that `local(*args, **kwargs)` returns, which is asked anew at each use.

    `isinstance`, comparison, hash, repr, pickle and call are the object's; `_get_current_object()` gives it itself.
    While the object cannot be had yet (RuntimeError, [app.9]) a proxy is false, has no attributes and says "unbound".
    """

    __slots__ = ("__weakref__", "_doc", "_local", "_name")

    def __init__(
        self,
        local: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "_local", (local, args or (), kwargs or {}))
        put(self, "_name", name)
        put(self, "_doc", __doc__)

    def _get_current_object(self) -> Any:
        local, args, kwargs = self._local
        return local(*args, **kwargs)

    def _get_attribute(self, name: str) -> Any:
        given: Any = self._doc if name == "__doc__" else None
        return given if given is not None else getattr(self._get_current_object(), name)

    @property
    def __name__(self) -> str:
        return cast("str", self._name or self._get_current_object().__name__)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._get_current_object().__class__

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return self._get_current_object().__dict__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __repr__(self) -> str:
        try:
            found = self._get_current_object()
        except RuntimeError:
            return f"<{type(self).__name__} unbound>"
        return repr(found)

    def __dir__(self) -> list[str]:
        try:
            return dir(self._get_current_object())
        except RuntimeError:
            return []

    def __bool__(self) -> bool:
        try:
            return bool(self._get_current_object())
        except RuntimeError:
            return False

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._get_current_object().__reduce_ex__(protocol)


def _forward(name: str, function: Callable[..., Any]) -> None:
    def method(self: Proxy, *args: Any) -> Any:
        return function(self._get_current_object(), *args)

    method.__name__ = method.__qualname__ = f"__{name}__"
    setattr(Proxy, method.__name__, method)


def _call_special(name: str) -> Callable[..., Any]:
    return lambda found, *args: getattr(type(found), f"__{name}__")(found, *args)


for _name in _OPERATORS:
    _forward(_name, vars(operator)[f"__{_name}__"])
for _name, _function in _BUILTINS.items():
    _forward(_name, _function)
for _name in _METHODS:
    _forward(_name, _call_special(_name))


_UNKNOWN = object()


class PromiseProxy(Proxy):
    """A proxy that asks once and keeps what it got ([app.7]).

    `__then__(fun, *args, **kwargs)` calls `fun` when that happens, or now if it has happened.
    """

    __slots__ = ("_object", "_pending")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "_object", _UNKNOWN)
        object.__setattr__(self, "_pending", [])

    def _get_current_object(self) -> Any:
        found = self._object
        return self.__evaluate__() if found is _UNKNOWN else found

    def __getattr__(self, name: str) -> Any:
        found = self._object
        return getattr(self.__evaluate__() if found is _UNKNOWN else found, name)

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.__evaluated__():
            fun(*args, **kwargs)
        else:
            self._pending.append((fun, args, kwargs))

    def __evaluated__(self) -> bool:
        return self._object is not _UNKNOWN

    def __maybe_evaluate__(self) -> Any:
        return self._get_current_object()

    def __evaluate__(self) -> Any:
        local, args, kwargs = self._local
        found = local(*args, **kwargs)
        object.__setattr__(self, "_object", found)
        pending = self._pending
        while pending:
            fun, fun_args, fun_kwargs = pending.pop(0)
            fun(*fun_args, **fun_kwargs)
        return found


for _class in (Proxy, PromiseProxy):
    _class.__module__ = _Mirrored("__module__", _class.__module__)
    _class.__doc__ = _Mirrored("__doc__", _class.__doc__ or "")


def maybe_evaluate(obj: Any) -> Any:
    """What `obj` stands for if it is a promise, else `obj` itself."""
    return obj.__maybe_evaluate__() if issubclass(type(obj), PromiseProxy) else obj


class class_property:  # noqa: N801 - reads as the built-in `property` does
    """A property that also answers on the class, where the getter receives the class."""

    def __init__(self, getter: Any = None, setter: Any = None) -> None:
        self.getter = getter.__func__ if isinstance(getter, classmethod) else getter
        self.setter = setter.__func__ if isinstance(setter, classmethod) else setter
        self.__doc__ = getattr(self.getter, "__doc__", None)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self.getter(type(instance) if owner is None else owner)

    def __set__(self, instance: Any, value: Any) -> None:
        if self.setter is None:
            raise AttributeError("this property cannot be set")
        self.setter(type(instance), value)


def try_import(module: str, default: Any = None) -> Any:
    """The module, or `default` if there is none of that name."""
    try:
        return import_module(module)
    except ImportError:
        return default


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
