"""`request` asks for the restore of one snapshot, with one POST whatever becomes of the answer."""

from __future__ import annotations

import shlex
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.agents import (
    QUICK,
    Json,
    Result,
    RunAgent,
    StartAgent,
    StartSimulator,
    connection_args,
    finished,
    receipt_in,
    wait_until,
)

from restore_agent.simulator import Simulator

KINDS = "snapshots=incomplete:1,inconsistent:2,missing:3,complete:4,complete:24"


def request(run_agent: RunAgent, sim: Simulator, *options: object) -> Result:
    return run_agent(["request", *connection_args(sim, jobs=False), *options])


def asked(run_agent: RunAgent, sim: Simulator, *options: object) -> Result:
    return request(run_agent, sim, *options, "-o", "json")


def snapshots(run_agent: RunAgent, sim: Simulator) -> list[Json]:
    return run_agent(["snapshots", *connection_args(sim, jobs=False), "-o", "json"]).events("snapshot")


def posts(sim: Simulator) -> int:
    """POSTs with credentials that reached the server."""
    return len([one for one in sim.requests if one.method == "POST" and one.auth == "digest"])


# ---------------------------------------------------------------- a request


def test_latest_is_the_newest_that_can_be_restored_and_becomes_one_batch(
    run_agent: RunAgent, simulator: StartSimulator
) -> None:
    sim = simulator(KINDS, shards=2)
    ended = asked(run_agent, sim, "--snapshot=latest")
    assert (ended.code, ended.err, [line["event"] for line in ended.lines]) == (0, "", ["result"])
    result, chosen, jobs = ended.result, snapshots(run_agent, sim)[3], sim.jobs[3:]
    assert (result["snapshot_id"], result["snapshot_timestamp"]) == (chosen["snapshot_id"], chosen["created"])
    assert (result["exit_code"], result["changed"], result["batch_id"]) == (0, True, jobs[0].batch_id)
    assert result["jobs"] == [
        {"job_id": job.id, "cluster_id": job.member.cluster_id, "status": "FINISHED"} for job in jobs
    ]
    assert len(jobs) == 3
    assert [(job.max_downloads, job.expiration_hours) for job in jobs] == [(3, 12)] * 3
    assert posts(sim) == 1


def test_downloads_and_expiry_are_those_of_the_options(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    assert asked(run_agent, sim, "--snapshot=latest", "--max-downloads=7", "--expires-in=1d").code == 0
    assert [(job.max_downloads, job.expiration_hours) for job in sim.jobs[2:]] == [(7, 24)] * 2


def test_the_text_ends_with_the_command_that_follows(
    run_agent: RunAgent, simulator: StartSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = simulator(shards=1, tls=True)
    monkeypatch.chdir(tmp_path)
    ended = request(run_agent, sim, "--snapshot=latest")
    assert (ended.code, ended.err) == (0, "")
    *lines, command = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    batch = sim.jobs[2].batch_id
    assert batch in ended.out
    words = shlex.split(command)
    assert words[:2] == ["restore-agent", "run"]
    assert words[words.index("--batch-id") + 1] == batch
    assert words[words.index("--expect-jobs") + 1] == "2"
    done = run_agent([*words[1:], *QUICK, "-o", "json"])
    assert (done.code, done.verdicts) == (0, ["verified"] * 2)
    assert receipt_in(tmp_path / f"restore-{batch}")["batch_id"] == batch


def test_a_replica_set_is_followed_by_its_job(run_agent: RunAgent, simulator: StartSimulator, dest: Path) -> None:
    sim = simulator(shards=0)
    ended = asked(run_agent, sim, "--snapshot=latest")
    assert (ended.code, ended.result["batch_id"], len(ended.result["jobs"])) == (0, None, 1)
    words = shlex.split(request(run_agent, sim, "--snapshot=latest").out.splitlines()[-1])
    assert words[words.index("--job-id") + 1] == sim.jobs[-1].id
    assert "--batch-id" not in words
    assert run_agent([*words[1:], *QUICK, f"--dest={dest}", "-o", "json"]).code == 0


def test_the_command_is_quoted_and_names_the_configuration_file_but_never_the_key(
    run_agent: RunAgent, simulator: StartSimulator, tmp_path: Path
) -> None:
    sim = simulator(shards=1)
    hello = sim.hello
    file = tmp_path / "my agent.toml"
    file.write_text(f'url = "{hello["url"]}"\ngroup_id = "{hello["group_id"]}"\ndest = "to"\npublic_key = "other"\n')
    options = ["--config", file, f"--cluster-id={hello['cluster_id']}", "--snapshot=latest"]
    env = {
        "RESTORE_AGENT_PRIVATE_KEY": hello["private_key"],
        "RESTORE_AGENT_PUBLIC_KEY": hello["public_key"],
    }
    ended = run_agent(["request", *options], env)
    assert ended.code == 0, ended.err
    words = shlex.split(ended.out.splitlines()[-1])
    assert words[2:4] == ["--config", str(file)]
    assert "--url" not in words
    assert "--dest" not in words
    assert words[words.index("--public-key") + 1] == hello["public_key"]
    assert words[words.index("--cluster-id") + 1] == hello["cluster_id"]
    assert hello["private_key"] not in ended.out + ended.err
    assert run_agent([*words[1:], *QUICK], env).code == 0
    assert (tmp_path / "to" / "receipt.json").exists()


def test_a_dry_run_chooses_and_requests_nothing(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(KINDS, shards=1)
    ended = asked(run_agent, sim, "--snapshot=latest", "--dry-run")
    assert (ended.code, ended.result["changed"]) == (0, False)
    chosen = snapshots(run_agent, sim)[3]
    assert (ended.result["snapshot_id"], ended.result["batch_id"]) == (chosen["snapshot_id"], None)
    assert ended.result["jobs"] == []
    text = request(run_agent, sim, "--snapshot=latest", "--dry-run").out
    assert "Nothing was requested." in text
    assert "restore-agent run" not in text
    assert [one.method for one in sim.requests if one.method == "POST"] == []


# ---------------------------------------------------------------- which snapshot


def moment(epoch: float, zone: str = "Z") -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S") + zone


def test_before_selects_the_newest_snapshot_that_is_not_later(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("snapshots=complete:1,complete:4,complete:24", shards=1)
    listed = snapshots(run_agent, sim)
    now = sim.clock.now()

    def taken(before: str) -> int:
        ended = asked(run_agent, sim, "--snapshot=latest", f"--before={before}", "--dry-run")
        assert ended.code == 0, ended.out
        return [line["snapshot_id"] for line in listed].index(ended.result["snapshot_id"])

    assert [taken("30m"), taken("2h"), taken("4h10m"), taken("0s")] == [0, 1, 2, 0]
    assert taken(listed[1]["created"]) == 1
    assert taken(moment(datetime.fromisoformat(listed[1]["created"]).timestamp() - 1)) == 2
    assert taken(moment(now - 2 * 3600 + 2 * 3600, "+02:00")) == 1
    ended = asked(run_agent, sim, "--snapshot=latest", "--before=30d", "--dry-run")
    assert (ended.code, ended.events("error")[0]["id"]) == (24, "no-snapshot")


def test_a_duration_counts_back_from_the_time_of_the_server(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("snapshots=complete:1,complete:4", "clock-skew=86400", shards=1)
    ended = asked(run_agent, sim, "--snapshot=latest", "--before=2h", "--dry-run")
    assert ended.result["snapshot_id"] == snapshots(run_agent, sim)[1]["snapshot_id"]


@pytest.mark.parametrize("kind", ["inconsistent", "missing"])
def test_a_snapshot_that_lacks_something_must_be_allowed(
    run_agent: RunAgent, simulator: StartSimulator, kind: str
) -> None:
    sim = simulator(f"snapshots={kind}:1", shards=2)
    (only,) = snapshots(run_agent, sim)
    refused = asked(run_agent, sim, f"--snapshot={only['snapshot_id']}")
    assert (refused.code, refused.result["jobs"], posts(sim)) == (24, [], 0)
    assert "--allow-inconsistent" in refused.events("error")[0]["hint"]
    ended = asked(run_agent, sim, f"--snapshot={only['snapshot_id']}", "--allow-inconsistent")
    assert (ended.code, len(ended.result["jobs"])) == (0, 2 if kind == "missing" else 3)


def test_an_incomplete_snapshot_is_never_requested(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("snapshots=incomplete:1", shards=1)
    (only,) = snapshots(run_agent, sim)
    for options in ([], ["--allow-inconsistent"], ["--dry-run"]):
        ended = asked(run_agent, sim, f"--snapshot={only['snapshot_id']}", *options)
        assert (ended.code, ended.events("error")[0]["id"]) == (24, "snapshot-not-restorable")
    assert asked(run_agent, sim, "--snapshot=latest").code == 24
    assert posts(sim) == 0


def test_an_unknown_snapshot_is_24(run_agent: RunAgent, simulator: StartSimulator) -> None:
    ended = asked(run_agent, simulator(shards=1), "--snapshot=000000000000000000000000")
    assert ended.code == 24
    assert "--snapshot" in ended.events("error")[0]["hint"]
    assert (ended.result["snapshot_id"], ended.result["batch_id"], ended.result["jobs"]) == (None, None, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--snapshot is missing"),
        (["--snapshot=abc", "--before=6h"], "--before is only for --snapshot latest"),
        (["--snapshot=latest", "--allow-inconsistent"], "--allow-inconsistent is only for"),
        (["--snapshot=latest", "--before=yesterday"], "neither a time"),
        (["--snapshot=latest", "--before="], "neither a time"),
        (["--snapshot=latest", "--before=2026-11-25"], "neither a time"),
        (["--snapshot=latest", "--before=2026-11-25T03:00:00"], "neither a time"),
        (["--snapshot=latest", "--before=2026-02-30T03:00:00Z"], "not a time that exists"),
        (["--snapshot=latest", "--expires-in=90m"], "whole hours"),
        (["--snapshot=latest", "--expires-in=0"], "whole hours"),
        (["--snapshot=latest", "--expires-in=90"], "whole hours"),
        (["--snapshot=latest", "--max-downloads=0"], "whole number"),
        (["--snapshot=latest", "--max-downloads=many"], "whole number"),
        (["--snapshot=../x"], "not an ID"),
    ],
)
def test_an_invalid_call_is_2_and_sends_no_request(
    run_agent: RunAgent, simulator: StartSimulator, options: list[str], said: str
) -> None:
    sim = simulator(shards=1)
    ended = asked(run_agent, sim, *options)
    assert ended.code == 2
    assert said in ended.events("error")[0]["message"]
    assert sim.requests == []


# ---------------------------------------------------------------- the answer


@pytest.mark.parametrize("fault", ["post-lost=close", "post-lost=reset", "post-fail=503", "post-fail=429"])
def test_without_an_answer_there_is_one_post_and_the_error_explains_how_to_check(
    run_agent: RunAgent, simulator: StartSimulator, fault: str
) -> None:
    sim = simulator(fault, shards=1)
    ended = request(run_agent, sim, "--snapshot=latest")
    assert (ended.code, ended.out) == (32, "")
    assert "a restore may have been created" in ended.err
    assert "restore-agent jobs" in ended.err
    assert posts(sim) == 1
    assert len(sim.jobs) == 4
    listed = run_agent(["jobs", *connection_args(sim, jobs=False), "-o", "json"]).events("restore-job")
    assert {line["job_id"] for line in listed} == {job.id for job in sim.jobs}


def test_the_result_without_an_answer_names_the_snapshot(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("post-lost", shards=1)
    ended = asked(run_agent, sim, "--snapshot=latest")
    assert (ended.code, ended.result["exit_code"], ended.result["batch_id"]) == (32, 32, None)
    assert ended.result["snapshot_id"] == snapshots(run_agent, sim)[1]["snapshot_id"]
    assert ended.result["jobs"] == []


@pytest.mark.parametrize(
    ("fault", "code"), [("post-refuse=500", 32), ("post-refuse=429", 32), ("post-refuse=403", 30), ("forbidden", 30)]
)
def test_a_refusal_is_never_followed_by_another_post(
    run_agent: RunAgent, simulator: StartSimulator, fault: str, code: int
) -> None:
    sim = simulator(fault, shards=1)
    ended = asked(run_agent, sim, "--snapshot=latest")
    assert ended.code == code
    assert posts(sim) <= 1
    assert len(sim.jobs) == 2


def test_a_challenge_is_answered_although_the_nonce_was_used_before(
    run_agent: RunAgent, simulator: StartSimulator
) -> None:
    sim = simulator("stale-nonce=1", shards=1)
    assert asked(run_agent, sim, "--snapshot=latest").code == 0
    assert len(sim.jobs) == 4


def test_faults_before_the_post_are_retried(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("api-503=1", "api-reset=1", shards=1)
    ended = asked(run_agent, sim, "--snapshot=latest")
    assert (ended.code, len(sim.jobs)) == (0, 4)
    assert ended.events("trouble")


def test_a_slow_answer_is_awaited_and_reported(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("post-delay=2", shards=1)
    ended = asked(run_agent, sim, "--snapshot=latest")
    assert (ended.code, posts(sim)) == (0, 1)
    assert "has not answered yet" in ended.events("notice")[0]["message"]


def test_a_stop_before_the_answer_reports_that_a_restore_may_exist(
    start_agent: StartAgent, simulator: StartSimulator
) -> None:
    sim = simulator("post-lost=stall", shards=1)
    process = start_agent(["request", *connection_args(sim, jobs=False), "--snapshot=latest"])
    wait_until(lambda: len(sim.jobs) == 4, "the creation of the jobs")
    process.send_signal(signal.SIGTERM)
    ended = finished(process)
    assert ended.code == 143
    assert "a restore may have been created" in ended.err
    assert posts(sim) == 1


def test_without_an_output_the_batch_is_named_in_the_log(start_agent: StartAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    with Path("/dev/full").open("w") as full:
        args = ["request", *connection_args(sim, jobs=False), "--snapshot=latest"]
        ended = finished(start_agent(args, stdout=full))
    assert ended.code == 41
    assert f"the restore was requested: {sim.jobs[2].batch_id}" in ended.err


def test_no_secret_is_printed(run_agent: RunAgent, simulator: StartSimulator) -> None:
    for faults in (["url-v2"], ["post-lost"], ["hostile-text", "post-refuse=403"]):
        sim = simulator(*faults, shards=1)
        for options in ([], ["-o", "json"], ["--debug"]):
            ended = request(run_agent, sim, "--snapshot=latest", *options)
            assert [secret for secret in sim.secrets if secret in ended.out + ended.err] == []
