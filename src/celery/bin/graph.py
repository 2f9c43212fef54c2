"""Entrance. `celery graph`: pictures in dot's language (`[cli.19]`)."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import click

from celery.bin.base import CeleryCommand, handle_preload_options
from celery.utils.graph import DependencyGraph, GraphFormatter

__all__ = ["graph"]

#: Workers and processes that are drawn; of more, some are left out.
_MOST = 10
_DRAWN_OF_MANY = 3
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@click.group()
@click.pass_context
@handle_preload_options
def graph(ctx: click.Context) -> None:
    """Draw a picture, in the language of dot: `celery -A proj graph workers | dot -Tpng -o workers.png`."""


@graph.command(cls=CeleryCommand)
@click.pass_context
def bootsteps(ctx: click.Context) -> None:
    """Draw the parts that a worker starts, each with the one that it is started after."""
    worker = ctx.obj.app.WorkController()
    names = [part.name for part in worker.parts]
    picture = DependencyGraph(
        ((name, names[place - 1 : place] if place else []) for place, name in enumerate(names)),
        formatter=GraphFormatter(root=names[-1]),
    )
    picture.to_dot(sys.stdout)


class _Thing:
    """What is drawn."""

    attributes: ClassVar[dict[str, Any]] = {}
    lines: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str, label: str = "") -> None:
        self.name = name
        self.drawn = dict(self.attributes)
        if label:
            self.drawn["label"] = label

    def __str__(self) -> str:
        return self.name


class _Worker(_Thing):
    """A node."""


class _Process(_Thing):
    """One that runs tasks."""

    attributes: ClassVar = {
        "fillcolor": "lightcyan4", "fontcolor": "yellow", "shape": "oval", "fontsize": 10, "width": 0.3,
        "color": "black",
    }  # fmt: skip
    lines: ClassVar = {"arrowhead": "none", "arrowtail": "none"}


class _Broker(_Thing):
    """Where messages are."""

    attributes: ClassVar = {"shape": "circle", "fillcolor": "cadetblue3", "color": "cadetblue4", "height": 1}


class _Backend(_Thing):
    """Where results are."""

    attributes: ClassVar = {"shape": "folder", "fillcolor": "peachpuff3", "color": "black", "width": 2, "height": 1}


class _Picture(GraphFormatter):
    def label(self, obj: Any) -> Any:
        return str(obj)

    def node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.node_scheme, {**obj.drawn, **attrs})

    terminal_node = node

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        return self.draw_edge(a, b, self.edge_scheme, {**a.lines, **attrs})


@graph.command(cls=CeleryCommand)
@click.argument("words", nargs=-1, metavar="[NAME:VALUE]...")
@click.pass_context
def workers(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Draw workers, their processes, the broker and the result backend.

    \b
    nodes:a,b      these nodes, instead of those that answer
    threads:2,3    processes of each, in order
    wmax:N tmax:N  workers, and processes of each, above which some are left out
    broker:TEXT backend:TEXT   what to call these
    generic        names without addresses
    enumerate      numbers instead of names
    """
    wanted = _wanted(ctx, words)
    app = ctx.obj.app
    nodes = _nodes(app, wanted)
    shortened = _shortened(list(nodes.items()), int(wanted.get("wmax") or _MOST))
    broker = _Broker(_called(wanted, "broker", "Broker", _broker_url(app)))
    url = app.backend.as_uri() if app.conf.result_backend else ""
    backend = _Backend(_called(wanted, "backend", "Backend", url)) if url or "backend" in wanted else None
    picture = DependencyGraph(formatter=_Picture())
    picture.add_arc(broker)
    if backend is not None:
        picture.add_arc(backend)
    number = 0
    for place, (name, count) in shortened:
        worker = _Worker(_numbered("Worker", place) if "enumerate" in wanted and name != "…" else name)
        picture.add_arc(worker)
        picture.add_edge(worker, broker)
        if backend is not None:
            picture.add_edge(worker, backend)
        for at, (label, _) in _shortened([(str(i), 0) for i in range(count)], int(wanted.get("tmax") or _MOST)):
            number += 1
            process = _Process(f"thr-{number}", _numbered("P", at) if "enumerate" in wanted else label)
            picture.add_arc(process)
            picture.add_edge(process, worker)
    picture.to_dot(sys.stdout)


def _wanted(ctx: click.Context, words: tuple[str, ...]) -> dict[str, str]:
    known = {"nodes", "threads", "wmax", "tmax", "broker", "backend", "generic", "enumerate"}
    wanted = {}
    for word in words:
        name, _, value = word.partition(":")
        if name not in known:
            raise click.UsageError(f"expected words such as {', '.join(sorted(known))}; got {word!r}", ctx=ctx)
        if name in {"wmax", "tmax"} and not value.isdigit():
            raise click.UsageError(f"expected a number behind {name}:, got {word!r}", ctx=ctx)
        wanted[name] = value
    if not all(count.strip().isdigit() for count in wanted.get("threads", "0").split(",")):
        raise click.UsageError(f"expected numbers, got threads:{wanted['threads']}", ctx=ctx)
    return wanted


def _nodes(app: Any, wanted: dict[str, str]) -> dict[str, int]:
    """Names of workers, and how many processes each has."""
    if "nodes" in wanted:
        names = [name.strip() for name in wanted["nodes"].split(",") if name.strip()]
        counts = [int(count) for count in wanted.get("threads", "0").split(",")]
        return {name: counts[place] if place < len(counts) else 0 for place, name in enumerate(names)}
    found = app.control.inspect().stats() or {}
    return {
        name: len(said["pool"].get("processes") or ()) or int(said["pool"].get("max-concurrency") or 0)
        for name, said in sorted(found.items())
    }


def _shortened(items: list[tuple[str, int]], most: int) -> list[tuple[int, tuple[str, int]]]:
    """Numbered from 1; of too many the first ones, a gap, and the last."""
    numbered = list(enumerate(items, 1))
    if len(items) <= most:
        return numbered
    drawn = min(_DRAWN_OF_MANY, most)
    return [*numbered[:drawn], (0, ("…", 0)), numbered[-1]]


def _numbered(word: str, number: int) -> str:
    return f"{word}{str(number).translate(_SUBSCRIPT)}" if number else "…"


def _called(wanted: dict[str, str], name: str, word: str, url: str) -> str:
    if wanted.get(name):
        return wanted[name]
    return f"{word} ({url.partition('://')[0]}://)" if "generic" in wanted else url


def _broker_url(app: Any) -> str:
    url: str = app.connection().as_uri()
    return url
