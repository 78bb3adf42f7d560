"""A DEST that the version before (commit da7b52d) wrote is read, and its restore is completed.

Its run got `electron_0`, no hash for `electron_1`, and 1998 bytes of `config`: exit code 12. The records in
tests/support/old_dest are those that it wrote; the archives are the ones that the simulator sent.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.agents import Restore, RunAgent, StartSimulator, connection_args, receipt_in

from restore_agent.simulator import Simulator

OLD = Path(__file__).parents[1] / "support" / "old_dest"
ARCHIVES = [OLD / "archives" / f"{name}.tar.gz" for name in ("electron_0", "electron_1", "config")]
ENDINGS = ("", ".unproven", ".part")


@pytest.fixture
def old_dest(dest: Path) -> Path:
    """The directory as the old version left it; records may be written by their owner only."""
    records = dest / ".restore-agent"
    records.mkdir(parents=True, mode=0o700)
    for name in ("SHA1SUMS", "receipt.json"):
        shutil.copy(OLD / "dest" / name, dest)
    for name in ("journal.jsonl", "status.json"):
        shutil.copy(OLD / "dest" / name, records)
    (records / "lock").touch()
    for path in dest.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    status = json.loads((records / "status.json").read_text())
    for archive, row, ending in zip(ARCHIVES, status["archives"], ENDINGS, strict=True):
        (dest / (row["file_name"] + ending)).write_bytes(archive.read_bytes()[: row["bytes"]])
    return dest


def served(simulator: StartSimulator, old_dest: Path, *faults: str) -> Simulator:
    """The simulator of the old run: the same IDs and archives, with every hash published by now."""
    sim = simulator("hash=early", *faults, shards=2, archive_size=1 << 20, archives=ARCHIVES, seed="fixture")
    known = {record["job_id"] for record in receipt_in(old_dest)["archives"]}
    assert {job.id for job in sim.jobs} == known, "the simulator makes other IDs: record the old run again with them"
    return sim


def test_status_shows_what_the_old_version_wrote(run_agent: RunAgent, old_dest: Path) -> None:
    ended = run_agent(["status", old_dest])
    assert (ended.code, ended.err) == (0, "")
    assert "finished, exit code 12" in ended.out
    assert "total: 3 archives, 1 verified, 1 unproven, 1 failed" in ended.out
    assert "downloads-used-up (exit code 23)" in ended.out


def test_verify_verifies_the_archives_again_with_only_the_old_receipt(run_agent: RunAgent, old_dest: Path) -> None:
    ended = run_agent(["verify", f"--dest={old_dest}", "-o", "json"])
    verdicts = [record["verdict"] for record in ended.result["archives"]]
    assert sorted(verdicts) == ["failed", "unproven", "verified"]
    assert ended.code == 12


def test_verify_promotes_an_archive_whose_hash_was_published_since(
    simulator: StartSimulator, run_agent: RunAgent, old_dest: Path
) -> None:
    sim = served(simulator, old_dest)
    ended = run_agent(["verify", *connection_args(sim), f"--dest={old_dest}", "-o", "json"])
    assert sorted(record["verdict"] for record in ended.result["archives"]) == ["failed", "verified", "verified"]
    assert len((old_dest / "SHA1SUMS").read_text().splitlines()) == 2
    assert [job.downloads for job in sim.jobs] == [0, 0, 0]


def test_run_downloads_only_what_the_old_version_did_not_complete(
    simulator: StartSimulator, restore: Restore, old_dest: Path
) -> None:
    sim = served(simulator, old_dest)
    ended = restore(sim)
    assert (ended.code, ended.result["outcome"]) == (0, "verified")
    assert [job.downloads for job in sim.jobs] == [0, 0, 1]
    assert {record["downloads_spent"] for record in receipt_in(old_dest)["archives"]} == {1, 2}
    for archive, job in zip(ARCHIVES, sim.jobs, strict=True):
        assert (old_dest / job.file_name).read_bytes() == archive.read_bytes()
