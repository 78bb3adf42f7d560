"""Peak memory with many transfers in parallel, where each needs the most: over TLS, in chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.agents import StartSimulator
from support.memory import MOST_MEMORY, measured


@pytest.mark.parametrize("unpack", [False, True], ids=["download", "unpack"])
def test_64_transfers_in_parallel_need_less_memory_than_the_documented_limit(
    simulator: StartSimulator, dest: Path, tmp_path: Path, unpack: bool
) -> None:
    sim = simulator("framing=chunked", shards=63, tls=True, archive_size=1 << 20)
    options = [f"--unpack={tmp_path / 'data'}"] if unpack else []
    ended, memory, _, said = measured(sim, dest, "--parallel=64", "--stall-timeout=60s", *options)
    assert ended == 0, said
    assert memory < MOST_MEMORY
