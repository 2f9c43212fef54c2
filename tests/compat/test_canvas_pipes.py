"""What `a | b` makes of each pair of kinds ([combo])."""

from __future__ import annotations

from typing import Any

import pytest

from celery.canvas import Signature, chain, chord, group, signature
from tests.compat.memory_apps import make_app

app = make_app()

#: Operands, made of tasks that are numbered from some number on.
KINDS: dict[str, Any] = {
    "task": lambda t: t(0),
    "chain(2)": lambda t: chain(t(0), t(1)),
    "group(1)": lambda t: group(t(0)),
    "group(2)": lambda t: group(t(0), t(1)),
    "empty group": lambda t: group(),
    "chord": lambda t: chord([t(0), t(1)], t(2)),
    "chain ending in group": lambda t: chain(t(0), group(t(1), t(2))),
    "chain ending in chord": lambda t: chain(t(0), chord([t(1), t(2)], t(3))),
}

#: Left, right, and what they make: tasks of the left one are t10, t11 …, of the right one t20, t21 …
JOINED = [
    ("task", "task", "chain(t10, t20)"),
    ("task", "chain(2)", "chain(t10, t20, t21)"),
    ("task", "group(1)", "chain(t10, t20)"),
    ("task", "group(2)", "chain(t10, group(t20, t21))"),
    ("task", "empty group", "chain(t10, group())"),
    ("task", "chord", "chain(t10, chord([t20, t21], t22))"),
    ("task", "chain ending in group", "chain(t10, t20, group(t21, t22))"),
    ("task", "chain ending in chord", "chain(t10, t20, chord([t21, t22], t23))"),
    ("chain(2)", "task", "chain(t10, t11, t20)"),
    ("chain(2)", "chain(2)", "chain(t10, t11, t20, t21)"),
    ("chain(2)", "group(1)", "chain(t10, t11, t20)"),
    ("chain(2)", "group(2)", "chain(t10, t11, group(t20, t21))"),
    ("chain(2)", "empty group", "chain(t10, t11)"),
    ("chain(2)", "chord", "chain(t10, t11, chord([t20, t21], t22))"),
    ("chain(2)", "chain ending in group", "chain(t10, t11, t20, group(t21, t22))"),
    ("chain(2)", "chain ending in chord", "chain(t10, t11, t20, chord([t21, t22], t23))"),
    ("group(1)", "task", "chord([t10], t20)"),
    ("group(1)", "chain(2)", "chord([t10], chain(t20, t21))"),
    ("group(1)", "group(1)", "chord([t10], group(t20))"),
    ("group(1)", "group(2)", "chord([t10], group(t20, t21))"),
    ("group(1)", "empty group", "group(t10)"),
    ("group(1)", "chord", "chord([t10], chord([t20, t21], t22))"),
    ("group(1)", "chain ending in group", "chord([t10], chain(t20, group(t21, t22)))"),
    ("group(1)", "chain ending in chord", "chord([t10], chain(t20, chord([t21, t22], t23)))"),
    ("group(2)", "task", "chord([t10, t11], t20)"),
    ("group(2)", "chain(2)", "chord([t10, t11], chain(t20, t21))"),
    ("group(2)", "group(1)", "chord([t10, t11], group(t20))"),
    ("group(2)", "group(2)", "chord([t10, t11], group(t20, t21))"),
    ("group(2)", "empty group", "group(t10, t11)"),
    ("group(2)", "chord", "chord([t10, t11], chord([t20, t21], t22))"),
    ("group(2)", "chain ending in group", "chord([t10, t11], chain(t20, group(t21, t22)))"),
    ("group(2)", "chain ending in chord", "chord([t10, t11], chain(t20, chord([t21, t22], t23)))"),
    ("empty group", "task", "chord([], t20)"),
    ("empty group", "chain(2)", "chord([], chain(t20, t21))"),
    ("empty group", "group(1)", "chord([], group(t20))"),
    ("empty group", "group(2)", "chord([], group(t20, t21))"),
    ("empty group", "empty group", "group()"),
    ("empty group", "chord", "chord([], chord([t20, t21], t22))"),
    ("empty group", "chain ending in group", "chord([], chain(t20, group(t21, t22)))"),
    ("empty group", "chain ending in chord", "chord([], chain(t20, chord([t21, t22], t23)))"),
    ("chord", "task", "chord([t10, t11], chain(t12, t20))"),
    ("chord", "chain(2)", "chain(chord([t10, t11], t12), t20, t21)"),
    ("chord", "group(1)", "chord([t10, t11], chain(t12, t20))"),
    ("chord", "group(2)", "chain(chord([t10, t11], t12), group(t20, t21))"),
    ("chord", "empty group", "chain(chord([t10, t11], t12), group())"),
    ("chord", "chord", "chord([t10, t11], chain(t12, chord([t20, t21], t22)))"),
    ("chord", "chain ending in group", "chain(chord([t10, t11], t12), t20, group(t21, t22))"),
    ("chord", "chain ending in chord", "chain(chord([t10, t11], t12), t20, chord([t21, t22], t23))"),
    ("chain ending in group", "task", "chain(t10, chord([t11, t12], t20))"),
    ("chain ending in group", "chain(2)", "chain(t10, chord([t11, t12], chain(t20, t21)))"),
    ("chain ending in group", "group(1)", "chain(t10, chord([t11, t12], t20))"),
    ("chain ending in group", "group(2)", "chain(t10, group(t11, t12), group(t20, t21))"),
    ("chain ending in group", "empty group", "chain(t10, group(t11, t12))"),
    ("chain ending in group", "chord", "chain(t10, chord([t11, t12], chord([t20, t21], t22)))"),
    ("chain ending in group", "chain ending in group", "chain(t10, chord([t11, t12], chain(t20, group(t21, t22))))"),
    ("chain ending in group", "chain ending in chord", "chain(t10, chord([t11, t12], t20), chord([t21, t22], t23))"),
    ("chain ending in chord", "task", "chain(t10, chord([t11, t12], chain(t13, t20)))"),
    ("chain ending in chord", "chain(2)", "chain(t10, chord([t11, t12], chain(t13, t20, t21)))"),
    ("chain ending in chord", "group(1)", "chain(t10, chord([t11, t12], chain(t13, t20)))"),
    ("chain ending in chord", "group(2)", "chain(t10, chord([t11, t12], chain(t13, group(t20, t21))))"),
    ("chain ending in chord", "empty group", "chain(t10, chord([t11, t12], t13))"),
    ("chain ending in chord", "chord", "chain(t10, chord([t11, t12], t13), chord([t20, t21], t22))"),
    (
        "chain ending in chord",
        "chain ending in group",
        "chain(t10, chord([t11, t12], chain(t13, t20, group(t21, t22))))",
    ),
    (
        "chain ending in chord",
        "chain ending in chord",
        "chain(t10, chord([t11, t12], chain(t13, t20)), chord([t21, t22], t23))",
    ),
]


def numbered(first: int) -> Any:
    return lambda number: signature(f"t{first + number}", app=app)


def written(canvas: Any) -> str:
    """A canvas as the table has it."""
    kind = canvas.subtask_type
    if kind == "chord":
        return f"chord([{', '.join(map(written, canvas.tasks))}], {written(canvas.body)})"
    if kind in ("chain", "group"):
        return f"{kind}({', '.join(map(written, canvas.tasks))})"
    return str(canvas.task)


@pytest.mark.parametrize(("left", "right", "joined"), JOINED)
def test_each_pair(left: str, right: str, joined: str) -> None:
    operands = KINDS[left](numbered(10)), KINDS[right](numbered(20))
    before = [dict(operand) for operand in operands]
    made = operands[0] | operands[1]
    assert written(made) == joined
    assert isinstance(made, Signature)
    assert [dict(operand) for operand in operands] == before
    in_place = operands[0]
    in_place |= operands[1]
    assert written(in_place) == joined


def test_every_pair_is_in_the_table() -> None:
    assert {(left, right) for left, right, _ in JOINED} == {(left, right) for left in KINDS for right in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [5, None, "t20", [1]])
def test_nothing_else_can_be_joined(kind: str, other: Any) -> None:
    with pytest.raises(TypeError):
        KINDS[kind](numbered(10)) | other


@pytest.mark.parametrize(
    ("steps", "made"),
    [
        (lambda t: [group(t(0)), t(1)], "chain(t0, t1)"),
        (lambda t: [group(), t(1)], "chain(t1)"),
        (lambda t: [t(0), chain(), t(1)], "chain(t0, t1)"),
        (lambda t: [t(0), group(), t(1)], "chain(t0, t1)"),
        (lambda t: [group(t(0), t(1)), t(2)], "chord([t0, t1], t2)"),
        (lambda t: [group(t(0), t(1)), chain()], "chain(group(t0, t1))"),
        (lambda t: [t(0), group(chain(t(1), t(2)))], "chain(t0, t1, t2)"),
        (lambda t: [t(0), group(group(t(1))), t(2)], "chain(t0, t1, t2)"),
        (lambda t: [t(0), chord([t(1)], t(2)), group(t(3), t(4)), t(5)],
         "chain(t0, chord([t1], chain(t2, chord([t3, t4], t5))))"),
    ],
)  # fmt: skip
def test_a_chain_of_many(steps: Any, made: str) -> None:
    assert written(chain(*steps(numbered(0)))) == made
    assert written(chain(step for step in steps(numbered(0)))) == made


def test_a_chain_refuses_what_is_no_signature() -> None:
    with pytest.raises(TypeError, match="expected signatures in a chain, got 5"):
        chain(numbered(0)(0), 5)
