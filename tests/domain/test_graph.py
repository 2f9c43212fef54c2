"""Graphs of what depends on what ([util.10])."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.graph import CycleError, DependencyGraph, GraphFormatter

STYLE = 'shape="box", arrowhead="vee", style="filled", fontname="HelveticaNeue"'
EDGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40)


def graph() -> DependencyGraph:
    return DependencyGraph([("A", ["B", "C"]), ("B", []), ("C", ["D"]), ("D", [])])


def test_looks() -> None:
    made = graph()
    assert made.topsort() == ["B", "D", "C", "A"]
    assert list(made.edges()) == ["A", "C"]
    assert (made.valency_of("A"), made.valency_of("D"), made.valency_of("?")) == (3, 0, 0)
    assert (len(made), "A" in made, made["A"], list(made)) == (4, True, ["B", "C"], ["A", "B", "C", "D"])
    assert repr(made) == "A(3)\n     B(0)\n     C(1)\n          D(0)\nB(0)\nC(1)\n     D(0)\nD(0)"
    assert list(made.iteritems()) == [("A", ["B", "C"]), ("B", []), ("C", ["D"]), ("D", [])]


def test_grows() -> None:
    made = graph()
    made.add_arc("E")
    made.add_arc("A")
    made.add_edge("E", "A")
    made.connect(DependencyGraph([("Z", [])]))
    assert made.topsort() == ["B", "D", "C", "A", "E", "Z"]
    made.connect(DependencyGraph([("A", [])]))
    assert made["A"] == []
    made.update(DependencyGraph([("F", []), ("G", ["F"])]))
    assert made["G"] == ["F"]
    for wrong in (lambda: made.add_edge("?", "A"), lambda: made.update([("A", ["?"])])):
        with pytest.raises(KeyError, match=r"\?"):
            wrong()


@given(EDGES)
def test_order(edges: list[tuple[int, int]]) -> None:
    """Whatever has an order is brought into it; whatever has none is a circle that is there."""
    made = DependencyGraph([(node, []) for node in range(13)])
    for a, b in edges:
        made.add_edge(a, b)
    try:
        order = made.topsort()
    except CycleError as exc:
        (circle,) = exc.args
        assert circle[0] == circle[-1]
        assert all(b in made[a] for a, b in pairwise(circle))
    else:
        assert sorted(order) == list(range(13))
        assert all(order.index(b) < order.index(a) for a, b in edges)


def test_deep() -> None:
    made = DependencyGraph([*((n, [n + 1]) for n in range(5000)), (5000, [])])
    assert made.topsort() == list(range(5000, -1, -1))


def test_dot() -> None:
    written = io.StringIO()
    DependencyGraph([("A", ["B"]), ("B", [])]).to_dot(written)
    assert written.getvalue().splitlines() == [
        "digraph dependencies {",
        f'    graph [{STYLE}, bgcolor="mintcream", root="None"]',
        f'    "A" [{STYLE}, fillcolor="palegreen3", color="palegreen4"]',
        f'    "B" [{STYLE}, fillcolor="palegreen1", color="palegreen2"]',
        f'    "A" -> "B" [{STYLE}, color="darkseagreen4", arrowcolor="black", arrowsize="0.7"]',
        "}",
    ]


def test_a_formatter_of_ones_own() -> None:
    class Shouting(GraphFormatter):
        def label(self, obj: object) -> str:
            return str(obj).upper()

    drawn = Shouting(root="r", type="graph", id="G", indent=1, shape="oval")
    style = STYLE.replace("box", "oval")
    assert drawn.head(size=3).decode() == (
        f'    graph G {{\n        graph [{style}, bgcolor="mintcream", root="R", size="3"]'
    )
    assert drawn.edge("a", "b").decode().startswith('        "A" -- "B" [')
    assert drawn.node("a", color="red").endswith(b'fillcolor="palegreen3", color="red"]')
    assert drawn.terminal_node("t").endswith(b'fillcolor="palegreen1", color="palegreen2"]')
    assert (drawn.tail(), drawn.attr("n", 3)) == (b"    }", b'n="3"')
    assert drawn.attrs({"a": 1}, {"z": 2}) == f'{style}, z="2", a="1"'
    assert drawn.draw_node("q", {}, {}) == f'        "Q" [{style}]'.encode()
    assert drawn.FMT("{IN}x{INp}{0}{k}", 1, k=2) == b"    x        12"
    assert DependencyGraph(formatter=drawn).format("o") == "O"
