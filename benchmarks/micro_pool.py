"""How many no-op jobs a second a pool moves by itself: `PYTHONPATH=src python benchmarks/micro_pool.py [children]`."""

from __future__ import annotations

import select
import sys
import time

from celery.concurrency.prefork import PreforkPool
from celery.message import Message
from celery.outcome import Record, Success
from celery.ports import Job


class Noop:
    """A runner that does nothing."""

    def __init__(self, record: bool) -> None:
        self._outcome = Success(record=Record("i" * 36, "SUCCESS", b"x" * 200) if record else None, runtime=2e-5)

    def start(self, index: int) -> None: ...
    def run(self, message: Message) -> Success:
        return self._outcome

    def flush(self) -> None: ...
    def stop(self) -> None: ...


def measure(children: int, record: bool, total: int = 200_000) -> None:
    headers = {"task": "noop", "id": "0" * 36, "lang": "py", "argsrepr": "()", "kwargsrepr": "{}", "origin": "bench"}
    envelope = Message(headers, b'[[], {}, {"callbacks": null}]', properties={"reply_to": "r"}).to_envelope()
    jobs = [Job(key, Message.from_envelope(envelope)) for key in range(total)]
    pool = PreforkPool(Noop(record), children)
    pool.start()
    poll = select.poll()
    for descriptor in pool.descriptors():
        poll.register(descriptor, select.POLLIN)
    done = handed = turns = 0
    began, cpu = time.monotonic(), time.process_time()
    while done < total:
        if (free := pool.free) > 0 and handed < total:
            pool.submit(jobs[handed : handed + free])
            handed += free
        poll.poll(1000)
        done += len(pool.report().finished)
        turns += 1
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    pool.stop(time.monotonic() + 5)
    print(
        f"{children} children, {'with' if record else 'no'} records: {total / took:,.0f} jobs/s; "
        f"main process {cpu / total * 1e6:.1f} us/job, {total / turns:.0f} jobs a turn"
    )


if __name__ == "__main__":
    children = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for record in (False, True):
        measure(children, record)
