"""Snapshots of the simulated cluster, and restores requested from them."""

from __future__ import annotations

from datetime import datetime

import httpx
import pytest
from api_client import PATIENCE, Client, Json, Start


def snapshots(client: Client, **query: object) -> list[Json]:
    """Return the snapshots that a list shows."""
    results: list[Json] = client.get("/snapshots", **query).json()["results"]
    return results


def post(client: Client, snapshot_id: str, **delivery: object) -> httpx.Response:
    """Request a restore."""
    body = {"snapshotId": snapshot_id, "delivery": {"methodName": "HTTP", **delivery}}
    return client.api.post(f"{client.cluster}/restoreJobs", json=body)


def test_snapshots_are_of_several_ages_and_qualities_and_the_newest_complete_one_is_restorable(start: Start) -> None:
    client = start(shards=2)
    listed = snapshots(client, completed="all")
    times = [document["created"]["date"] for document in listed]
    assert times == sorted(times, reverse=True)
    assert [document["complete"] for document in listed] == [False, True, True, True, True, True, True]
    assert [document["isPossiblyInconsistent"] for document in listed].index(True) == 2
    assert [len(document["missingShards"]) for document in listed] == [0, 0, 0, 1, 0, 0, 0]
    assert listed[-1]["id"] == client.simulator.manager.snapshot_id
    assert listed[-1]["doNotDelete"] and "expires" not in listed[-1]
    assert all(document["expires"] > document["created"]["date"] for document in listed[:-1])


def test_a_shard_that_a_snapshot_lacks_has_no_part(start: Start) -> None:
    listed = snapshots(start(shards=2))
    (short,) = [document for document in listed if document["missingShards"]]
    missing = short["missingShards"][0]
    assert {"clusterName", "groupId", "id", "lastHeartbeat", "replicaSetName", "shardName", "typeName"} == set(missing)
    assert missing["id"] not in [part["clusterId"] for part in short["parts"]]
    assert len(short["parts"]) == 2


def test_incomplete_snapshots_are_listed_on_request(start: Start) -> None:
    client = start()
    assert all(document["complete"] for document in snapshots(client))
    assert [document["complete"] for document in snapshots(client, completed="false")] == [False]
    assert len(snapshots(client, completed="all")) == len(snapshots(client)) + 1
    client.simulator.set_faults("old-snapshots")
    assert not all(document["complete"] for document in snapshots(client))


def test_a_replica_sets_snapshots_have_no_fields_of_sharded_clusters(start: Start) -> None:
    for document in snapshots(start()):
        assert not {"isPossiblyInconsistent", "missingShards"} & document.keys()
        assert [part["typeName"] for part in document["parts"]] == ["REPLICA_SET"]
        assert document["parts"][0]["fileSizeBytes"] > 0
        assert document["parts"][0]["mongodVersion"]


def test_snapshots_can_be_chosen(start: Start) -> None:
    client = start("snapshots=inconsistent:1,complete:48*3,missing", shards=1)
    listed = snapshots(client)
    times = [datetime.fromisoformat(document["created"]["date"]).timestamp() for document in listed]
    assert [round((times[0] - time) / 3600) for time in times] == [0, 47, 53, 59, 65]
    assert [bool(document["missingShards"]) for document in listed] == [False] * 4 + [True]
    assert snapshots(start("snapshots=none", shards=1)) == []


def test_lists_of_snapshots_have_pages(start: Start) -> None:
    client = start("snapshots=complete*250", archive_size=1)
    page = client.get("/snapshots", pageNum=3, itemsPerPage=100).json()
    assert (len(page["results"]), page["totalCount"]) == (50, 250)
    assert len({document["id"] for document in page["results"]}) == 50


@pytest.mark.parametrize("fault", ["snapshots=fresh", "snapshots=complete:soon", "snapshots=complete*0"])
def test_unknown_snapshots_are_refused(start: Start, fault: str) -> None:
    with pytest.raises(ValueError, match="bad value"):
        start(fault)


def test_a_restore_of_a_snapshot_is_a_batch_that_can_be_downloaded(start: Start) -> None:
    client = start("ready-after=10", shards=1)
    snapshot = snapshots(client)[0]
    made = post(client, snapshot["id"], maxDownloads=3, expirationHours=12).json()["results"]
    assert {job["snapshotId"] for job in made}.isdisjoint({job["snapshotId"] for job in client.jobs()})
    assert [job["clusterId"] for job in made] == [part["clusterId"] for part in snapshot["parts"]]
    assert {job["timestamp"]["date"] for job in made} == {snapshot["created"]["date"]}
    assert {job["delivery"]["statusName"] for job in made} == {"NOT_STARTED"}
    client.simulator.clock.advance(10)
    batch = client.get(batchId=made[0]["batchId"]).json()["results"]
    assert [job["id"] for job in batch] == [job["id"] for job in made]
    assert [client.plain.get(job["delivery"]["url"]).status_code for job in batch] == [200, 200]


def test_a_snapshot_without_a_shard_is_restored_without_it_and_an_incomplete_one_not_at_all(start: Start) -> None:
    client = start(shards=2)
    short = next(document for document in snapshots(client) if document["missingShards"])
    assert len(post(client, short["id"]).json()["results"]) == 2
    (incomplete,) = snapshots(client, completed="false")
    assert post(client, incomplete["id"]).json()["errorCode"] == "SNAPSHOT_NOT_COMPLETE"


def test_a_replica_sets_restore_has_no_batch(start: Start) -> None:
    client = start()
    (made,) = post(client, snapshots(client)[0]["id"]).json()["results"]
    assert "batchId" not in made
    assert client.get(f"/restoreJobs/{made['id']}").json()["id"] == made["id"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("post-refuse=403", 403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"),
        ("post-refuse=429", 429, "RATE_LIMITED"),
        ("post-refuse=503", 503, "UNEXPECTED_ERROR"),
    ],
)
def test_a_request_may_be_refused_once(start: Start, fault: str, status: int, code: str) -> None:
    client = start(fault, "api-retry-after=7")
    snapshot_id = snapshots(client)[0]["id"]
    answer = post(client, snapshot_id)
    assert (answer.status_code, answer.json()["errorCode"]) == (status, code)
    assert answer.headers.get("Retry-After") == (None if status == 403 else "7")
    assert len(client.simulator.jobs) == 1
    assert post(client, snapshot_id).status_code == 200


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
def test_an_answer_may_be_lost_after_the_jobs_were_created(start: Start, end: str) -> None:
    client = start(f"post-lost={end}", shards=1)
    snapshot_id = snapshots(client)[0]["id"]
    client.api.timeout = httpx.Timeout(0.3 if end == "stall" else PATIENCE)
    with pytest.raises(httpx.TransportError):
        post(client, snapshot_id)
    client.api.timeout = httpx.Timeout(PATIENCE)
    assert len(client.get().json()["results"]) == 4


def test_jobs_may_be_created_although_the_answer_is_an_error(start: Start) -> None:
    client = start("post-fail=500")
    assert post(client, snapshots(client)[0]["id"]).status_code == 500
    assert len(client.simulator.jobs) == 2


def test_an_answer_to_a_request_may_be_late_or_have_another_status(start: Start) -> None:
    client = start("post-delay=0.4", "post-status=201")
    snapshot_id = snapshots(client)[0]["id"]
    assert post(client, snapshot_id).status_code == 201
    client.api.timeout = httpx.Timeout(0.1)
    with pytest.raises(httpx.ReadTimeout):
        post(client, snapshot_id)
    assert len(client.simulator.jobs) == 3


def test_the_server_reports_its_version(start: Start) -> None:
    client = start()
    assert "versionString=" in client.api.get("").headers["X-MongoDB-Service-Version"]
    client.simulator.set_faults("no-version")
    assert "X-MongoDB-Service-Version" not in client.api.get("").headers
