"""What is measured, one function a scenario; each gives rows with the ratio that its goal speaks of."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import (
    SUBJECTS,
    Subject,
    Worker,
    cpu_seconds,
    delay_proxy,
    pss,
    redis_server,
    until,
)  # fmt: skip
from benchmarks.rabbit import rabbit
from benchmarks.report import Row


@dataclass
class Session:
    subjects: dict[str, Subject]
    rounds: int
    scale: float
    say: Callable[[str], None]

    def interleaved(self, what: str, names: list[str], measure: Callable[[str], float]) -> dict[str, float]:
        """Medians over rounds in which the subjects take turns."""
        seen: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(self.rounds):
            for name in names:
                seen[name].append(measure(name))
                self.say(f"{what}: {name}, round {turn + 1}: {seen[name][-1]:,.1f}")
        return {name: statistics.median(values) for name, values in seen.items()}

    def paired(
        self, what: str, names: tuple[str, str], measure: Callable[[str], float], rounds: int
    ) -> tuple[dict[str, float], float]:
        """Medians, and the median of the ratios of two that follow each other at once, in changing order: for what
        depends on a disk, whose speed changes by the minute."""
        seen: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(max(2, int(rounds * self.scale))):
            for name in names if turn % 2 else reversed(names):
                seen[name].append(measure(name))
            ours, other = (seen[name][-1] for name in names)
            self.say(f"{what}: round {turn + 1}: {ours:,.0f} to {other:,.0f}, {ours / other:.2f}")
        ratio = statistics.median(ours / other for ours, other in zip(*seen.values(), strict=True))
        return {name: statistics.median(values) for name, values in seen.items()}, ratio

    def count(self, name: str, ours: int, others: int) -> int:
        return max(100, int((ours if name == "ours" else others) * self.scale))


def _redis(port: int) -> object:
    import redis

    return redis.Redis(port=port)


def _environment(
    port: int, *, results: bool = False, late: bool = False, dressed: bool = False, events: bool = False
) -> dict[str, str]:
    url = f"redis://127.0.0.1:{port}/0"
    return {
        "BENCH_BROKER": url,
        "BENCH_BACKEND": url if results else "",
        "BENCH_LATE": "1" if late else "",
        "BENCH_DRESSED": "1" if dressed else "",
        "BENCH_EVENTS": "1" if events else "",
    }


def _waiting(client: object, name: str) -> int:
    queue = "huey.redis.bench" if name == "huey" else "celery"
    return client.llen(queue) + client.hlen("unacked")  # type: ignore[attr-defined, no-any-return]


def _preload(session: Session, subject: Subject, env: dict[str, str], client: object, argument: str, n: int) -> None:
    """Put n messages on the queue: a few through `delay()`, the rest as copies of those with ids of their own."""
    subject.drive(env, "enqueue", _task_of(argument), argument, min(n, 2000) - 1)
    queue = "huey.redis.bench" if subject.name == "huey" else "celery"
    have = client.lrange(queue, 0, -1)  # type: ignore[attr-defined]
    missing = n - len(have)
    while missing > 0:
        batch = [_renamed(raw, subject.name) for raw in have[: min(missing, 500)]]
        client.lpush(queue, *batch)  # type: ignore[attr-defined]
        missing -= len(batch)


def _renamed(raw: bytes, name: str) -> bytes:
    if name == "huey":
        return raw
    task_id = json.loads(raw)["headers"]["id"].encode()
    fresh = (os.urandom(4).hex() + task_id.decode()[8:]).encode()
    return raw.replace(task_id, fresh)


def _task_of(argument: str) -> str:
    return {"noop": "noop", "add": "add", "body": "noop", "0.001": "spin", "0.01": "wait"}[argument]


def _drain(
    session: Session, name: str, port: int, *, level: str = "WARNING", argument: str = "noop", n: int,
    results: bool = False, late: bool = False, dressed: bool = False, events: bool = False, concurrency: int = 2,
    via: int | None = None,
) -> float:  # fmt: skip
    """Tasks a second while a full queue is emptied; checks the log lines and, with results, every result."""
    client = _redis(port)
    client.flushall()  # type: ignore[attr-defined]
    subject = session.subjects[name]
    asked = {"results": results, "late": late, "dressed": dressed, "events": events}
    _preload(session, subject, _environment(port, **asked), client, argument, n)
    worker = Worker(subject, _environment(via or port, **asked), concurrency, level)
    worker.start()
    try:
        until(lambda: _waiting(client, name) < n, 60, f"{name} to begin", every=0.002)
        begin, left = time.perf_counter(), _waiting(client, name)
        until(lambda: _waiting(client, name) == 0, 300, f"{name} to drain", every=0.002)
        rate = left / (time.perf_counter() - begin)
        if level == "INFO":
            _check_log(worker, name, n)
        if results:
            _check_results(client, name, n)
    finally:
        worker.stop()
        worker.close()
    return rate


def _check_log(worker: Worker, name: str, n: int) -> None:
    words = ("Executing", "executed in") if name == "huey" else ("received", "succeeded in")

    def lines() -> tuple[int, ...]:
        text = worker.log.read_text()
        return tuple(text.count(word) for word in words)

    until(lambda: all(found >= n for found in lines()), 10, f"{name}'s two log lines a task ({lines()} of {n})", 0.1)


def _check_results(client: object, name: str, n: int) -> None:
    def stored() -> int:
        return (
            client.hlen("huey.results.bench")
            if name == "huey"
            else len(list(client.scan_iter("celery-task-meta-*", 5000)))
        )  # type: ignore[attr-defined]

    if name == "huey":
        return
    until(lambda: stored() >= n, 20, f"{n} results of {name}", 0.2)
    for key in client.scan_iter("celery-task-meta-*", 5000):  # type: ignore[attr-defined]
        document = json.loads(client.get(key))  # type: ignore[attr-defined]
        assert document["status"] == "SUCCESS", document


def enqueue(session: Session) -> list[Row]:
    """`delay()` one by one, beside Huey and a bare redis-py LPUSH of the same bytes."""
    names = ["ours", "celery", "huey", "bare LPUSH"]
    with redis_server() as port:
        client = _redis(port)

        def measure(name: str) -> float:
            client.flushall()  # type: ignore[attr-defined]
            n = session.count(name, 5_000, 5_000)  # the same for all: a longer queue costs the server more
            if name == "bare LPUSH":
                session.subjects["ours"].drive(_environment(port), "enqueue", "noop", "noop", 1)
                raw = client.lindex("celery", 0)  # type: ignore[attr-defined]
                begin = time.perf_counter()
                for _ in range(n):
                    client.lpush("celery", raw)  # type: ignore[attr-defined]
                return n / (time.perf_counter() - begin)
            return n / float(session.subjects[name].drive(_environment(port), "enqueue", "noop", "noop", n)["seconds"])

        values = session.interleaved("delay()", names, measure)
    to_celery, to_bare = values["ours"] / values["celery"], values["ours"] / values["bare LPUSH"]
    to_huey = values["ours"] / values["huey"]
    return [
        Row("`delay()` one by one", "calls/s", values, "≥ 5× Celery or ≥ 0.9× bare LPUSH; ≥ 1.3× Huey",
            f"{to_celery:.1f}×, {to_bare:.2f}× bare, {to_huey:.2f}× Huey",
            (to_celery >= 5 or to_bare >= 0.9) and to_huey >= 1.3)
    ]  # fmt: skip


def drain(session: Session) -> list[Row]:
    """A full queue of no-op tasks, with and without results, WARNING and INFO."""
    return _drains(session, dressed=False)


def dressed(session: Session) -> list[Row]:
    """The same with both time limits, receivers of four signals and automatic retries in place, on both sides."""
    return _drains(session, dressed=True)


def _drains(session: Session, *, dressed: bool) -> list[Row]:
    rows = []
    with redis_server() as port:
        for results, level, goal, huey_goal in (
            (False, "WARNING", 30, 2), (False, "INFO", 20, 2), (True, "WARNING", 22, 0), (True, "INFO", 15, 0),
        ):  # fmt: skip
            what = f"drain, {'results in Redis' if results else 'no results'}, {level}"
            what += ", limits, signals and retries in place" if dressed else ""
            names = ["ours", "celery", "huey"] if huey_goal and not dressed else ["ours", "celery"]
            values = session.interleaved(
                what,
                names,
                lambda name: _drain(
                    session,
                    name,
                    port,
                    level=level,
                    results=results,
                    dressed=dressed,
                    argument="add" if results else "noop",
                    n=session.count(name, 60_000, 4_000),
                ),
            )
            ratio = values["ours"] / values["celery"]
            text, met, wanted = f"{ratio:.1f}×", ratio >= goal, f"≥ {goal}×"
            if "huey" in names:
                to_huey = values["ours"] / values["huey"]
                text, met = f"{text}, {to_huey:.2f}× Huey", met and to_huey >= huey_goal
                wanted += f"; ≥ {huey_goal}× Huey"
            rows.append(Row(what, "tasks/s", values, wanted, text, met))
    return rows


def late(session: Session) -> list[Row]:
    """Late acknowledgement beside early, in turn."""
    with redis_server() as port:
        values = session.interleaved(
            "acknowledgement", ["early", "late"],
            lambda name: _drain(session, "ours", port, late=name == "late", n=session.count("ours", 60_000, 0)),
        )  # fmt: skip
    ratio = values["late"] / values["early"]
    return [Row("the same with `task_acks_late` (no results, WARNING)", "tasks/s", values, "within 10 % of early",
                f"{ratio:.2f}× early", ratio >= 0.9)]  # fmt: skip


def events(session: Session) -> list[Row]:
    """With events beside without, in turn; nobody listens, as in most fleets most of the time."""
    rows = []
    with redis_server() as port:
        for name, n in (("ours", 100_000), ("celery", 3_000)):
            values = session.interleaved(
                f"events, {name}", ["without", "with -E"],
                lambda way: _drain(session, name, port, events=way == "with -E", n=session.count(name, n, n)),
            )  # fmt: skip
            ratio = values["with -E"] / values["without"]
            goal, met = ("within 10 % of without", ratio >= 0.9) if name == "ours" else ("", None)
            who = "" if name == "ours" else ", Celery 5.7"
            rows.append(Row(f"drain with events (no results, WARNING){who}", "tasks/s", values, goal,
                            f"{ratio:.2f}× without", met))  # fmt: skip
    return rows


def shapes(session: Session) -> list[Row]:
    """Tasks of 1 ms, waits of 10 ms at `-c 10`, bodies of 8 kB."""
    rows = []
    with redis_server() as port:
        for argument, what, concurrency, goal, ours, others in (
            ("0.001", "tasks of 1 ms", 2, 1.5, 8_000, 3_000),
            ("0.01", "waits of 10 ms, `-c 10`", 10, 1.0, 4_000, 3_000),
            ("body", "bodies of 8 kB", 2, 8.0, 40_000, 3_000),
        ):
            values = session.interleaved(
                what, ["ours", "celery"],
                lambda name: _drain(session, name, port, argument=argument, concurrency=concurrency,
                                    n=session.count(name, ours, others)),
            )  # fmt: skip
            ratio = values["ours"] / values["celery"]
            rows.append(Row(what, "tasks/s", values, f"≥ {goal:g}×", f"{ratio:.1f}×", ratio >= goal))
    return rows


def round_trip(session: Session) -> list[Row]:
    """`delay().get()` on an idle worker."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "celery": []}
    with redis_server() as port:
        for _ in range(session.rounds):
            for name, answers in found.items():
                _redis(port).flushall()  # type: ignore[attr-defined]
                env = _environment(port, results=True)
                worker = Worker(session.subjects[name], env)
                worker.start()
                try:
                    answers.append(session.subjects[name].drive(env, "round_trip", session.count(name, 2000, 1000)))
                finally:
                    worker.stop()
                    worker.close()
                session.say(f"round trip: {name}: {answers[-1]}")
    rows = []
    for figure in ("median", "p99"):
        values = {name: statistics.median(a[figure] for a in answers) for name, answers in found.items()}
        ratio = values["ours"] / values["celery"]
        rows.append(Row(f"round trip `delay().get()`, {figure}", "ms", values, "≤ 0.5×", f"{ratio:.2f}×", ratio <= 0.5))
    return rows


def flows(session: Session) -> list[Row]:
    """Canvases from the call to the result: a group, a chord, a chain; and a chord of 100,000 of ours alone."""
    rows = []
    with redis_server() as port:
        for kind, count, goal in (("group", 1000, 8), ("chord", 1000, 10), ("chain", 50, 2)):
            what = f"{kind} of {count:,} and its result"
            values = session.interleaved(
                what, ["ours", "celery"], lambda name: _flow(session, name, port, kind, count, 3)
            )
            ratio = values["celery"] / values["ours"]
            rows.append(Row(what, "s", values, f"≥ {goal}×", f"{ratio:.1f}×", ratio >= goal))
        rows.append(_large_chord(session, port, int(100_000 * session.scale)))
    return rows


def _flow(session: Session, name: str, port: int, kind: str, count: int, rounds: int) -> float:
    """Seconds of one canvas."""
    _redis(port).flushall()  # type: ignore[attr-defined]
    subject, env = session.subjects[name], _environment(port, results=True)
    worker = Worker(subject, env)
    worker.start()
    try:
        return float(subject.drive(env, "flow", kind, count, rounds, timeout=900)["seconds"])
    finally:
        worker.stop()
        worker.close()


def _large_chord(session: Session, port: int, count: int) -> Row:
    """Seconds of one chord of ours, and by how many MB the main process and its one child have grown afterwards.

    A chord of a fifth opens the window of messages that a worker holds, which does not depend on how many there are.
    What the list of all results costs a child is measured before, as the argument of a plain call.
    """
    _redis(port).flushall()  # type: ignore[attr-defined]
    subject, env = session.subjects["ours"], _environment(port, results=True)
    worker = Worker(subject, env, concurrency=1)
    worker.start()
    try:
        subject.drive(env, "flow", "chord", max(count // 5, 10), 0, timeout=900)
        assert worker.process is not None
        main = worker.process.pid
        below = [pid for pid in worker.tree() if pid != main]
        first = pss([main]), pss(below)
        subject.drive(env, "plain_list", count)
        plain = pss(below) - first[1]
        seconds = float(subject.drive(env, "flow", "chord", count, 0, timeout=900)["seconds"])
        time.sleep(5)  # what is free goes back to the system every two seconds
        grown = pss([main]) - first[0]
        text = f"main {grown:+.1f} MB; child {pss(below) - first[1]:+.1f} MB, of which the plain list {plain:+.1f}"
    finally:
        worker.stop()
        worker.close()
    return Row(f"chord of {count:,} and its result", "s", {"ours": seconds}, "memory flat", text, grown < 16)


def footprint(session: Session) -> list[Row]:
    """Memory and processor of an idle worker; how long a fresh process takes until it can send."""
    names = ["ours", "celery"]
    idle: dict[str, list[float]] = {name: [] for name in names}
    with redis_server() as port:

        def memory(name: str) -> float:
            worker = Worker(session.subjects[name], _environment(port))
            worker.start()
            try:
                until(lambda: len(worker.tree()) >= 3, 30, "children")
                time.sleep(4)
                before, at = cpu_seconds(worker.tree()), time.perf_counter()
                time.sleep(max(2.0, 10 * session.scale))
                idle[name].append((cpu_seconds(worker.tree()) - before) / (time.perf_counter() - at) * 100)
                return pss(worker.tree())
            finally:
                worker.stop()
                worker.close()

        values = session.interleaved("PSS of an idle worker", names, memory)

    def start_up(name: str) -> float:
        subject = session.subjects[name]
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            subprocess.run(
                [subject.python, str(SUBJECTS / "start_up.py")], check=True, cwd=SUBJECTS, env=subject.environment({})
            )
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:])  # the first one may compile

    starts = session.interleaved("fresh process", names, start_up)
    ratio, faster = values["ours"] / values["celery"], starts["ours"] / starts["celery"]
    busy = {name: statistics.median(shares) for name, shares in idle.items()}
    return [
        Row("idle worker's memory (PSS of the tree)", "MB", values, "≤ 0.7×", f"{ratio:.2f}×", ratio <= 0.7),
        Row("idle worker's processor", "% of a core", busy, "< 1 %", f"{busy['ours']:.2f} %", busy["ours"] < 1),
        Row("fresh process ready to send", "s", starts, "≤ 0.7×", f"{faster:.2f}×", faster <= 0.7),
    ]


def latency(session: Session) -> list[Row]:
    """How soon an idle worker begins a new task."""
    rows = []
    with redis_server() as port, tempfile.TemporaryDirectory() as folder:
        for what, goal, env in (
            ("Redis", 5, _environment(port)),
            ("SQLite", 30, {"BENCH_BROKER": f"sqlite:///{folder}/latency.sqlite3"}),
        ):
            found = []
            for turn in range(session.rounds):
                path = Path(folder) / f"{what}-{turn}"
                path.touch()
                worker = Worker(session.subjects["ours"], env)
                worker.start()
                try:
                    until(lambda: len(worker.tree()) >= 3, 30, "children")
                    time.sleep(2)
                    found.append(session.subjects["ours"].drive(env, "begin_latency", 60, path))
                finally:
                    worker.stop()
                    worker.close()
                session.say(f"begin on {what}: {found[-1]}")
            median = statistics.median(a["median"] for a in found)
            rows.append(Row(f"idle worker begins a new task, {what}", "ms", {"ours": median}, f"≤ {goal} ms (median)",
                            f"p99 {statistics.median(a['p99'] for a in found):.1f} ms", median <= goal))  # fmt: skip
    return rows


def distance(session: Session) -> list[Row]:
    """2 ms added to each round trip to the broker."""
    with redis_server() as port, delay_proxy(port, 0) as near, delay_proxy(port, 2000) as far:
        ports = {"0 ms": near, "2 ms": far}
        values = session.interleaved(
            "distance", list(ports),
            lambda way: _drain(session, "ours", port, via=ports[way], n=session.count("ours", 300_000, 0)),
        )  # fmt: skip
    ratio = values["2 ms"] / values["0 ms"]
    return [Row("drain with 2 ms added to each round trip", "tasks/s", values, "within 25 % of 0 ms", f"{ratio:.2f}×",
                ratio >= 0.75)]  # fmt: skip


def sqlite(session: Session) -> list[Row]:
    """The embedded broker beside Huey's, at the same `synchronous` setting."""
    rows = []
    for mode in ("FULL", "OFF"):
        folder = Path(tempfile.mkdtemp(prefix="bench-sqlite-"))
        try:
            rows.extend(_sqlite_rows(session, mode, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return rows


def _sqlite_rows(session: Session, mode: str, folder: Path) -> list[Row]:
    def env(name: str) -> dict[str, str]:
        return {"BENCH_BROKER": f"sqlite:///{folder}/{name}.sqlite3", "BENCH_BACKEND": "", "BENCH_SYNCHRONOUS": mode}

    def fresh(name: str) -> None:
        for old in folder.glob(f"{name}.sqlite3*"):
            old.unlink()

    def send(name: str) -> float:
        fresh(name)
        n = session.count(name, 2_500, 2_500)
        return n / float(session.subjects[name].drive(env(name), "enqueue", "noop", "noop", n)["seconds"])

    def empty(name: str) -> float:
        fresh(name)
        n = session.count(name, 10_000, 5_000)
        session.subjects[name].drive(env(name), "enqueue", "noop", "noop", n - 1)
        worker = Worker(session.subjects[name], env(name))
        worker.start()
        try:
            until(lambda: _rows(folder, name) < n, 60, f"{name} to begin", 0.002)
            begin, left = time.perf_counter(), _rows(folder, name)
            until(lambda: _rows(folder, name) == 0, 120, f"{name} to drain", 0.005)
            return left / (time.perf_counter() - begin)
        finally:
            worker.stop()
            worker.close()

    rows = []
    for what, measure in (("`delay()`", send), ("drain, 2 processes", empty)):
        values, ratio = session.paired(f"SQLite {mode} {what}", ("ours", "huey"), measure, 20 if measure is send else 4)
        rows.append(
            Row(f"SQLite, synchronous={mode}: {what}", "/s", values, "≥ 1× Huey", f"{ratio:.2f}× Huey", ratio >= 1)
        )
    return rows


def _rows(folder: Path, name: str) -> int:
    import sqlite3

    with sqlite3.connect(folder / f"{name}.sqlite3", timeout=30) as connection:
        table = "task" if name == "huey" else "messages"
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def profile(session: Session) -> list[Row]:
    """Where the microseconds of a task go: processor time by process while a queue is drained, and by step."""
    rows = []
    with redis_server() as port:
        for results, level in ((False, "WARNING"), (True, "INFO")):
            found: dict[str, list[float]] = {"main process": [], "children": [], "Redis": []}
            for _ in range(session.rounds):
                for name, spent in _spent(session, port, results, level).items():
                    found[name].append(spent)
            values = {name: statistics.median(spent) for name, spent in found.items()}
            what = f"processor time a task, {'results' if results else 'no results'}, {level}"
            rows.append(Row(what, "µs", values, "≤ 80 µs in all", f"{sum(values.values()):.0f} µs", None))
            session.say(f"{what}: {values}")
    steps = session.subjects["ours"].drive({}, driver="steps.py")
    rows += [Row(f"step: {name}", "µs", {"ours": spent}, "", "", None) for name, spent in steps.items()]
    return rows


def _spent(session: Session, port: int, results: bool, level: str) -> dict[str, float]:
    client = _redis(port)
    client.flushall()  # type: ignore[attr-defined]
    subject, env = session.subjects["ours"], _environment(port, results=results)
    n = session.count("ours", 60_000, 0)
    _preload(session, subject, env, client, "add" if results else "noop", n)
    worker = Worker(subject, env, 2, level)
    worker.start()
    try:
        until(lambda: _waiting(client, "ours") < n, 60, "ours to begin", every=0.002)
        assert worker.process is not None
        server = int(client.info()["process_id"])  # type: ignore[attr-defined]
        main, others = worker.process.pid, [pid for pid in worker.tree() if pid != worker.process.pid]
        before, left = [cpu_seconds([main]), cpu_seconds(others), cpu_seconds([server])], _waiting(client, "ours")
        until(lambda: _waiting(client, "ours") == 0, 300, "ours to drain", every=0.02)
        after = [cpu_seconds([main]), cpu_seconds(others), cpu_seconds([server])]
    finally:
        worker.stop()
        worker.close()
    names = ("main process", "children", "Redis")
    return {name: (b - a) / left * 1e6 for name, a, b in zip(names, before, after, strict=True)}


ALL: dict[str, Callable[[Session], list[Row]]] = {
    "enqueue": enqueue,
    "drain": drain,
    "dressed": dressed,
    "late": late,
    "events": events,
    "shapes": shapes,
    "round_trip": round_trip,
    "flows": flows,
    "footprint": footprint,
    "latency": latency,
    "distance": distance,
    "sqlite": sqlite,
    "rabbit": rabbit,
    "profile": profile,
}
