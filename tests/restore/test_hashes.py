"""Published hashes, late, early, wrong or never: what is called proven, what is quarantined, what stays unproven."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.agents import (
    Restore,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    meanwhile,
    receipt_in,
    sha1_of,
    wait_until,
)

from restore_agent.simulator import Simulator

SOON = "--hash-timeout=0.25s"


def files_of(sim: Simulator, dest: Path, index: int = 0) -> set[str]:
    """The suffixes under which an archive lies in DEST; "" is the final name."""
    name = sim.job(index).file_name
    return {path.name.removeprefix(name) for path in dest.iterdir() if path.name.startswith(name)}


def served(sim: Simulator, index: int = 0) -> str:
    return sim.job(index).archive().sha1


# ---------------------------------------------------------------- proof that comes


@pytest.mark.parametrize("entries", [1, 2])
@pytest.mark.parametrize("rule", ["ready", "late:0.3", "early", "early-wrong:0.3", "upper"])
def test_a_hash_that_matches_verifies_the_archive_whenever_it_is_published(
    rule: str, entries: int, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(f"hash={rule}", f"hash-entries={entries}")
    ended = restore(sim)
    assert ended.code == 0, ended.out
    assert ended.archive["verdict"] == "verified"
    assert ended.archive["expected_sha1"] == ended.archive["sha1"] == served(sim)
    assert files_of(sim, dest) == {""}
    assert sha1_of(dest / sim.job(0).file_name) == served(sim)


def test_no_file_has_the_final_name_before_the_hash_is_published(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=late:3600")
    seen: list[set[str]] = []

    def look() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        polls = len(sim.requests)
        wait_until(lambda: len(sim.requests) > polls + 3)
        seen.append(files_of(sim, dest))
        sim.clock.advance(3600)

    with meanwhile(look):
        assert restore(sim, "--hash-timeout=10s").code == 0
    assert seen == [{".part"}]
    assert files_of(sim, dest) == {""}


def test_the_hash_time_begins_after_the_last_download(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("hash=late:3600@0", "never-ready@1", shards=1)

    def release() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        polls = len(sim.requests)
        wait_until(lambda: len(sim.requests) > polls + 4)
        assert files_of(sim, dest) == {".part"}, "no verdict while another download is still to come"
        sim.set_faults("hash=late:3600@0")
        wait_until((dest / sim.job(1).file_name).exists)
        sim.clock.advance(3600)

    with meanwhile(release):
        ended = restore(sim, "--hash-timeout=0.6s", "--poll-interval=0.02s")
    assert ended.code == 0, ended.out


@pytest.mark.parametrize("kind", ["SHA1", "sha1", "SHA-1", None])
def test_the_kind_of_hash_may_be_written_in_any_way(
    kind: str | None, simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator()
    entry = {"fileName": sim.job(0).file_name, "hash": served(sim)} | ({"typeName": kind} if kind else {})
    sim.set_faults(f"job-field=hashes:{json.dumps([entry])}")
    assert restore(sim).code == 0


def test_a_hash_of_another_kind_is_ignored(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator()
    entry = {"fileName": sim.job(0).file_name, "hash": "0" * 40, "typeName": "SHA256"}
    sim.set_faults(f"job-field=hashes:{json.dumps([entry])}")
    assert restore(sim, SOON).code == 10


def test_the_hash_of_this_file_is_found_among_those_of_other_files(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator()
    name = sim.job(0).file_name
    entries = [
        {"fileName": f"other-{name}", "hash": "0" * 40, "typeName": "SHA1"},
        {"fileName": name, "hash": served(sim), "typeName": "SHA1"},
    ]
    sim.set_faults(f"job-field=hashes:{json.dumps(entries)}")
    assert restore(sim).code == 0


@pytest.mark.parametrize("fault", ["plain-tar", "content-encoding-gzip", "header-noise", "framing=chunked"])
def test_the_bytes_are_hashed_as_they_were_sent(
    fault: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(fault)
    ended = restore(sim)
    assert ended.code == 0
    assert sha1_of(dest / sim.job(0).file_name) == ended.archive["sha1"] == served(sim)


# ---------------------------------------------------------------- no proof


@pytest.mark.parametrize("rule", ["hash=never", "hash=other-name", "hash=null", "hash=late:3600", "digest-none"])
def test_without_a_hash_for_this_file_a_complete_archive_stays_unproven(
    rule: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(rule)
    ended = restore(sim, SOON)
    assert ended.code == 10
    assert ended.result["outcome"] == "unproven"
    assert ended.archive["verdict"] == "unproven"
    assert ended.archive["expected_sha1"] is None
    assert ended.archive["sha1"] == served(sim)
    assert files_of(sim, dest) == {".unproven"}
    assert not (dest / "SHA1SUMS").exists()
    problem = ended.events("archive")[0]["problem"]
    assert "verify" in problem["hint"]
    assert problem["on_disk"] == f"kept as {sim.job(0).file_name}.unproven"
    assert problem["download_spent"] is True


def test_an_unproven_archive_is_verified_by_a_later_run_without_a_download(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=never")
    assert restore(sim, SOON).code == 10
    sim.set_faults()
    ended = restore(sim)
    assert ended.code == 0
    assert ended.result["changed"] is True
    assert files_of(sim, dest) == {""}
    assert sim.job(0).file_name in (dest / "SHA1SUMS").read_text()
    assert receipt_in(dest)["outcome"] == "verified"
    assert len(deliveries(sim)) == 1


def test_a_later_run_waits_for_the_hash_of_an_unproven_archive(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=late:3600")
    assert restore(sim, SOON).code == 10

    def publish() -> None:
        polls = len(sim.requests)
        wait_until(lambda: len(sim.requests) > polls + 3)
        sim.clock.advance(3600)

    with meanwhile(publish):
        assert restore(sim, "--hash-timeout=10s").code == 0
    assert len(deliveries(sim)) == 1


def test_a_later_run_without_a_hash_leaves_an_unproven_archive_as_it_is(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=never")
    assert restore(sim, SOON).code == 10
    ended = restore(sim, SOON)
    assert ended.code == 10
    assert ended.result["changed"] is False
    assert ended.archive["downloads_spent"] == 1
    assert files_of(sim, dest) == {".unproven"}
    assert len(deliveries(sim)) == 1


def test_an_unproven_archive_that_does_not_match_its_hash_is_quarantined(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=never")
    assert restore(sim, SOON).code == 10
    sim.set_faults("hash=wrong")
    ended = restore(sim)
    assert ended.code == 11
    assert files_of(sim, dest) == {".mismatch"}
    assert len(deliveries(sim)) == 1


def test_allow_unproven_accepts_a_complete_archive_and_its_verdict_stays_unproven(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("digest-none")
    ended = restore(sim, SOON, "--allow-unproven")
    assert ended.code == 0
    assert ended.result["outcome"] == "unproven"
    assert ended.archive["verdict"] == "unproven"
    assert ended.archive["exit_code"] == 0
    assert ended.archive["reason"] == "hash-not-published"
    assert files_of(sim, dest) == {".unproven"}
    assert not (dest / "SHA1SUMS").exists()


def test_allow_unproven_is_reported_in_text(simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator("digest-none"), SOON, "--allow-unproven", "--output=text")
    assert ended.code == 0
    assert "unproven" in ended.out
    assert "--allow-unproven" in ended.out


@pytest.mark.parametrize("fault", ["damaged-gzip", "damaged=always"])
def test_allow_unproven_does_not_accept_a_damaged_archive(
    fault: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(fault, "digest-none")
    ended = restore(sim, SOON, "--allow-unproven")
    assert ended.code == 11
    assert ended.archive["reason"] == "archive-damaged"
    assert files_of(sim, dest) == {".mismatch"}


@pytest.mark.parametrize("ending", ["clean-cut=60%", "clean-cut=99%"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_allow_unproven_does_not_accept_a_truncated_archive(
    framing: str, ending: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(ending, f"framing={framing}", "digest-none")
    ended = restore(sim, SOON, "--allow-unproven")
    assert ended.code == 23
    assert files_of(sim, dest) == {".part"}


def test_one_unproven_archive_among_verified_ones_decides_the_outcome(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=never@1", shards=1)
    ended = restore(sim, SOON)
    assert ended.code == 10
    assert ended.result["outcome"] == "unproven"
    assert sorted(ended.verdicts) == ["unproven", "verified"]
    assert sim.job(0).file_name in (dest / "SHA1SUMS").read_text()
    assert sim.job(1).file_name not in (dest / "SHA1SUMS").read_text()


# ---------------------------------------------------------------- proof to the contrary


@pytest.mark.parametrize("faults", [["hash=wrong"], ["damaged=always"], ["trailing-garbage"]])
def test_an_archive_that_does_not_match_its_hash_is_quarantined(
    faults: list[str], simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(*faults)
    ended = restore(sim)
    assert ended.code == 11
    assert ended.result["outcome"] == "failed"
    assert ended.archive["verdict"] == "mismatch"
    assert ended.archive["reason"] == "hash-mismatch"
    assert ended.archive["sha1"] == sha1_of(dest / f"{sim.job(0).file_name}.mismatch")
    assert ended.archive["sha1"] != ended.archive["expected_sha1"]
    assert files_of(sim, dest) == {".mismatch"}
    problem = ended.events("archive")[0]["problem"]
    assert ended.archive["sha1"] in problem["message"]
    assert ended.archive["expected_sha1"] in problem["message"]


def test_archives_that_match_are_promoted_although_another_one_is_quarantined(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=wrong@1", shards=2)
    ended = restore(sim)
    assert ended.code == 11
    assert sorted(ended.verdicts) == ["mismatch", "verified", "verified"]
    assert (dest / "SHA1SUMS").read_text().count("\n") == 2


def test_a_damaged_archive_whose_hash_matches_is_verified(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("damaged-gzip")
    assert restore(sim).code == 0
    assert files_of(sim, dest) == {""}


def test_a_damaged_archive_without_a_hash_is_quarantined(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("damaged-gzip", "digest-none", "max-downloads=9")
    ended = restore(sim, SOON)
    assert ended.code == 11
    assert ended.archive["reason"] == "archive-damaged"
    assert len(deliveries(sim)) == 1
    assert files_of(sim, dest) == {".mismatch"}


def test_an_archive_without_a_hash_is_not_complete_with_garbage_after_it(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("trailing-garbage", "digest-none")
    ended = restore(sim, SOON)
    assert ended.code == 11
    assert files_of(sim, dest) == {".mismatch"}


def test_a_quarantined_archive_does_not_prevent_a_new_download(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("damaged=1", "max-downloads=2")
    assert restore(sim).code == 11
    sim.job(0).sha1 = None
    sim.job(0).completed_at = None
    ended = restore(sim)
    assert ended.code == 0, ended.out
    assert files_of(sim, dest) == {"", ".mismatch"}
    assert ended.archive["downloads_spent"] == 2


def test_a_quarantined_archive_is_downloaded_again_although_the_old_hash_is_still_published(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("damaged=1", "max-downloads=2")
    assert restore(sim).code == 11
    assert restore(sim).code == 0
    assert len(deliveries(sim)) == 2


def test_a_quarantined_archive_that_matches_a_later_hash_is_promoted(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=wrong")
    assert restore(sim).code == 11
    sim.set_faults()
    ended = restore(sim)
    assert ended.code == 0
    assert files_of(sim, dest) == {""}
    assert len(deliveries(sim)) == 1


# ---------------------------------------------------------------- a hash from before


def test_a_hash_from_before_the_download_causes_a_mismatch_only_after_the_hash_timeout(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator()
    before = {"fileName": sim.job(0).file_name, "hash": "0" * 40, "typeName": "SHA1"}
    sim.set_faults(f"job-field=hashes:{json.dumps([before])}")
    began = time.monotonic()
    ended = restore(sim, "--hash-timeout=0.5s")
    assert ended.code == 11
    assert time.monotonic() - began >= 0.5
    assert ended.archive["reason"] == "hash-mismatch"


def test_a_hash_that_is_published_after_the_download_causes_a_mismatch_immediately(
    simulator: StartSimulator, restore: Restore
) -> None:
    began = time.monotonic()
    assert restore(simulator("hash=wrong"), "--hash-timeout=30s").code == 11
    assert time.monotonic() - began < 10


def test_a_hash_of_an_earlier_download_is_replaced_by_that_of_this_one(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("different-bytes", "max-downloads=2", "hash=late:0.3")
    with sim.lock:  # it was downloaded before
        sim.job(0).attempts, sim.job(0).sha1 = 1, sim.job(0).archive(0).sha1
        sim.job(0).completed_at = sim.clock.now() - 60
    ended = restore(sim)
    assert ended.code == 0
    assert ended.archive["sha1"] == sim.job(0).archive(1).sha1


def test_a_truncated_body_without_length_is_detected_although_a_hash_was_published_early(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash=early", "clean-cut=60%", "framing=close", "max-downloads=2")
    began = time.monotonic()
    ended = restore(sim, "--hash-timeout=30s")
    assert ended.code == 0
    assert time.monotonic() - began < 10, "the structure tells, the hash time need not pass"
    assert len(deliveries(sim)) == 2


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_truncated_archive_is_not_a_mismatch_although_its_hash_was_published_during_the_download(
    framing: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator("hash-after=start", "clean-cut=60%x1", f"framing={framing}", "max-downloads=2")
    ended = restore(sim)
    assert ended.code == 0, ended.out
    assert files_of(sim, dest) == {""}
    assert len(deliveries(sim)) == 2


def test_verify_does_not_report_a_truncated_archive_as_a_mismatch(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("hash=never", "clean-cut=60%", "max-downloads=1")
    assert restore(sim, SOON).code in (20, 21, 23)
    assert files_of(sim, dest) == {".part"}
    with sim.lock:
        sim.job(0).sha1, sim.job(0).completed_at = served(sim), sim.clock.now()
    sim.set_faults()
    run_agent(["verify", *connection_args(sim), f"--dest={dest}", "--output=json"])
    assert files_of(sim, dest) == {".part"}


def test_a_file_that_is_kept_for_a_later_hash_is_named(simulator: StartSimulator, restore: Restore, dest: Path) -> None:
    sim = simulator("wrong-length=+1", "hash=never", "max-downloads=1")
    ended = restore(sim, SOON)
    assert ended.code == 23, ended.out
    assert files_of(sim, dest) == {".unproven"}
    (error,) = ended.events("error")
    assert error["on_disk"] == f"{sim.job(0).file_name}.unproven with {sim.job(0).archive().size} bytes"
