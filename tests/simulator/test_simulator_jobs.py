"""Timeline of simulated restore jobs, their hashes, and their URLs."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
from api_client import Start, archive_of, statuses

# Timeline


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
        ("", "FINISHED", "READY"),
        ("finished=downloaded", "IN_PROGRESS", "READY"),
        ("finished=never", "IN_PROGRESS", "READY"),
        ("broken=60", "FINISHED", "READY"),
    ],
)
def test_statuses_by_fault(start: Start, fault: str, job: str, delivery: str) -> None:
    document = start(*fault.split()).job()
    assert (document["statusName"], document["delivery"]["statusName"]) == (job, delivery)


def test_a_job_can_appear_late(start: Start) -> None:
    client = start("appears-after=10@1", shards=1)
    assert len(client.jobs()) == 1
    client.simulator.clock.advance(10)
    assert len(client.jobs()) == 2


def test_an_automated_restore_differs_only_by_its_target(start: Start) -> None:
    delivery = start("automated").job()["delivery"]
    assert delivery["methodName"] == "HTTP"
    assert {"targetClusterId", "targetGroupId"} <= delivery.keys()
    assert start("method=SCP").job()["delivery"]["methodName"] == "SCP"


def test_encrypted_and_point_in_time_jobs_have_their_fields(start: Start) -> None:
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


def test_a_hash_may_be_published_for_another_file(start: Start) -> None:
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
def test_the_newer_url_requires_a_header(start: Start, fault: list[str], fields: set[str]) -> None:
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


def test_deliveries_may_have_another_origin(start: Start) -> None:
    client = start("other-origin")
    assert urlsplit(client.url()).port != urlsplit(client.hello["url"]).port
    assert client.download().content == archive_of(client)


def test_redirects_lead_to_the_archive_and_count_as_no_download(start: Start) -> None:
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


def test_a_url_may_be_renewed_and_the_old_one_is_refused(start: Start) -> None:
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


def test_a_job_is_finished_from_the_moment_its_delivery_is_ready(start: Start) -> None:
    client = start("ready-after=10")
    assert client.job()["statusName"] == "IN_PROGRESS"
    client.simulator.clock.advance(10)
    assert client.job()["statusName"] == "FINISHED"
    client.raw_body()
    assert client.job()["statusName"] == "FINISHED"
