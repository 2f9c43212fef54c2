"""`celery worker` behind Sentinels whose master is killed while late-acknowledged tasks flow."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from celery.exceptions import OperationalError
from tests.adapters.test_redis_failover import MASTER, Fleet
from tests.running import Background, environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server]

PROJECT = """
import os
from celery import Celery

app = Celery("proj", broker=os.environ["FLEET"], backend=os.environ["FLEET"])
app.conf.update(
    broker_transport_options={"master_name": "mymaster"},
    result_backend_transport_options={"master_name": "mymaster"},
    task_acks_late=True,
)

@app.task(name="proj.write")
def write(number, path):
    with open(path, "a") as file:
        file.write(f"{number}\\n")
    return number
"""
#: Seconds of what a master had accepted that its replica may not have heard of when it was killed.
REPLICATION = 1.0


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.stop()


def test_the_master_is_killed_while_tasks_flow(fleet: Fleet, tmp_path: Path) -> None:
    """[broker.11]: nothing is lost but what the replica had not heard of; worker and client come back by themselves."""
    (tmp_path / "proj.py").write_text(PROJECT)
    note = tmp_path / "note"
    app = Celery("proj", broker=fleet.url(), backend=fleet.url(), set_as_current=False)
    app.conf.update(broker_transport_options=MASTER, result_backend_transport_options=MASTER)
    accepted: dict[int, float] = {}
    failed: list[int] = []
    enough = threading.Event()

    def publish() -> None:
        number = 0
        while not enough.wait(0.002):
            try:
                app.send_task("proj.write", (number, str(note)))
            except OperationalError:
                failed.append(number)
            else:
                accepted[number] = time.monotonic()
            number += 1

    publisher = threading.Thread(target=publish)
    with Background("celery -A proj worker -l INFO -c 2", tmp_path, environment(tmp_path, FLEET=fleet.url())) as worker:
        worker.wait_for("ready")
        publisher.start()
        try:
            wait_until(lambda: note.exists() and len(note.read_text().splitlines()) > 100, "tasks flow")
            killed = time.monotonic()
            fleet.master.stop(keep_directory=True)
            wait_until(lambda: len([at for at in accepted.values() if at > killed + 1]) > 100, "the client is back", 60)
        finally:
            enough.set()
            publisher.join(30)
        safe = {number for number, at in accepted.items() if not killed - REPLICATION < at <= killed}
        wait_until(lambda: safe <= {int(line) for line in note.read_text().splitlines()}, "every task has run", 60)
        assert app.send_task("proj.write", (-1, str(note))).get(timeout=30) == -1
        wait_until(lambda: fleet.replica.call("HLEN", "unacked") == 0, "everything is settled", 60)
    assert fleet.replica.call("LLEN", "celery") == 0
    app.close()
