"""Authentication and faults of the simulated API."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import pytest
from api_client import API, PATIENCE, Start

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


def test_a_used_up_nonce_is_stale_and_the_client_continues(start: Start) -> None:
    client = start("stale-nonce=2")
    assert [client.get().status_code for _ in range(5)] == [200] * 5
    verdicts = [request.auth for request in client.simulator.requests]
    assert verdicts.count("digest-stale") == 2
    assert verdicts.count("none") == 1


def test_a_nonce_expires_by_the_clock_of_the_server(start: Start) -> None:
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


def test_a_digest_response_for_one_target_is_refused_for_another(start: Start) -> None:
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


def test_faults_of_the_api_occur_in_the_order_written(start: Start) -> None:
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
def test_the_api_returns_unusual_answers(start: Start, fault: str, check: Callable[[str], bool]) -> None:
    assert check(start(fault).get().text)


def test_deep_and_huge_may_be_combined(start: Start) -> None:
    answer = start("deep-json=50", "huge-answer=10").get().json()
    assert answer["padding"] == "x" * 10
    assert answer["results"]


def test_an_answer_that_is_not_json_may_be_transient(start: Start) -> None:
    client = start("not-json=1")
    assert client.get().text.startswith("<!DOCTYPE")
    assert client.get().json()["totalCount"] == 1


def test_a_batch_may_never_list_a_job(start: Start) -> None:
    client = start("no-batch", shards=1)
    assert client.jobs() == []


@pytest.mark.parametrize("fault", ["endless-header", "endless-delivery-header"])
def test_headers_may_never_end(start: Start, fault: str) -> None:
    client = start(fault)
    address = urlsplit(client.hello["url"] + API if fault == "endless-header" else client.url())
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
    assert first["statusName"] == "FINISHED"


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
