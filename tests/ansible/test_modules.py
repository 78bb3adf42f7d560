"""The modules as Ansible runs them on a host: a process that reads its options as JSON and answers with JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lab import BIN, COLLECTIONS
from support.agents import Json, StartSimulator, deliveries, receipt_in, snapshot_of

from restore_agent.core.exit_codes import EXIT_CODES
from restore_agent.simulator import Simulator

AGENT = [sys.executable, "-m", "restore_agent"]
QUICK = {"poll_interval": "0.05s", "wait_timeout": "5s", "hash_timeout": "2s"}


def run_module(name: str, options: Mapping[str, Any], env: Mapping[str, str] | None = None, **internal: Any) -> Json:
    """What a module answers; `internal` are Ansible's own arguments, such as `check_mode`."""
    arguments = {"executable": AGENT, **options, **{f"_ansible_{key}": value for key, value in internal.items()}}
    done = subprocess.run(
        [BIN["newest"] / "python", "-m", f"ansible_collections.restore_agent.mongodb.plugins.modules.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout, done.stderr
    answer: Json = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def options_for(sim: Simulator, dest: Path, **more: Any) -> dict[str, Any]:
    hello = sim.hello
    given = {name: hello[name] for name in ("url", "public_key", "private_key", "group_id", "cluster_id")}
    given |= {"batch_id": hello["batch_id"]} if hello["batch_id"] else {"job_id": hello["job_ids"]}
    return {**given, "dest": str(dest), **QUICK, **more}


def test_check_mode_plans_and_never_requests_a_delivery_url(simulator: StartSimulator, dest: Path) -> None:
    sim = simulator(shards=1)
    answer = run_module("restore", options_for(sim, dest), check_mode=True, diff=True)
    assert answer["changed"]
    assert [row["step"] for row in answer["plan"]] == ["download", "download"]
    assert answer["diff"]["before"] == ""
    assert answer["diff"]["after"].count(": verified") == 2
    assert deliveries(sim) == []
    assert not dest.exists()


def test_a_first_run_reports_changed_and_a_second_run_does_not(simulator: StartSimulator, dest: Path) -> None:
    sim = simulator(shards=1)
    first = run_module("restore", options_for(sim, dest))
    assert first["changed"]
    assert (first["exit_code"], first["reason"], first["hint"], first["problems"]) == (0, None, None, [])
    assert first["receipt"]["archives"] == receipt_in(dest)["archives"]
    assert first["diff"]["after"].count(": verified") == 2
    second = run_module("restore", options_for(sim, dest))
    assert not second["changed"]
    assert second["diff"]["before"] == second["diff"]["after"] == first["diff"]["after"]
    assert len(deliveries(sim)) == 2
    assert not run_module("restore", options_for(sim, dest), check_mode=True)["changed"]


def test_unpacking_reports_changed_once_and_check_mode_predicts_it(
    simulator: StartSimulator, dest: Path, tmp_path: Path
) -> None:
    sim, data = simulator(shards=1), tmp_path / "data"
    run_module("restore", options_for(sim, dest))
    options = options_for(sim, dest, unpack=str(data), discard_archive=True)
    planned = run_module("restore", options, check_mode=True)
    assert (planned["changed"], planned["exit_code"]) == (True, 0)
    assert all(row["to_unpack"] and row["data_path"].startswith(str(data)) for row in planned["plan"])
    assert not data.exists()
    answer = run_module("restore", options)
    assert (answer["changed"], answer["exit_code"]) == (True, 0)
    for record in answer["receipt"]["archives"]:
        assert (Path(record["data_path"]) / "WiredTiger").exists()
        assert (record["archive_kept"], record["path"]) == (False, None)
    assert run_module("restore", options)["changed"] is False
    assert run_module("restore", options, check_mode=True)["changed"] is False
    assert len(deliveries(sim)) == 2


def test_an_archive_that_cannot_be_unpacked_fails_the_module(
    simulator: StartSimulator, dest: Path, tmp_path: Path
) -> None:
    sim, data = simulator(), tmp_path / "data"
    data.write_text("a file")
    options = options_for(sim, dest, unpack=str(data))
    for internal in ({"check_mode": True}, {}):
        answer = run_module("restore", options, **internal)
        assert (answer["failed"], answer["exit_code"], answer["reason"]) == (True, 13, "cannot-unpack")
    assert answer["receipt"]["archives"][0]["verdict"] == "verified"
    assert run_module("restore", options_for(sim, dest, owner="root"))["exit_code"] == 2


def test_a_failure_returns_the_error_and_the_next_step(simulator: StartSimulator, dest: Path) -> None:
    answer = run_module("restore", options_for(simulator("broken@0", shards=1), dest))
    assert answer["failed"]
    assert (answer["exit_code"], answer["reason"]) == (21, "job-broken")
    assert answer["hint"].startswith("Create a new restore job")
    assert "BROKEN" in answer["msg"]
    assert answer["hint"] in answer["msg"]
    assert answer["changed"], "the other archive came home"
    assert sorted(record["verdict"] for record in answer["receipt"]["archives"]) == ["failed", "verified"]


def test_a_failing_plan_returns_the_next_step_of_its_exit_code(simulator: StartSimulator, dest: Path) -> None:
    answer = run_module("restore", options_for(simulator("broken"), dest), check_mode=True)
    assert answer["failed"]
    assert answer["hint"] == EXIT_CODES[21].next_step
    assert answer["msg"].endswith("job-broken. Next: new restore job.")


def test_the_private_key_is_in_no_argument_and_no_answer(simulator: StartSimulator, dest: Path, tmp_path: Path) -> None:
    sim = simulator()
    seen = tmp_path / "arguments"
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nexec {sys.executable} -m restore_agent "$@"\n')
    spy.chmod(0o755)
    answer = run_module("restore", options_for(sim, dest, executable=[str(spy)]))
    assert answer["exit_code"] == 0
    assert f"--url={sim.hello['url']}" in seen.read_text()
    assert sim.hello["private_key"] not in seen.read_text()
    assert sim.hello["private_key"] not in json.dumps(answer)


def test_options_may_come_from_the_environment_and_those_of_the_task_win(
    simulator: StartSimulator, dest: Path, tmp_path: Path
) -> None:
    sim = simulator()
    given = options_for(sim, dest)
    names = ("url", "public_key", "private_key", "group_id", "cluster_id", "dest")
    env = {f"RESTORE_AGENT_{name.upper()}": given.pop(name) for name in names}
    env["RESTORE_AGENT_BATCH_ID"] = "5fc4f7c1b2e4a1000155b8dd"  # excludes job_id, which is the task's
    answer = run_module("restore", given, env)
    assert answer["exit_code"] == 0, answer["msg"]
    assert answer["receipt"]["archives"][0]["job_id"] == given["job_id"][0]
    env["RESTORE_AGENT_PRIVATE_KEY_FILE"] = str(tmp_path / "no-such-key")
    assert run_module("restore", given, env)["exit_code"] == 2
    assert run_module("restore", {**given, "private_key": sim.hello["private_key"] + "\n"}, env)["exit_code"] == 0


def test_options_that_exclude_each_other_are_a_usage_error(simulator: StartSimulator, dest: Path) -> None:
    answer = run_module("restore", options_for(simulator(), dest, batch_id="5fc4f7c1b2e4a1000155b8dd"))
    assert (answer["exit_code"], answer["reason"]) == (2, "usage")
    assert "exclude each other" in answer["msg"]
    assert "Next: See `restore-agent run --help`." in answer["msg"]


def test_every_option_of_the_module_reaches_the_command_line(
    simulator: StartSimulator, dest: Path, tmp_path: Path
) -> None:
    sim = simulator(shards=1)
    config = tmp_path / "config.toml"
    config.write_text("parallel = 3\n")
    more = {"select": ["electron_0-*", "nothing-*"], "expect_jobs": 2, "stall_timeout": "5s", "retries": 0}
    more |= {"parallel": 1, "limit_rate": "100M", "allow_unproven": True, "config": str(config)}
    answer = run_module("restore", options_for(sim, dest, **more))
    assert answer["exit_code"] == 0, answer["msg"]
    (record,) = answer["receipt"]["archives"]
    assert record["file_name"].startswith("electron_0-")
    config.write_text("paralel = 3\n")
    assert "paralel" in run_module("restore", options_for(sim, dest, **more))["msg"]


@pytest.mark.parametrize("program", ["/no/such/restore-agent", "no-such-restore-agent"])
def test_a_missing_agent_is_reported(dest: Path, program: str) -> None:
    answer = run_module("restore", {"executable": [program], "dest": str(dest)})
    assert answer["failed"]
    assert answer["reason"] == "agent-missing"
    assert program in answer["msg"]
    assert "install" in answer["hint"].lower()


def test_a_program_that_is_not_the_agent_is_a_failure(dest: Path) -> None:
    answer = run_module("restore", {"executable": ["true"], "dest": str(dest)})
    assert answer["failed"]
    assert "restore-agent ended with 0" in answer["msg"]


def test_a_killed_agent_is_reported_with_the_next_step(dest: Path) -> None:
    answer = run_module("restore", {"executable": ["sh", "-c", "kill -9 $$"], "dest": str(dest)})
    assert answer["failed"]
    assert "killed by signal 9" in answer["msg"]
    assert "Next: run the play again" in answer["msg"]


def test_the_status_of_a_run_is_returned_and_no_file_is_changed(simulator: StartSimulator, dest: Path) -> None:
    assert run_module("restore_info", {"dest": str(dest)})["lines"] == ["no run was started here yet"]
    run_module("restore", options_for(simulator(), dest))
    before = snapshot_of(dest)
    answer = run_module("restore_info", {"dest": str(dest), "wait": 30})
    assert answer["lines"][0] == "finished"
    assert ": verified, 0.1 of 0.1 MiB" in answer["lines"][1]
    assert not answer["changed"]
    assert snapshot_of(dest) == before


# ---------------------------------------------------------------- restore_request


def request_options(sim: Simulator, **more: Any) -> dict[str, Any]:
    given = {name: sim.hello[name] for name in ("url", "public_key", "private_key", "group_id", "cluster_id")}
    return {**given, "snapshot": "latest", **more}


def posts(sim: Simulator) -> int:
    """Requests for a restore that reached Ops Manager."""
    return len([one for one in sim.requests if one.method == "POST" and one.auth == "digest"])


def test_check_mode_chooses_the_snapshot_and_requests_nothing(simulator: StartSimulator, tmp_path: Path) -> None:
    sim, record = simulator(shards=1), tmp_path / "dest" / "request.json"
    answer = run_module("restore_request", request_options(sim, record=str(record)), check_mode=True)
    assert (answer["changed"], answer["found"], len(answer["snapshot_id"])) == (True, False, 24)
    assert (answer["batch_id"], answer["jobs"], answer["request"]) == (None, [], None)
    assert posts(sim) == 0
    assert not record.parent.exists()


def test_a_recorded_request_is_sent_once(simulator: StartSimulator, tmp_path: Path) -> None:
    sim, record = simulator(shards=1), tmp_path / "dest" / "request.json"
    options = request_options(sim, record=str(record), max_downloads=5, expires_in="24h")
    first = run_module("restore_request", options)
    assert (first["changed"], first["found"], first["exit_code"]) == (True, False, 0)
    jobs = sim.jobs[2:]
    assert first["batch_id"] == jobs[0].batch_id
    assert [one["job_id"] for one in first["jobs"]] == [job.id for job in jobs]
    assert [(job.max_downloads, job.expiration_hours) for job in jobs] == [(5, 24)] * 2
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert json.loads(record.read_text()) == first["request"]
    for again in ({}, {"snapshot": first["snapshot_id"]}):
        for internal in ({"check_mode": True}, {}):
            second = run_module("restore_request", {**options, **again}, **internal)
            assert (second["changed"], second["found"], second["exit_code"]) == (False, True, 0)
            assert (second["batch_id"], second["request"]) == (first["batch_id"], first["request"])
    assert posts(sim) == 1
    assert not run_module("restore_request", {**options, "before": "2h"}, check_mode=True)["found"]
    assert sim.hello["private_key"] not in json.dumps(first) + record.read_text()


def test_a_lost_answer_blocks_further_requests_until_the_record_is_removed(
    simulator: StartSimulator, tmp_path: Path
) -> None:
    sim, record = simulator("post-lost", shards=1), tmp_path / "request.json"
    options = request_options(sim, record=str(record))
    lost = run_module("restore_request", options)
    assert (lost["failed"], lost["exit_code"], lost["reason"]) == (True, 32, "creation-unconfirmed")
    sim.set_faults()
    blocked = run_module("restore_request", options)
    assert (blocked["failed"], blocked["reason"], blocked["found"]) == (True, "creation-unconfirmed", False)
    assert "Nothing was requested" in blocked["msg"]
    assert str(record) in blocked["hint"]
    assert posts(sim) == 1
    record.unlink()
    assert run_module("restore_request", options)["changed"]


def test_a_refused_request_leaves_no_record(simulator: StartSimulator, tmp_path: Path) -> None:
    sim, record = simulator("post-refuse=403x1", shards=1), tmp_path / "request.json"
    options = request_options(sim, record=str(record))
    assert run_module("restore_request", options)["exit_code"] == 30
    assert run_module("restore_request", {**options, "executable": ["/no/such"]})["reason"] == "agent-missing"
    assert not record.exists()
    record.write_text("{")
    assert run_module("restore_request", options)["reason"] == "record-unusable"
    record.unlink()
    assert run_module("restore_request", options)["changed"]


# ---------------------------------------------------------------- restore_report


def test_a_report_is_returned_and_leaves_no_file(simulator: StartSimulator, dest: Path, tmp_path: Path) -> None:
    run_module("restore", options_for(simulator(shards=1), dest))
    given = {"receipts": {"shard0": (dest / "receipt.json").read_text()}, "expect_jobs": 2}
    answer = run_module("restore_report", given, tmpdir=str(tmp_path))
    assert (answer["changed"], answer["exit_code"], answer["text"]) == (False, 0, None)
    assert answer["sentence"] == "The batch is complete: all 2 archives are verified."
    assert answer["html"].startswith("<!DOCTYPE html>")
    assert "<dd>shard0.json</dd>" in answer["html"], "a name next to the report, not a temporary one"
    assert "restore-agent-report-" not in answer["html"]
    missing = run_module("restore_report", {**given, "expect_jobs": 3})
    assert (missing["exit_code"], missing["sentence"].split(":")[0]) == (24, "The batch is not complete")
    assert [path.name for path in tmp_path.glob("restore-agent-report-*")] == []


def test_receipts_that_cannot_be_used_are_an_error(tmp_path: Path) -> None:
    answer = run_module("restore_report", {"receipts": {"a/b": {"schema": "other"}}})
    assert (answer["failed"], answer["exit_code"]) == (True, 2)
    assert "is not a receipt of restore-agent" in answer["msg"]
