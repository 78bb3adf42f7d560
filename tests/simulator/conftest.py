"""Fixtures of the simulator's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_client import SMALL, Client, Start

from restore_agent.simulator import Simulator


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Client] = []

    def run(*faults: str, shards: int = 0, archive_size: int = SMALL, **more: Any) -> Client:
        simulator = Simulator(faults=faults, shards=shards, archive_size=archive_size, **more)
        simulator.start()
        running.append(Client(simulator))
        return running[-1]

    yield run
    for client in running:
        client.close()
        client.simulator.stop()
