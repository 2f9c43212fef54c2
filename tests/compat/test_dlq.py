"""`celery dlq`: filters, output, what it refuses. On SQLite, in this process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from celery import Celery
from celery.app.adapters import BROKERS
from celery.bin.celery import celery
from celery.message import Message
from tests.contracts.broker import take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Site:
    def __init__(self, url: str) -> None:
        self.app = Celery("proj", broker=url, set_as_current=False)

    def bury(self, queue: str, task: str, reason: str, *, id: str, traceback: str = "") -> None:
        self.app.send_task(task, (1, "ü"), queue=queue, task_id=id)
        broker = self.app.assembly.broker
        consumer = broker.consume([self.app.amqp.queues.spec(queue)])
        (delivery,) = take(consumer, 1)
        delivery.error, delivery.traceback = reason, traceback
        consumer.reject([delivery], requeue=False)
        consumer.close()

    def depth(self, queue: str) -> int:
        return int(self.app.assembly.broker.depth(queue))  # type: ignore[attr-defined]

    def run(self, *arguments: str, answer: str | None = None) -> tuple[int, str]:
        done = CliRunner().invoke(celery, ["-A", "dlqproj", "dlq", *arguments], input=answer)
        return done.exit_code, done.output

    def ids(self, *arguments: str) -> list[str]:
        done = CliRunner().invoke(celery, ["-A", "dlqproj", "dlq", "list", "--json", *arguments])
        assert done.exit_code == 0, done.output
        return [letter["task_id"] for letter in json.loads(done.stdout)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    url = f"sqlite:///{tmp_path}/broker.sqlite3"
    (tmp_path / "dlqproj.py").write_text(f"from celery import Celery\napp = Celery('proj', broker={url!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    site = Site(url)
    site.bury("q", "proj.add", "reject: No converter", id="a")
    site.bury("other", "proj.add", "3 processes died", id="b", traceback="Traceback\n  deep \x1b[31m inside")
    site.bury("q", "mail.send", "unknown task 'mail.send'", id="c")
    yield site
    site.app.close()
    sys.modules.pop("dlqproj", None)


def test_list(site: Site) -> None:
    code, output = site.run("list")
    lines = output.splitlines()
    assert code == 0
    assert [line.split("[")[1].split("]")[0] for line in lines] == ["c", "b", "a"]
    assert "proj.add[a]" in lines[2]
    assert "reject: No converter" in lines[2]
    assert "\x1b" not in output


def test_nothing_to_list(site: Site) -> None:
    assert site.run("list", "-Q", "nowhere") == (0, "No dead letters.\n")
    assert site.ids("-Q", "nowhere") == []


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ((), ["c", "b", "a"]),
        (("-Q", "q"), ["c", "a"]),
        (("-Q", "q,other"), ["c", "b", "a"]),
        (("--task", "proj.*"), ["b", "a"]),
        (("--task", "proj"), []),
        (("--reason", "no CONVERTER"), ["a"]),
        (("--newer-than", "1h"), ["c", "b", "a"]),
        (("--older-than", "1h"), []),
        (("--older-than", "0"), ["c", "b", "a"]),
        (("b", "c"), ["c", "b"]),
        (("b", "--task", "mail.*"), []),
        (("--limit", "2"), ["c", "b"]),
    ],
)
def test_filters(site: Site, filters: tuple[str, ...], found: list[str]) -> None:
    assert site.ids(*filters) == found


def test_list_says_when_there_are_more(site: Site) -> None:
    assert "There are more than these 2" in site.run("list", "-n", "2")[1]
    assert "more" not in site.run("list", "-n", "3")[1]


def test_show(site: Site) -> None:
    code, output = site.run("show", "b")
    assert code == 0
    shown = ("task: proj.add", "queue: other", "reason: 3 processes died", "Traceback", "body: [[1,", '"id": "b"')
    for text in shown:
        assert text in output, text
    assert "\x1b" not in output
    code, output = site.run("show", "b", "--json")
    (letter,) = json.loads(output)
    assert letter["headers"]["task"] == "proj.add"
    assert letter["traceback"] == "Traceback\n  deep \x1b[31m inside"
    assert site.run("show", "nobody") == (1, "Error: No dead letter matches.\n")


def test_requeue_by_filter_keeps_their_order(site: Site) -> None:
    code, output = site.run("requeue", "-Q", "q", "--json")
    assert (code, json.loads(output)) == (0, {"requeued": 2})
    assert site.ids() == ["b"]
    consumer = site.app.assembly.broker.consume([site.app.amqp.queues.spec("q")])
    taken: list[Any] = [delivery.message for delivery in take(consumer, 2)]
    assert [(message.id, message.redelivered) for message in taken] == [("a", True), ("c", True)]
    assert all(isinstance(message, Message) for message in taken)
    consumer.close()


@pytest.mark.parametrize("command", ["requeue", "purge"])
def test_what_is_moved_or_deleted_must_be_named(site: Site, command: str) -> None:
    code, output = site.run(command)
    assert code == 2
    assert "--all" in output
    code, output = site.run(command, "a", "nobody")
    assert (code, output) == (1, "Error: No dead letter matches: nobody. Nothing was done.\n")
    assert site.ids() == ["c", "b", "a"]


def test_purge_asks(site: Site) -> None:
    code, output = site.run("purge", "--all", answer="n\n")
    assert code == 1
    assert "3 dead letters will be deleted for good" in output
    assert site.ids() == ["c", "b", "a"]
    assert "Deleted 1 dead letter." in site.run("purge", "a", answer="y\n")[1]
    assert site.run("purge", "--all", "-f") == (0, "Deleted 2 dead letters.\n")
    assert site.ids() == []
    assert site.depth("q") == site.depth("other") == 0


def test_ages(site: Site) -> None:
    code, output = site.run("list", "--older-than", "soon")
    assert code == 2
    assert "expected an age such as 90s, 15m, 2h or 7d, got 'soon'" in output


def test_a_broker_that_keeps_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of ours do; another one need not."""
    source = """
from celery import Celery

class Plain:
    def __init__(self, config):
        pass

    def close(self):
        pass

app = Celery("proj", broker="plain://")
"""
    (tmp_path / "dlqplain.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(BROKERS, "plain", "dlqplain:Plain")
    done = CliRunner().invoke(celery, ["-A", "dlqplain", "dlq", "list"])
    assert done.exit_code != 0
    assert "keeps no dead letters" in str(done.exception)
    sys.modules.pop("dlqplain", None)
