"""Each invariant catches the defect that it is there for: the agent is broken on purpose, and found out."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
from torture import diskfaults, powerloss, process, rounds, trace
from torture.diskfaults import DiskFault
from torture.draw import Draw, Fate, Interruption, Piece
from torture.extras import Extras, Intruder, Stray, Unpack

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

strace = pytest.mark.skipif(not trace.strace_works(), reason="recording file operations needs strace")


def drawn(*faults: str, **changes: object) -> Draw:
    return dataclasses.replace(DRAWN, **{"faults": faults, "confirm": False, **changes})  # type: ignore[arg-type]


def killed(*steps: Interruption) -> Fate:
    return Fate("kill", steps)


KILLED_IN_A_TRANSFER = Interruption(signal.SIGKILL, "delivery", 1, 0.0)
SLOW = "drip=16k"


@pytest.fixture(autouse=True)
def evidence_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a violation leaves to look at is not wanted here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_an_agent_without_a_defect_violates_no_invariant() -> None:
    unpacking = drawn(*DRAWN.faults, shards=1, confirm=True, unpack=Unpack(discard=True, afterwards="written"))
    assert rounds.play(0, drawn=unpacking).violations == []


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
def test_a_round_detects_a_defect(defect: str, invariant: str) -> None:
    outcome = rounds.play(0, drawn=DRAWN, defects=(defect,))
    assert invariant in {violation.invariant for violation in outcome.violations}, outcome.violations


CASES = {
    "forget reserved names": (
        "every archive that can be had is had, else the code is right",
        drawn(
            "same-name",
            "max-downloads=5",
            shards=1,
            fate=Fate("pieces", pieces=(Piece("job-id", (0,)), Piece("job-id", (1,)))),
        ),
    ),
    "trust any companion": (
        "an unproven archive holds bytes of its delivery",
        drawn(
            "hash=never",
            allow_unproven=True,
            extras=Extras(strays=(Stray(0, ".unproven", "another archive"),)),
        ),
    ),
    "ignore whole bytes": (
        "every archive that can be had is had, else the code is right",
        drawn("framing=chunked", "cut=100%", "chunk-end=missing", "max-downloads=1"),
    ),
    "forget the restore": (
        "DEST belongs to one batch",
        drawn(
            SLOW,
            "max-downloads=5",
            shards=1,
            fate=killed(KILLED_IN_A_TRANSFER),
            extras=Extras(other_batch=True, verify="offline"),
        ),
    ),
    "use any part": (
        "a final name is a file of the agent's own",
        drawn("max-downloads=3", extras=Extras(strays=(Stray(0, ".part", "noise", foreign=True),))),
    ),
    "replace at the final name": (
        "a file of another program is never replaced",
        drawn("hash=late:0.4", SLOW, "max-downloads=3", extras=Extras(intruder=Intruder(0, 4))),
    ),
    "sums of this run only": (
        "SHA1SUMS lists the verified ones",
        drawn(
            "max-downloads=5",
            shards=1,
            fate=Fate(
                "pieces",
                pieces=(
                    Piece("job-id", (0,), Interruption(signal.SIGKILL, "held", 1, 0.0)),
                    Piece("job-id", (1,)),
                ),
            ),
        ),
    ),
}


UNPACKING = {
    "publish data paths before the hash": (
        "a data path is of a proven archive",
        drawn("hash=late:0.7", unpack=Unpack()),
    ),
    "follow links": (
        "a data path is a directory, never a link",
        drawn("max-downloads=1", unpack=Unpack(obstacle="staging link")),
    ),
    "unpack again": (
        "a run after success changes nothing",
        drawn("max-downloads=1", confirm=True, unpack=Unpack(afterwards="moved")),
    ),
    "discard before publishing": (
        "an archive stays until its data path is published",
        drawn("max-downloads=1", unpack=Unpack(discard=True, late=True)),
    ),
    "share one staging directory": (
        "every archive that can be unpacked is unpacked",
        drawn(SLOW, "max-downloads=1", shards=1, unpack=Unpack()),
    ),
}


@pytest.mark.parametrize("defect", UNPACKING)
def test_a_round_that_unpacks_detects_a_defect(defect: str) -> None:
    invariant, each = UNPACKING[defect]
    outcome = rounds.play(0, drawn=each, defects=(defect,))
    assert invariant in {violation.invariant for violation in outcome.violations}, outcome.violations


@pytest.mark.parametrize("defect", CASES)
def test_a_drawn_round_detects_a_defect(defect: str) -> None:
    if defect == "use any part" and os.geteuid() != 0:
        pytest.skip("files of another user need root")
    invariant, each = CASES[defect]
    conditions = ("hold the first receipt",) if defect == "sums of this run only" else ()
    outcome = rounds.play(0, drawn=each, defects=(*conditions, defect))
    assert invariant in {violation.invariant for violation in outcome.violations}, outcome.violations


@pytest.mark.parametrize(
    ("defect", "each"),
    [
        ("write on the loop", drawn("max-downloads=3", extras=Extras(console="full pipe"))),
        (
            "share one pool",
            drawn(
                "drip=12k",
                "max-downloads=3",
                shards=3,
                parallel=16,
                archive_size=24 << 10,
                extras=Extras(syncs_often=True),
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_that_hangs_is_detected(defect: str, each: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LONGEST_RUN", 8.0)
    outcome = rounds.play(0, drawn=each, defects=(defect,))
    assert "every run ends in bounded time" in {violation.invariant for violation in outcome.violations}


ONCE = powerloss.Scenario("once", (("", 0),))


@strace
@pytest.mark.parametrize(
    ("defect", "scenario", "after", "invariant"),
    [
        ("forget the directory's fsync", ONCE, "get", "a journal line before every GET"),
        ("forget the data's fsync", ONCE, "rename electron", "a final name holds published bytes"),
        ("forget the journal's fsync", ONCE, "get", "a journal line before every GET"),
        ("forget the receipt's fsync", ONCE, "rename .receipt", "the receipt reads"),
        ("forget the sync of unpacked files", powerloss.UNPACKED, "rename .", "a data path is whole"),
        ("forget the sync of unpacked directories", powerloss.UNPACKED, "rename .", "a data path is whole"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("forget") else "",
)
def test_the_enumeration_of_crash_states_detects_a_defect(
    defect: str, scenario: powerloss.Scenario, after: str, invariant: str, tmp_path: Path
) -> None:
    tally = powerloss.judge_states(scenario, tmp_path, (defect,), after=lambda op: str(op).startswith(after))
    assert invariant in tally.by_label, tally


@strace
@pytest.mark.parametrize(
    ("defect", "scenario"),
    [
        ("claim a sync", powerloss.SYNCED_IN_THE_BACKGROUND),
        ("believe the journal alone", powerloss.Scenario("once", (("", 0),))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_restart_after_power_loss_detects_a_defect(defect: str, scenario: powerloss.Scenario, tmp_path: Path) -> None:
    wanted = "every archive that can be had is had, else the code is right"
    recording, _ = powerloss.record(scenario, tmp_path, (defect,))
    states = powerloss.states_of_parts(recording)
    for state in states:
        found = powerloss.try_state(recording, state, tmp_path, generous=defect == "claim a sync", defects=(defect,))
        if wanted in {violation.invariant for violation in found}:
            return
    raise AssertionError(f"{len(states)} states, and none shows it")


@strace
def test_a_failed_sync_that_is_trusted_is_detected(tmp_path: Path) -> None:
    fault = DiskFault("fdatasync", diskfaults.ARCHIVE, "EIO", server=diskfaults.CUT)
    met, violations = diskfaults.try_fault(fault, tmp_path, defects=("trust a failed sync",))
    assert met
    assert "after a failed sync the data is not trusted" in {violation.invariant for violation in violations}
