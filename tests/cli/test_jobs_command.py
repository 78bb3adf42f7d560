"""`jobs` lists the restore jobs of a cluster, whatever their batch."""

from __future__ import annotations

from support.agents import Result, RunAgent, StartSimulator, connection_args, deliveries

from restore_agent.simulator import Simulator

FIELDS = [
    "event",
    "time",
    "job_id",
    "batch_id",
    "cluster_id",
    "created",
    "status",
    "delivery_status",
    "expires",
    "file_name",
    "snapshot_id",
]


def listed(run_agent: RunAgent, sim: Simulator, *options: object) -> Result:
    return run_agent(["jobs", *connection_args(sim, jobs=False), *options])


def test_each_job_is_a_line_newest_first_and_the_result_is_last(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    sim.clock.advance(60)
    place = connection_args(sim, jobs=False)
    ordered = run_agent(["request", *place, "--snapshot=latest", "-o", "json"]).result
    ended = listed(run_agent, sim, "-o", "json")
    assert (ended.code, ended.err) == (0, "")
    assert [line["event"] for line in ended.lines] == ["restore-job"] * 4 + ["result"]
    lines = ended.events("restore-job")
    assert all(list(line) == FIELDS for line in lines)
    assert [line["batch_id"] for line in lines] == [ordered["batch_id"]] * 2 + [sim.hello["batch_id"]] * 2
    assert [line["created"] for line in lines] == sorted((line["created"] for line in lines), reverse=True)
    assert {line["job_id"] for line in lines[:2]} == {job["job_id"] for job in ordered["jobs"]}
    for line, job in zip(lines, [*sim.jobs[2:], *sim.jobs[:2]], strict=True):
        assert (line["job_id"], line["file_name"]) == (job.id, job.file_name)
        assert (line["status"], line["delivery_status"]) == ("FINISHED", "READY")
        assert line["expires"] > line["created"]
    assert (ended.result["exit_code"], ended.result["cluster_id"]) == (0, sim.hello["cluster_id"])
    assert deliveries(sim) == []


def test_the_table_fits_80_columns(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("never-ready@0", shards=1)
    ended = listed(run_agent, sim)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("JOB ")
    for job in sim.jobs:
        assert any(line.startswith(job.id) for line in lines)
    assert ended.out.count(f"batch {sim.hello['batch_id']}") == 2


def test_a_replica_set_has_jobs_without_a_batch(run_agent: RunAgent, simulator: StartSimulator) -> None:
    ended = listed(run_agent, simulator(shards=0), "-o", "json")
    assert [line["batch_id"] for line in ended.events("restore-job")] == [None]
    assert "batch" not in listed(run_agent, simulator(shards=0)).out


def test_no_job_is_an_empty_list(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    args = connection_args(sim, jobs=False)
    with sim.lock:
        sim.jobs.clear()
    ended = run_agent(["jobs", *args])
    assert (ended.code, ended.out) == (0, "No restore jobs.\n")


def test_an_unknown_cluster_is_24_and_a_refused_key_30(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    ended = listed(run_agent, sim, "--cluster-id=000000000000000000000000", "-o", "json")
    assert (ended.code, ended.result["exit_code"]) == (24, 24)
    assert "CLUSTER_NOT_FOUND" in ended.events("error")[0]["message"]
    assert listed(run_agent, simulator("unauthorized", shards=1)).code == 30


def test_no_secret_is_printed(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("url-v2", shards=1)
    for options in ([], ["-o", "json"]):
        ended = listed(run_agent, sim, *options)
        assert ended.code == 0
        assert [secret for secret in sim.secrets if secret in ended.out + ended.err] == []
