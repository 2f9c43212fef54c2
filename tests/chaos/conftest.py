"""Chaos cases: each keeps a ledger; the table of all is printed at the end, and kept after a run at full size."""

from __future__ import annotations

import datetime as dt
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.chaos.ledger import COLUMNS
from tests.chaos.scene import FULL, Scene, durable_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RabbitServer, RedisServer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "CHAOS.md"
GUIDE = ROOT / "docs" / "operate" / "reliability.md"
BEGIN, END = "<!-- ledger: written by `make chaos` -->\n", "<!-- end of the ledger -->"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/chaos/"):
            item.add_marker(pytest.mark.process)


class MakeScene(Protocol):
    def __call__(self, url: str | None = None, **options: Any) -> Scene: ...


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with durable_redis() as server:
        yield server


class Server(Protocol):
    """What is done to a broker's server, whichever it is."""

    @property
    def kind(self) -> str: ...

    @property
    def port(self) -> int: ...

    def url(self, *, port: int = 0) -> str:
        """`port`: of a proxy before it."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def start(self) -> Any: ...

    def stop(self, *, keep_directory: bool = False) -> None:
        """As `kill -9` would."""


class Node:
    """The RabbitMQ node that tests share, and a virtual host for this one."""

    kind = "rabbit"

    def __init__(self, server: RabbitServer, url: str) -> None:
        self._url = url
        self.port = server.port
        self.freeze, self.thaw = server.freeze, server.thaw
        self.start, self.stop = server.start, server.stop

    def url(self, *, port: int = 0) -> str:
        return self._url.replace(f":{self.port}/", f":{port or self.port}/")


@pytest.fixture
def rabbit(rabbit_session: RabbitServer, rabbit_url: str) -> Node:
    return Node(rabbit_session, rabbit_url)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[MakeScene]:
    """Makes the scene of a case: on a SQLite file of its own, unless a URL is given."""
    made: list[Scene] = []

    def make(url: str | None = None, **options: Any) -> Scene:
        file = f"sqlite:///{tmp_path}/chaos.sqlite3"
        if options.get("backend") == "sqlite":
            options["backend"] = file
        made.append(Scene(tmp_path, url or file, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def scene_at(server: Server, make: MakeScene, *, port: int = 0, **settings: Any) -> Scene:
    """A scene on that server. RabbitMQ keeps no results: those are in a file."""
    if server.kind == "redis":
        return make(server.url(port=port), **settings)
    sure = {"confirm_publish": True, "heartbeat": 2, **settings.pop("broker_transport_options", {})}
    return make(server.url(port=port), backend="sqlite", broker_transport_options=sure, **settings)


@pytest.fixture
def book(record_property: Callable[[str, object], None]) -> Callable[[dict[str, str]], None]:
    """Keeps a row for the table."""

    def keep(row: dict[str, str]) -> None:
        print("ledger:", ", ".join(f"{name} {value}" for name, value in row.items() if value))
        record_property("ledger", row)

    return keep


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            rows += [row for name, row in report.user_properties if name == "ledger" and report.when == "call"]
    if not rows:
        return
    rows.sort(key=lambda row: row["case"])
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in rows]
    terminalreporter.section("ledger")
    for line in lines:
        terminalreporter.line(line)
    if FULL and not terminalreporter.stats.get("failed") and _is_whole(config):
        _keep(lines)


def _is_whole(config: pytest.Config) -> bool:
    """True unless only some of the cases were asked for."""
    return not config.option.keyword and any(arg.rstrip("/") == "tests/chaos" for arg in config.args)


def _keep(lines: list[str]) -> None:
    table = "\n".join(lines) + "\n"
    made = f"{dt.date.today().isoformat()}, Python {platform.python_version()}, {platform.system()}"
    RESULTS.write_text(f"# Ledger\n\nWritten by `make chaos`: {made}.\n\n{table}")
    text = GUIDE.read_text()
    before, rest = text.split(BEGIN)
    GUIDE.write_text(before + BEGIN + table + END + rest.split(END)[1])
