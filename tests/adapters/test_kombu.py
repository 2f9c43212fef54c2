"""The contracts on transports of kombu's, and what is particular to them: what such a transport cannot do is
overridden here, with what it does instead."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from kombu.transport import memory, virtual

from celery.brokers.kombu import KombuBroker, kombu_broker
from celery.ports import BrokerConfig
from tests.contracts.broadcasting import BroadcastingContract
from tests.contracts.broker import HoldingContract, ids, message, numbers, spec, take, to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from celery.ports import Broker
    from tests.contracts.broadcasting import MakeCarrier
    from tests.contracts.broker import MakeBroker, PutRaw

    MakeKombu = Callable[..., KombuBroker]


class _OnKombu(HoldingContract):
    @pytest.fixture
    def config(self) -> BrokerConfig:
        raise NotImplementedError

    @pytest.fixture
    def make_broker(self, config: BrokerConfig) -> Iterator[MakeBroker]:
        made: list[KombuBroker] = []

        def make(node: str = "") -> KombuBroker:
            made.append(kombu_broker(config))
            return made[-1]

        yield make
        for broker in made:
            broker.close()


class TestMemory(_OnKombu):
    crosses_processes = False

    @pytest.fixture
    def config(self) -> Iterator[BrokerConfig]:
        yield BrokerConfig("kombu+memory://")
        memory.Transport.global_state.clear()


class TestFilesystem(_OnKombu):
    @pytest.fixture
    def config(self, tmp_path: Path) -> BrokerConfig:
        return on_files(tmp_path)

class TestSql(_OnKombu):
    @pytest.fixture
    def config(self, tmp_path: Path) -> BrokerConfig:
        return BrokerConfig(f"sqla+sqlite:///{tmp_path}/queues.db")


def on_files(folder: Path, **options: Any) -> BrokerConfig:
    for name in ("queues", "control"):
        (folder / name).mkdir(exist_ok=True)
    places = {name: f"{folder}/queues" for name in ("data_folder_in", "data_folder_out")}
    return BrokerConfig("filesystem://", {**places, "control_folder": f"{folder}/control", **options})


class TestNotices(BroadcastingContract):
    @pytest.fixture
    def make_carrier(self, tmp_path: Path) -> MakeCarrier:
        return lambda: kombu_broker(on_files(tmp_path))  # type: ignore[return-value]
