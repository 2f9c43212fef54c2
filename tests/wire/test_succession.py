"""Heirs: what a worker held when it was killed is run by a worker of the other Celery."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.running import wait_until
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import OURS, SIDES, THEIRS, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]
VISIBILITY = 3
CONF = json.dumps({"broker_transport_options": {"visibility_timeout": VISIBILITY}})
#: How long after its sending the delayed task is due: after the worker that has it was killed.
DELAY = 3.0


def succession(held_by: str, folder: Path) -> dict[str, Any]:
    """A worker takes messages and is killed; a worker of the other side comes. What became of the messages."""
    folder.mkdir()
    heir = THEIRS if held_by == OURS else OURS
    with RedisServer() as server:
        sides = {name: Side(name, folder, server.url(), server.url()) for name in SIDES}
        with sides[heir].client(FLEET_CONF=CONF) as client:
            first = sides[held_by].worker("-Q", "estate", FLEET_CONF=CONF)
            try:
                delayed = client.send(f"when.apply_async((), countdown={DELAY})", "estate")
                due = time.time() + DELAY
                held = client.send("linger.apply_async(('first',))", "estate")
                wait_until((folder / "first-held").exists, "the first worker to run the task")
                wait_until(lambda: server.call("HLEN", "unacked") == 2, "the first worker to hold both")
            finally:
                first.kill()
            killed = time.time()
            wait_until(lambda: time.time() > max(killed + VISIBILITY, due) + 0.3, "the visibility timeout")
            with sides[heir].worker("-Q", "estate", FLEET_CONF=CONF):
                answers = [client(f"describe({identifier!r}, 40)") for identifier in (held, delayed)]
                wait_until(lambda: server.call("HLEN", "unacked") == 0, "the heir to acknowledge")
    return {"id": held, "held": answers[0], "delayed": answers[1], "due": due, "killed": killed}


@pytest.fixture(scope="module")
def successions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Both at once: most of it is waiting."""
    folder = tmp_path_factory.mktemp("successions")
    with ThreadPoolExecutor(2) as threads:
        ran = {name: threads.submit(succession, name, folder / name) for name in SIDES}
        yield {name: future.result() for name, future in ran.items()}


@pytest.mark.parametrize("held_by", SIDES)
def test_a_running_late_task_is_run_again(successions: dict[str, dict[str, Any]], held_by: str) -> None:
    """And the task sees that it was delivered before."""
    found = successions[held_by]
    assert found["held"]["state"] == "SUCCESS"
    assert found["held"]["value"][1] == [True, found["id"]]


@pytest.mark.parametrize("held_by", SIDES)
def test_a_delayed_task_is_run_when_it_is_due(successions: dict[str, dict[str, Any]], held_by: str) -> None:
    found = successions[held_by]
    assert found["delayed"]["state"] == "SUCCESS"
    assert found["delayed"]["value"][1] > found["due"] - 0.05
