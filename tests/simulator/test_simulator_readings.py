"""Lists and documents of the simulated API that change from reading to reading, or contradict each other."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import httpx
import pytest
from api_client import Client, Start, archive_of


def listed(client: Client) -> list[int]:
    """Return the positions of the jobs that the next reading lists."""
    ids = client.hello["job_ids"]
    return [ids.index(job["id"]) for job in client.jobs()]


def test_jobs_may_be_missing_from_some_lists(start: Start) -> None:
    client = start("job-unlisted=2@0", "job-unlisted=1@1", "same-name", shards=1)
    assert [listed(client) for _ in range(3)] == [[0], [1], [0, 1]]
    assert client.url(0).rsplit("/", 1)[1] == client.url(1).rsplit("/", 1)[1]


def test_a_job_may_be_removed_from_the_list_permanently(start: Start) -> None:
    client = start("job-unlisted=2xalways@1", shards=1)
    assert [listed(client) for _ in range(3)] == [[0, 1], [0], [0]]


def test_pages_of_one_list_belong_to_one_poll(start: Start) -> None:
    client = start("job-unlisted=2@0", shards=2)
    for reading in (3, 2, 3):
        pages = [
            client.get(batchId=client.hello["batch_id"], pageNum=page, itemsPerPage=1).json()["results"]
            for page in (1, 2, 3)
        ]
        assert len([job for page in pages for job in page]) == reading


def test_a_document_may_be_missing_for_one_poll(start: Start) -> None:
    client = start("job-404=2x2")
    path = f"/restoreJobs/{client.hello['job_ids'][0]}"
    assert [client.get(path).status_code for _ in range(4)] == [200, 404, 404, 200]


def test_a_list_may_be_shorter_than_its_count(start: Start) -> None:
    client = start("short-list=1", shards=1)
    pages = [client.get(batchId=client.hello["batch_id"]).json() for _ in range(2)]
    assert [(len(page["results"]), page["totalCount"]) for page in pages] == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("fault", "count"), [("wrong-count=3", 5), ("wrong-count=-1", 1), ("wrong-count=-9", 0)])
def test_a_count_may_be_wrong(start: Start, fault: str, count: int) -> None:
    page = start(fault, shards=1).get().json()
    assert (len(page["results"]), page["totalCount"]) == (2, count)


def test_a_document_may_be_that_of_another_job(start: Start) -> None:
    client = start("job-swapped@0", shards=1)
    assert client.job(0)["id"] == client.hello["job_ids"][1]
    assert client.job(1)["id"] == client.hello["job_ids"][1]


@pytest.mark.parametrize("kind", ["none", "other"])
def test_a_list_may_have_a_job_of_no_batch_or_of_another(start: Start, kind: str) -> None:
    client = start(f"stray-job={kind}", shards=1)
    assert len(client.hello["job_ids"]) == 2
    *own, stray = client.jobs()
    assert {job["batchId"] for job in own} == {client.hello["batch_id"]}
    assert stray.get("batchId") != client.hello["batch_id"]
    assert ("batchId" in stray) is (kind == "other")
    assert client.plain.get(stray["delivery"]["url"]).status_code == 200


def test_a_hash_may_be_the_last_of_several_for_one_name(start: Start) -> None:
    client = start("hash-entries=3")
    client.download()
    entries = client.job()["hashes"]
    assert len({entry["hash"] for entry in entries}) == 3
    assert len({entry["fileName"] for entry in entries}) == 1
    assert entries[-1]["hash"] == client.simulator.job(0).archive().sha1


@pytest.mark.parametrize(("fault", "old_status"), [("renew-token", 200), ("renew-token=revoke", 404)])
def test_each_poll_may_return_another_token(start: Start, fault: str, old_status: int) -> None:
    client = start(fault, "url-v2", "max-downloads=9")
    first, second = client.job()["delivery"], client.job()["delivery"]
    assert first["url"] != second["url"]
    assert first["authValue"] != second["authValue"]
    assert client.plain.get(second["url"]).status_code == 200
    assert client.plain.get(first["url"]).status_code == old_status
    headers = {"Authorization": f"Bearer {first['authValue']}"}
    assert client.plain.get(first["urlV2"], headers=headers).status_code == old_status
    assert first["authValue"] in client.simulator.secrets


def test_the_name_in_the_url_may_change_between_polls(start: Start) -> None:
    client = start("name-changes=2")
    names = [client.url().rsplit("/", 1)[1] for _ in range(4)]
    assert names == [names[0], names[0], f"renamed-{names[0]}", f"renamed-{names[0]}"]
    assert client.download().content == archive_of(client)
    assert client.job()["hashes"][0]["fileName"] == names[2]


def test_text_may_have_lone_surrogates(start: Start) -> None:
    client = start("surrogates")
    answer = client.get(f"/restoreJobs/{client.hello['job_ids'][0]}")
    assert b"\\ud800" in answer.content
    assert "\ud800" in answer.json()["clusterName"]
    assert "\udfff" in client.get("/restoreJobs/x").json()["detail"]


@pytest.mark.parametrize(
    "kind", ["basic-after", "basic-first", "negotiate-first", "separate", "digest-after", "digest-first"]
)
def test_a_challenge_may_offer_several_schemes(start: Start, kind: str) -> None:
    client = start(f"challenge={kind}")
    headers = client.plain.get(client.api.base_url).headers.get_list("WWW-Authenticate")
    assert len(headers) == (2 if kind in ("separate", "digest-first") else 1)
    text = ", ".join(headers)
    assert "algorithm=MD5" in text
    assert text.startswith({"basic-first": "Basic", "separate": "Basic", "negotiate-first": "Neg"}.get(kind, "Digest"))


def test_the_api_may_refuse_like_a_proxy_a_tls_port_or_itself(start: Start) -> None:
    client = start("api-refuse=407", "api-refuse=400", "api-refuse=418x2")
    answers = [client.get() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [407, 400, 418, 418, 200]
    assert answers[0].headers["Proxy-Authenticate"].startswith("Basic")
    assert "HTTPS server" in answers[1].text
    assert answers[2].json()["error"] == 418


def test_answers_of_the_api_may_be_slow(start: Start) -> None:
    client = start("api-delay=0.2")
    began = time.monotonic()
    assert client.plain.get(client.api.base_url).status_code == 401
    assert time.monotonic() - began > 0.15


@pytest.mark.parametrize("fault", ["", "plain-400"])
def test_a_tls_port_closes_plain_http_or_answers_400(start: Start, fault: str) -> None:
    client = start(*fault.split(), tls=True)
    url = client.hello["url"].replace("https", "http")
    if fault:
        assert client.plain.get(url).status_code == 400
        assert client.get().status_code == 200
    else:
        with pytest.raises(httpx.HTTPError):
            client.plain.get(url)
    assert urlsplit(url).port


def test_a_refused_delivery_may_ask_for_more_time_than_is_left(start: Start) -> None:
    client = start("refuse=503", "retry-after=3600", "expires-in=60")
    answer = client.download()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3600")
    assert client.job()["delivery"]["statusName"] == "READY"
