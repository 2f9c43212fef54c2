"""Random canvases run here come to what plain evaluation says; and all of them survive their way over the wire."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery import Celery
from celery.canvas import Signature, maybe_signature
from tests.flow import canvases

#: Canvases: 20,000 in `make fuzz`, 15 in `make quick`.
FUZZED = 20_000 if os.environ.get("FUZZ") else 3 * settings.default.max_examples

app = Celery("canvases", broker="memory://", backend="memory://", set_as_current=False)
canvases.declare(app)


@st.composite
def trees(draw: st.DrawFn) -> canvases.Tree:
    return canvases.grow(lambda n: draw(st.integers(0, n - 1)))


def here(canvas: Any) -> Any:
    return canvas.apply().get()


def over_the_wire(canvas: Any) -> Any:
    return maybe_signature(json.loads(json.dumps(canvas)), app=app)


def test_the_oracle_by_hand() -> None:
    mix, one = canvases.mixed, canvases.mixed((7,), 1)
    group = ("group", [("task", 2), ("group", [("task", 3), ("task", 4)])])
    in_order = [mix((7,), 2), mix((7,), 3), mix((7,), 4)]
    for tree, value in (
        (("chain", [("task", 1), ("task", 2), ("const", 3)]), mix((), 3)),
        (("chain", [("task", 1), ("task", 2)]), mix((one,), 2)),
        (("chain", [("group", [("task", 1)]), ("task", 2)]), mix((one,), 2)),
        (("chord", [("task", 1)], ("task", 2)), mix(([one],), 2)),
        (("chord", [("chain", [("task", 1), ("group", [("task", 2), ("task", 3)])]), ("task", 4)], ("task", 5)),
         mix(([mix((one,), 2), mix((one,), 3), mix((7,), 4)],), 5)),
        (group, in_order),
    ):  # fmt: skip
        assert canvases.evaluate(tree, (7,)) == canvases.evaluate(tree, (7,), eager=True) == value
    waited = ("chain", [group, ("task", 5)])
    assert canvases.evaluate(waited, (7,), eager=True) == mix((in_order,), 5)
    assert canvases.evaluate(waited, (7,)) == mix(([in_order[0], in_order[2], in_order[1]],), 5)
    with pytest.raises(canvases.Boom):
        canvases.evaluate(("chain", [("boom", 1), ("task", 2)]))


def test_seeds_make_all_kinds() -> None:
    made = [canvases.from_seed(seed) for seed in range(200)]
    for kind in ("task", "const", "chain", "group", "chord"):
        assert any(canvases.holds(tree, kind) for tree in made)
    assert not any(canvases.holds(tree, "boom") for tree in made)
    assert any(canvases.holds(canvases.from_seed(seed, failing=True), "boom") for seed in range(50))
    assert canvases.from_seed(7) == canvases.from_seed(7)


@settings(max_examples=FUZZED, deadline=None)
@given(trees())
def test_run_here_it_comes_to_what_it_should(tree: canvases.Tree) -> None:
    assert here(canvases.build(app, tree)) == canvases.evaluate(tree, eager=True)


@settings(max_examples=FUZZED, deadline=None)
@given(trees())
def test_over_the_wire_it_is_the_same(tree: canvases.Tree) -> None:
    canvas = canvases.build(app, tree)
    again = over_the_wire(canvas)
    assert type(again) is type(canvas) or isinstance(canvas, type(again))
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(canvas))
    assert here(again) == canvases.evaluate(tree, eager=True)


@settings(max_examples=FUZZED, deadline=None)
@given(trees())
def test_copies_and_chosen_ids_change_nothing(tree: canvases.Tree) -> None:
    canvas: Signature[Any] = canvases.build(app, tree)
    before = json.dumps(canvas)
    copy = canvas.clone()
    result = copy.freeze()
    assert json.dumps(canvas) == before  # the copy is one to any depth
    assert result.as_tuple() == over_the_wire(copy).freeze().as_tuple()  # and ids stay, over the wire too
