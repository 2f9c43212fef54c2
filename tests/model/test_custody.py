"""What holds in every state that custody can come to, and that each mistake that could be made would be found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from celery.brokers import redis_consumer, redis_keeper
from celery.worker.consumer import deliveries, endings, engine
from tests.model.custody import Kind, Model, explore

LATE, EARLY, DELAYED = Kind(), Kind(late=False), Kind(delayed=True)
APART = Kind(joined=False)  # results are kept elsewhere
AGAIN, AGAIN_APART = Kind(retries=True, delayed=True), Kind(retries=True, joined=False)

FULL = [
    ((LATE, DELAYED), 1),
    ((LATE, EARLY), 1),
    ((AGAIN,), 1),
    ((AGAIN_APART,), 1),
    ((LATE,), 2),
]
FULLER = [((LATE, LATE), 2), ((DELAYED,), 2), ((APART, AGAIN), 1), ((EARLY,), 2), ((Kind(retries=True),), 2)]


@pytest.mark.parametrize(("kinds", "faults"), FULL + (FULLER if os.environ.get("CHAOS") else []))
@pytest.mark.slow
def test_nothing_is_lost_nothing_runs_again_by_itself_and_all_comes_to_an_end(
    kinds: tuple[Kind, ...], faults: int
) -> None:
    """Two workers, every order of every step, and as many deaths, freezes, lost answers and stops, wherever they fall.

    A message with late acknowledgement is in exactly one place until its one effective settlement; an early one is not
    lost before it has begun; what a holder with a lease holds, nobody takes; a stale holder changes nothing; what the
    dead held, somebody will look for; and the end can always be reached without waiting for the visibility timeout.
    """
    found = explore(Model(kinds, faults=faults))
    assert not found.broken, "\n".join([found.broken, *found.trace])
    assert found.states > 1000


@pytest.mark.parametrize(
    ("bug", "kind", "faults", "broken"),
    [
        ("fetch pops before it records", LATE, 1, "lost"),
        ("early messages are acknowledged when fetched", EARLY, 1, "lost"),
        ("parking acknowledges", DELAYED, 1, "lost"),
        ("acknowledged before what follows is out", AGAIN_APART, 1, "lost"),
        ("suspects are forgotten", LATE, 1, "never ends"),
        ("settle is not fenced", LATE, 1, "a stale holder changed something"),
        ("take-over without a look at the lease", LATE, 1, "taken from the living"),
        ("what is held is not scored anew", LATE, 1, "taken from the living"),
        ("strike without a look", LATE, 2, "held by nobody"),
        ("strike looks at the lease alone", LATE, 2, "held by nobody"),
        ("close gives nothing back", LATE, 1, "held by nobody"),
        ("all is dropped after a lapse", LATE, 1, "never ends"),
    ],
)
def test_each_mistake_is_found(bug: str, kind: Kind, faults: int, broken: str) -> None:
    found = explore(Model((kind,), faults=faults, bugs=frozenset([bug])))
    assert found.broken == broken
    assert found.trace


def test_rules_bear_the_names_of_what_they_stand_for() -> None:
    model = Model((LATE, AGAIN), faults=1)
    names, seen, todo = set(), {model.first()}, [model.first()]
    while todo and len(seen) < 3000:
        for name, _, _, after, _ in model.steps(todo.pop()):
            names.add(name)
            if after not in seen:
                seen.add(after)
                todo.append(after)
    lua = Path(redis_consumer.__file__).parent / "lua"
    homes = {**vars(redis_consumer), **vars(redis_keeper), **vars(deliveries), **vars(engine), **vars(endings)}
    of_fate = {"time", "lease runs out", "SIGSTOP", "SIGCONT", "kill -9", "kombu's sweep"}
    for part in {part for name in names - of_fate for part in name.split(", ")[: 2 if "Endings" in name else 1]}:
        home, _, attribute = part.partition(".")
        if attribute == "lua":
            assert (lua / part).is_file(), part
        else:
            assert not attribute or hasattr(homes[home], attribute), part
            assert home in homes, part
    assert len(names) > 15
