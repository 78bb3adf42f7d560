"""The simulated Ops Manager, met over real sockets by clients that know nothing of its inside."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from restore_agent.simulator import Faults, Simulator, describe, serve
from restore_agent.simulator.archives import Recipe, make_archive
from restore_agent.simulator.delivery.plan import Ask, Content, plan_delivery
from restore_agent.simulator.faults.faults import step_at

SMALL = 1 << 16
PATIENCE = 5.0
API = "/api/public/v1.0"

Json = dict[str, Any]
Start = Callable[..., "Client"]


class Client:
    """A plain client of a running simulator: digest for the API, nothing for deliveries, no redirects."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        hello = simulator.hello
        self.hello = hello
        verify = ssl.create_default_context(cafile=hello["ca_file"]) if hello["ca_file"] else False
        auth = httpx.DigestAuth(hello["public_key"], hello["private_key"])
        self.api = httpx.Client(base_url=f"{hello['url']}/api/public/v1.0", auth=auth, verify=verify, timeout=PATIENCE)
        self.plain = httpx.Client(verify=verify, timeout=PATIENCE)
        self.cluster = f"/groups/{hello['group_id']}/clusters/{hello['cluster_id']}"

    def get(self, path: str = "/restoreJobs", **query: object) -> httpx.Response:
        return self.api.get(self.cluster + path, params={key: str(value) for key, value in query.items()})

    def jobs(self) -> list[Json]:
        results: list[Json] = self.get(batchId=self.hello["batch_id"]).json()["results"]
        return results

    def job(self, index: int = 0) -> Json:
        document: Json = self.get(f"/restoreJobs/{self.hello['job_ids'][index]}").json()
        return document

    def url(self, index: int = 0) -> str:
        return str(self.job(index)["delivery"]["url"])

    def download(self, index: int = 0, **headers: str) -> httpx.Response:
        return self.plain.get(self.url(index), headers=headers)

    def raw_body(self, index: int = 0) -> tuple[bytes, BaseException | None]:
        """All bytes of a delivery that arrived, with the error that ended it."""
        received = bytearray()
        try:
            with self.plain.stream("GET", self.url(index)) as response:
                for block in response.iter_raw():
                    received += block
        except httpx.HTTPError as error:
            return bytes(received), error
        return bytes(received), None

    def close(self) -> None:
        self.api.close()
        self.plain.close()


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Client] = []

    def run(*faults: str, shards: int = 0, archive_size: int = SMALL, **more: Any) -> Client:
        simulator = Simulator(faults=faults, shards=shards, archive_size=archive_size, **more)
        simulator.start()
        running.append(Client(simulator))
        return running[-1]

    yield run
    for client in running:
        client.close()
        client.simulator.stop()


def archive_of(client: Client, index: int = 0) -> bytes:
    return client.simulator.job(index).archive().path.read_bytes()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


# The table of faults


def test_an_unknown_fault_names_its_neighbours() -> None:
    with pytest.raises(ValueError, match=r"unknown fault 'clean-cutt'; did you mean clean-cut"):
        Faults.parse(["clean-cutt=5%"])


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("zzzzzz", "--list-faults"),
        ("cut", "needs a value"),
        ("cut=120%", "between 0 and 100"),
        ("cut=60%xmany", "invalid literal"),
        ("cut=1Z", "a size is digits"),
        ("html-body=-1", "at least 1"),
        ("never-ready=5", "takes no value"),
        ("hash=late:soon", "bad value 'late:soon'"),
        ("hash=never:3", "never takes no seconds"),
        ("hash=maybe", "one of ready, late"),
        ("range=perhaps", "one of none, honour"),
        ("ready-after=-1", "must not be negative"),
        ("ready-after=inf", "not a finite number"),
        ("refuse=99", "between 200 and 599"),
        ("job-field=id", "a dotted path"),
        ("job-field=id:{", "bad value"),
        ("drip=0", "at least 1"),
        ("api-429=2@1", "belongs to the server"),
    ],
)
def test_a_bad_value_is_refused_with_what_to_write(fault: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Faults.parse([fault])


def test_the_table_documents_every_fault() -> None:
    rows = {row.name: row for row in describe()}
    assert all(row.help for row in rows.values())
    assert rows["cut"].value == "PERCENT%|BYTES[xTIMES]"
    assert rows["max-downloads"].default == "1"
    assert rows["hash"].default == "ready"
    assert not rows["api-429"].per_job
    assert {"stagger", "clean-cut", "other-origin", "numbers-as-strings", "bad-date"} <= rows.keys()


def test_a_fault_for_one_job_leaves_the_others_alone() -> None:
    faults = Faults.parse(["cut=10%", "plain-tar@1", "max-downloads=3@1"])
    assert faults.for_job(1).plain_tar
    assert faults.for_job(1).max_downloads == 3
    assert not faults.for_job(0).plain_tar
    assert faults.for_job(0).attempts == faults.attempts
    assert Faults().for_job(5) == Faults()


def test_attempts_meet_their_endings_in_the_order_written() -> None:
    steps = Faults.parse(["stall=10%", "cut=50%x2", "refuse=503", "reset=1"]).attempts
    met = [step_at(steps, number) for number in range(6)]
    assert [step and step.kind for step in met] == ["stall", "cut", "cut", "refuse", "reset", None]


def test_a_step_that_lasts_always_is_never_over() -> None:
    step = step_at(Faults.parse(["cut=1xalways"]).attempts, 10_000)
    assert step is not None and step.kind == "cut"


# The plan of a delivery

CONTENT = Content(1000, '"tag"', "Tue, 18 Apr 2017 15:14:25 GMT")


@pytest.mark.parametrize(
    ("faults", "attempt", "span", "status", "sent", "content_range"),
    [
        ("", 0, None, 200, (0, 1000), None),
        ("", 0, "bytes=100-", 200, (0, 1000), None),
        ("range=ignore", 0, "bytes=100-", 200, (0, 1000), None),
        ("range=honour", 0, "bytes=100-", 206, (100, 1000), "bytes 100-999/1000"),
        ("range=honour", 0, "bytes=100-199", 206, (100, 200), "bytes 100-199/1000"),
        ("range=honour", 0, "bytes=-10", 206, (990, 1000), "bytes 990-999/1000"),
        ("range=honour", 0, "bytes=-", 200, (0, 1000), None),
        ("range=honour", 0, "bytes=9-3", 200, (0, 1000), None),
        ("range=honour", 0, "lines=1-", 200, (0, 1000), None),
        ("range=honour", 0, "bytes=1000-", 416, (0, 23), "bytes */1000"),
        ("range=416", 0, "bytes=1-", 416, (0, 23), "bytes */1000"),
        ("range=wrong-offset", 0, "bytes=100-", 206, (50, 1000), "bytes 50-999/1000"),
        ("range=wrong-total", 0, "bytes=100-", 206, (100, 1000), "bytes 100-999/1001"),
        ("range=wrong-bytes", 0, "bytes=100-", 206, (0, 900), "bytes 100-999/1000"),
        ("cut=60%", 0, None, 200, (0, 600), None),
        ("cut=60%", 1, None, 200, (0, 1000), None),
        ("cut=60%x2", 1, None, 200, (0, 600), None),
        ("range=honour cut=50%", 0, "bytes=100-", 206, (100, 550), "bytes 100-999/1000"),
        ("reset=1K", 0, None, 200, (0, 1000), None),
        ("refuse=503", 0, None, 503, (0, 26), None),
        ("html-body=1", 1, None, 200, (0, 1000), None),
    ],
)
def test_the_plan_of_a_delivery(
    faults: str, attempt: int, span: str | None, status: int, sent: tuple[int, int], content_range: str | None
) -> None:
    plan = plan_delivery(Faults.parse(faults.split()), attempt, Ask(span), CONTENT)
    assert plan.status == status
    assert (plan.start, plan.start + plan.send) == sent
    assert dict(plan.headers).get("Content-Range") == content_range


@pytest.mark.parametrize(("validator", "status"), [('"tag"', 206), (CONTENT.last_modified, 206), ('"old"', 200)])
def test_a_range_is_honoured_only_for_the_validator_that_still_holds(validator: str, status: int) -> None:
    plan = plan_delivery(Faults.parse(["range=honour"]), 0, Ask("bytes=5-", validator), CONTENT)
    assert plan.status == status


@pytest.mark.parametrize(
    ("faults", "proves"),
    [
        ("", True),
        ("cut=60%", False),
        ("clean-cut=60%", False),
        ("stall=100%", False),
        ("html-body", False),
        ("range=honour", True),
        ("refuse=403", False),
    ],
)
def test_only_a_whole_archive_proves_a_download(faults: str, proves: bool) -> None:
    assert plan_delivery(Faults.parse(faults.split()), 0, Ask("bytes=5-"), CONTENT).proves is proves


# Archives


def test_an_archive_is_a_gzip_tar_of_a_data_path(tmp_path: Path) -> None:
    recipe = Recipe("electron_0-1-ab.tar.gz", 1 << 20, "seed", info=(("Replica Set", "electron_0"),))
    archive = make_archive(tmp_path / "a", recipe)
    with tarfile.open(archive.path, "r:gz") as tar:
        names = tar.getnames()
        assert sum(member.size for member in tar) == archive.unpacked
        info = tar.extractfile("electron_0-1-ab/restoreInfo.txt")
        assert info is not None and info.read() == b"Replica Set: electron_0\n"
    assert names[0] == "electron_0-1-ab"
    assert {name.split("/", 1)[1] for name in names[1:]} >= {"WiredTiger", "WiredTiger.wt", "journal", "storage.bson"}
    assert abs(archive.size - (1 << 20)) < 1 << 14
    assert archive.sha1 == sha1(archive.path.read_bytes())


def test_archives_follow_from_seed_and_size(tmp_path: Path) -> None:
    recipes = [Recipe("a.tar.gz", 5000, "one"), Recipe("a.tar.gz", 5000, "one"), Recipe("a.tar.gz", 5000, "two")]
    one, again, other = (make_archive(tmp_path / str(number), recipe) for number, recipe in enumerate(recipes))
    assert one.sha1 == again.sha1 != other.sha1


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_333_333])
def test_archives_of_any_size_are_whole(tmp_path: Path, size: int) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar.gz", size, "seed"))
    with tarfile.open(archive.path) as tar:
        assert len(tar.getmembers()) == 14


def test_a_damaged_gzip_matches_its_hash_and_fails_its_check(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar.gz", SMALL, "seed", damaged=True))
    assert archive.sha1 == sha1(archive.path.read_bytes())
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(archive.path.read_bytes())


def test_a_damaged_plain_tar_has_a_bad_header(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar", SMALL, "seed", gzipped=False, damaged=True))
    with tarfile.open(archive.path, "r:") as tar:
        assert all(member.isdir() for member in tar)  # tarfile ends quietly at the bad header of the first file


def test_a_bomb_is_small_and_says_gigabytes(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a", Recipe("a.tar.gz", SMALL, "seed", bomb=True))
    assert archive.size < 8 << 20
    with tarfile.open(archive.path, "r:gz") as tar:
        names = iter(tar)
        assert next(names).isdir()
    assert int.from_bytes(archive.path.read_bytes()[-4:], "little") < 1 << 20  # 4 GiB and a bit, modulo 2**32


# The API


def test_a_sharded_restore_lists_a_job_for_each_shard_and_one_for_the_config_server(start: Start) -> None:
    client = start(shards=2)
    jobs = client.jobs()
    assert [job["id"] for job in jobs] == client.hello["job_ids"]
    assert len({job["clusterId"] for job in jobs}) == len({job["snapshotId"] for job in jobs}) == 3
    assert {job["batchId"] for job in jobs} == {client.hello["batch_id"]}
    assert jobs[2]["delivery"]["url"].rsplit("/", 1)[1].startswith("config-")


def test_a_job_is_printed_as_the_reference_page_prints_it(start: Start) -> None:
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


def test_ids_follow_from_the_shape_and_secrets_do_not(start: Start) -> None:
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
def test_what_is_unknown_gets_an_error_document(start: Start, path: str, status: int, code: str) -> None:
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


def test_snapshots_bound_the_sizes_of_their_archives(start: Start) -> None:
    client = start(shards=1)
    snapshot = client.get("/snapshots").json()["results"][0]
    assert client.get(f"/snapshots/{snapshot['id']}").json()["parts"] == snapshot["parts"]
    for index, part in enumerate(snapshot["parts"]):
        assert part["clusterId"] == client.job(index)["clusterId"]
        assert part["fileSizeBytes"] > 0
    own = client.get(f"/snapshots/{client.job(1)['snapshotId']}").json()
    assert [part["typeName"] for part in own["parts"]] == ["CONFIG_SERVER_REPLICA_SET"]
    listed = client.api.get(f"/groups/{client.hello['group_id']}/clusters/{own['clusterId']}/snapshots").json()
    assert [document["id"] for document in listed["results"]] == [own["id"]]


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


def test_endless_pages_always_bring_jobs_never_seen(start: Start) -> None:
    client = start("endless-pages", shards=1)
    pages = [client.get(pageNum=number).json() for number in (1, 2, 900)]
    assert all("next" in {link["rel"] for link in page["links"]} for page in pages)
    assert len({job["id"] for page in pages for job in page["results"]}) == 6


def test_envelopes_come_when_asked_for_and_always_by_fault(start: Start) -> None:
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
def test_a_restore_can_be_ordered_the_old_way_and_the_new(
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


def test_an_ordered_restore_of_one_replica_set_has_no_batch_and_the_expiry_asked_for(start: Start) -> None:
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
def test_a_bad_order_is_refused(start: Start, body: bytes, code: str) -> None:
    client = start()
    body = body.replace(b"SNAPSHOT", client.job()["snapshotId"].encode())
    answer = client.api.post(f"{client.cluster}/restoreJobs", content=body)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)


def test_a_method_that_an_endpoint_lacks_is_refused(start: Start) -> None:
    client = start()
    assert client.api.delete(client.cluster).status_code == 405


# Digest


def test_without_a_key_there_is_a_challenge_and_no_answer(start: Start) -> None:
    client = start()
    answer = client.plain.get(f"{client.hello['url']}/api/public/v1.0{client.cluster}")
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Digest realm="MMS Public API", domain="", nonce="')
    assert challenge.endswith('algorithm=MD5, qop="auth", stale=false')


def test_a_wrong_key_is_refused_and_so_is_basic(start: Start) -> None:
    client = start()
    url = f"{client.hello['url']}/api/public/v1.0{client.cluster}"
    wrong = httpx.DigestAuth(client.hello["public_key"], "wrong")
    assert client.plain.get(url, auth=wrong).json()["errorCode"] == "USER_UNAUTHORIZED"
    basic = (client.hello["public_key"], client.hello["private_key"])
    assert client.plain.get(url, auth=basic).status_code == 401
    assert [request.auth for request in client.simulator.requests] == ["none", "digest-refused", "not-digest"]


def test_a_digest_that_claims_another_quality_is_refused(start: Start) -> None:
    client = start()
    authorization = client.get().request.headers["Authorization"].replace("qop=auth", "qop=auth-int")
    url = f"{client.hello['url']}/api/public/v1.0{client.cluster}/restoreJobs"
    assert client.plain.get(url, headers={"Authorization": authorization}).status_code == 401


@pytest.mark.parametrize(("qop", "shown"), [("none", ""), ("op", ' op="auth",')])
def test_digest_without_qop_is_accepted(start: Start, qop: str, shown: str) -> None:
    client = start(f"qop={qop}")
    assert client.get().status_code == 200
    challenge = client.plain.get(client.api.base_url).headers["WWW-Authenticate"]
    assert f"algorithm=MD5,{shown} stale" in challenge


def test_a_used_up_nonce_is_stale_and_the_client_goes_on(start: Start) -> None:
    client = start("stale-nonce=2")
    assert [client.get().status_code for _ in range(5)] == [200] * 5
    verdicts = [request.auth for request in client.simulator.requests]
    assert verdicts.count("digest-stale") == 2
    assert verdicts.count("none") == 1


def test_a_nonce_grows_old_by_the_servers_clock(start: Start) -> None:
    client = start()
    assert client.get().status_code == 200
    client.simulator.clock.advance(400)
    assert client.get().status_code == 200
    assert "digest-stale" in [request.auth for request in client.simulator.requests]


def test_a_replayed_request_is_refused(start: Start) -> None:
    client = start()
    request = client.get().request
    again = client.plain.get(request.url, headers={"Authorization": request.headers["Authorization"]})
    assert again.status_code == 401
    assert client.simulator.requests[-1].auth == "digest-replay"


def test_an_answer_for_one_target_opens_no_other(start: Start) -> None:
    client = start()
    authorization = client.get().request.headers["Authorization"]
    other = client.plain.get(f"{client.api.base_url}", headers={"Authorization": authorization})
    assert other.status_code == 401


# Faults of the API


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        ("unauthorized", 401, "USER_UNAUTHORIZED"),
        ("forbidden", 403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"),
        ("not-in-group", 401, "NOT_IN_GROUP"),
        ("api-429=always", 429, "RATE_LIMITED"),
        ("api-500=0", 500, "UNEXPECTED_ERROR"),
        ("api-503=9", 503, "UNEXPECTED_ERROR"),
    ],
)
def test_the_api_refuses(start: Start, faults: str, status: int, code: str) -> None:
    answer = start(faults).get()
    assert (answer.status_code, answer.json()["errorCode"]) == (status, code)


def test_a_refusal_can_come_without_a_document(start: Start) -> None:
    answer = start("unauthorized=empty").get()
    assert (answer.status_code, answer.content) == (401, b"")


def test_troubles_pass_in_the_order_written(start: Start) -> None:
    client = start("api-503=1", "api-reset=1", "api-429=2", "api-retry-after=3")
    answer = client.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    with pytest.raises(httpx.NetworkError):
        client.get()
    assert [client.get().status_code for _ in range(3)] == [429, 429, 200]


def test_a_stalled_api_never_answers(start: Start) -> None:
    client = start("api-stall=1")
    with pytest.raises(httpx.ReadTimeout):
        client.api.get(client.cluster, timeout=0.2)
    assert client.get().status_code == 200


def test_the_api_redirects_to_another_origin(start: Start) -> None:
    client = start("api-redirect")
    answer = client.get()
    assert answer.status_code == 302
    assert urlsplit(answer.headers["Location"]).port != urlsplit(client.hello["url"]).port


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("json-array", lambda text: isinstance(json.loads(text), list)),
        ("null-results", lambda text: json.loads(text)["results"] is None),
        ("not-json", lambda text: text.startswith("<!DOCTYPE html>")),
        ("numbers-as-strings", lambda text: json.loads(text)["totalCount"] == "1"),
        ("deep-json=500", lambda text: "[" * 500 + "]" * 500 in text),
        ("huge-answer=9M", lambda text: len(json.loads(text)["padding"]) == 9 << 20),
        ("hostile-text", lambda text: "\x1b[2J" in json.loads(text)["results"][0]["clusterName"]),
        ("no-batch", lambda text: len(json.loads(text)["results"]) == 1),
    ],
)
def test_the_api_answers_oddly(start: Start, fault: str, check: Callable[[str], bool]) -> None:
    assert check(start(fault).get().text)


def test_deep_and_huge_may_come_together(start: Start) -> None:
    answer = start("deep-json=50", "huge-answer=10").get().json()
    assert answer["padding"] == "x" * 10
    assert answer["results"]


def test_an_answer_that_is_no_json_may_pass(start: Start) -> None:
    client = start("not-json=1")
    assert client.get().text.startswith("<!DOCTYPE")
    assert client.get().json()["totalCount"] == 1


def test_a_batch_may_never_list_a_job(start: Start) -> None:
    client = start("no-batch", shards=1)
    assert client.jobs() == []


@pytest.mark.parametrize("fault", ["endless-header", "endless-delivery-header"])
def test_headers_may_never_end(start: Start, fault: str) -> None:
    client = start(fault)
    address = urlsplit(client.hello["url"] + API if fault == "endless-header" else client.simulator.job(0).url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET {address.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = 0
        while received < 5 << 20:
            block = connection.recv(1 << 20)
            assert b"\r\n\r\n" not in block
            received += len(block)


def test_fields_of_a_job_can_be_forced(start: Start) -> None:
    client = start(
        "job-field=delivery.expires:null",
        "job-field=id:7@1",
        "job-field=created:__missing__",
        "job-field=new.deep.field:[1]",
        "job-field=statusName.below:1",
        shards=1,
    )
    first, second = client.get().json()["results"]
    assert first["delivery"]["expires"] is None
    assert first["id"] == client.hello["job_ids"][0]
    assert second["id"] == 7
    assert "created" not in first
    assert first["new"] == {"deep": {"field": [1]}}
    assert first["statusName"] == "IN_PROGRESS"


def test_error_details_can_be_hostile(start: Start) -> None:
    client = start("hostile-text")
    assert "\x1b[2J" in client.get("/restoreJobs/x").json()["detail"]
    assert "\x1b[2J" in client.get("").json()["clusterName"]
    assert b"\x1b[2J" in dict(client.get().headers.raw)[b"X-Hostile"]


# Clock


def test_the_servers_clock_shows_in_date_and_expires(start: Start) -> None:
    client = start("clock-skew=-7200")
    answer = client.get()
    date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert abs(date - time.time() + 7200) < 3
    assert client.job()["delivery"]["statusName"] == "READY"


def test_the_date_can_be_missing_or_unreadable(start: Start) -> None:
    client = start("no-date")
    assert "Date" not in client.get().headers
    client.simulator.set_faults("bad-date")
    assert client.download().headers["Date"] == "sometime last week"


# Timeline


def statuses(client: Client) -> list[str]:
    return [job["delivery"]["statusName"] for job in client.get().json()["results"]]


def test_deliveries_become_ready_one_after_the_other(start: Start) -> None:
    client = start("stagger=100", shards=1)
    assert statuses(client) == ["READY", "NOT_STARTED"]
    client.simulator.clock.advance(60)
    assert statuses(client) == ["READY", "IN_PROGRESS"]
    assert "url" not in client.job(1)["delivery"]
    client.simulator.clock.advance(60)
    assert statuses(client) == ["READY", "READY"]


def test_an_old_server_leaves_the_delivery_out_until_it_is_ready(start: Start) -> None:
    client = start("missing-delivery", "ready-after=10")
    assert "delivery" not in client.job()
    client.simulator.clock.advance(10)
    assert client.job()["delivery"]["statusName"] == "READY"


def test_ready_can_come_before_the_url(start: Start) -> None:
    client = start("ready-without-url=10")
    assert client.job()["delivery"]["statusName"] == "READY"
    assert "url" not in client.job()["delivery"]
    client.simulator.clock.advance(10)
    assert client.download().status_code == 200


@pytest.mark.parametrize(
    ("fault", "job", "delivery"),
    [
        ("never-ready", "IN_PROGRESS", "IN_PROGRESS"),
        ("unknown-status", "AWAITING_OPERATOR", "STAGED_FOR_PICKUP"),
        ("broken", "BROKEN", "READY"),
        ("killed", "KILLED", "READY"),
        ("delivery-failed", "IN_PROGRESS", "FAILED"),
        ("interrupted", "IN_PROGRESS", "INTERRUPTED"),
        ("expired", "FINISHED", "EXPIRED"),
        ("expires-in=0", "FINISHED", "EXPIRED"),
        ("finished=ready", "FINISHED", "READY"),
        ("broken=60", "IN_PROGRESS", "READY"),
    ],
)
def test_statuses_by_fault(start: Start, fault: str, job: str, delivery: str) -> None:
    document = start(fault).job()
    assert (document["statusName"], document["delivery"]["statusName"]) == (job, delivery)


def test_a_job_can_appear_late(start: Start) -> None:
    client = start("appears-after=10@1", shards=1)
    assert len(client.jobs()) == 1
    client.simulator.clock.advance(10)
    assert len(client.jobs()) == 2


def test_an_automated_restore_is_told_apart_by_its_target_alone(start: Start) -> None:
    delivery = start("automated").job()["delivery"]
    assert delivery["methodName"] == "HTTP"
    assert {"targetClusterId", "targetGroupId"} <= delivery.keys()
    assert start("method=SCP").job()["delivery"]["methodName"] == "SCP"


def test_encrypted_and_point_in_time_jobs_say_so(start: Start) -> None:
    job = start("encrypted", "point-in-time").job()
    assert job["encryptionEnabled"] is True
    assert job["masterKeyUUID"]
    assert job["pointInTime"] is True


def test_live_state_can_be_changed_while_it_serves(start: Start) -> None:
    client = start()
    with client.simulator.lock:
        client.simulator.job(0).delivery_status = "EXPIRED"
        client.simulator.jobs[0].status = "BROKEN"
    assert client.job()["delivery"]["statusName"] == "EXPIRED"
    assert client.job()["statusName"] == "BROKEN"
    assert client.download().status_code == 410
    client.simulator.job(0).delivery_status = None
    assert client.download().status_code == 200
    assert client.simulator.document(0) == client.job()


# Downloads


def test_a_download_is_the_archive_and_publishes_its_hash(start: Start) -> None:
    client = start()
    assert "hashes" not in client.job()
    answer = client.download()
    assert answer.content == archive_of(client)
    assert answer.headers["Content-Type"] == "application/x-gzip"
    assert "ETag" not in answer.headers and "Accept-Ranges" not in answer.headers
    job = client.job()
    name = job["delivery"]["url"].rsplit("/", 1)[1]
    assert job["hashes"] == [{"fileName": name, "hash": sha1(answer.content), "typeName": "SHA1"}]
    assert (job["statusName"], job["delivery"]["statusName"]) == ("FINISHED", "MAX_DOWNLOADS_EXCEEDED")


def test_a_link_is_refused_once_used_up_or_expired_or_with_a_bad_token(start: Start) -> None:
    client = start()
    url = client.url()
    assert client.plain.get(url).status_code == 200
    assert client.plain.get(url).status_code == 403
    client.simulator.clock.advance(3601)
    assert client.plain.get(url).status_code == 410
    token = client.simulator.job(0).token
    assert client.plain.get(url.replace(token, "bm90IGl0")).status_code == 404
    assert client.plain.get(f"{client.hello['url']}/backup/restore/v2/pull/x").status_code == 404
    assert client.plain.get(f"{client.hello['url']}/elsewhere").status_code == 404
    assert [request.status for request in client.simulator.requests if request.kind == "delivery"] == [
        200,
        403,
        410,
        404,
        404,
    ]


def test_a_dead_link_may_leave_the_document(start: Start) -> None:
    client = start("url-gone")
    client.download()
    assert "url" not in client.job()["delivery"]


def test_downloads_count_at_their_start_or_at_their_end(start: Start) -> None:
    at_start, at_end = start("cut=50%"), start("cut=50%", "count=end")
    for client in (at_start, at_end):
        client.raw_body()
    assert at_start.job()["delivery"]["statusName"] == "MAX_DOWNLOADS_EXCEEDED"
    assert at_end.job()["delivery"]["statusName"] == "READY"
    assert at_end.download().content == archive_of(at_end)
    assert at_end.job()["delivery"]["statusName"] == "MAX_DOWNLOADS_EXCEEDED"


def test_a_head_is_counted_as_a_download_and_answered_405(start: Start) -> None:
    client = start()
    assert client.plain.head(client.url()).status_code == 405
    assert client.simulator.requests[-1].method == "HEAD"
    assert client.download().status_code == 403


def test_a_head_may_be_answered_and_cost_nothing(start: Start) -> None:
    client = start("head=answer")
    answer = client.plain.head(client.url())
    assert (answer.status_code, int(answer.headers["Content-Length"])) == (200, len(archive_of(client)))
    assert client.download().content == archive_of(client)
    assert client.plain.post(client.url()).status_code == 405


def test_dead_links_may_answer_another_status(start: Start) -> None:
    client = start("dead-status=404")
    url = client.url()
    assert [client.plain.get(url).status_code for _ in range(2)] == [200, 404]
    client.simulator.clock.advance(3601)
    assert client.plain.get(url).status_code == 404


FRAMINGS = ["length", "chunked", "close"]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_archive_comes_whole_in_every_framing(start: Start, framing: str, tls: bool) -> None:
    client = start(f"framing={framing}", tls=tls, archive_size=3 << 20)
    answer = client.download()
    assert answer.content == archive_of(client)
    assert ("Content-Length" in answer.headers) is (framing == "length")
    assert (answer.headers.get("Transfer-Encoding") == "chunked") is (framing == "chunked")


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_cut_ends_the_connection_after_that_much(start: Start, framing: str, tls: bool) -> None:
    client = start("cut=60%", f"framing={framing}", tls=tls)
    received, error = client.raw_body()
    whole = archive_of(client)
    assert received == whole[: len(received)]
    assert len(received) <= len(whole) * 60 // 100
    assert (error is None) is (framing == "close")
    assert [request.completed for request in client.simulator.requests if request.kind == "delivery"] == [False]
    assert "hashes" not in client.job()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_clean_cut_looks_whole(start: Start, framing: str) -> None:
    client = start("clean-cut=60%", f"framing={framing}")
    received, error = client.raw_body()
    assert error is None
    assert len(received) == len(archive_of(client)) * 60 // 100
    assert "hashes" not in client.job()


@pytest.mark.parametrize("tls", [False, True])
def test_a_reset_is_a_reset(start: Start, tls: bool) -> None:
    client = start("reset=1000", tls=tls)
    address = urlsplit(client.url())
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as plain:
        connection: socket.socket = plain
        if tls:
            context = ssl.create_default_context(cafile=client.hello["ca_file"])
            # by default Python's ssl shows a reset as an ordinary end
            connection = context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
        connection.sendall(f"GET {address.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with connection, pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            while connection.recv(1 << 20):
                pass


def test_a_stall_keeps_the_connection_without_a_byte(start: Start) -> None:
    client = start("stall=1000")
    received = bytearray()
    with pytest.raises(httpx.ReadTimeout), client.plain.stream("GET", client.url(), timeout=0.3) as response:
        for block in response.iter_raw():
            received += block
    assert bytes(received) == archive_of(client)[:1000]


def test_a_drip_takes_its_time(start: Start) -> None:
    client = start("drip=100K", archive_size=20_000)
    began = time.monotonic()
    assert client.download().content == archive_of(client)
    assert time.monotonic() - began > 0.15


def test_a_refused_delivery_may_be_tried_later(start: Start) -> None:
    client = start("refuse=503x2", "retry-after=7")
    answers = [client.download() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "7"


@pytest.mark.parametrize(("fault", "goes_on"), [("expires-in", True), ("expires-cut", False)])
def test_a_running_transfer_may_outlive_its_link(start: Start, fault: str, goes_on: bool) -> None:
    client = start(f"{fault}=100", "drip=100K", archive_size=30_000)
    with client.plain.stream("GET", client.url()) as response:
        client.simulator.clock.advance(200)
        if goes_on:
            assert sha1(response.read()) == client.simulator.job(0).archive().sha1
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                response.read()
    assert statuses(client) == ["EXPIRED"]
    assert client.download().status_code == 410


@pytest.mark.parametrize("framing", FRAMINGS)
def test_headers_can_be_noisy(start: Start, framing: str) -> None:
    client = start("header-noise", f"framing={framing}")
    answer = client.download()
    assert answer.content == archive_of(client)
    assert "../../etc" in answer.headers["content-disposition"]


# Ranges


def test_a_resume_brings_the_rest_and_the_hash(start: Start) -> None:
    client = start("range=honour", "cut=50%", "max-downloads=2")
    first, error = client.raw_body()
    assert error is not None
    rest = client.download(Range=f"bytes={len(first)}-")
    assert rest.status_code == 206
    whole = archive_of(client)
    assert rest.headers["Content-Range"] == f"bytes {len(first)}-{len(whole) - 1}/{len(whole)}"
    assert first + rest.content == whole
    assert client.job()["hashes"][0]["hash"] == sha1(whole)


def test_wrong_bytes_come_under_an_exact_content_range(start: Start) -> None:
    client = start("range=wrong-bytes")
    answer = client.download(Range="bytes=100-")
    assert answer.headers["Content-Range"].startswith("bytes 100-")
    assert answer.content == archive_of(client)[:-100]


def test_validators_can_change_or_be_missing(start: Start) -> None:
    changing, without = start("range=honour", "etag-changes", "max-downloads=3"), start("range=ignore", "no-validator")
    first, second = changing.download(), changing.download()
    assert first.headers["ETag"] != second.headers["ETag"]
    assert changing.download(**{"Range": "bytes=5-", "If-Range": first.headers["ETag"]}).status_code == 200
    answer = without.download()
    assert answer.headers["Accept-Ranges"] == "bytes" and "ETag" not in answer.headers


def test_each_download_may_bring_other_bytes_and_the_hash_is_of_the_last(start: Start) -> None:
    client = start("different-bytes", "max-downloads=2")
    first, second = client.download().content, client.download().content
    assert first != second
    assert client.job()["hashes"][0]["hash"] == sha1(second)


# Bodies


@pytest.mark.parametrize(
    ("fault", "content_type", "beginning"),
    [
        ("html-body", "text/html;charset=utf-8", b"<!DOCTYPE"),
        ("json-body", "application/json", b"{"),
        ("empty-body", "application/x-gzip", b""),
    ],
)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_body_may_be_no_archive(start: Start, fault: str, content_type: str, beginning: bytes, framing: str) -> None:
    client = start(fault, f"framing={framing}")
    answer = client.download()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert answer.content.startswith(beginning) and len(answer.content) < 1000
    assert "hashes" not in client.job()


def test_a_damaged_body_differs_in_one_byte_from_its_hash(start: Start) -> None:
    client = start("damaged=1", "max-downloads=2")
    damaged, whole = client.download().content, archive_of(client)
    assert sum(one != other for one, other in zip(damaged, whole, strict=True)) == 1
    assert client.job()["hashes"][0]["hash"] == sha1(whole)
    assert client.download().content == whole


def test_garbage_may_follow_the_archive(start: Start) -> None:
    client = start("trailing-garbage")
    content = client.download().content
    whole = archive_of(client)
    assert content.startswith(whole) and len(content) > len(whole)


def test_an_archive_may_be_a_plain_tar(start: Start) -> None:
    client = start("plain-tar")
    assert client.url().endswith(".tar")
    with tarfile.open(fileobj=io.BytesIO(client.download().content), mode="r:") as tar:
        assert tar.getnames()


def test_an_archive_may_be_labelled_as_an_encoding(start: Start) -> None:
    client = start("content-encoding-gzip")
    with client.plain.stream("GET", client.url()) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert b"".join(response.iter_raw()) == archive_of(client)


# Hashes


@pytest.mark.parametrize(
    ("rule", "before", "after", "later"),
    [
        ("hash=late:60", None, None, "right"),
        ("hash=early", "right", "right", "right"),
        ("hash=early-wrong:60", "wrong", "wrong", "right"),
        ("hash=never", None, None, None),
        ("digest-none", None, None, None),
        ("hash=wrong", None, "wrong", "wrong"),
        ("hash=upper", None, "upper", "upper"),
        ("hash=null", None, "null", "null"),
    ],
)
def test_hashes_by_rule(start: Start, rule: str, before: str | None, after: str | None, later: str | None) -> None:
    client = start(rule)
    right = client.simulator.job(0).archive().sha1
    names = {right: "right", right.upper(): "upper", None: "null"}

    def published() -> str | None:
        hashes = client.job().get("hashes")
        return None if hashes is None else names.get(hashes[0]["hash"], "wrong")

    assert published() == before
    client.download()
    assert published() == after
    client.simulator.clock.advance(61)
    assert published() == later


def test_a_hash_may_name_another_file(start: Start) -> None:
    client = start("hash=other-name")
    client.download()
    job = client.job()
    assert not job["delivery"]["url"].endswith("/" + job["hashes"][0]["fileName"])


# Delivery URLs


@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        ([], {"authHeader", "authBearer", "authValue"}),
        (["no-bearer-field"], {"authHeader", "authValue"}),
        (["bearer-in-value"], {"authHeader", "authValue"}),
    ],
)
def test_the_newer_url_wants_a_header(start: Start, fault: list[str], fields: set[str]) -> None:
    client = start("url-v2=only", *fault)
    delivery = client.job()["delivery"]
    assert {name for name in delivery if name.startswith("auth")} == fields
    assert "url" not in delivery
    value = " ".join(filter(None, [delivery.get("authBearer"), delivery["authValue"]]))
    assert client.plain.get(delivery["urlV2"]).status_code == 404
    assert client.plain.get(delivery["urlV2"], headers={"Authorization": "Bearer x"}).status_code == 404
    assert client.plain.get(delivery["urlV2"], headers={"Authorization": value}).content == archive_of(client)
    assert [request.auth for request in client.simulator.requests[-3:]] == ["refused", "refused", "bearer"]


def test_both_urls_may_be_offered(start: Start) -> None:
    delivery = start("url-v2").job()["delivery"]
    assert delivery["authValue"] not in delivery["url"]
    assert {"url", "urlV2"} <= delivery.keys()


def test_deliveries_may_come_from_another_origin(start: Start) -> None:
    client = start("other-origin")
    assert urlsplit(client.url()).port != urlsplit(client.hello["url"]).port
    assert client.download().content == archive_of(client)


def test_redirects_lead_to_the_archive_and_cost_no_download(start: Start) -> None:
    client = start("redirect=2", "redirect-other-origin")
    answer = client.plain.get(client.url(), follow_redirects=True)
    assert [hop.status_code for hop in answer.history] == [302, 302, 302]
    assert answer.url.port != urlsplit(client.hello["url"]).port
    assert answer.content == archive_of(client)
    assert client.simulator.job(0).downloads == 1


def test_a_redirect_loop_has_no_end(start: Start) -> None:
    client = start("redirect-loop")
    with pytest.raises(httpx.TooManyRedirects):
        client.plain.get(client.url(), follow_redirects=True)
    assert client.simulator.job(0).downloads == 0


def test_a_url_may_be_renewed_and_the_old_one_is_dead(start: Start) -> None:
    client = start("renew-url=60")
    old = client.url()
    client.simulator.clock.advance(61)
    new = client.url()
    assert old != new
    assert client.plain.get(old).status_code == 404
    assert client.plain.get(new).status_code == 200


@pytest.mark.parametrize(
    ("name", "segment"),
    [("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"), ("a b\n.tar.gz", "a%20b%0A.tar.gz"), ("n" * 300, "n" * 300)],
)
def test_an_archive_name_may_be_hostile(start: Start, name: str, segment: str) -> None:
    client = start(f"name={name}")
    assert client.url().rsplit("/", 1)[1] == segment
    assert client.download().status_code == 200
    assert client.job()["hashes"][0]["fileName"] == name


def test_jobs_may_share_a_name(start: Start) -> None:
    client = start("same-name", shards=1)
    assert client.url(0).rsplit("/", 1)[1] == client.url(1).rsplit("/", 1)[1]


# TLS


def connect(client: Client, cafile: str | None, certificate: tuple[Path, Path] | None = None) -> bytes:
    context = ssl.create_default_context(cafile=cafile)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if certificate is not None:
        context.load_cert_chain(*certificate)
    address = urlsplit(client.hello["url"])
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=context, timeout=PATIENCE)
    try:
        connection.request("GET", "/elsewhere")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_strict_verification_accepts_the_certificate_made_on_the_spot(start: Start) -> None:
    client = start(tls=True)
    assert connect(client, client.hello["ca_file"]) == b"Not found.\n"
    assert client.download().content == archive_of(client)


def test_without_the_ca_the_server_is_not_trusted(start: Start) -> None:
    client = start(tls=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(client, None)


@pytest.mark.parametrize(("fault", "reason"), [("wrong-host", "IP address mismatch"), ("expired-cert", "expired")])
def test_a_certificate_may_be_for_another_host_or_out_of_date(start: Start, fault: str, reason: str) -> None:
    client = start(fault, tls=True)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        connect(client, client.hello["ca_file"])


def test_a_client_certificate_may_be_asked_for(start: Start) -> None:
    client = start("client-cert", tls=True)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate required"):
        connect(client, client.hello["ca_file"])
    certificate = client.simulator.client_certificate()
    assert connect(client, client.hello["ca_file"], certificate) == b"Not found.\n"


def test_client_certificates_need_tls(start: Start) -> None:
    with pytest.raises(RuntimeError, match="tls=True"):
        start().simulator.client_certificate()


def test_a_client_that_never_shakes_hands_holds_up_nobody(start: Start) -> None:
    client = start(tls=True)
    address = urlsplit(client.hello["url"])
    with socket.create_connection((address.hostname, address.port)):
        assert client.get().status_code == 200


# The log, the secrets, the end


def test_the_log_tells_what_arrived_and_what_came_of_it(start: Start) -> None:
    client = start("cut=50%", "max-downloads=2", shards=1)
    client.raw_body(1)
    client.download(1, Range="bytes=3-")
    deliveries = [request for request in client.simulator.requests if request.kind == "delivery"]
    assert [request.job_id for request in deliveries] == [client.hello["job_ids"][1]] * 2
    assert [request.completed for request in deliveries] == [False, True]
    assert [request.range for request in deliveries] == [None, "bytes=3-"]
    assert deliveries[0].bytes_sent == len(archive_of(client, 1)) // 2
    assert deliveries[0].time < deliveries[1].time
    assert deliveries[0].auth == "token"
    listed = client.simulator.requests[0]
    assert (listed.kind, listed.status, listed.auth) == ("api", 401, "none")


def test_a_dump_tells_people_what_happened_and_no_secret(start: Start) -> None:
    client = start("cut=50%")
    client.raw_body()
    dump = client.simulator.dump()
    assert "MAX_DOWNLOADS_EXCEEDED, 1/1 downloads, 0 whole" in dump
    assert dump.splitlines()[-1].endswith(f"200 (token), {len(archive_of(client)) // 2} bytes, not whole")
    assert not [secret for secret in client.simulator.secrets if secret in dump]


def test_every_secret_that_was_handed_out_is_known(start: Start) -> None:
    client = start("url-v2", "renew-url=60")
    delivery = client.job()["delivery"]
    client.simulator.clock.advance(60)
    assert client.simulator.job(0).token in client.simulator.secrets
    assert {client.hello["private_key"], delivery["authValue"], delivery["url"].split("/")[-2]} <= set(
        client.simulator.secrets
    )


def test_stopping_cuts_what_is_open_and_leaves_nothing_behind() -> None:
    threads = set(threading.enumerate())
    simulator = Simulator(shards=0, archive_size=SMALL, faults=["stall=10"], tls=True)
    with simulator:
        client = Client(simulator)
        directory = simulator.directory
        with client.plain.stream("GET", client.url()) as response:
            simulator.stop()
            with pytest.raises(httpx.HTTPError):
                response.read()
        client.close()
    assert not directory.exists()
    assert set(threading.enumerate()) <= threads
    with pytest.raises(RuntimeError, match="not running"):
        _ = simulator.directory


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_behind(start: Start) -> None:
    client = start()
    threads = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        Simulator(port=urlsplit(client.hello["url"]).port or 0, archive_size=SMALL).start()
    assert threading.active_count() == threads


def test_archives_exist_only_while_it_runs() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        Simulator(archive_size=SMALL).job(0).archive()


@pytest.mark.parametrize("wrong", [{"port": 65536}, {"shards": -1}, {"archive_size": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"not"):
        Simulator(**wrong)


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("localhost", "localhost")])
def test_the_url_is_one_that_clients_here_can_reach(start: Start, host: str, shown: str) -> None:
    client = start(host=host)
    assert urlsplit(client.hello["url"]).hostname == shown
    assert client.get().status_code == 200


def test_a_defect_of_the_simulator_is_shown_and_not_taken_for_a_fault(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = start()
    monkeypatch.setattr("restore_agent.simulator.api.api.Api.answer", lambda *_: 1 / 0)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get()
    client.simulator.stop()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_connection_may_be_kept_or_closed(start: Start) -> None:
    client = start()
    closing = client.plain.get(client.hello["url"], headers={"Connection": "close"})
    assert closing.headers["Connection"] == "close"
    assert "Connection" not in client.plain.get(client.hello["url"]).headers


def test_a_client_that_leaves_is_nothing_to_speak_of(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    client = start(archive_size=8 << 20, tls=True)
    with client.plain.stream("GET", client.url()) as response:
        next(response.iter_raw())
    client.close()
    client.simulator.stop()
    assert not client.simulator.requests[-1].completed
    assert capsys.readouterr().err == ""


def test_it_can_listen_on_ipv6() -> None:
    with Simulator(host="::1", shards=0, archive_size=SMALL) as simulator:
        client = Client(simulator)
        assert client.download().content == archive_of(client)
        client.close()


def test_serve_gives_the_signals_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert serve("127.0.0.1", 0, False, 0, SMALL, ["never-ready"]) == 0
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads(capsys.readouterr().out)["batch_id"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_one_line_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    code = "import sys; from restore_agent.simulator import serve; sys.exit(serve('127.0.0.1', 0, True, 1, 65536, []))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    hello = json.loads(process.stdout.readline())
    assert list(hello) == [
        "url",
        "group_id",
        "cluster_id",
        "batch_id",
        "job_ids",
        "public_key",
        "private_key",
        "ca_file",
    ]
    assert Path(hello["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    os.kill(process.pid, number)
    rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert not Path(hello["ca_file"]).exists()
