"""A mixed fleet on RabbitMQ, results on Redis: what holds of one on Redis holds here too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire import test_fleet as on_redis
from tests.wire.mixed import OURS, SIDES, Fleet
from tests.wire.test_fleet import (  # noqa: F401 - run here, with the fleet below
    test_a_link_is_called_with_the_result,
    test_children,
    test_eta,
    test_eta_from_another_time_zone,
    test_exceptions_that_cannot_be_pickled,
    test_failures,
    test_forget,
    test_ignored_results_are_not_kept,
    test_msgpack,
    test_protocol_1,
    test_results_of_any_type,
    test_serializers_and_compression,
    test_several_links,
    test_started_and_custom_states,
    test_the_request_of_a_callback,
    test_tracebacks_show_the_task,
    test_values,
)
from tests.wire.test_flows import (  # noqa: F401
    test_a_failure_reaches_the_end,
    test_each_runs_a_half,
    test_errbacks_of_a_body_hear_of_a_member,
    test_parents_and_roots,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RabbitServer

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.xdist_group("rabbit"),
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]


@pytest.fixture(scope="module")
def fleet(rabbit_session: RabbitServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    broker = rabbit_session.make_vhost("fleet")
    with RedisServer() as server:
        fleet = Fleet(server, tmp_path_factory.mktemp("fleet"), broker)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()
    rabbit_session.drop_vhost("fleet")


@pytest.mark.parametrize("call", [call for call in on_redis.REQUESTS if "2099" not in call], ids=lambda call: call[:60])
def test_requests(fleet: Fleet, call: str) -> None:
    on_redis.test_requests(fleet, call)


@pytest.mark.parametrize("options", ["expires=-1", "expires='2020-01-01T00:00:00+00:00'"])
def test_what_has_expired_is_revoked(fleet: Fleet, options: str) -> None:
    """If we have sent it: of real Celery's message the server makes nothing, unless somebody takes it in that very
    instant, for its life is over as it comes."""
    for runner in SIDES:
        found = fleet.read(fleet.clients[OURS].send(f"add.apply_async((1, 2), {options})", runner))
        assert (found["state"], found["raised"]) == ("REVOKED", "celery.exceptions.TaskRevokedError: expired")


def test_what_expires_in_many_years(fleet: Fleet) -> None:
    """The server counts 49 days of life at most. Real Celery's message is lost, and the channel closed."""
    for runner in SIDES:
        sent = fleet.clients[OURS].send("request.apply_async((), expires='2099-01-01T00:00:00+02:00')", runner)
        assert fleet.read(sent)["value"][1]["expires"] == "2099-01-01T00:00:00+02:00"
