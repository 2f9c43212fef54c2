"""`celery call`, `celery result` and `celery purge` ([cli.14] to [cli.16]), in this process."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from celery.bin.celery import celery
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery
    from celery.message import Message

APP = """
from kombu import Queue
from celery import Celery

app = Celery("client", broker="memory://client-{id}", backend="memory://client-{id}")
app.conf.task_queues = [Queue("celery"), Queue("b"), Queue("c", exchange="ex", routing_key="rk")]


@app.task(name="add")
def add(x, y):
    return x + y


other = Celery("other", backend="memory://other-{id}", set_as_current=False)


@app.task(name="elsewhere")
def elsewhere():
    ...


elsewhere.backend = other.backend
"""


class Client:
    def __init__(self, app: Celery, module: Any) -> None:
        self.app = app
        self.module = module

    def run(self, *words: str, answer: str | None = None) -> tuple[int, str]:
        done = CliRunner().invoke(celery, ["-A", "client", *words], input=answer, auto_envvar_prefix="CELERY")
        return done.exit_code, done.output

    def call(self, *words: str) -> str:
        code, output = self.run("call", *words)
        assert code == 0, output
        return output.strip()

    def taken(self, queue: str = "celery") -> Message:
        consumer = self.app.assembly.broker.consume([QueueSpec(queue)])
        (delivery,) = consumer.fetch(1, 0)
        consumer.ack([delivery])
        consumer.close()
        assert delivery.message is not None
        return delivery.message


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    (tmp_path / "client.py").write_text(APP.replace("{id}", tmp_path.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("client")
    yield Client(module.app, module)
    module.app.close()
    sys.modules.pop("client")


def until(message: Message, header: str) -> dt.timedelta:
    return dt.datetime.fromisoformat(message.headers[header]) - dt.datetime.now(dt.UTC)


class TestCall:
    def test_the_id_is_printed_and_the_arguments_travel(self, client: Client) -> None:
        task_id = client.call("add", "-a", "[1, 2]", "-k", '{"z": null}')
        message = client.taken()
        assert (message.id, message.task) == (task_id, "add")
        assert message.body.startswith(b'[[1,2],{"z":null},')

    def test_a_task_that_is_not_known_here(self, client: Client) -> None:
        client.call("far.away")
        assert client.taken().task == "far.away"

    def test_times(self, client: Client) -> None:
        client.call("add", "--countdown", "100", "--expires", "300.5")
        message = client.taken()
        assert dt.timedelta(seconds=60) < until(message, "eta") <= dt.timedelta(seconds=100)
        assert dt.timedelta(seconds=260) < until(message, "expires") <= dt.timedelta(seconds=300.5)

    def test_dates(self, client: Client) -> None:
        client.call("add", "--eta", "2099-01-02T03:04:05+00:00", "--expires", "2099-01-03T00:00:00+00:00")
        message = client.taken()
        assert message.headers["eta"] == "2099-01-02T03:04:05+00:00"
        assert message.headers["expires"] == "2099-01-03T00:00:00+00:00"

    def test_queue_and_route(self, client: Client) -> None:
        client.call("add", "--queue", "b")
        assert client.taken("b").task == "add"
        client.app.assembly.broker.declare([client.app.amqp.queues.spec("c")])
        client.call("add", "--exchange", "ex", "--routing-key", "rk")
        assert client.taken("c").task == "add"

    def test_serializer(self, client: Client) -> None:
        client.call("add", "-a", "[1]", "--serializer", "pickle")
        assert client.taken().content_type == "application/x-python-serialize"

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["-a", "[1"], "'-a' / '--args'"),
            (["-a", '{"a": 1}'], "expected a json array, got '{\"a\": 1}'"),
            (["-k", "[1]"], "expected a json object, got '[1]'"),
            (["--eta", "yesterday"], "'--eta': "),
            (["--expires", "soon"], "'--expires': "),
            (["--countdown", "soon"], "'--countdown': 'soon' is not a valid float"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, client: Client, words: list[str], says: str) -> None:
        code, output = client.run("call", "add", *words)
        assert code == 2
        assert says in output
        assert client.app.assembly.broker.depth("celery") == 0

    def test_a_task_without_a_name_is_refused(self, client: Client) -> None:
        code, output = client.run("call", "")
        assert code == 2
        assert "expected the name of a task as text, got ''" in output


class TestResult:
    @pytest.fixture(autouse=True)
    def _results(self, client: Client) -> None:
        client.app.backend.store_result("good", {"a": 1}, "SUCCESS")
        client.app.backend.store_result("bad", ValueError("no"), "FAILURE", traceback="the traceback")
        client.module.other.backend.store_result("far", 7, "SUCCESS")

    def test_the_value(self, client: Client) -> None:
        assert client.run("result", "good") == (0, "{'a': 1}\n")

    def test_a_task_with_a_backend_of_its_own(self, client: Client) -> None:
        assert client.run("result", "far", "-t", "elsewhere") == (0, "7\n")

    def test_the_traceback(self, client: Client) -> None:
        assert client.run("result", "bad", "--traceback") == (0, "the traceback\n")

    def test_a_failure(self, client: Client) -> None:
        code, output = client.run("result", "bad")
        assert code == 1
        assert "the task failed with ValueError: no" in output

    def test_a_task_that_is_not_known_here(self, client: Client) -> None:
        code, output = client.run("result", "good", "-t", "nowhere")
        assert code == 2
        assert "there is no task 'nowhere'" in output


class TestPurge:
    @pytest.fixture(autouse=True)
    def _messages(self, client: Client) -> None:
        for queue in ("celery", "b", "b", "c"):
            client.call("add", "--queue", queue)

    def depths(self, client: Client) -> list[int]:
        return [client.app.assembly.broker.depth(queue) for queue in ("celery", "b", "c")]

    def test_it_asks_and_names_the_queues(self, client: Client) -> None:
        code, output = client.run("purge", answer="n\n")
        assert code == 1
        assert "b, c, celery" in output
        assert self.depths(client) == [1, 2, 1]

    def test_yes(self, client: Client) -> None:
        code, output = client.run("purge", answer="y\n")
        assert code == 0
        assert "Purged 4 messages from 3 known task queues." in output
        assert self.depths(client) == [0, 0, 0]

    def test_only_these(self, client: Client) -> None:
        assert client.run("purge", "-f", "-Q", "b,c") == (0, "Purged 3 messages from 2 known task queues.\n")
        assert self.depths(client) == [1, 0, 0]
        assert client.run("purge", "-f", "-Q", "b") == (0, "No messages purged from 1 queue.\n")

    def test_all_but_these(self, client: Client) -> None:
        assert client.run("purge", "-f", "-X", "b,c") == (0, "Purged 1 message from 1 known task queue.\n")
        assert self.depths(client) == [0, 2, 1]

    def test_nothing_is_left_to_purge(self, client: Client) -> None:
        assert client.run("purge", "-X", "b,c,celery") == (0, "")
        assert self.depths(client) == [1, 2, 1]
