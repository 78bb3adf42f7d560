"""Each invariant catches the defect that it is there for: the agent is broken on purpose, and found out."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture import powerloss, rounds, trace
from torture.defects import program
from torture.draw import Draw, Fate

DRAWN = Draw(
    seed=0,
    tls=False,
    shards=0,
    archive_size=16 << 10,
    faults=("hash=late:0.4", "max-downloads=3"),
    families=("hash late",),
    retries=5,
    parallel=4,
    wait_timeout=4.0,
    allow_unproven=False,
    debug=False,
    confirm=True,
    verify=False,
    fate=Fate("through"),
)


@pytest.fixture(autouse=True)
def evidence_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a violation leaves to look at is not wanted here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_healthy_agent_is_not_accused() -> None:
    assert rounds.play(0, drawn=DRAWN).violations == []


@pytest.mark.parametrize(
    ("defect", "invariant"),
    [
        ("publish before the hash", "a final name holds published bytes"),
        ("forget the journal line", "a journal line before every GET"),
        ("log the URL", "no secret anywhere"),
        ("probe with HEAD", "no HEAD"),
        ("leave a temporary file", "no temporary file is left"),
        ("flatter the receipt", "downloads_spent is true"),
        ("write outside of DEST", "nothing outside DEST is touched"),
    ],
)
def test_a_round_catches(defect: str, invariant: str) -> None:
    outcome = rounds.play(0, drawn=DRAWN, program=program(defect))
    assert invariant in {violation.invariant for violation in outcome.violations}, outcome.violations


@pytest.mark.skipif(not trace.strace_works(), reason="recording file operations needs strace")
@pytest.mark.parametrize(
    ("defect", "invariant"),
    [
        ("forget the directory's fsync", "what was said is durable"),
        ("forget the data's fsync", "a final name holds published bytes"),
        ("forget the journal's fsync", "a journal line before every GET"),
        ("forget the receipt's fsync", "the receipt reads"),
    ],
)
def test_the_enumeration_of_crash_states_catches(defect: str, invariant: str, tmp_path: Path) -> None:
    scenario = powerloss.Scenario(defect, (("", 0),))
    tally = powerloss.judge_states(scenario, tmp_path, program=program(defect))
    assert invariant in tally.by_label, tally
