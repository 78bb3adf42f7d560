"""Links, special files, and other programs' files in DEST."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Restore,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    snapshot_of,
)
from support.runs import ended_with, name_of, published

# ---------------------------------------------------------------- links and other things in the way


@pytest.mark.parametrize("target", ["file", "nothing"])
@pytest.mark.parametrize(
    "name",
    [
        "{archive}",
        "{archive}.part",
        "{archive}.unproven",
        "{archive}.mismatch",
        "receipt.json",
        "SHA1SUMS",
        ".receipt.json.tmp",
        ".SHA1SUMS.tmp",
        ".restore-agent",
        ".restore-agent/lock",
        ".restore-agent/journal.jsonl",
        ".restore-agent/status.json",
    ],
)
def test_a_symbolic_link_in_dest_is_never_followed(
    name: str, target: str, simulator: StartSimulator, restore: Restore, dest: Path, tmp_path: Path
) -> None:
    sim = simulator()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("not the agent's")
    (outside / "directory").mkdir()
    before = snapshot_of(outside)
    link = dest / name.format(archive=name_of(sim))
    link.parent.mkdir(parents=True, mode=0o700)
    link.symlink_to(outside / target)
    ended = restore(sim)
    assert snapshot_of(outside) == before
    if ended.code == 0:  # the link itself was replaced
        assert name in (".receipt.json.tmp", ".SHA1SUMS.tmp", ".restore-agent/status.json")
        assert not link.is_symlink()
        assert published(sim, dest)
    else:
        ended_with(ended, 42)
        assert link.is_symlink()
        assert deliveries(sim) == [], "what stands in the way is found before a download is spent"
        link.unlink()
        ended_with(restore(sim), 0)


@pytest.mark.parametrize("name", ["{archive}", "{archive}.part", "{archive}.unproven", "{archive}.mismatch"])
@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_42_when_an_object_that_is_not_a_file_has_a_name_of_the_archive(
    name: str, kind: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator()
    dest.mkdir()
    path = dest / name.format(archive=name_of(sim))
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    ended_with(restore(sim), 42, "in-the-way")
    assert deliveries(sim) == []


def test_unknown_files_in_dest_do_not_stop_a_run(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("range=honour")
    dest.mkdir()
    for suffix in (".part", ".mismatch"):
        (dest / f"{name_of(sim)}{suffix}").write_text("left by something")
    ended = ended_with(restore(sim), 0)
    assert ended.archive["resumed"] is False
    assert published(sim, dest)
    assert (dest / f"{name_of(sim)}.mismatch").read_text() == "left by something"


@pytest.mark.parametrize(
    "record",
    [
        'not json\n{"schema":"restore-agent/journal/1"}\n',
        '[1]\n{"schema":"restore-agent/journal/1"}\n',
        '{"fact":"attempt","job_id":"x"}\n',
        '{"schema":"future"}\n',
        '{"schema":"restore-agent/journal/1"}\n\0\0\0\n{"schema":"restore-agent/journal/1"}\n',
    ],
)
def test_42_when_the_journal_is_damaged(record: str, simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator()
    (dest / ".restore-agent").mkdir(parents=True, mode=0o700)
    (dest / ".restore-agent" / "journal.jsonl").write_text(record)
    ended_with(restore(sim), 42, "record-unreadable")
    assert sim.requests == []


def test_a_journal_truncated_by_a_crash_is_continued_with_a_warning(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=1)
    restore(sim)
    journal = dest / ".restore-agent" / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"fact": "att')
    ended = ended_with(restore(sim), 0)
    assert any("crash" in line["message"] for line in ended.events("notice"))
    assert ended.result["changed"] is False
    assert len(deliveries(sim)) == 2


# ---------------------------------------------------------------- what others put into DEST


def test_42_when_the_agents_records_belong_to_another_user(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    sim = simulator()
    ended_with(restore(sim), 0)
    for forged in (dest / "receipt.json", dest / ".restore-agent"):
        os.chown(forged, 65534, 65534)
        ended_with(restore(sim), 42, "in-the-way")
        os.chown(forged, 0, 0)
    os.chown(dest, 65534, 65534)  # DEST's own owner is trusted
    os.chown(dest / "receipt.json", 65534, 65534)
    ended_with(restore(sim), 0)


def test_an_equal_file_of_another_program_becomes_private(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=early")
    dest.mkdir(mode=0o700)
    shutil.copyfile(sim.job(0).archive().path, dest / name_of(sim))
    (dest / name_of(sim)).chmod(0o644)
    ended_with(restore(sim), 0)
    assert deliveries(sim) == []
    assert stat.S_IMODE((dest / name_of(sim)).stat().st_mode) == 0o600


def test_the_result_shows_no_archive_of_another_restore(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended_with(restore(simulator(shards=1)), 0)
    for other in (simulator(shards=1, seed="other"), simulator(seed="single")):
        assert ended_with(restore(other), 42, "other-batch").result["archives"] == []


def test_42_when_dest_is_a_dangling_link(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    dest.symlink_to(dest.with_name("nowhere"))
    ended_with(restore(simulator()), 42, "in-the-way")
    assert not dest.with_name("nowhere").exists()


def test_sha1sums_leaves_out_an_earlier_archive_that_was_moved_away(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=1)
    ended_with(restore(sim, f"--select={name_of(sim, 0)}"), 0)
    (dest / name_of(sim, 0)).unlink()
    ended_with(restore(sim, f"--select={name_of(sim, 1)}"), 0)
    subprocess.run(["sha1sum", "--strict", "--quiet", "-c", "SHA1SUMS"], cwd=dest, check=True)
    assert name_of(sim, 1) in (dest / "SHA1SUMS").read_text()


def test_a_selection_by_name_leaves_out_a_job_that_never_gets_a_name(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@0", "ready-without-url=3600@0", shards=2)
    ended = ended_with(restore(sim, f"--select={name_of(sim, 1)[:10]}*", "--wait-timeout=0.5s"), 0)
    assert [record["job_id"] for record in ended.result["archives"]] == [sim.job(1).id]
    assert [line["job_id"] for line in ended.events("notice")] == [sim.job(0).id]


def test_41_for_a_dest_whose_name_is_too_long_in_plan_and_run(
    simulator: StartSimulator, run_agent: RunAgent, tmp_path: Path
) -> None:
    options = [*connection_args(simulator()), *QUICK, f"--dest={tmp_path}/{'n' * 300}", "--output=json"]
    assert [run_agent([command, *options]).code for command in ("plan", "run")] == [41, 41]


def test_a_job_that_is_left_out_is_reported_once_while_other_archives_are_downloaded(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("never-ready@0", "ready-without-url=3600@0", "drip=40K", shards=2)
    ended = ended_with(restore(sim, f"--select={name_of(sim, 1)[:10]}*", "--wait-timeout=0.2s"), 0)
    assert [line["job_id"] for line in ended.events("notice")] == [sim.job(0).id]
