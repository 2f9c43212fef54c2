"""RabbitMQ is killed and started anew while chords run whose members are counted there (`rpc://`, decision 38)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from celery import Celery, chord
from tests.chaos.scene import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.conftest import MakeScene, Server
    from tests.chaos.ledger import Ledger

    Book = Callable[[dict[str, str]], None]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit")]

CHORDS, MEMBERS, KILLS = scaled((200, 20, 5), (12, 10, 1))
#: Seconds that a member runs, and between two chords: the server is killed while both goes on.
RUNS, PAUSE = 0.02, 0.2
PATIENCE = 240.0


class Client:
    """Sends chords, as a program that tries again with the same ids when a call is refused, and waits for each."""

    def __init__(self, app: Celery, ledger: Ledger) -> None:
        self.app = app
        self.ledger = ledger
        self.answers: dict[str, Any] = {}
        self.sending = threading.Thread(target=self._send_all, daemon=True)
        self._waiters: list[threading.Thread] = []

    def _send_all(self) -> None:
        for number in range(CHORDS):
            body = f"c{number:03}"
            ids = [f"{body}m{n:03}" for n in range(MEMBERS)]
            result = self._send(body, ids)
            self.ledger.sent.update(dict.fromkeys([*ids, body], time.monotonic()))
            waiter = threading.Thread(target=self._wait, args=(result,), daemon=True)
            waiter.start()
            self._waiters.append(waiter)
            time.sleep(PAUSE)

    def _send(self, body: str, ids: list[str]) -> Any:
        late, count = self.app.signature("proj.late", (RUNS,)), self.app.signature("proj.count")
        header = [late.clone().set(task_id=task_id) for task_id in ids]
        while True:
            try:
                return chord(header, count.clone().set(task_id=body), app=self.app).apply_async()
            except OperationalError:
                self.ledger.refused += 1
                self.ledger.repeated.update(dict.fromkeys([*ids, body], 1) if not self.ledger.repeated[body] else {})
                time.sleep(0.2)

    def _wait(self, result: Any) -> None:
        """Once: whatever happens to the server, it is not for the waiting program to try again."""
        try:
            self.answers[result.id] = result.get(timeout=PATIENCE)
        except Exception as exc:  # noqa: BLE001 - it is in the place of the answer
            self.answers[result.id] = exc

    def finish(self) -> None:
        self.sending.join(PATIENCE)
        for waiter in self._waiters:
            waiter.join(PATIENCE)


def test_the_server_is_killed_amid_chords(scene: MakeScene, rabbit: Server, book: Book) -> None:
    """Every chord that was accepted comes to its end; whoever waits gets the answer."""
    here = scene(
        rabbit.url(),
        backend="rpc://",
        result_persistent=True,
        broker_transport_options={"confirm_publish": True, "heartbeat": 2},
    )
    workers = [here.worker("-c 2") for _ in range(2)]
    client = Client(here.client(rabbit.url()), here.ledger)
    client.sending.start()
    recovery, interruptions = 0.0, []
    total = CHORDS * (MEMBERS + 1)
    for number in range(1, KILLS + 1):
        wanted = total * number // (KILLS + 2)
        here.until(lambda wanted=wanted: len(here.ledger.done()) >= wanted, f"{wanted} tasks have run", PATIENCE)
        since = time.monotonic()
        rabbit.stop(keep_directory=True)
        seen = len(here.ledger.done())
        rabbit.start()
        over = time.monotonic()
        here.until(lambda seen=seen: len(here.ledger.done()) > seen, "tasks run again", 90)
        recovery = max(recovery, time.monotonic() - over)
        interruptions.append((since, time.monotonic()))
    client.sending.join(PATIENCE)
    here.ledger.wait(PATIENCE, workers)
    client.finish()
    client.app.close()
    assert client.answers == {f"c{n:03}": MEMBERS for n in range(CHORDS)}
    here.check_interrupted(interruptions)
    remarks = f"{CHORDS} chords of {MEMBERS}; {KILLS} restarts"
    book(here.ledger.row("rabbit, killed amid chords, rpc://", recovery, remarks))
