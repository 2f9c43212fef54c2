"""What a Celery makes of canvases: their JSON, the messages that they send, the results that they give. Under either.

    python tests/wire/reference/canvas_forms.py memory://

prints JSON: expression → [what it gave, the messages that went out]. Ids are numbered in the order in which they come.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from typing import Any

from celery import Celery, chain, chord, group, signals  # noqa: F401 - forms use them all
from celery._state import _task_stack
from celery.canvas import Signature, StampingVisitor, chunks, xmap, xstarmap  # noqa: F401

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

#: Expressions: canvases as JSON, what sending them gives, what running them here comes to.
FORMS = """
J(chain(a.s(1), b.s(2)))
J(group(a.s(1), b.s(2)))
J(group(x for x in [a.s(1), b.s()]))
J(group(a.s(), group(b.s(), c.s())))
J(group(a.s(1), countdown=2))
J(chord([a.s(1), b.s(2)], c.s()))
J(chord([a.s(1)], c.s(), countdown=3))
J(chord([a.s(1)]))
J(chord(a.s(), c.s()))
J(chord(chain(a.s(), b.s()), c.s()))
J(xmap(a.s(), [1, 2]))
J(xstarmap(a.s(), [(1, 2)]))
J(chunks(a.s(), [(1,), (2,), (3,)], 2))
J(chunks(a.s(), [(1,), (2,), (3,)], 2).group())
J(a.map([1, 2]))
J(a.starmap([[1], [2]]))
J(a.chunks([(1,), (2,), (3,)], 2))
J(chain(a.s(1), b.s(2), countdown=2, own=1))
J(chain())
J(chain(x for x in [a.s(1), b.s()]))
J(group().skew())
J(group(a.s(), b.s(), c.s(), d.s()).skew(1, 3, 1))
J(group(a.s(), b.s()).set(immutable=True, queue='q'))
J(chord([a.s(), b.s()], c.s()).set(immutable=True))
J(chain(a.s(), b.s()).on_error(h.s()))
J(chord([a.s(), b.s()], c.s()).on_error(h.s()))
J(chord([a.s(), b.s()], group(c.s(), d.s())).on_error(h.s()))
[J(group(a.s(), b.s()).link_error(h.s())), J(group(a.s()).link(h.s()))]
linked(group(a.s(), b.s()))
linked(chain(a.s(), b.s()))
linked(chord([a.s(), b.s()], c.s()))
linked(chord([a.s(), b.s()], group(c.s(), d.s())))
frozen(a.s(), _id='I', group_id='G', chord=d.s(), root_id='R', parent_id='P', group_index=5)
frozen(group(a.s(), b.s()))
frozen(group(a.s(1), group(b.s(2), group(c.s(), d.s())), e.s()))
frozen(chain(a.s(), b.s(), c.s()), _id='I', group_id='G', chord=d.s(), root_id='R', group_index=5)
frozen(group(chain(a.s(), b.s()), c.s()))
frozen(chain(a.s(), group(b.s(), c.s()), d.s()))
[J(x) for x in chain(a.s(), b.s(), link=h.s(), link_error=[g.s()]).unchain_tasks()]
chord([a.s(), b.s()], c.s()).__length_hint__()
chord([chain(a.s(), group(b.s(), c.s())), d.s()], e.s()).__length_hint__()
chord([chain(), a.s()], c.s()).__length_hint__()
chord([chord([a.s(), b.s()], group(c.s(), d.s()))], e.s()).__length_hint__()
[bool(group()), bool(chain()), bool(chord([])), bool(a.s()), len(group(a.s(), b.s()))]
[type(x).__name__ for x in (chain(a.s(), b.s()), chain(a.s()), chain(), group(a.s()) | b.s())]
type(chain(group(a.s(), b.s()), c.s())).__name__
[repr(chain(p.s(1), q.s(k=2))), repr(chord([p.s(1), p.s(2)], q.s(k=2)))]
[repr(chain()).split('@')[0], repr(group()), repr(chord([]))]
[repr(p.map([1])), repr(p.starmap([(1, 2)])), repr(p.chunks([(1, 2)], 3))]
sorted(Signature.TYPES)
a.map([1, 2]).apply_async()
a.map([1]).apply_async((5,), {'z': 1}, queue='q')
a.chunks([(1,), (2,), (3,)], 2).apply_async()
a.chunks([(1,), (2,), (3,)], 2)()
chunks.apply_chunks(a.s(), [(1,), (2,), (3,)], 2)
chain(a.s(1), b.s(2), c.s(3)).apply_async()
chain(a.s(1), b.s(2)).apply_async((9,), {'k': 1})
chain(a.s(1), b.s(2)).apply_async(queue='q', priority=3, task_id='tid', link=d.s(), link_error=e.s())
chain(a.s(1), b.s(2), queue='q', priority=3, headers={'X': 1}, task_id='tid').apply_async()
chain(a.s(1).set(queue='q'), task_id='x').apply_async((5,))
chain().apply_async()
chain(a.s(1), chain(b.s(), c.s())).apply_async()
chain(a.si(1), b.si(2)).apply_async((7,))
chain(a.s(1), b.s())(5)
chain(a.s(1), b.s()).delay(3)
chain(a.s(1), group()).apply_async()
chain(a.s(1), group(), b.s()).apply_async()
chain(a.s(1), b.s()).apply_async(chain=[J(e.s())])
group(a.s(1), b.s(2)).apply_async()
group(a.s(1), b.s(2)).apply_async((9,), {'z': 1}, queue='q')
group(a.s(1), b.s(2), queue='q', task_id='gid').apply_async()
group(a.s(1), b.s(2)).apply_async(task_id='gid', priority=3, headers={'X': 1})
group(a.s(1).set(queue='m', headers={'M': 2}), b.s(2)).apply_async(queue='q', headers={'X': 1})
group().apply_async()
group(a.s(1)).apply_async(link=b.s())
group(a.s(1)).apply_async(link_error=b.s())
group(a.s(1), group(b.s(2), c.s(3)), d.s()).apply_async()
group(chain(a.s(1), b.s()), chain(c.s(1), d.s())).apply_async()
group(chord([a.s(1), b.s()], c.s()), d.s()).apply_async()
group(chain(a.s(1), group(b.s(), c.s())), d.s()).apply_async()
group(a.s(1), chain(), b.s()).apply_async()
group(a.s(), b.s()).set(link=[h.s()], link_error=[g.s()]).apply_async()
group(a.s(1), b.s())(5)
chord([a.s(1), b.s(2)], c.s()).apply_async()
chord([a.s(1), b.s(2)])(c.s())
chord([a.s(1), b.s(2)], c.s())()
chord([a.s(1), b.s(2)], c.s()).delay(3)
chord([a.s(1), b.s(2)], c.s()).apply_async((7,), {'k': 2}, queue='q')
chord([a.s(1), b.s(2)], c.s(), queue='q').apply_async(priority=2, task_id='T', link=d.s(), link_error=e.s())
chord([a.s(1), b.s(2)], c.s()).apply_async(queue='q', countdown=5, headers={'X': 1}, expires=7)
chord([a.s(1), b.s(2)], c.s()).apply_async(root_id='R', parent_id='P')
chord([a.s(1), b.s(2)], c.s()).apply_async(group_id='G', chord=J(d.s()), group_index=4)
chord([a.s(1), b.s(2)], c.s()).apply_async(chain=[J(e.s())])
chord([], c.s()).apply_async((1,))
chord([a.s(1)], c.s()).apply_async()
chord([chain()], b.s()).apply_async()
chord([group(), group()], b.s()).apply_async()
chord([chain(a.s(1), b.s()), chain(c.s(1), d.s())], e.s()).apply_async()
chord([chain(a.s(), chain(b.s(), c.s()))], e.s()).apply_async()
chord([chord([a.s(1), b.s(1)], c.s()), d.s()], e.s()).apply_async()
chord([chain(a.s(1), group(b.s(), c.s()))], e.s()).apply_async()
chord([group(a.s(1), b.s(1)), d.s()], e.s()).apply_async()
chord([a.s(1), b.s(1)], chain(c.s(), d.s(), e.s())).apply_async()
chord([a.s(1), b.s(1)], group(c.s(), d.s())).apply_async()
chord([a.s(1), b.s(1)], chord([c.s(), d.s()], e.s())).apply_async()
chord([a.s(1), b.s(1)], chain(c.s(), group(d.s(), e.s()))).apply_async()
chain(a.s(1), group(b.s(), c.s())).apply_async()
chain(a.s(1), group(b.s(), c.s()), d.s()).apply_async()
chain(a.s(1), group(b.s(), c.s()), d.s(), e.s()).apply_async()
chain(a.s(1), group(b.s(), c.s()), group(d.s(), e.s())).apply_async()
chain(group(b.s(), c.s()), d.s(), e.s()).apply_async()
chain(a.s(1), chord([b.s(), c.s()], d.s()), e.s()).apply_async()
chain(a.s(), chord([b.s()], chain(c.s(), d.s())), e.s()).apply_async()
chain(a.s(1), chord([b.s()], group(c.s(), d.s())), e.s()).apply_async()
chain(a.s(1), chord([b.s()], group(c.s(), d.s())), group(e.s(), f.s())).apply_async()
(chord([a.s()], group(b.s(), c.s())) | d.s()).apply_async()
(chord([a.s()], b.s()) | chord([c.s()], d.s()) | e.s()).apply_async()
(a.s(1) | group(b.s(), c.s()) | d.s() | group(e.s(), f.s()) | g.s()).apply_async()
(group(a.s(), b.s()) | c.s() | group(d.s(), e.s()) | f.s()).apply_async()
(a.s() | group(b.s(), c.s()) | (d.s() | e.s())).apply_async()
(a.s() | group(chain(b.s(), c.s()))).apply_async()
(group() | a.s()).apply_async()
chain(a.s(), chord([c.s()], d.s())).apply_async(link=h.s(), link_error=g.s())
chain(a.s(), group(c.s(), d.s())).apply_async(link=h.s(), link_error=g.s())
again(chain(a.s(), group(b.s(), c.s()), d.s())).apply_async()
again(chord([a.s(), group(b.s(), c.s())], d.s())).apply_async()
Signature.from_dict({**bare('chord'), 'kwargs': {'header': [a.s()], 'body': b.s()}}).apply_async()
Signature.from_dict(bare('nope'))
twice(group(a.s(), b.s()))
twice(chain(a.s(), b.s()))
twice(chord([a.s(), b.s()], c.s()))
a.si(1).apply_async((2,), link=[b.s(), group(c.s(), d.s()), chain(e.s(), f.s())])
inside(lambda: a.s(1).apply_async())
inside(lambda: chain(a.s(1), b.s()).apply_async())
inside(lambda: group(a.s(1), b.s()).apply_async())
inside(lambda: chord([a.s(1), b.s()], c.s()).apply_async())
inside(lambda: group(chord([a.s()], b.s()), chain(c.s(), d.s())).apply_async())
inside(lambda: t.replace(a.s(1)))
inside(lambda: t.replace(a.s(1)), callbacks=[J(h.s())], errbacks=[J(g.s())])
inside(lambda: t.replace(a.s(1)), chord=J(f.s()), group='GG', group_index=3)
inside(lambda: t.replace(chain(a.s(1), b.s())), callbacks=[J(h.s())], errbacks=[J(g.s())])
inside(lambda: t.replace(chain(a.s(1), b.s())), chord=J(f.s()), group='GG', group_index=3)
inside(lambda: t.replace(group(a.s(1), b.s())), callbacks=[J(h.s())], errbacks=[J(g.s())])
inside(lambda: t.replace(group(a.s(1), b.s())), chord=J(f.s()), group='GG', group_index=3)
inside(lambda: t.replace(chain(a.s(1), group(b.s(), c.s()))), chord=J(f.s()), group='GG', group_index=3)
inside(lambda: t.replace(chord([a.s(1), b.s()], c.s())), replaced_task_nesting=2)
stamped(a.s(1), k='v')
stamped(linked(a.s(1), whole=True), k='v')
stamped(linked(a.s(1), whole=True), Visitor())
stamped(chain(a.s(), b.s()), Visitor(), k='v')
stamped(group(a.s(), group(b.s())), Visitor())
stamped(chord([a.s(), b.s()], c.s()), k='v')
stamped(a.map([1]), Visitor())
stamped(a.s(1), Chosen())
stamped(a.s(1), Nothing())
[J(a.s().stamp(x=1).stamp(append_stamps=True, x=2)), J(a.s().stamp(x=1).stamp(x=[3])), J(a.s().stamp(x=1).stamp(y=2))]
stamped_sent(chain(a.s(), group(b.s(), c.s()), d.s()), Visitor())
stamped_sent(group(x for x in (a.s(), b.s())), Visitor())
a.s(1).stamp(k='v').apply_async(k='other', stamped_headers=['k'])
here(chain(inc.s(1), inc.s(2)))
here(group(inc.s(1), group(inc.s(2), inc.s(3)), chain(inc.s(1), inc.s(1))))
here(chord([inc.s(1), inc.s(2)], total.s()))
here(chain(inc.s(1), group(inc.s(2), inc.s(3))))
here(chord([inc.s(1), inc.s(2)], group(ls.s(), ls.s(7))))
here(chord([chord([inc.s(1), inc.s(2)], total.s()), inc.s(5)], ls.s()))
here(group())
here(chord([], ls.s()))
here(inc.chunks([(1, 2), (3, 4), (5, 6)], 2).group())
here(inc.starmap([(1, 2)]))
here(chain(inc.s(1), boom.s(), inc.s(1)))
here(group(inc.s(1), boom.s()))
here(chord([inc.s(1), boom.s()], total.s()))
here(chain(inc.s(1), ign.s(), inc.s(1)))
chain().apply()
here(hand.s('task'))
here(hand.s('group'))
here(chain(hand.s('group'), total.s()))
always(lambda: chain(inc.s(1), inc.s(2)).apply_async())
always(lambda: group(inc.s(1), inc.s(2)).apply_async())
always(lambda: chord([inc.s(1), inc.s(2)], total.s()).apply_async())
always(lambda: inc.chunks([(1, 2), (3, 4)], 1).apply_async())
""".strip().splitlines()

app = Celery("p", broker="memory://", backend=sys.argv[1], set_as_current=True)
sent: list[Any] = []


def simple(name: str) -> Any:
    @app.task(name=name)
    def task(*args: Any, **kwargs: Any) -> str:
        return name

    return task


a, b, c, d, e, f, g, h = (simple(name) for name in "abcdefgh")
p, q = simple("mod.p"), simple("mod.q")


@app.task(name="inc")
def inc(x: int, y: int = 1) -> int:
    return x + y


@app.task(name="total")
def total(values: list[int]) -> int:
    return sum(values)


@app.task(name="ls")
def ls(*args: Any) -> list[Any]:
    return list(args)


@app.task(name="boom")
def boom(*args: Any) -> None:
    raise ValueError("boom")


@app.task(name="ign")
def ign(*args: Any) -> None:
    from celery.exceptions import Ignore

    raise Ignore


@app.task(bind=True, name="hand")
def hand(self: Any, kind: str) -> Any:
    return self.replace(inc.s(1) if kind == "task" else group(inc.s(1), inc.s(5)))


@app.task(bind=True, name="t")
def t(self: Any) -> None:
    """A task to be inside of."""


class Visitor(StampingVisitor):
    """Stamps everything, and remembers where it was."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_signature(self, sig: Any, **headers: Any) -> Any:
        self.seen.append(["signature", sig.task, sorted(headers)])
        return {"s": sig.task}

    def on_group_start(self, sig: Any, **headers: Any) -> Any:
        self.seen.append(["group", sorted(headers)])
        return {"in_group": 1}

    def on_group_end(self, sig: Any, **headers: Any) -> None:
        self.seen.append(["end of group", sorted(headers)])

    def on_chain_start(self, sig: Any, **headers: Any) -> Any:
        self.seen.append(["chain", sorted(headers)])
        return {"in_chain": 1}

    def on_chain_end(self, sig: Any, **headers: Any) -> None:
        self.seen.append(["end of chain", sorted(headers)])

    def on_chord_body(self, sig: Any, **header: Any) -> Any:
        self.seen.append(["body", sorted(header)])
        return {"body": 1}

    def on_callback(self, callback: Any, **header: Any) -> Any:
        self.seen.append(["callback", callback.task, sorted(header)])
        return {"back": "call"}

    def on_errback(self, errback: Any, **header: Any) -> Any:
        self.seen.append(["errback", errback.task, sorted(header)])
        return {"back": "err"}


class Chosen(StampingVisitor):
    def on_signature(self, sig: Any, **headers: Any) -> Any:
        return {"m": 1, "plain": 5, "stamped_headers": ["m"]}


class Nothing(StampingVisitor):
    def on_signature(self, sig: Any, **headers: Any) -> Any:
        return None


def J(value: Any) -> Any:  # noqa: N802 - stands in every other line
    return json.loads(
        json.dumps(value, default=lambda left: left.__json__() if hasattr(left, "__json__") else repr(left))
    )


def shape(result: Any) -> Any:
    return [type(result).__name__, J(result.as_tuple())] if hasattr(result, "as_tuple") else result


def linked(canvas: Any, whole: bool = False) -> Any:
    found = [canvas.link(h.s()), canvas.link_error(g.s())]
    return canvas if whole else J([*found, canvas])


def frozen(canvas: Any, **ids: Any) -> Any:
    return [shape(canvas.freeze(**ids)), J(canvas)]


def again(canvas: Any) -> Any:
    return Signature.from_dict(J(canvas))


def bare(kind: str) -> dict[str, Any]:
    return {"task": f"celery.{kind}", "args": (), "kwargs": {}, "options": {}, "subtask_type": kind}


def twice(canvas: Any) -> Any:
    canvas.freeze()
    return canvas.apply_async()


def stamped(canvas: Any, visitor: Any = None, **headers: Any) -> Any:
    canvas.stamp(visitor, **headers)
    return [getattr(visitor, "seen", None), J(canvas)]


def stamped_sent(canvas: Any, visitor: Any) -> Any:
    canvas.stamp(visitor)
    return canvas.apply_async()


def inside(act: Any, **said: Any) -> Any:
    """Do it in a run of the task `t`. Gives its children, and what was raised."""
    request = {
        "id": "ME", "task": "t", "root_id": "ROOT", "parent_id": "PARENT", "called_directly": False, "args": [],
        "kwargs": {}, "delivery_info": {}, **said,
    }  # fmt: skip
    raised = None
    _task_stack.push(t)
    t.request_stack.push(type(t.request)(request))
    try:
        act()
    except Exception as exc:  # noqa: BLE001 - compared
        raised = repr(exc)
    children = [shape(child) for child in t.request.children]
    t.request_stack.pop()
    _task_stack.pop()
    return [children, raised]


def here(canvas: Any) -> Any:
    return finished(canvas.apply())


def finished(result: Any) -> Any:
    try:
        value = result.get(disable_sync_subtasks=False)
    except Exception as exc:  # noqa: BLE001 - compared
        value = repr(exc)
    return [shape(result), value, getattr(result, "state", None)]


def always(call: Any) -> Any:
    app.conf.task_always_eager = True
    try:
        return finished(call())
    finally:
        app.conf.task_always_eager = False


@signals.before_task_publish.connect
def note(headers: Any = None, body: Any = None, properties: Any = None, routing_key: Any = None, **_: Any) -> None:
    dates = {name: bool(headers[name]) for name in ("eta", "expires")}
    sent.append(
        J([{**headers, **dates, "origin": "", "queue": routing_key, "priority": properties.get("priority")}, body])
    )


def numbered(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        named = {key: value[key] for key in sorted(value)}
        return {key: "OID" if key == "reply_to" else numbered(item, ids) for key, item in named.items()}
    if isinstance(value, list | tuple):
        return [numbered(item, ids) for item in value]
    return ID.sub(lambda found: ids.setdefault(found[0], f"id{len(ids)}"), value) if isinstance(value, str) else value


def capture(form: str) -> Any:
    sent.clear()
    try:
        found = shape(eval(form, globals()))
    except Exception as exc:  # noqa: BLE001 - compared
        found = f"{type(exc).__name__}: {exc}"
    return numbered([found, sent], {})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    json.dump({form: capture(form) for form in FORMS}, sys.stdout, default=repr)
