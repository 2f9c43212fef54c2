"""Small helpers: functions and sequences, mappings, objects, imports, stacks and proxies (area `util`)."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import Celery
from celery.current import LocalStack
from celery.local import PromiseProxy, Proxy, class_property, getappattr, maybe_evaluate, recreate_module, try_import
from celery.utils import functional as fn
from celery.utils import uuid
from celery.utils.collections import AttributeDict, ChainMap, DictAttribute, force_mapping, lpmerge
from celery.utils.imports import NotAPackage, find_module, instantiate, module_file, qualname, symbol_by_name
from celery.utils.objects import Bunch, FallbackContext, getitem_property, mro_lookup

# ----------------------------------------------------------------------------------------------------------- functional


def _none(): ...
def _one(x): ...
def _two(x, y=1): ...
def _any(*args): ...
def _named(**kwargs): ...
def _only(*, x): ...


class _Has:
    def method(self, x): ...


@pytest.mark.parametrize(
    ("fun", "more_than_none", "more_than_one", "takes_x", "takes_second", "any_keyword"),
    [
        (_none, False, False, False, False, False),
        (_one, True, False, True, False, False),
        (_two, True, True, True, True, False),
        (_any, True, True, True, True, False),
        (_named, False, False, True, True, True),
        (_only, False, False, False, False, False),
        (_Has().method, True, True, True, True, False),  # the object counts
    ],
)
def test_what_a_function_takes(fun, more_than_none, more_than_one, takes_x, takes_second, any_keyword):
    assert (fn.arity_greater(fun, 0), fn.arity_greater(fun, 1)) == (more_than_none, more_than_one)
    assert fn.fun_takes_argument("x", fun) is takes_x
    assert fn.fun_takes_argument("whatever", fun, position=2) is takes_second
    assert fn.fun_accepts_kwargs(fun) is any_keyword


def test_a_head_takes_what_the_function_takes():
    ran = []

    def fun(a, b=2, *, c):
        ran.append(a)

    head = fn.head_from_fun(fun)
    head(1, c=3)
    with pytest.raises(TypeError, match=r"fun\(\) missing 1 required keyword-only argument: 'c'"):
        head(1, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'd'"):
        head(1, c=3, d=4)
    assert not ran
    bound = fn.head_from_fun(_Has.method, bound=True)
    bound(1)
    with pytest.raises(TypeError):
        bound(1, 2)
    fn.head_from_fun(_Has().method)(None, 1)  # as in Celery, the object is an argument too


@given(st.lists(st.integers()), st.integers(1, 5))
def test_chunks_lose_and_reorder_nothing(items, n):
    parts = list(fn.chunks(iter(items), n))
    assert [item for part in parts for item in part] == items
    assert all(len(part) == n for part in parts[:-1])


@given(st.lists(st.integers()), st.integers(0, 5))
def test_padlist_is_as_long_as_asked(items, size):
    padded = fn.padlist(items, size, "-")
    assert len(padded) == size
    assert padded == (items + ["-"] * size)[:size]


@given(st.lists(st.integers(0, 5)))
def test_uniq_keeps_the_first_of_each(items):
    assert list(fn.uniq(items)) == sorted(set(items), key=items.index)


def test_maybe_list():
    assert [fn.maybe_list(value) for value in (1, None, [1], (1,), "a", {"a": 1})] == [
        [1], None, [1], (1,), ["a"], [{"a": 1}],
    ]  # fmt: skip
    assert (fn.maybe(int, "3"), fn.maybe(int, None)) == (3, None)
    assert fn.dictfilter({"a": None, "b": 1}, c=2) == {"b": 1, "c": 2}
    assert (fn.first(lambda x: x > 1, [1, 2, 3]), fn.first(None, [None, 0])) == (2, 0)
    assert fn.is_numeric_value(1.5)
    assert not fn.is_numeric_value(True)
    assert (fn.seq_concat_item((1,), 2), fn.seq_concat_seq([1], (2,))) == ((1, 2), [1, 2])
    assert fn.mattrgetter("real", "nope")(3) == {"real": 3, "nope": None}


def test_lazy_values_are_worked_out_once():
    calls = []
    value = fn.mlazy(lambda: calls.append(1) or len(calls))
    assert not value.evaluated
    assert (value(), value(), fn.maybe_evaluate(value), fn.maybe_evaluate(5)) == (1, 1, 1, 5)
    from kombu.utils.functional import lazy

    assert fn.lazy is lazy
    assert fn.maybe_evaluate(lazy(int, "4")) == 4


def test_regen_takes_from_the_iterator_only_when_used():
    taken = []
    items = fn.regen(taken.append(n) or n for n in range(3))
    assert taken == []
    assert items[1] == 1
    assert (len(items), list(items), items == [0, 1, 2], bool(items)) == (3, [0, 1, 2], True, True)
    assert json.loads(json.dumps(items)) == [0, 1, 2]
    assert pickle.loads(pickle.dumps(items)) == [0, 1, 2]
    given_list = [1]
    assert fn.regen(given_list) is given_list


def test_firstmethod_asks_until_somebody_answers():
    asked = []
    no = Bunch(answer=lambda q: asked.append(q))
    yes = Bunch(answer=lambda q: f"to {q}")
    assert fn.firstmethod("answer")([no, yes, no], "q") == "to q"
    assert asked == ["q"]


# ------------------------------------------------------------------------------------------------------------- mappings


def test_attributes_as_items_and_items_as_attributes():
    class Settings:
        a = 1

    mapped = DictAttribute(Settings())
    mapped["b"] = 2
    mapped.setdefault("a", 5)
    assert (mapped["a"], mapped.b, mapped.get("c", 3), "b" in mapped, "c" in mapped) == (1, 2, 3, True, False)
    with pytest.raises(KeyError):
        mapped["c"]
    assert {"a", "b"} <= set(mapped)
    assert dict(mapped.items())["a"] == 1
    d = AttributeDict(a=1)
    d.b = 2
    assert (d["b"], d.a) == (2, 1)
    with pytest.raises(AttributeError):
        _ = d.c
    plain = {"a": 1}
    assert force_mapping(plain) is plain
    assert force_mapping(Settings())["a"] == 1


def test_lpmerge_keeps_what_the_right_side_leaves_open():
    assert lpmerge({"a": 1, "b": None}, {"a": None, "b": 2, "c": 3}) == {"a": 1, "b": 2, "c": 3}


def test_layers():
    layers = ChainMap({"a": 1}, {"a": 2, "b": 3})
    layers.add_defaults({"b": 4})
    assert (layers["a"], layers["b"], layers.changes, len(layers.defaults)) == (1, 4, {"a": 1}, 2)


# -------------------------------------------------------------------------------------------------------------- objects


def test_mro_lookup():
    class A:
        def method(self): ...

    class B(A): ...

    assert mro_lookup(B, "method") is A
    assert mro_lookup(B, "method", stop={A}) is None
    assert mro_lookup(B, "nope") is None
    assert mro_lookup(B, "method", stop={A}, monkey_patched=["elsewhere"]) is A
    assert mro_lookup(B, "method", stop={A}, monkey_patched=[__name__]) is None


def test_fallback_context_closes_only_what_it_made(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with path.open() as provided:
        with FallbackContext(provided, open, path) as got:
            assert got is provided
        assert not provided.closed
    with FallbackContext(None, open, path) as made:
        assert not made.closed
    assert made.closed


def test_getitem_property():
    class Record(dict):
        name = getitem_property("name")
        deep = getitem_property("options.deep", "a docstring")

    record = Record(name="x", options={})
    record.deep = 3
    assert (record.name, record.deep, record["options"]) == ("x", 3, {"deep": 3})


# -------------------------------------------------------------------------------------------------------------- imports


def test_symbols_by_name(monkeypatch):
    assert symbol_by_name("os.path:join") is symbol_by_name("os.path.join")
    assert symbol_by_name("os") is sys.modules["os"]
    assert symbol_by_name(int) is int
    assert symbol_by_name("short", {"short": "os:getpid"})() > 0
    assert symbol_by_name("no.such.module", default=4) == 4
    assert symbol_by_name(".path:join", package="os") if "os" in sys.builtin_module_names else True
    with pytest.raises(AttributeError):
        symbol_by_name("os:nope")
    with pytest.raises(ModuleNotFoundError):
        symbol_by_name("no_such_module:x")
    assert instantiate("collections:Counter", "aab")["a"] == 2


def test_finding_modules():
    assert find_module("no_such_module") is None
    assert find_module("json.tool").name == "json.tool"
    with pytest.raises(NotAPackage):
        find_module("json.decoder.nothing")
    assert module_file(types.SimpleNamespace(__file__="x.pyc")) == "x.py"


def test_qualname():
    class Inner: ...

    assert qualname(json.JSONDecoder) == "json.decoder.JSONDecoder"
    assert qualname(json.JSONDecoder()) == "json.decoder.JSONDecoder"
    assert qualname(Inner) == "test_qualname.<locals>.Inner"


def test_ids_are_uuids_of_version_4():
    import uuid as standard

    assert {standard.UUID(uuid()).version for _ in range(200)} == {4}
    assert len({uuid() for _ in range(200)}) == 200
    assert uuid(lambda: 3) == "3"


# --------------------------------------------------------------------------------------------------------------- stacks


@given(st.lists(st.one_of(st.integers(), st.none())))
def test_a_stack_is_a_stack(steps):
    stack, model = LocalStack(), []
    for step in steps:
        if step is None:
            assert stack.pop() == (model.pop() if model else None)
        else:
            stack.push(step)
            model.append(step)
        assert stack.stack == model
        assert stack.top == (model[-1] if model else None)
        assert len(stack) == len(model)


def test_asyncio_tasks_inherit_a_stack_and_keep_theirs_to_themselves():
    stack = LocalStack()

    async def inner(name):
        stack.push(name)
        await asyncio.sleep(0)
        seen = stack.stack
        stack.pop()
        stack.pop()  # what was inherited: gone here, still there for the others
        return seen, stack.stack

    async def outer():
        stack.push("outer")
        return await asyncio.gather(inner("a"), inner("b")), stack.stack

    assert asyncio.run(outer()) == ([(["outer", "a"], []), (["outer", "b"], [])], ["outer"])
    assert stack.stack == []


# -------------------------------------------------------------------------------------------------------------- proxies


def test_proxies_pass_for_their_object():
    items = [3, 1]
    proxy = Proxy(lambda: items)
    assert isinstance(proxy, list)
    assert (proxy + [2], proxy == items, proxy[0], len(proxy), list(proxy), 3 in proxy) == (  # noqa: RUF005
        [3, 1, 2],
        True,
        3,
        2,
        items,
        True,
    )
    assert (repr(proxy), str(proxy), bool(proxy), f"{proxy}") == ("[3, 1]", "[3, 1]", True, "[3, 1]")
    proxy.sort()
    proxy += [9]
    assert items == [1, 3, 9]
    number = Proxy(lambda: 4)
    assert (hash(number), number * 2, 2 * number, int(number), divmod(number, 3), number < 5) == (
        4,
        8,
        8,
        4,
        (1, 1),
        True,
    )
    assert Proxy(lambda: max)(1, 2) == 2
    assert Proxy(lambda: int, name="given").__name__ == "given"
    target = types.SimpleNamespace()
    holder = Proxy(lambda: target)
    holder.x = 1
    assert (target.x, holder.__dict__) == (1, {"x": 1})
    del holder.x
    assert not hasattr(target, "x")
    assert pickle.loads(pickle.dumps(Proxy(lambda: AttributeDict(a=1)))) == {"a": 1}


def test_an_unbound_proxy_is_false_and_empty():
    def refuse():
        raise RuntimeError("not yet")

    proxy = Proxy(refuse)
    assert not proxy
    assert dir(proxy) == []
    assert repr(proxy) == "<Proxy unbound>"


def test_the_class_of_proxies_can_be_patched(monkeypatch):
    monkeypatch.setattr(Proxy, "__call__", lambda self, *args: ("patched", args))
    assert Proxy(lambda: max)(1) == ("patched", (1,))


def test_a_promise_asks_once_and_then_calls_back():
    asked, told = [], []
    promise = PromiseProxy(lambda: asked.append(1) or "found")
    promise.__then__(told.append, "first")
    assert (promise.__evaluated__(), asked, told) == (False, [], [])
    assert promise.upper() == "FOUND"
    assert promise == "found"
    promise.__then__(told.append, "second")
    assert (asked, told, promise.__evaluated__()) == ([1], ["first", "second"], True)
    assert maybe_evaluate(promise) == "found"
    assert type(maybe_evaluate(promise)) is str
    assert maybe_evaluate(3) == 3


def test_class_property_answers_on_class_and_instance():
    class Thing:
        _value = 1
        value = class_property(lambda cls: cls._value, lambda cls, new: setattr(cls, "_value", new))

    assert Thing.value == 1
    Thing().value = 2
    assert (Thing.value, Thing().value) == (2, 2)


def test_try_import():
    assert try_import("json") is json
    assert try_import("no_such_module_anywhere", 5) == 5


def test_an_attribute_of_the_current_app():
    app = Celery("attributes")
    app.set_current()
    assert getappattr("main") == "attributes"
    assert getappattr("conf.task_default_queue") == "celery"
    with pytest.raises(AttributeError):
        getappattr("nope.x")


def test_a_module_made_anew_loads_its_names_late(monkeypatch):
    first = types.ModuleType("lazy_sample")
    monkeypatch.setitem(sys.modules, "lazy_sample", first)
    homes = {"json": ["loads", "dumps"], "no_such_module_anywhere": ["broken"]}
    old, new = recreate_module("lazy_sample", by_module=homes, direct={"codec": "json"}, __file__="f", extra=7)
    assert (old, sys.modules["lazy_sample"]) == (first, new)
    assert "loads" not in vars(new)
    assert (new.loads, new.codec, new.extra, new.__file__) == (json.loads, json, 7, "f")
    assert "loads" in vars(new)
    assert {"loads", "dumps", "codec", "extra"} <= set(new.__all__) & set(dir(new))
    assert pickle.loads(pickle.dumps(new)) is new
    with pytest.raises(AttributeError, match="'lazy_sample' has no attribute 'nope'"):
        _ = new.nope
    with pytest.raises(ModuleNotFoundError):
        _ = new.broken
    with pytest.raises(KeyError):
        recreate_module("never_imported_anywhere")
