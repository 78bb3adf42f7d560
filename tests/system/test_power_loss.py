"""Power loss at every point of recorded runs: a seeded sample here, all states in `scripts/torture --power-loss`."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture import crash, powerloss, trace
from torture.crash import Tree
from torture.powerloss import SCENARIOS, Scenario
from torture.trace import ROOT, Op

strace = pytest.mark.skipif(not trace.strace_works(), reason="recording file operations needs strace")


SHARE = (
    "unpacked while it comes, and discarded",
    "two archives, one of them cut and resumed",
    "a mismatch, quarantined, then fetched again",
    "unproven, then promoted by verify",
    "killed before the state directory's name is durable, then run again",
)
"""The scenarios of which a sample is tried here."""


@strace
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.name in SHARE], ids=lambda one: one.name)
def test_the_agent_survives_power_loss(scenario: Scenario, tmp_path: Path) -> None:
    tally = powerloss.enumerate_states(scenario, tmp_path, sample=2, seed=1)
    assert not tally.violations, "\n".join(tally.violations[:5])
    assert tally.restarts == 4
    assert tally.states > 100
    assert tally.points > 40  # and a replay of them is what lies on the disk: `record` insists


def states_after(*ops: Op) -> list[Tree]:
    return [state.tree for state in crash.crash_states(ops) if state.point == len(ops)]


MADE = Op("create", 1, ROOT, "a")
WRITTEN = Op("write", 1, data=b"12345678")


def test_unsynced_data_may_be_complete_partial_zeros_or_lost() -> None:
    states = [state.tree for state in crash.crash_states((MADE, WRITTEN))]
    assert all(tree in states for tree in ({"a": b"12345678"}, {"a": b"1234"}, {"a": bytes(8)}, {"a": b""}))


def test_a_synced_file_is_complete_but_its_name_may_be_lost() -> None:
    states = states_after(MADE, WRITTEN, Op("sync", 1), Op("get", name="mark"))
    assert sorted(states, key=len) == [{}, {"a": b"12345678"}]


def test_a_synced_name_stays() -> None:
    assert states_after(MADE, WRITTEN, Op("sync", 1), Op("sync", ROOT), Op("get", name="mark")) == [{"a": b"12345678"}]


def test_a_rename_is_durable_or_lost_and_never_partial() -> None:
    durable = [MADE, WRITTEN, Op("sync", 1), Op("sync", ROOT), Op("get", name="mark")]
    states = states_after(*durable, Op("rename", 1, ROOT, "a", ROOT, "b"), Op("get", name="mark"))
    assert sorted(map(list, states)) == [["a"], ["b"]]
