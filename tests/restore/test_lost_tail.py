"""After a power loss a part file can be as long as the archive, with zeros where its last bytes were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.agents import QUICK, RunAgent, StartSimulator, connection_args, deliveries, journal_in, sha1_of

from restore_agent.core.errors import Finding
from restore_agent.dest.archive import Digest
from restore_agent.dest.journal import Entry
from restore_agent.restore.job.attempt import resume_offset
from restore_agent.restore.proof import Evidence, Kind, Standing, standing_of

ENTRY = Entry(attempts=1, total=100, validator='"v"', boot="before", synced=40)


def lose_the_tail(dest: Path, archive: str) -> None:
    """Make DEST what a power loss right after the last byte may leave."""
    journal = dest / ".restore-agent" / "journal.jsonl"
    facts = journal_in(dest)
    last = next(number for number, fact in enumerate(facts) if fact.get("fact") == "answered")
    facts[last]["boot"] = "the one before"
    journal.write_text("".join(json.dumps(fact) + "\n" for fact in facts[: last + 1]))
    (dest / archive).rename(dest / f"{archive}.part")
    data = (dest / f"{archive}.part").read_bytes()
    (dest / f"{archive}.part").write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    for name in ("receipt.json", "SHA1SUMS", ".restore-agent/status.json"):
        (dest / name).unlink(missing_ok=True)


@pytest.mark.parametrize("fault", ["hash=ready", "hash=never", "framing=chunked"])
def test_a_part_file_whose_last_bytes_a_power_loss_removed_is_downloaded_again(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path, fault: str
) -> None:
    sim = simulator("max-downloads=2", fault)
    args = ["run", *connection_args(sim), *QUICK, "--hash-timeout=0.2s", f"--dest={dest}", "--output=json"]
    args.append("--allow-unproven")
    name = run_agent(args).archive["file_name"]
    kept = dest / (f"{name}.unproven" if fault == "hash=never" else name)
    whole = sha1_of(kept)
    kept.rename(dest / name)
    lose_the_tail(dest, name)
    again = run_agent(args)
    assert (again.code, sha1_of(kept), len(deliveries(sim))) == (0, whole, 2)


def test_without_another_download_a_lost_tail_is_used_up_and_not_a_mismatch(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("max-downloads=1")
    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"]
    name = run_agent(args).archive["file_name"]
    lose_the_tail(dest, name)
    again = run_agent(args)
    assert (again.code, again.archive["reason"]) == (23, "downloads-used-up")
    assert (dest / f"{name}.part").exists()


@pytest.mark.parametrize("finding", [None, Finding.DAMAGED, Finding.TRUNCATED])
@pytest.mark.parametrize("published", [(), ("other",)])
def test_bytes_that_a_power_loss_may_have_replaced_are_not_a_mismatch(
    finding: Finding | None, published: tuple[str, ...]
) -> None:
    found = Evidence(Kind.PART, Digest("sha", 100, 1), published, ENTRY, finding, boot="now")
    assert standing_of(found) is Standing.INCOMPLETE


def test_bytes_after_a_power_loss_are_complete_if_structure_or_published_hash_confirms_it() -> None:
    digest = Digest("sha", 100, 1)
    assert standing_of(Evidence(Kind.PART, digest, (), ENTRY, Finding.WHOLE, boot="now")) is Standing.AWAITS_HASH
    assert standing_of(Evidence(Kind.PART, digest, ("sha",), ENTRY, boot="now")) is Standing.VERIFIED


def test_a_resume_keeps_only_synced_bytes_although_more_bytes_were_hashed() -> None:
    assert resume_offset(ENTRY, on_disk=90, hashed=90, boot="now") == 40
    assert resume_offset(ENTRY, on_disk=90, hashed=90, boot="before") == 90
