"""Random canvases, and what they come to by plain evaluation: the oracle of every test that runs canvases.

A canvas is a plain value, a `Tree`, so that it can be printed, shrunk, sent to another process and built there:

    ("task", salt)              mix.s(salt=salt): one number from its arguments and the salt
    ("const", salt)             mix.si(salt=salt): takes no arguments
    ("boom", salt)              boom.s(salt=salt): raises `Boom(salt)`
    ("chain", [tree, …])        two or more steps
    ("group", [tree, …])        one or more members
    ("chord", [tree, …], body)

Numbers depend on all arguments and their order: a value that got lost, came twice or in another place changes the end.
"""

from __future__ import annotations

import json
import random
import zlib
from typing import TYPE_CHECKING, Any

from celery.canvas import chain, chord, group

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

__all__ = ["Boom", "Tree", "build", "declare", "evaluate", "from_seed", "grow", "holds"]

Tree = tuple[Any, ...]

#: Tasks in one canvas, at the most.
SIZE = 24


class Boom(Exception):
    """What a failing task raises."""


def mixed(args: tuple[Any, ...], salt: int) -> int:
    """What the task `mix` returns."""
    return zlib.crc32(json.dumps([args, salt]).encode())


def declare(app: Celery) -> None:
    """Give the app the tasks that canvases are made of."""

    @app.task(name="canvases.mix")
    def mix(*args: Any, salt: int) -> int:
        return mixed(args, salt)

    @app.task(name="canvases.boom")
    def boom(*args: Any, salt: int) -> None:
        raise Boom(salt)


# ------------------------------------------------------------------------------------------------------------ making


def from_seed(seed: int, depth: int = 5, failing: bool = False) -> Tree:
    """One canvas for each seed. `failing`: some of its tasks raise."""
    return grow(random.Random(seed).randrange, depth, failing)


def grow(choose: Callable[[int], int], depth: int = 5, failing: bool = False) -> Tree:
    """A canvas by choices: `choose(n)` gives a number below n; 0 is the simplest. At most `depth` levels."""
    return _Grower(choose, failing).tree(depth)


class _Grower:
    def __init__(self, choose: Callable[[int], int], failing: bool) -> None:
        self.choose = choose
        self.failing = failing
        self.left = SIZE
        self.salt = 0

    def tree(self, depth: int) -> Tree:
        kind = self.choose(6) if depth > 0 and self.left > 3 else 0
        if kind in (1, 2):
            return self.chain(depth)
        if kind in (3, 4):
            return "group", self.trees(depth, self.choose(3) + 1)
        if kind == 5:
            return "chord", self.trees(depth, self.choose(3) + 1), self.tree(depth - 1)
        return self.leaf()

    def leaf(self) -> Tree:
        self.left -= 1
        self.salt += 1
        kind = self.choose(12)
        if kind == 11 and self.failing:
            return "boom", self.salt
        return "const" if kind == 10 else "task", self.salt

    def trees(self, depth: int, count: int) -> list[Tree]:
        return [self.tree(depth - 1) for _ in range(count)]

    def chain(self, depth: int) -> Tree:
        steps: list[Tree] = []
        for tree in self.trees(depth, self.choose(3) + 2):
            # `group | group(x)` keeps the group of one where it leads a chain, and nowhere else ([combo.27]).
            steps.append(tree if not steps or _width(tree) != 1 or steps[-1][0] != "group" else self.leaf())
        return "chain", steps


def _width(tree: Tree) -> int:
    return len(tree[1]) if tree[0] == "group" else 0


def holds(tree: Tree, kind: str) -> bool:
    """Whether there is a part of this kind in it."""
    return tree[0] == kind or any(holds(part, kind) for part in _parts(tree))


def _parts(tree: Tree) -> list[Tree]:
    if tree[0] == "chord":
        return [*tree[1], tree[2]]
    return list(tree[1]) if tree[0] in ("chain", "group") else []


def build(app: Celery, tree: Tree) -> Any:
    """The canvas of a tree."""
    kind = tree[0]
    if kind == "chord":
        return chord([build(app, part) for part in tree[1]], build(app, tree[2]))
    if kind == "chain":
        return chain(*(build(app, part) for part in tree[1]))
    if kind == "group":
        return group([build(app, part) for part in tree[1]])
    task = app.tasks["canvases.boom" if kind == "boom" else "canvases.mix"]
    return task.si(salt=tree[1]) if kind == "const" else task.s(salt=tree[1])


# -------------------------------------------------------------------------------------------------------- evaluating


def evaluate(tree: Tree, args: tuple[Any, ...] = (), *, eager: bool = False) -> Any:
    """What `build(tree).apply_async(args).get()` comes to; `eager`: `apply` in its place.

    Raises `Boom` where a task does. The two ways differ in one thing: workers get the members of a group within a
    group in reverse order, once these have ids ([canvas.39]).
    """
    return _Evaluation(eager).value(tree, args, plain=True)


class _Evaluation:
    def __init__(self, eager: bool) -> None:
        self.eager = eager

    def value(self, tree: Tree, args: tuple[Any, ...], plain: bool = False) -> Any:
        """As its result gives it. `plain`: a group in it is sent as it stands, its ids not yet chosen."""
        kind = tree[0]
        if kind == "group":
            return [self.value(member, args, plain=plain) for member in self.members(tree, plain)]
        if kind == "chord":
            return self.value(tree[2], (self.awaited(tree[1], args),))
        if kind == "chain":
            *before, last = self.steps(tree)
            return self.value(last, self.through(before, args))
        return self.leaf(tree, args)

    def leaf(self, tree: Tree, args: tuple[Any, ...]) -> int:
        if tree[0] == "boom":
            raise Boom(tree[1])
        return mixed(() if tree[0] == "const" else args, tree[1])

    def ends(self, tree: Tree, args: tuple[Any, ...]) -> list[Any]:
        """The values of the tasks that it ends with: what a body that waits for it gets of it ([canvas.52])."""
        kind = tree[0]
        if kind == "group":
            return self.awaited(tree[1], args)
        if kind == "chord":
            return self.ends(tree[2], (self.awaited(tree[1], args),))
        if kind == "chain":
            *before, last = self.steps(tree)
            return self.ends(last, self.through(before, args))
        return [self.leaf(tree, args)]

    def awaited(self, header: list[Tree], args: tuple[Any, ...]) -> list[Any]:
        members = self.members(("group", header), plain=False)
        return [value for member in members for value in self.ends(member, args)]

    def members(self, tree: Tree, plain: bool) -> list[Tree]:
        """The members of a group, those of groups in it in place of these."""
        waiting, flat = list(reversed(tree[1])), []
        while waiting:
            member = waiting.pop()
            if member[0] != "group":
                flat.append(member)
            elif self.eager or plain:
                waiting.extend(reversed(member[1]))
            else:
                waiting.extend(member[1])
        return flat

    def steps(self, tree: Tree) -> list[Tree]:
        """The steps of a chain: those of chains in it in place of these, and groups of one unrolled."""
        waiting, flat = list(reversed(tree[1])), []
        while waiting:
            step = waiting.pop()
            if step[0] == "chain":
                waiting.extend(reversed(step[1]))
            elif _width(step) == 1:
                waiting.append(step[1][0])
            else:
                flat.append(step)
        return flat

    def through(self, steps: list[Tree], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the step after these gets: one value, or the list of all if several tasks have to be waited for."""
        for step in steps:
            args = (self.ends(step, args) if self.wide(step) else self.value(step, args),)
        return args

    def wide(self, tree: Tree) -> bool:
        if tree[0] == "chain":
            return self.wide(self.steps(tree)[-1])
        return tree[0] == "group" or (tree[0] == "chord" and self.wide(tree[2]))
