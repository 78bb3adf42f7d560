"""`run` against a simulated Ops Manager: every end of it, what it leaves on disk, and what it says."""

from __future__ import annotations

from conftest import Restore, StartSimulator


def test_a_sharded_batch_is_downloaded_and_proven(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=2)
    ended = restore(sim)
    assert ended.code == 0, ended.err
    assert ended.verdicts == ["verified"] * 3
