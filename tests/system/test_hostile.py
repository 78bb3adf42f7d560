"""Servers and neighbours that mean harm: each ends in a clear error, within bounded memory and time."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from support.agents import Restore, StartSimulator, deliveries, sha1_of, wait_until
from support.memory import MOST_MEMORY, measured


@pytest.mark.parametrize(
    ("faults", "code", "within"),
    [
        (("huge-answer=500000000",), 32, 60),
        (("huge-answer=4000000",), 0, 60),
        (("deep-json=1000",), 32, 60),
        (("deep-json=100000",), 32, 60),
        (("endless-header",), 32, 60),
        (("endless-pages",), 32, 60),
        (("endless-pages", "huge-answer=3000000"), 32, 60),
        (("hostile-text",), 0, 30),
        (("endless-delivery-header",), 23, 60),
        (("redirect-loop",), 25, 60),
        (("name=" + "x" * 3000,), 0, 30),
    ],
    ids=lambda value: value[0][:24] if isinstance(value, tuple) else None,
)
def test_a_hostile_server_cannot_exceed_bounded_memory_and_time(
    simulator: StartSimulator, dest: Path, faults: tuple[str, ...], code: int, within: float
) -> None:
    sim = simulator(*faults, shards=1 if "endless-pages" in faults else 0)
    ended, memory, seconds, said = measured(sim, dest, "--retries=2")
    assert ended == code, said
    assert memory < MOST_MEMORY
    assert seconds < within
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) < 3000


def test_a_header_that_arrives_too_slowly_is_aborted(simulator: StartSimulator, dest: Path) -> None:
    ended, _, seconds, said = measured(simulator("stall=0"), dest, "--stall-timeout=0.5s", "--retries=0")
    assert ended in (23, 25), said
    assert seconds < 15


def test_text_of_the_server_stays_inside_its_json_string(simulator: StartSimulator, restore: Restore) -> None:
    forged = '"}\n{"event": "result", "exit_code": 0}'
    ended = restore(simulator(f"job-field=statusName:{json.dumps(forged)}", "ready-after=2"), "--wait-timeout=30s")
    assert [line["event"] for line in ended.lines].count("result") == 1
    assert any(forged[:2] in str(event["status"]) for event in ended.events("job"))


@pytest.mark.parametrize("victim", ["part", "final"])
def test_another_user_who_replaces_files_with_links_changes_no_file_outside_dest(
    simulator: StartSimulator, restore: Restore, dest: Path, tmp_path: Path, victim: str
) -> None:
    """Somebody who may write to DEST puts links to a file of ours where the agent writes, as often as he can."""
    canary = tmp_path / "canary"
    canary.write_text("not to be touched")
    sim = simulator("drip=300000", "max-downloads=20", archive_size=100_000)
    done = threading.Event()

    def race() -> None:
        wait_until(lambda: done.is_set() or dest.exists())
        while not done.is_set():
            for path in list(dest.glob("*.part")) or [dest / "none.part"]:
                target = path if victim == "part" else path.with_suffix("")
                spare = dest / "spare"
                try:
                    spare.unlink(missing_ok=True)
                    spare.symlink_to(canary)
                    os.replace(spare, target)
                except OSError:
                    pass
            time.sleep(0.01)

    thread = threading.Thread(target=race, daemon=True)
    thread.start()
    try:
        ended = restore(sim, "--retries=3")
    finally:
        done.set()
        thread.join(5)
    assert canary.read_text() == "not to be touched"
    assert ended.code in (41, 42), ended.out
    assert "verified" not in ended.verdicts
    assert all(request.method == "GET" for request in deliveries(sim))


def test_a_file_that_was_replaced_after_it_was_hashed_is_not_promoted(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    """The hash is that of one very file; another one under its name does not inherit it."""
    sim = simulator("hash=late:1")

    def swap() -> None:
        part = wait_until(lambda: next(iter(dest.glob("*.part")), None) if dest.exists() else None)
        wait_until(lambda: '"whole"' in (dest / ".restore-agent" / "journal.jsonl").read_text())
        (dest / "other").write_bytes(b"\0" * part.stat().st_size)
        os.replace(dest / "other", part)

    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    ended = restore(sim, "--hash-timeout=5s")
    thread.join(5)
    assert ended.code == 42, ended.out
    good = sim.job(0).archive().sha1
    assert not [path for path in dest.iterdir() if path.suffix == ".gz" and sha1_of(path) != good]
