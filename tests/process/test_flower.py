"""Flower, as other people made it: it sees our workers, tasks and queues, and what it tells workers to do is done."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.process.project import Project
from tests.running import Background, wait_until
from tests.servers import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server, pytest.mark.xdist_group("flower")]

SOURCE = """
import time
from celery import Celery

app = Celery("proj", broker=URL, backend=URL)
app.conf.task_send_sent_event = True
app.conf.worker_pool_restarts = True


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise ValueError("on purpose")


@app.task
def wait(seconds):
    time.sleep(seconds)


@app.task
def outer(n):
    add.delay(n, n)
"""


class Scene:
    """Two workers, and Flower at their side."""

    def __init__(self, project: Project, workers: dict[str, Background]) -> None:
        self.project = project
        self.workers = workers
        self.port = free_port()
        self.flower = self.start()

    def start(self) -> Background:
        """Start Flower; it keeps what it knows in a file."""
        flower = Background(
            f"celery -A proj flower --address=127.0.0.1 --port={self.port} --persistent=True --db={self.project.folder}"
            "/flower --state_save_interval=200",
            self.project.folder,
            self.project.variables,
        )
        flower.wait_for("Registered tasks")
        return flower

    def get(self, path: str, **query: str) -> Any:
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: Any = None, **query: str) -> Any:
        return self._ask("POST", path, query, json.dumps(body or {}).encode())

    def _ask(self, method: str, path: str, query: dict[str, str], body: bytes | None) -> Any:
        url = f"http://127.0.0.1:{self.port}{urllib.parse.quote(path)}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
                return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{method} {url}: {exc.code} {exc.read().decode()}\n{self.flower.output}") from exc

    def task(self, uuid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/api/tasks").get(uuid, {})
        return found

    def worker(self, name: str) -> dict[str, Any]:
        """What it says of itself, asked anew."""
        found: dict[str, Any] = self.get("/api/workers", refresh="1", workername=name).get(name, {})
        return found

    def ends_as(self, uuid: str, state: str) -> dict[str, Any]:
        wait_until(lambda: self.task(uuid).get("state") == state, f"{uuid} is {state} in Flower")
        return self.task(uuid)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("flower")
    with RedisServer() as server:
        project = Project(folder, SOURCE, server.url(), FLOWER_UNAUTHENTICATED_API="true")
        workers = {name: project.worker(f"-E -c 2 -l INFO -n {name}") for name in ("w1@here", "w2@here")}
        for worker in workers.values():
            worker.wait_for(r"ready\.$")
        scene = Scene(project, workers)
        try:
            wait_until(lambda: len(scene.get("/api/workers", refresh="1")) == 2, "both workers")
            yield scene
        finally:
            scene.flower.stop()
            for worker in workers.values():
                worker.stop()


def test_it_shows_workers(scene: Scene) -> None:
    assert scene.get("/healthcheck") == "OK"
    shown = scene.worker("w1@here")
    assert [queue["name"] for queue in shown["active_queues"]] == ["celery"]
    assert set(shown["registered"]) >= {"proj.add", "proj.fail", "proj.wait"}
    assert shown["stats"]["pool"]["max-concurrency"] == 2
    assert shown["conf"]["task_send_sent_event"] is True
    wait_until(lambda: len(scene.get("/workers", json="1")["data"]) == 2, "two rows in the table of workers")
    for row in scene.get("/workers", json="1")["data"]:
        assert row["status"] is True
        assert row["sw_ident"] == "py-celery"
    for name in ("w1@here", "w2@here"):
        assert name in scene.get(f"/worker/{name}")


def test_it_shows_tasks(scene: Scene) -> None:
    good, bad = scene.project.send("add", 1, 2).id, scene.project.send("fail").id
    shown = scene.ends_as(good, "SUCCESS")
    assert (shown["name"], shown["args"], shown["kwargs"], shown["result"]) == ("proj.add", "(1, 2)", "{}", "3")
    assert shown["worker"] in scene.workers
    assert shown["received"] <= shown["started"] <= shown["succeeded"]
    failed = scene.ends_as(bad, "FAILURE")
    assert failed["exception"] == "ValueError('on purpose')"
    assert "on purpose" in failed["traceback"]
    assert "on purpose" in scene.get(f"/task/{bad}")
    root = scene.project.send("outer", 7).id
    wait_until(lambda: any(task["parent_id"] == root for task in scene.get("/api/tasks").values()), "its child")
    (child,) = [task for task in scene.get("/api/tasks").values() if task["parent_id"] == root]
    assert (child["args"], child["root_id"]) == ("(7, 7)", root)
    scene.ends_as(root, "SUCCESS")  # another worker's events may come first
    assert scene.get("/api/task/types") == {"task-types": ["proj.add", "proj.fail", "proj.outer"]}
    assert "flower_worker_online" in scene.get("/metrics")


def test_it_shows_queues(scene: Scene) -> None:
    assert {"name": "celery", "messages": 0} in scene.get("/api/queues/length")["active_queues"]
    assert "celery" in scene.get("/broker")


def test_it_sends_tasks_and_reads_results(scene: Scene) -> None:
    answer = scene.post("/api/task/apply/proj.add", {"args": [3, 4]})
    assert (answer["state"], answer["result"]) == ("SUCCESS", 7)
    sent = scene.post("/api/task/async-apply/proj.add", {"args": [5, 6]})["task-id"]
    scene.ends_as(sent, "SUCCESS")
    assert scene.get(f"/api/task/result/{sent}")["result"] == 11


def test_it_changes_pools(scene: Scene) -> None:
    pool = "/api/worker/pool"
    scene.post(f"{pool}/grow/w1@here", n="2")
    wait_until(lambda: scene.worker("w1@here")["stats"]["pool"]["max-concurrency"] == 4, "grown")
    scene.post(f"{pool}/shrink/w1@here", n="1")
    wait_until(lambda: scene.worker("w1@here")["stats"]["pool"]["max-concurrency"] == 3, "shrunk")
    assert "restart" in scene.post(f"{pool}/restart/w1@here")["message"].lower()
    assert scene.worker("w2@here")["stats"]["pool"]["max-concurrency"] == 2


def test_it_changes_queues_and_limits(scene: Scene) -> None:
    def queues() -> set[str]:
        return {queue["name"] for queue in scene.worker("w1@here")["active_queues"]}

    scene.post("/api/worker/queue/add-consumer/w1@here", queue="more")
    wait_until(lambda: queues() == {"celery", "more"}, "consumes")
    scene.post("/api/worker/queue/cancel-consumer/w1@here", queue="more")
    wait_until(lambda: queues() == {"celery"}, "does not consume")
    scene.post("/api/task/rate-limit/proj.add", workername="w1@here", ratelimit="200/s")
    scene.workers["w1@here"].wait_for(r"proj\.add .*200/s")
    answer = scene.post("/api/task/timeout/proj.add", workername="w1@here", hard="30", soft="20")
    assert "time limit" in answer["message"]


def test_it_revokes_and_terminates(scene: Scene) -> None:
    running = scene.project.send("wait", 600).id
    scene.ends_as(running, "STARTED")
    scene.post(f"/api/task/revoke/{running}", terminate="true", signal="SIGKILL")
    scene.ends_as(running, "REVOKED")
    later = scene.project.app.send_task("proj.add", (1, 1), countdown=3600).id
    scene.ends_as(later, "RECEIVED")
    scene.post(f"/api/task/revoke/{later}")
    wait_until(lambda: later in scene.worker("w1@here")["revoked"], "revoked")


def test_it_remembers_over_a_restart(scene: Scene) -> None:
    """It pickles the state of the cluster, which has become a subclass of ours."""
    done = scene.project.send("add", 20, 22).id
    before = scene.ends_as(done, "SUCCESS")
    scene.flower.stop()
    scene.flower = scene.start()
    assert scene.task(done) == before


def test_it_shuts_workers_down(scene: Scene) -> None:
    wait_until(lambda: scene.worker("w2@here"), "Flower has heard of it")
    scene.post("/api/worker/shutdown/w2@here")
    assert scene.workers["w2@here"].wait() == 0
    assert scene.workers["w1@here"].running
