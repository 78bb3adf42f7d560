"""Where a new user stopped once: each test is one such place."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from support.agents import QUICK, Restore, RunAgent, StartSimulator, connection_args, status_in

from restore_agent.cli.main import cli
from restore_agent.ui.wording import folded

ROOT = Path(__file__).parents[2]
JSON_DOCUMENT = (ROOT / "restore_agent" / "share" / "doc" / "json.md").read_text()


def test_after_verify_the_status_has_the_current_state_of_the_archives(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("hash=never")
    assert restore(sim, "--hash-timeout=0.1s").code == 10
    assert run_agent(["status", dest]).out.startswith("finished, exit code 10")
    sim.stop()
    later = simulator("hash=early")
    ended = run_agent(["verify", *connection_args(later), f"--dest={dest}"])
    assert ended.code == 0, ended.err
    assert (status_in(dest)["exit_code"], status_in(dest)["archives"][0]["state"]) == (0, "verified")
    shown = run_agent(["status", dest]).out
    assert "finished, exit code 0" in shown
    assert "verified" in shown


def test_plan_reports_a_selection_that_no_name_can_match_yet(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("never-ready", shards=1)
    ended = run_agent(["plan", *connection_args(sim), f"--dest={dest}", "--select=electrom*"])
    assert ended.code == 0
    assert "--select" in ended.err


def test_a_selection_without_a_match_lists_the_jobs_of_the_batch(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(shards=1)
    error = restore(sim, "--select=electrom*").events("error")[0]
    assert all(job.file_name in error["message"] for job in sim.jobs)


def test_after_a_run_with_a_wrong_batch_the_error_explains_how_to_free_dest(
    simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    sim = simulator(shards=1)
    assert restore(sim, f"--batch-id={'0' * 24}", "--poll-interval=0.05s").code == 24
    error = restore(sim).events("error")[0]
    assert error["id"] == "other-batch"
    assert f"remove {dest}/.restore-agent" in error["hint"]


def test_a_plan_shows_the_offset_of_a_resume_and_the_remaining_bytes(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("cut=50%", "max-downloads=3", "range=honour", "hash=never")
    assert restore(sim, "--retries=0").code == 25
    part = next(dest.glob("*.part")).stat().st_size
    args = ["plan", *connection_args(sim), f"--dest={dest}"]
    row = run_agent([*args, "-o", "json"]).result["plan"][0]
    assert row["resumes_at"] == part
    assert re.search(r"; resumes at [\d.]+ KiB; at most [\d.]+ \wiB more$", run_agent(args).out, re.MULTILINE)
    documented = JSON_DOCUMENT[JSON_DOCUMENT.index("Each row of a `plan`") :].partition("\n\n")[0]
    assert set(row) <= set(re.findall(r"`(\w+)`", documented))


@pytest.mark.parametrize(
    ("unpack", "step"), [(False, "run with --unpack DIR"), (True, "start mongod on each data path")]
)
def test_a_success_names_the_next_step(
    simulator: StartSimulator, run_agent: RunAgent, tmp_path: Path, dest: Path, *, unpack: bool, step: str
) -> None:
    more = [f"--unpack={tmp_path / 'data'}"] if unpack else []
    ended = run_agent(["run", *connection_args(simulator()), *QUICK, f"--dest={dest}", *more])
    assert (
        ended.out.splitlines()[-1]
        == f"Next: {step}{'' if unpack else ' (no download)'}; see `restore-agent man runbook`."
    )


@pytest.mark.parametrize(
    "page",
    [
        "v2/5fc4f5a8b2e4a1000155b6aa#/clusters",
        "v2#/org/5fc4f5a8b2e4a1000155b6aa/projects",
        "v2/#/org/5fc4f5a8b2e4a1000155b6aa",
    ],
)
def test_the_address_of_a_browser_is_refused_with_the_part_to_use(
    run_agent: RunAgent, tmp_path: Path, page: str
) -> None:
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("x")
    given = [f"--url=https://om.example.net:8443/{page}", "--public-key=k", f"--private-key-file={tmp_path / 'key'}"]
    ended = run_agent(["check", *given])
    assert ended.code == 2
    assert "a page of the web interface; use https://om.example.net:8443" in " ".join(ended.err.split())


def test_verify_without_a_url_does_not_name_an_ops_manager(
    simulator: StartSimulator, restore: Restore, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator()
    assert restore(sim).code == 0
    sim.stop()
    ended = run_agent(["verify", f"--dest={dest}"])
    assert ended.code == 0, ended.err
    assert "Ops Manager http" not in ended.err + ended.out
    assert f"verifying the archives in {dest}" in ended.err


def test_the_next_step_is_that_of_the_archive_that_failed(
    simulator: StartSimulator, run_agent: RunAgent, tmp_path: Path, dest: Path
) -> None:
    sim = simulator("member=symlink")
    ended = run_agent(["run", *connection_args(sim), *QUICK, f"--dest={dest}", f"--unpack={tmp_path / 'data'}"])
    assert ended.code == 13
    assert "Next: Do not unpack the archive with another program" in ended.out


def test_the_commands_are_listed_by_purpose(run_agent: RunAgent) -> None:
    text = run_agent(["--help"]).out
    headings = [text.index(f"\n{heading}:\n") for heading in ("Restore", "Practice", "Setup", "Help")]
    assert headings == sorted(headings)
    first, practice, setup, last = headings
    context = click.Context(cli)
    for name in cli.list_commands(context):
        assert re.search(rf"^  {name} ", text[first:], re.MULTILINE), name
    assert text.index("\n  snapshots ") < practice < text.index("\n  rehearse ") < setup < text.index("\n  check ")
    assert last < text.index("\n  explain ")


@pytest.mark.parametrize("columns", [57, 77, 97, 157])
def test_a_number_and_its_unit_stay_on_one_line_at_every_width(columns: int) -> None:
    name = "config-1492528465-6616de027edab26fd0fbf90a.tar.gz"
    line = f"02:38:21 {name}: 200.0 MiB, of which 77.5 KiB now in 6.1 s (33.1 MiB/s), waiting for the published hash"
    lines = folded(line, columns)
    assert " ".join(part.strip() for part in lines) == line
    assert all(len(part) <= columns for part in lines)
    assert not [part for part in lines if re.match(r"\s*(MiB|KiB|s)\b", part)]
