"""Calls as values ([canvas.1] to [canvas.17], [call.9], [call.25], [wire.10])."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.canvas import Signature, maybe_signature, maybe_subtask, signature, subtask
from celery.exceptions import NotRegistered
from tests.compat.memory_apps import make_app

app = make_app()
add = app.tasks["tasks.add"]

plain = st.none() | st.integers() | st.text(max_size=3)
args = st.lists(plain, max_size=3).map(tuple)
kwargs = st.dictionaries(st.text("abc", min_size=1, max_size=2), plain, max_size=3)


def test_the_dict_that_travels() -> None:
    assert dict(add.s(2, 2)) == {
        "task": "tasks.add",
        "args": (2, 2),
        "kwargs": {},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert add.si(1)["immutable"] is True
    assert dict(add.signature((2,), {"y": 3}, countdown=10)) == dict(
        signature("tasks.add", (2,), {"y": 3}, countdown=10, app=app)
    )
    assert Signature()["task"] is None
    assert add.subtask((2,)) == subtask("tasks.add", (2,))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: add.s(2, 2), "tasks.add(2, 2)"),
        (lambda: add.s(2, y=3), "tasks.add(2, y=3)"),
        (lambda: signature("a.b.c", (1, "x"), {"z": 2}), "a.b.c(1, 'x', z=2)"),
        (lambda: signature("foo"), "foo()"),
    ],
)
def test_text(made: Any, text: str) -> None:
    assert repr(made()) == text


def test_text_with_further_arguments() -> None:
    assert add.s(1, 1).reprcall(1, 2, z=4) == "tasks.add(1, 2, 1, 1, z=4)"
    assert add.si(1).reprcall(2) == "tasks.add(2, 1)"


def test_properties_are_the_items() -> None:
    sig = add.s(1, y=2).set(queue="q")
    assert (sig.task, sig.name, sig.args, sig.kwargs, sig.options) == (
        "tasks.add",
        "tasks.add",
        (1,),
        {"y": 2},
        {"queue": "q"},
    )
    assert (sig.immutable, sig.subtask_type, sig.id, sig.root_id, sig.parent_id) == (False, None, None, None, None)
    sig.args, sig.kwargs, sig.options, sig.task, sig.subtask_type = (9,), {"k": 1}, {"o": 1}, "other", "x"
    sig.immutable = True
    assert dict(sig) == {
        "task": "other",
        "args": (9,),
        "kwargs": {"k": 1},
        "options": {"o": 1},
        "subtask_type": "x",
        "immutable": True,
    }


def test_a_bare_dict_is_a_signature_too() -> None:
    bare = signature({"task": "a"})
    assert dict(bare) == {"task": "a"}
    assert (bare.args, bare.kwargs, bare.options, bare.immutable) == ((), {}, {}, False)
    assert repr(bare.clone((1,), queue="q")) == "a(1)"


def test_calling() -> None:
    assert add.s(2)(3) == 5
    assert add.s(2, y=3)() == 5
    with pytest.raises(NotRegistered):
        signature("no.such", app=app)()


# ------------------------------------------------------------------------------------------------------- variations


@given(args, kwargs, args, kwargs)
def test_further_arguments_come_first_and_win(own: Any, named: Any, more: Any, more_named: Any) -> None:
    clone = signature("t", own, named).clone(more, more_named, queue="q")
    assert (clone.args, clone.kwargs, clone.options) == (more + own, {**named, **more_named}, {"queue": "q"})


@given(args, kwargs, args, kwargs)
def test_immutable_ones_take_options_only(own: Any, named: Any, more: Any, more_named: Any) -> None:
    clone = signature("t", own, named, immutable=True).clone(more, more_named, queue="q")
    assert (clone.args, clone.kwargs, clone.options, clone.immutable) == (own, named, {"queue": "q"}, True)


@given(args, args, args)
def test_partials_may_be_applied_step_by_step(a: Any, b: Any, c: Any) -> None:
    assert signature("t", a).clone(b).clone(c) == signature("t", a).clone(c + b)


def test_clones_do_not_share_options() -> None:
    sig = add.s(1).set(headers={"a": 1})
    sig.clone().options["headers"]["a"] = 2
    assert sig.options["headers"] == {"a": 1}
    assert sig.clone().type is add
    assert sig.partial((3,)).args == (3, 1)


def test_replace() -> None:
    sig = add.s(1, y=2).set(queue="a")
    assert dict(sig.replace(args=(9,), kwargs={"k": 1}, options={"z": 1})) == {
        **sig,
        "args": (9,),
        "kwargs": {"k": 1},
        "options": {"z": 1},
    }
    assert sig.replace(args=()).args == ()
    assert sig.replace() == sig


def test_set_gives_the_signature_itself() -> None:
    sig = add.s(1)
    assert sig.set(immutable=True, countdown=3) is sig
    assert (sig.immutable, sig.options) == (True, {"countdown": 3})


def test_some_options_are_never_merged_over() -> None:
    sig = add.s(1).set(group_id="g", stamped_headers=["stamp"], stamp="s", queue="q")
    clone = sig.clone(group_id="h", stamped_headers=[], stamp="t", queue="r", fresh=1)
    assert clone.options == {"group_id": "g", "stamped_headers": ["stamp"], "stamp": "s", "queue": "r", "fresh": 1}
    assert add.s(1).clone(group_id="h").options == {"group_id": "h"}


def test_or_is_not_a_dicts() -> None:
    assert (add.s(1) | add.s(2)).tasks == [add.s(1), add.s(2)]
    joined = add.s(1)
    joined |= add.s(2)
    assert joined == add.s(1) | add.s(2)
    assert add.s(1) | dict(add.s(2)) == dict(add.s(1)) | add.s(2) == joined
    for other in (5, None, "tasks.add", [add.s(2)]):
        with pytest.raises(TypeError):
            add.s(1) | other
        with pytest.raises(TypeError):
            other | add.s(1)


# ----------------------------------------------------------------------------------------------------------- links


def test_links_are_lists_without_repeats() -> None:
    sig, callback, errback = add.s(1, 1), add.s(3), add.s(4)
    assert sig.link(callback) is callback
    sig.link(add.s(3))
    assert sig.link_error(errback) is errback
    assert sig.on_error(errback) is sig
    assert sig.options == {"link": [callback], "link_error": [errback]}


def test_a_single_link_becomes_a_list() -> None:
    sig = signature("t", link=add.s(2))
    sig.link(add.s(3))
    assert sig.options["link"] == [add.s(2), add.s(3)]
    sig.extend_list_option("link", [1, 2])
    sig.extend_list_option("other", 3)
    assert sig.options["link"][2:] == [1, 2]
    assert sig.options["other"] == [3]


def test_flatten_links() -> None:
    inner = add.s(3)
    outer = add.s(2)
    outer.link(inner)
    sig = add.s(1)
    sig.link(dict(outer))
    assert sig.flatten_links() == [sig, outer, inner]


# ------------------------------------------------------------------------------------------------------------- ids


def test_freezing_chooses_the_id_once() -> None:
    sig = add.s(1, 1)
    result = sig.freeze()
    assert sig.id == result.id
    assert sig.options == {"task_id": result.id, "reply_to": app.thread_oid}
    again = sig.freeze("other", group_id="g", chord={"a": 1}, root_id="r", parent_id="p", group_index=0)
    assert again == result
    assert sig.options == {
        "task_id": result.id,
        "reply_to": app.thread_oid,
        "group_id": "g",
        "chord": {"a": 1},
        "root_id": "r",
        "parent_id": "p",
        "group_index": 0,
    }
    assert (sig.root_id, sig.parent_id) == ("r", "p")
    assert signature("no.such", app=app).freeze("id").id == "id"


def test_sending_keeps_the_frozen_id_and_the_options() -> None:
    sig = add.s(2).set(queue="q")
    promised = sig.freeze()
    assert sig.delay(3) == promised
    assert sig.apply_async((3,), countdown=1) == promised
    unknown = signature("no.such", (1,), app=app)
    promised = unknown.freeze()
    assert unknown.apply_async(queue="q") == promised


# ------------------------------------------------------------------------------------------------------ other forms


@given(args, kwargs, st.booleans())
def test_json_and_back(own: Any, named: Any, immutable: bool) -> None:
    sig = signature("t", own, named, immutable=immutable, queue="q")
    sig.link(signature("u", own))
    back = maybe_signature(json.loads(json.dumps(sig)), app)
    assert isinstance(back, Signature)
    assert json.dumps(back) == json.dumps(sig)
    assert back.app is app
    assert list(back.flatten_links()[1].args) == list(own)


def test_copies() -> None:
    sig = add.s(1, [2])
    sig.link(add.s(3))
    copied = copy.deepcopy(sig)
    assert type(copied) is dict
    assert copied == sig
    assert copied["options"]["link"] is not sig.options["link"]
    assert copied["args"][1] is sig.args[1]
    assert type(copy.copy(sig)) is Signature
    restored = pickle.loads(pickle.dumps(sig))
    assert type(restored) is Signature
    assert restored == sig
    assert sig.__json__() == dict(sig)


def test_maybe() -> None:
    sig = add.s(1)
    assert maybe_signature(None) is None
    assert maybe_signature(3) == 3
    assert maybe_signature(sig) is sig
    assert maybe_signature(sig, clone=True) is not sig
    assert signature(sig) == sig
    assert signature(sig) is not sig
    assert maybe_subtask is maybe_signature


def test_kinds() -> None:
    @Signature.register_type("kind")
    class Kind(Signature[Any]):
        @classmethod
        def from_dict(cls, d: Any, app: Any = None) -> Signature[Any]:
            return cls("made", d["args"], app=app, subtask_type="kind")

    try:
        made = signature({"task": "x", "args": [1], "subtask_type": "kind"}, app=app)
        assert (type(made), made.task, made.app) == (Kind, "made", app)
        with pytest.raises(KeyError, match="nope"):
            signature({"task": "x", "subtask_type": "nope"})
    finally:
        del Signature.TYPES["kind"]


def test_the_class_takes_a_type() -> None:
    assert Signature[int] is not None
