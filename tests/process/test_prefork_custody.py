"""What becomes of every job when children are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from celery.concurrency.prefork import PreforkPool
from tests.contracts.pool import Bench

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

JOBS = 3000


class Killer(threading.Thread):
    """Kills processes of the pool, one every few milliseconds, at moments that do not depend on what they do.

    `pace`: seconds between two kills at most. No less than new processes take to come, or none would ever do anything:
    a fork of what runs all tests, which is large by the end, takes long on a busy machine.
    """

    def __init__(self, bench: Bench, random_: random.Random, zygote: bool, pace: float) -> None:
        super().__init__()
        self.kills = 0
        self._bench = bench
        self._random = random_
        self._zygote = zygote
        self._pace = pace
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._random.uniform(0.001, self._pace)):
            pids = self._bench.pool.pids
            if self._zygote and not self.kills % 4:
                pids = [self._bench.pool._zygote.pid]
            if pids:
                try:
                    os.kill(self._random.choice(pids), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.parametrize("zygote", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_job_ends_in_one_way_and_the_pool_tells_which(tmp_path: Path, seed: int, zygote: bool) -> None:
    """Finished: it ran, and this is its outcome. Lost: it had begun; at most one for each kill. Returned: never ran."""
    random_ = random.Random(seed)
    bench = Bench(lambda runner: PreforkPool(runner, 3), tmp_path)
    began = time.monotonic()
    bench.pool.start()
    bench.ready(3)
    killer = Killer(bench, random_, zygote, max(0.06, time.monotonic() - began))
    killer.start()
    names: dict[int, str] = {}
    try:
        while len(names) < JOBS or killer.kills < 3:
            jobs = []
            for _ in range(min(max(bench.pool.free, 0), 200) if random_.random() < 0.9 else 5):
                job = bench.job("note", str(len(names)), "x" * random_.choice([0, 0, 0, 3000]))
                names[job.key] = f"run {len(names)}"
                jobs.append(job)
            bench.submit(*jobs)
            if random_.random() < 0.01:
                bench.pool.take_back()
            held = len(names) - len(bench.told.accounted())
            bench.until(lambda held=held: len(names) - len(bench.told.accounted()) < max(held, 1), 60)
    finally:
        killer.stop()
    bench.settle(*names)
    bench.ready(3)
    # How many end well under fire depends on how fast new children come; in peace, all do, once the last kill is felt.
    for _ in range(3 + killer.kills):
        after = bench.submit(*(bench.job("noop") for _ in range(100)))
        bench.settle(*after)
        if set(after) <= set(bench.told.finished):
            break
    assert set(after) <= set(bench.told.finished)
    bench.stop()
    bench.close()

    ran = [text for _, text in bench.notes() if text.startswith("run")]
    assert len(ran) == len(set(ran)), "a job ran twice"
    told = bench.told
    assert {names[key] for key in told.finished if key in names} <= set(ran)
    assert not {names[key] for key in told.returned if key in names} & set(ran)
    # A kill of the zygote takes all three children with it.
    assert len(told.lost) <= killer.kills * (3 if zygote else 1)
    assert killer.kills > 2
    assert any(key in names for key in told.finished)


def test_nobody_waits_for_a_pipe_that_is_full(tmp_path: Path) -> None:
    """Both directions carry far more than a socket holds, and the main process does not read for a while."""
    bench = Bench(lambda runner: PreforkPool(runner, 1), tmp_path)
    bench.pool.start()
    bench.settle(*bench.submit(*(bench.job("echo", "x") for _ in range(64))))
    while bench.pool.free < 64:
        bench.settle(*bench.submit(*(bench.job("echo", "x") for _ in range(bench.pool.free))))
    keys = bench.submit(*(bench.job("echo", "x" * 200_000) for _ in range(64)))
    time.sleep(0.2)
    keys += bench.submit(*(bench.job("echo", "x" * 200_000) for _ in range(64)))
    bench.settle(*keys)
    assert all(len(bench.told.finished[key].record.meta) == 200_000 for key in keys)
    bench.close()
