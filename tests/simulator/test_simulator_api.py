"""The simulated API over real sockets."""

from __future__ import annotations

import pytest
from api_client import Json, Start

# The API


def test_a_sharded_restore_lists_a_job_for_each_shard_and_one_for_the_config_server(start: Start) -> None:
    client = start(shards=2)
    jobs = client.jobs()
    assert [job["id"] for job in jobs] == client.hello["job_ids"]
    assert len({job["clusterId"] for job in jobs}) == len({job["snapshotId"] for job in jobs}) == 3
    assert {job["batchId"] for job in jobs} == {client.hello["batch_id"]}
    assert jobs[2]["delivery"]["url"].rsplit("/", 1)[1].startswith("config-")


def test_a_job_is_formatted_as_on_the_reference_page(start: Start) -> None:
    client = start(shards=1)
    job = client.job()
    page = {"batchId", "clusterId", "created", "delivery", "encryptionEnabled", "groupId", "id", "links"}
    assert job.keys() == page | {"pointInTime", "snapshotId", "statusName", "timestamp"}
    delivery = {"expirationHours", "expires", "maxDownloads", "methodName", "statusName", "url"}
    assert job["delivery"].keys() == delivery
    assert job["links"][0]["href"].endswith(f"/clusters/{job['clusterId']}/restoreJobs/{job['id']}")


def test_a_replica_set_has_one_job_and_no_batch(start: Start) -> None:
    client = start()
    assert client.hello["batch_id"] is None
    assert len(client.hello["job_ids"]) == 1
    assert "batchId" not in client.job()


def test_ids_are_derived_from_the_shape_and_secrets_are_not(start: Start) -> None:
    one, two, other = start(shards=1), start(shards=1), start(shards=1, seed="other")
    assert one.hello["job_ids"] == two.hello["job_ids"] != other.hello["job_ids"]
    assert one.hello["private_key"] != two.hello["private_key"]
    assert one.url() != two.url()


def test_a_job_is_found_under_its_own_cluster_too(start: Start) -> None:
    client = start(shards=2)
    job = client.job(1)
    own = f"/groups/{client.hello['group_id']}/clusters/{job['clusterId']}/restoreJobs"
    assert client.api.get(f"{own}/{job['id']}").json()["id"] == job["id"]
    listed = client.api.get(own, params={"batchId": client.hello["batch_id"]}).json()
    assert [found["id"] for found in listed["results"]] == [job["id"]]
    assert client.api.get(f"{own}/{client.hello['job_ids'][0]}").json()["errorCode"] == "RESTORE_JOB_NOT_FOUND"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/groups/0123456789abcdef01234567", 404, "GROUP_NOT_FOUND"),
        ("/groups/{group_id}/clusters/0123456789abcdef01234567/restoreJobs", 404, "CLUSTER_NOT_FOUND"),
        ("/groups/{group_id}/hosts/0123456789abcdef01234567/restoreJobs", 404, "HOST_NOT_FOUND"),
        ("/groups/{group_id}/clusters/{cluster_id}/restoreJobs/0123456789abcdef01234567", 404, "RESTORE_JOB_NOT_FOUND"),
        ("/groups/{group_id}/clusters/{cluster_id}/restoreJobs/x", 404, "INVALID_JOB_ID"),
        ("/groups/{group_id}/clusters/{cluster_id}/snapshots/x", 404, "SNAPSHOT_NOT_FOUND"),
        ("/groups/{group_id}/teapots", 404, "RESOURCE_NOT_FOUND"),
    ],
)
def test_an_unknown_id_or_path_gets_an_error_document(start: Start, path: str, status: int, code: str) -> None:
    client = start()
    answer = client.api.get(path.format(**client.hello))
    assert answer.status_code == status
    assert answer.json()["errorCode"] == code
    assert answer.json().keys() == {"detail", "error", "errorCode", "parameters", "reason"}


def test_an_unknown_batch_is_an_empty_list(start: Start) -> None:
    client = start(shards=1)
    assert client.get(batchId="0" * 24).json()["results"] == []


def test_the_root_the_project_and_the_clusters_can_be_read(start: Start) -> None:
    client = start(shards=1)
    assert client.api.get("").json()["links"]
    assert client.api.get(f"/groups/{client.hello['group_id']}").json()["id"] == client.hello["group_id"]
    clusters = client.api.get(f"/groups/{client.hello['group_id']}/clusters").json()["results"]
    assert [cluster["typeName"] for cluster in clusters] == [
        "SHARDED_REPLICA_SET",
        "REPLICA_SET",
        "CONFIG_SERVER_REPLICA_SET",
    ]
    assert client.get("").json()["id"] == clusters[0]["id"] == client.hello["cluster_id"]


def test_snapshots_limit_the_sizes_of_their_archives(start: Start) -> None:
    client = start(shards=1)
    snapshot = client.get("/snapshots").json()["results"][0]
    assert client.get(f"/snapshots/{snapshot['id']}").json()["parts"] == snapshot["parts"]
    for index, part in enumerate(snapshot["parts"]):
        assert part["clusterId"] == client.job(index)["clusterId"]
        assert part["fileSizeBytes"] > 0
    own = client.get(f"/snapshots/{client.job(1)['snapshotId']}").json()
    assert [part["typeName"] for part in own["parts"]] == ["CONFIG_SERVER_REPLICA_SET"]
    listed = client.api.get(f"/groups/{client.hello['group_id']}/clusters/{own['clusterId']}/snapshots").json()
    assert own["id"] in [document["id"] for document in listed["results"]]


def test_a_mirrored_config_server_is_found_by_its_host(start: Start) -> None:
    client = start("sccc", shards=1)
    job = client.jobs()[1]
    assert "clusterId" not in job
    path = f"/groups/{client.hello['group_id']}/hosts/{job['hostId']}/restoreJobs"
    assert [found["id"] for found in client.api.get(path).json()["results"]] == [job["id"]]
    assert client.api.get(f"{path}/{job['id']}").json() == job


def test_pages_link_to_each_other_and_keep_the_batch(start: Start) -> None:
    client = start(shards=3)
    first = client.get(batchId=client.hello["batch_id"], pageNum=1, itemsPerPage=3).json()
    links = {link["rel"]: link["href"] for link in first["links"]}
    assert (len(first["results"]), first["totalCount"], links.keys()) == (3, 4, {"self", "next"})
    second = client.api.get(links["next"]).json()
    assert [job["id"] for job in first["results"] + second["results"]] == client.hello["job_ids"]
    assert {link["rel"] for link in second["links"]} == {"self", "previous"}


def test_page_size_is_capped_and_links_may_lack_batch_count_and_next(start: Start) -> None:
    client = start("page-size=2", "next-drops-batch", "no-total-count", shards=2)
    page = client.get(batchId=client.hello["batch_id"]).json()
    assert "totalCount" not in page
    assert len(page["results"]) == 2
    assert "batchId" not in next(link["href"] for link in page["links"] if link["rel"] == "next")
    client.simulator.set_faults("page-size=2", "no-next-link")
    assert {link["rel"] for link in client.get().json()["links"]} == {"self"}


def test_endless_pages_always_list_new_jobs(start: Start) -> None:
    client = start("endless-pages", shards=1)
    pages = [client.get(pageNum=number).json() for number in (1, 2, 900)]
    assert all("next" in {link["rel"] for link in page["links"]} for page in pages)
    assert len({job["id"] for page in pages for job in page["results"]}) == 6


def test_envelopes_are_used_on_request_and_always_by_fault(start: Start) -> None:
    client = start()
    path = f"/restoreJobs/{client.hello['job_ids'][0]}"
    wrapped = client.get(path, envelope="true").json()
    assert (wrapped["status"], wrapped["content"]["id"]) == (200, client.hello["job_ids"][0])
    assert client.get(envelope="true").json()["status"] == 200
    client.simulator.set_faults("envelope-always")
    assert client.get(path).json() == wrapped
    assert client.get(path, pretty="true").text.startswith("{\n")


@pytest.mark.parametrize(
    ("order", "downloads", "hours"),
    [
        ({}, 1, 1),
        ({"delivery": {"methodName": "HTTP", "maxDownloads": 6, "expirationHours": 48}}, 6, 48),
    ],
)
def test_a_restore_can_be_requested_in_the_old_and_the_new_form(
    start: Start, order: Json, downloads: int, hours: int
) -> None:
    client = start(shards=1)
    snapshot = client.get("/snapshots").json()["results"][0]["id"]
    made = client.api.post(f"{client.cluster}/restoreJobs", json={"snapshotId": snapshot, **order}).json()["results"]
    assert len({job["batchId"] for job in made}) == 1 and made[0]["batchId"] != client.hello["batch_id"]
    assert made[0]["delivery"]["maxDownloads"] == downloads
    assert made[0]["delivery"]["expirationHours"] == hours
    assert client.plain.get(made[1]["delivery"]["url"]).status_code == 200
    assert len(client.get().json()["results"]) == 4


def test_a_requested_restore_of_one_replica_set_has_no_batch_and_the_given_expiry(start: Start) -> None:
    client = start(shards=1)
    body = {"snapshotId": client.job()["snapshotId"], "delivery": {"expires": "2031-01-01T00:00:00Z"}}
    (made,) = client.api.post(f"{client.cluster}/restoreJobs", json=body).json()["results"]
    assert "batchId" not in made
    assert made["delivery"]["expires"] == "2031-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "INVALID_JSON"),
        (b"[]", "INVALID_JSON"),
        (b"{}", "INVALID_SNAPSHOT_ID"),
        (b'{"snapshotId": "SNAPSHOT", "delivery": {"methodName": "SCP"}}', "INVALID_DELIVERY_METHOD"),
        (b'{"snapshotId": "SNAPSHOT", "delivery": {"expires": "soon"}}', "INVALID_ATTRIBUTE"),
    ],
)
def test_an_invalid_request_for_a_restore_is_refused(start: Start, body: bytes, code: str) -> None:
    client = start()
    body = body.replace(b"SNAPSHOT", client.job()["snapshotId"].encode())
    answer = client.api.post(f"{client.cluster}/restoreJobs", content=body)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)


def test_a_method_that_an_endpoint_lacks_is_refused(start: Start) -> None:
    client = start()
    assert client.api.delete(client.cluster).status_code == 405
