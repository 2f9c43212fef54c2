"""How many children a container gets, what a worker weighs, and tasks that leak (PAINS 40)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from tests.chaos.scene import processes, scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.conftest import MakeScene
    from tests.running import Background

    Book = Callable[[dict[str, str]], None]

#: MiB of an idle worker without user code: its main process and zygote, and each child.
BASE, EACH = 40.0, 15.0

LEAKY = """
hoard = []

@app.task(name="proj.leak", bind=True, acks_late=True, reject_on_worker_lost=True)
def leak(self):
    note("began", self.request.id)
    hoard.append(bytearray(os.urandom(1)) * (4 << 20))
    note("ended", self.request.id)
"""


def weight(worker: Background) -> float:
    """MiB that the worker's processes take together, pages that they share counted once."""
    return sum(process.memory_full_info().pss for process in processes(worker)) / (1 << 20)


def test_an_idle_worker_is_small(scene: MakeScene, book: Book) -> None:
    here = scene()
    weights = {}
    for children in (1, 4):
        worker = here.worker(f"-c {children}")
        here.until(lambda n=children, w=worker: len(processes(w)) == n + 2, "all children are there")
        weights[children] = weight(worker)
        here.workers.remove(worker)
        worker.stop()
    each = (weights[4] - weights[1]) / 3
    assert weights[1] <= BASE + EACH
    assert each <= EACH
    remarks = f"{weights[1]:.0f} MiB with one child, {each:.1f} MiB for each further one (PSS)"
    book(here.ledger.row("an idle worker, sqlite, prefork", None, remarks))


def test_a_leaking_task_is_recycled_and_nothing_is_lost(scene: MakeScene, book: Book) -> None:
    """Four megabytes stay behind each run; a child that has grown past its limit is replaced between two runs."""
    here = scene()
    with open(here.folder / "proj.py", "a") as project:
        project.write(LEAKY)
    limit = 100 << 10  # KiB
    worker = here.worker(f"-c 2 --max-memory-per-child {limit}")
    total = scaled(600, 80)
    with here.sender() as sender:
        for n in range(total):
            sender.send("proj.leak", f"t{n:04}")
    most = 0.0
    while here.ledger.lost:
        for child in processes(worker)[2:]:
            try:
                most = max(most, child.memory_info().rss / (1 << 20))
            except psutil.NoSuchProcess:
                continue
        assert worker.running, worker.output[-3000:]
    pids = {run.pid for runs in here.ledger.runs().values() for run in runs}
    assert len(pids) > 2, "no child was replaced"
    assert most < (limit >> 10) + 50
    assert not here.ledger.twice
    book(here.ledger.row("tasks that leak 4 MiB each, sqlite, prefork", None, f"{len(pids)} children; {most:.0f} MiB"))
