"""The same tasks for Huey: `python bench_huey.py COMMAND ARG …` prints one JSON object."""

import json
import os
import sys
import time

from huey import RedisHuey, SqliteHuey

url = os.environ["BENCH_BROKER"]
results = bool(os.environ.get("BENCH_BACKEND"))
if url.startswith("redis"):
    huey = RedisHuey("bench", url=url, results=results)
else:
    huey = SqliteHuey(
        "bench",
        filename=url.removeprefix("sqlite:///"),
        results=results,
        fsync=os.environ["BENCH_SYNCHRONOUS"] == "FULL",
    )


@huey.task()
def noop(*args):
    return None


@huey.task()
def add(x, y):
    return x + y


@huey.task()
def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@huey.task()
def wait(seconds):
    time.sleep(seconds)


def enqueue(name, argument, count):
    task = globals()[name]
    known = {"noop": (), "add": (2, 3), "body": ("x" * 8192,)}
    args = known[argument] if argument in known else (float(argument),)
    task(*args)
    begin = time.perf_counter()
    for _ in range(int(count)):
        task(*args)
    return {"seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    import bench_huey  # Huey names a task by its module: the consumer imports this one under its own name

    print(json.dumps(getattr(bench_huey, sys.argv[1])(*sys.argv[2:])))
