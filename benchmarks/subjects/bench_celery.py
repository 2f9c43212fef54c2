"""The app that both implementations of the `celery` package run, and the driver that calls it.

Run inside either environment: `python bench_celery.py COMMAND ARG …` prints one JSON object.
"""

import json
import os
import statistics
import sys
import time

from celery import Celery, signals

#: Limits, receivers of signals and automatic retries, as careful projects have them.
DRESSED = bool(os.environ.get("BENCH_DRESSED"))

app = Celery("bench_celery")
app.conf.update(
    broker_url=os.environ["BENCH_BROKER"],
    result_backend=os.environ.get("BENCH_BACKEND") or None,
    task_ignore_result=not os.environ.get("BENCH_BACKEND"),
    task_acks_late=bool(os.environ.get("BENCH_LATE")),
    worker_send_task_events=bool(os.environ.get("BENCH_EVENTS")),
    broker_connection_retry_on_startup=True,
)
if os.environ["BENCH_BROKER"].startswith("sqlite") and os.environ.get("BENCH_SYNCHRONOUS"):
    app.conf.broker_transport_options = {"synchronous": os.environ["BENCH_SYNCHRONOUS"]}
if os.environ.get("BENCH_CONFIRM"):
    app.conf.broker_transport_options = {"confirm_publish": True}
if DRESSED:
    app.conf.update(task_time_limit=600, task_soft_time_limit=500, task_track_started=False)
OPTIONS = {"autoretry_for": (OSError,), "retry_backoff": True, "max_retries": 5} if DRESSED else {}


def receiver(**details):
    """What a monitoring package connects: it is called, and does next to nothing."""


if DRESSED:
    for signal in (signals.task_prerun, signals.task_postrun, signals.task_success, signals.task_failure):
        signal.connect(receiver)


@app.task(**OPTIONS)
def noop(*args):
    return None


@app.task(**OPTIONS)
def add(x, y):
    return x + y


@app.task
def xsum(numbers):
    return sum(numbers)


@app.task
def spin(seconds):
    """Keep the processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@app.task
def wait(seconds):
    time.sleep(seconds)


@app.task
def stamp(path):
    """Write when the task began."""
    now = time.time()
    with open(path, "a") as out:
        out.write(f"{now}\n")


def call(name, argument):
    task = app.tasks[f"bench_celery.{name}"]
    known = {"noop": (), "add": (2, 3), "body": ("x" * 8192,)}
    args = known[argument] if argument in known else (float(argument),)
    return task, args


def enqueue(name, argument, count):
    """`delay()` one by one; seconds for all."""
    task, args = call(name, argument)
    task.delay(*args)
    begin = time.perf_counter()
    for _ in range(int(count)):
        task.delay(*args)
    return {"seconds": time.perf_counter() - begin}


def enqueue_threads(name, argument, count, threads):
    """The same from several threads; seconds for all."""
    import threading

    task, args = call(name, argument)
    task.delay(*args)
    each = int(count) // int(threads)

    def send():
        for _ in range(each):
            task.delay(*args)

    crowd = [threading.Thread(target=send) for _ in range(int(threads))]
    begin = time.perf_counter()
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    return {"seconds": (time.perf_counter() - begin) * int(count) / (each * int(threads))}


def enqueue_groups(name, argument, count, size):
    """The same as groups of so many; seconds for all."""
    from celery import group

    task, args = call(name, argument)
    task.delay(*args)
    size = min(int(size), int(count))
    groups = [group(task.s(*args) for _ in range(size)) for _ in range(max(1, int(count) // size))]
    begin = time.perf_counter()
    for one in groups:
        one.apply_async()
    return {"seconds": (time.perf_counter() - begin) * int(count) / (size * len(groups))}


def enqueue_ids(name, argument, count, path):
    """The same, keeping the ids for `read_back`."""
    task, args = call(name, argument)
    ids = [task.delay(*args).id for _ in range(int(count))]
    with open(path, "w") as out:
        json.dump(ids, out)
    return {"count": len(ids)}


def drain_results(count, path):
    """Calls first, and says so by a file; then all results: seconds from a tenth of them to nine tenths."""
    count = int(count)
    calls = [add.delay(2, 3) for _ in range(count)]
    open(path, "w").close()
    for place, result in enumerate(calls):
        if place == count // 10:
            begin = time.perf_counter()
        assert result.get(timeout=300) == 5
        if place == count * 9 // 10:
            end = time.perf_counter()
    return {"seconds": end - begin, "read": count}


def read_back(path):
    """How many of the results are there, and right."""
    with open(path) as source:
        ids = json.load(source)
    good = sum(1 for task_id in ids if app.AsyncResult(task_id).get(timeout=10) == 5)
    return {"read": good, "of": len(ids)}


def round_trip(count):
    """`delay().get()`: milliseconds, median and 99th percentile."""
    add.delay(1, 1).get(timeout=20)
    for _ in range(20):
        add.delay(1, 1).get(timeout=20)
    times = []
    for _ in range(int(count)):
        begin = time.perf_counter()
        assert add.delay(2, 3).get(timeout=20) == 5
        times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    return {"median": statistics.median(times), "p99": times[int(len(times) * 0.99)]}


def flow(kind, count, rounds):
    """Seconds from the call of a canvas to its result, median of some rounds; the result is checked."""
    from celery import chain, chord, group

    count = int(count)
    makes = {
        "group": lambda: (group(add.s(i, i) for i in range(count)), [i + i for i in range(count)]),
        "chord": lambda: (chord((add.s(i, i) for i in range(count)), xsum.s()), count * (count - 1)),
        "chain": lambda: (chain(add.s(0, 0), *(add.s(1) for _ in range(count - 1))), count - 1),
    }
    times = []
    for turn in range(int(rounds) + 1):
        canvas, want = makes[kind]()
        begin = time.perf_counter()
        got = canvas.apply_async().get(timeout=600)
        if turn or not int(rounds):  # the first one warms both sides up
            times.append(time.perf_counter() - begin)
        assert got == want, (got, want)
    return {"seconds": statistics.median(times)}


def plain_list(count):
    """One call whose argument is a list of so many numbers, as the body of a chord gets it."""
    numbers = [*range(0, 2 * int(count), 2)]
    assert xsum.delay(numbers).get(timeout=600) == sum(numbers)
    return {}


def begin_latency(count, path):
    """From the call of `delay()` to the first line of the task, milliseconds."""
    sent = []
    for _ in range(int(count)):
        sent.append(time.time())
        stamp.delay(path)
        time.sleep(0.12)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with open(path) as source:
            begun = [float(line) for line in source]
        if len(begun) >= len(sent):
            break
        time.sleep(0.05)
    late = sorted((b - s) * 1000 for s, b in zip(sent, begun, strict=True))
    return {"median": statistics.median(late), "p99": late[int(len(late) * 0.99)]}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
