"""Domain. Graphs of what depends on what: order, cycles, and Graphviz's dot format (`[util.10]`)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ("DOT", "CycleError", "DependencyGraph", "GraphFormatter")


class DOT:
    """The pieces of a file in dot format; `{IN}` and `{INp}` are the indentation outside and inside of the graph."""

    HEAD = "{IN}{type} {id} {{\n{INp}graph [{attrs}]"
    ATTR = "{name}={value}"
    ATTRSEP = ", "
    NODE = '{INp}"{0}" [{attrs}]'
    EDGE = '{INp}"{0}" {dir} "{1}" [{attrs}]'
    TAIL = "{IN}}}"
    DIRS = {"graph": "--", "digraph": "->"}  # noqa: RUF012 - a public constant of this shape


class CycleError(Exception):
    """Things depend on each other in a circle, so none can come first. The argument is the circle, as a list."""


class DependencyGraph:
    """Nodes, and for each the list of those that it depends on.

    `it` is another graph or an iterable of `(node, dependencies)`; each dependency must be a node too. `formatter`
    draws the graph in `to_dot`.
    """

    def __init__(self, it: Any = None, formatter: GraphFormatter | None = None) -> None:
        self.formatter = formatter or GraphFormatter()
        self.adjacent: dict[Any, list[Any]] = {}
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Any) -> None:
        """Add a node, unless it is there."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:  # noqa: N803 - public names
        """`A` depends on `B`. Raises KeyError if `A` is no node."""
        self[A].append(B)

    def connect(self, graph: DependencyGraph) -> None:
        """Take over all nodes of another graph; its dependencies replace those here."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: DependencyGraph | Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add `(node, dependencies)` of each. Raises KeyError for a node that nobody adds, as a dependency."""
        pairs = list(it.items() if isinstance(it, DependencyGraph) else it)
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, dependencies in pairs:
            for dependency in dependencies:
                if dependency not in self:
                    raise KeyError(dependency)
                self.add_edge(obj, dependency)

    def topsort(self) -> list[Any]:
        """All nodes, each after those that it depends on. Raises `CycleError`."""
        order: dict[Any, None] = {}
        for start in self.adjacent:
            path: dict[Any, Iterator[Any]] = {} if start in order else {start: iter(self.adjacent[start])}
            while path:
                node, waiting = next(reversed(path.items()))
                following = next((other for other in waiting if other not in order), None)
                if following is None:
                    order[node] = None
                    del path[node]
                elif following in path:
                    raise CycleError([*list(path)[list(path).index(following) :], following])
                else:
                    path[following] = iter(self.adjacent.get(following, ()))
        return list(order)

    def valency_of(self, obj: Any) -> int:
        """How many steps lead away from the node, and from all that it depends on. 0 for an unknown one."""
        adjacent = self.adjacent.get(obj, ())
        return len(adjacent) + sum(self.valency_of(other) for other in adjacent)

    def edges(self) -> Iterator[Any]:
        """The nodes that depend on any other."""
        return (obj for obj, adjacent in self.items() if adjacent)

    def to_dot(self, fh: Any, formatter: GraphFormatter | None = None) -> None:
        """Write the graph in dot format to a text file."""
        draw = formatter or self.formatter
        depended_on = Counter(other for _, adjacent in self.items() for other in adjacent)
        seen: set[Any] = set()

        def line(text: bytes) -> None:
            fh.write(text.decode() + "\n")

        def node(obj: Any) -> None:
            if obj not in seen:
                seen.add(obj)
                line(draw.node(obj) if self.adjacent.get(obj) else draw.terminal_node(obj))

        line(draw.head())
        for obj, adjacent in self.items():
            if not adjacent and not depended_on[obj]:
                node(obj)
                continue
            if adjacent:
                node(obj)
            for other in adjacent:
                node(other)
                line(draw.edge(obj, other))
        line(draw.tail())

    def format(self, obj: Any) -> Any:
        """A node as the formatter labels it."""
        return self.formatter.label(obj) if self.formatter else obj

    def items(self) -> Any:
        return self.adjacent.items()

    iteritems = items

    def repr_node(self, obj: Any, level: int = 1, fmt: str = "{0}({1})") -> str:
        """A node with its valency, and below it, indented, all that it depends on."""
        lines = [fmt.format(obj, self.valency_of(obj))]
        lines += [" " * 5 * level + self.repr_node(other, level + 1, fmt) for other in self.adjacent.get(obj, ())]
        return "\n".join(lines)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: Any) -> bool:
        return obj in self.adjacent

    def __repr__(self) -> str:
        return "\n".join(self.repr_node(node) for node in self)


class GraphFormatter:
    """Draws a graph in dot format. Other keywords are attributes of everything in it; subclasses change the schemes."""

    _attr = DOT.ATTR.strip()
    _node = DOT.NODE.strip("\n")
    _edge = DOT.EDGE.strip("\n")
    _head = DOT.HEAD.strip("\n")
    _tail = DOT.TAIL.strip("\n")
    _attrsep = DOT.ATTRSEP
    _dirs = DOT.DIRS

    scheme: Mapping[str, Any] = {
        "shape": "box",
        "arrowhead": "vee",
        "style": "filled",
        "fontname": "HelveticaNeue",
    }
    edge_scheme: Mapping[str, Any] = {"color": "darkseagreen4", "arrowcolor": "black", "arrowsize": 0.7}
    node_scheme: Mapping[str, Any] = {"fillcolor": "palegreen3", "color": "palegreen4"}
    term_scheme: Mapping[str, Any] = {"fillcolor": "palegreen1", "color": "palegreen2"}
    graph_scheme: Mapping[str, Any] = {"bgcolor": "mintcream"}

    def __init__(
        self,
        root: Any = None,
        type: str | None = None,
        id: str | None = None,
        indent: int = 0,
        inw: str = " " * 4,
        **scheme: Any,
    ) -> None:
        self.id = id or "dependencies"
        self.root = root
        self.type = type or "digraph"
        self.direction = self._dirs[self.type]
        self.IN = inw * indent
        self.INp = self.IN + inw
        self.scheme = {**self.scheme, **scheme}
        self.graph_scheme = {**self.graph_scheme, "root": self.label(root)}

    def attr(self, name: str, value: Any) -> bytes:
        return self.FMT(self._attr, name=name, value=f'"{value}"')

    def attrs(self, d: Mapping[str, Any] | None, scheme: Mapping[str, Any] | None = None) -> str:
        """Attributes as text: those of everything, then the scheme's, then the given ones."""
        chosen = {**self.scheme, **(scheme or {}), **(d or {})}
        return self._attrsep.join(self.attr(name, value).decode() for name, value in chosen.items())

    def head(self, **attrs: Any) -> bytes:
        return self.FMT(self._head, id=self.id, type=self.type, attrs=self.attrs(attrs, self.graph_scheme))

    def tail(self) -> bytes:
        return self.FMT(self._tail)

    def label(self, obj: Any) -> Any:
        """How a node is named; for subclasses."""
        return obj

    def node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.node_scheme, attrs)

    def terminal_node(self, obj: Any, **attrs: Any) -> bytes:
        """A node that depends on nothing."""
        return self.draw_node(obj, self.term_scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        return self.draw_edge(a, b, self.edge_scheme, attrs)

    def draw_node(
        self, obj: Any, scheme: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None
    ) -> bytes:
        return self.FMT(self._node, self.label(obj), attrs=self.attrs(attrs, scheme))

    def draw_edge(
        self, a: Any, b: Any, scheme: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None
    ) -> bytes:
        names = self.label(a), self.label(b)
        return self.FMT(self._edge, *names, dir=self.direction, attrs=self.attrs(attrs, scheme))

    def FMT(self, fmt: str, *args: Any, **kwargs: Any) -> bytes:  # noqa: N802 - a public name
        """The pattern filled in, as UTF-8."""
        return fmt.format(*args, **{"IN": self.IN, "INp": self.INp, **kwargs}).encode()
