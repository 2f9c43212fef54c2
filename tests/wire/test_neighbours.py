"""A real Celery worker beside one of ours, and a visibility timeout that is shorter than the work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.running import wait_until
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import OURS, THEIRS, Side

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]
VISIBILITY = 2.0
#: Real Celery looks every second for what it takes for abandoned.
CONF = {"broker_transport_options": {"visibility_timeout": VISIBILITY, "unacked_restore_interval": 1}}
LONG = 3 * VISIBILITY + 1


def test_it_leaves_alone_what_ours_runs_and_what_ours_parked(tmp_path: Path) -> None:
    """PAINS 2: a task three times longer than the timeout runs once, and so do those that are parked for as long."""
    conf = json.dumps(CONF)
    names = [f"delayed{n}" for n in range(5)]
    with RedisServer() as server:
        ours, theirs = (Side(name, tmp_path, server.url(), server.url()) for name in (OURS, THEIRS))
        with ours.client(FLEET_CONF=conf) as client, ours.worker("-Q", "shared", FLEET_CONF=conf) as first:
            first.wait_for(r"ready\.")
            began = time.time()
            long = client.send("stay.apply_async(('long',))", "shared")
            wait_until((tmp_path / "long-runs").exists, "ours to run the long one")
            for name in names:
                (tmp_path / f"{name}-go").touch()
            sent = [client.send(f"stay.apply_async(({name!r},), countdown={LONG})", "shared") for name in names]
            wait_until(lambda: server.call("ZCARD", "celery.1.due") == len(names), "ours to park the others")
            with theirs.worker("-Q", "shared", FLEET_CONF=conf) as second:
                second.wait_for(r"ready\.")
                assert (tmp_path / "long-runs").read_text() == "ours@fleet\n"
                answers = [client(f"describe({identifier!r}, 40)") for identifier in sent]
                assert [answer["state"] for answer in answers] == ["SUCCESS"] * len(names)
                assert time.time() > began + LONG
                (tmp_path / "long-go").touch()
                assert client(f"describe({long!r}, 40)")["value"][1] == "ours@fleet"
                wait_until(lambda: server.call("HLEN", "unacked") == 0, "all are acknowledged")
        for name in ("long", *names):
            assert len((tmp_path / f"{name}-runs").read_text().splitlines()) == 1, name
