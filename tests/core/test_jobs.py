"""Documents of restore jobs: the example of the reference page, the known variants, and the table of decisions."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.errors import (
    DeliveryFailed,
    DeliveryInterrupted,
    DeliveryUrlUnusable,
    DownloadsUsedUp,
    Expired,
    JobBroken,
    JobKilled,
)
from restore_agent.core.jobs import Decision, DeliveryUrl, Job, Step, decide
from restore_agent.core.redaction import Secret
from restore_agent.network.documents import parse_job

# The example response of the reference page "Get All Restore Jobs for One Cluster", placeholders and all.
REFERENCE = """\
{
  "links" : [ {
    "href" : "https://{OPSMANAGER-HOST}:{PORT}/api/public/v1.0/groups/{GROUP-ID}/clusters/{CLUSTER-ID}/restoreJobs?pretty=true&pageNum=1&itemsPerPage=100",
    "rel" : "self"
  } ],
  "results" : [ {
    "batchId" : "{BATCH-ID}",
    "clusterId" : "{CLUSTER-ID}",
    "created" : "2017-04-21T03:49:57Z",
    "delivery" : {
      "expirationHours" : 1,
      "expires" : "2017-04-21T04:49:57Z",
      "maxDownloads" : 1,
      "methodName" : "HTTP",
      "statusName" : "READY",
      "url" : "https://{OPSMANAGER-HOST}:{PORT}/backup/restore/v2/pull/{JOB-ID}/OTY0ZmFiNmEzZjEzNGUyMTlhZjJjNjM3NGMyNGM4ZTM=/electron_0-1492636465-{JOB-ID}.tar.gz"
    },
    "encryptionEnabled" : false,
    "groupId" : "{GROUP-ID}",
    "id" : "{JOB-ID}",
    "links" : [ {
      "href" : "https://{OPSMANAGER-HOST}:{PORT}/api/public/v1.0/groups/{GROUP-ID}/clusters/{CLUSTER-ID}/restoreJobs/{JOB-ID}",
      "rel" : "self"
    } ],
    "pointInTime" : false,
    "snapshotId" : "{SNAPSHOT-ID}",
    "statusName" : "FINISHED",
    "timestamp" : {
      "date" : "2017-04-18T15:14:25Z",
      "increment" : 1
    }
  }, {
    "batchId" : "{BATCH-ID}",
    "clusterId" : "{CLUSTER-ID}",
    "created" : "2017-04-18T19:21:23Z",
    "delivery" : {
      "expirationHours" : 1,
      "expires" : "2017-04-18T20:21:23Z",
      "maxDownloads" : 1,
      "methodName" : "HTTP",
      "statusName" : "READY",
      "url" : "https://{OPSMANAGER-HOST}:{PORT}/backup/restore/v2/pull/{JOB-ID}/NWRlMTk4NzgxYzNjNDIzOTg2Yzc3YzkyODYxYjNjMzY=/electron_0-1492528465-{JOB-ID}.tar.gz"
    },
    "encryptionEnabled" : false,
    "groupId" : "{GROUP-ID}",
    "id" : "{JOB-ID}",
    "links" : [ {
      "href" : "https://{OPSMANAGER-HOST}:{PORT}/api/public/v1.0/groups/{GROUP-ID}/clusters/{CLUSTER-ID}/restoreJobs/{JOB-ID}",
      "rel" : "self"
    } ],
    "pointInTime" : false,
    "snapshotId" : "{SNAPSHOT-ID}",
    "statusName" : "FINISHED",
    "timestamp" : {
      "date" : "2017-04-19T21:14:25Z",
      "increment" : 1
    }
  } ],
  "totalCount" : 2
}
"""

TOKEN = "OTY0ZmFiNmEzZjEzNGUyMTlhZjJjNjM3NGMyNGM4ZTM="
NAME = "rs0-1492636465-5c9e.tar.gz"
URL = f"https://om.example.net:8443/backup/restore/v2/pull/5c9e/{TOKEN}/{NAME}"
URL_V2 = f"https://backup.example.net/backup/restore/v3/pull/5c9e/{NAME}"
SHA1 = "0123456789abcdef0123456789abcdef01234567"


def document(delivery: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A job that is READY; `delivery` and `fields` replace what is there, None takes a field out."""
    whole = {"methodName": "HTTP", "statusName": "READY", "url": URL, **(delivery or {})}
    made = {"id": "5c9e", "statusName": "FINISHED", **fields}
    made["delivery"] = {name: value for name, value in whole.items() if value is not None}
    return {name: value for name, value in made.items() if value is not None}


# ---------------------------------------------------------------- the reference page


def test_the_example_of_the_reference_page_is_parsed_field_by_field() -> None:
    first, second = (parse_job(entry) for entry in json.loads(REFERENCE)["results"])
    assert first == Job(
        id="{JOB-ID}",
        batch_id="{BATCH-ID}",
        cluster_id="{CLUSTER-ID}",
        snapshot_id="{SNAPSHOT-ID}",
        snapshot_timestamp="2017-04-18T15:14:25Z",
        created=1492746597.0,
        status="FINISHED",
        delivery_status="READY",
        method="HTTP",
        delivery_url_defect="it does not parse",  # a port called {PORT}
        expires=1492750197.0,
        max_downloads=1,
        encryption_enabled=False,
        point_in_time=False,
    )
    assert (second.expires, second.snapshot_timestamp) == (1492546883.0, "2017-04-19T21:14:25Z")


def test_the_example_of_the_reference_page_is_downloadable_once_its_placeholders_are_filled() -> None:
    filled = REFERENCE.replace("{OPSMANAGER-HOST}", "om.example.net").replace("{PORT}", "8080")
    jobs = [parse_job(entry) for entry in json.loads(filled)["results"]]
    assert [decide(job) for job in jobs] == [Decision(Step.DOWNLOAD, "ready")] * 2
    assert [job.delivery_url and job.delivery_url.file_name for job in jobs] == [
        "electron_0-1492636465-{JOB-ID}.tar.gz",
        "electron_0-1492528465-{JOB-ID}.tar.gz",
    ]
    assert jobs[0].delivery_url is not None
    assert str(jobs[0].delivery_url) == "https://om.example.net:8080/…/electron_0-1492636465-{JOB-ID}.tar.gz"


def test_nothing_in_the_example_of_the_reference_page_is_odd() -> None:
    assert [parse_job(entry).oddities for entry in json.loads(REFERENCE)["results"]] == [(), ()]


# ---------------------------------------------------------------- the table

# How a job with a URL is judged, by its own status (across) and that of its delivery (down). "-" is a field that is
# not there, NOVEL one that no version of Ops Manager has said so far.
WITH_URL = """
                          -       FINISHED  IN_PROGRESS  NOVEL    BROKEN  KILLED
-                         wait    wait      wait         wait     broken  killed
NOT_STARTED               wait    wait      wait         wait     broken  killed
PENDING                   wait    wait      wait         wait     broken  killed
IN_PROGRESS               wait    wait      wait         wait     broken  killed
NOVEL                     wait    wait      wait         wait     broken  killed
READY                     ready   ready     ready        ready    broken  killed
FAILED                    failed  failed    failed       failed   broken  killed
INTERRUPTED               cut     cut       cut          cut      broken  killed
EXPIRED                   late    late      late         late     broken  killed
MAX_DOWNLOADS_EXCEEDED    spent   spent     spent        spent    broken  killed
"""
MEANS = {
    "wait": Decision(Step.WAIT, "not-ready"),
    "ready": Decision(Step.DOWNLOAD, "ready"),
    "failed": Decision(Step.FAIL, "delivery-failed", DeliveryFailed),
    "cut": Decision(Step.FAIL, "delivery-interrupted", DeliveryInterrupted),
    "late": Decision(Step.FAIL, "delivery-expired", Expired),
    "spent": Decision(Step.FAIL, "downloads-used-up", DownloadsUsedUp),
    "broken": Decision(Step.FAIL, "job-broken", JobBroken),
    "killed": Decision(Step.FAIL, "job-killed", JobKilled),
}


def cells() -> list[tuple[str | None, str | None, Decision]]:
    head, *rows = (line.split() for line in WITH_URL.strip().splitlines())
    said = {"-": None}
    return [
        (said.get(status, status), said.get(delivery, delivery), MEANS[cell])
        for delivery, *row in rows
        for status, cell in zip(head, row, strict=True)
    ]


@pytest.mark.parametrize(("status", "delivery", "decision"), cells())
def test_a_job_is_judged_by_the_table(status: str | None, delivery: str | None, decision: Decision) -> None:
    job = parse_job(document({"statusName": delivery}, statusName=status))
    assert decide(job) == decision


@pytest.mark.parametrize(("status", "delivery", "decision"), cells())
def test_without_a_url_only_a_ready_job_is_decided_differently(
    status: str | None, delivery: str | None, decision: Decision
) -> None:
    job = parse_job(document({"statusName": delivery, "url": None}, statusName=status))
    assert decide(job) == (Decision(Step.WAIT, "no-url-yet") if decision.step is Step.DOWNLOAD else decision)


@pytest.mark.parametrize(("status", "delivery", "decision"), cells())
@pytest.mark.parametrize("field", ["targetClusterId", "targetGroupId"])
def test_an_automated_restore_is_skipped_whatever_its_state(
    field: str, status: str | None, delivery: str | None, decision: Decision
) -> None:
    job = parse_job(document({"statusName": delivery, field: "5c9f"}, statusName=status))
    assert decide(job) == Decision(Step.SKIP, "automated-restore")


@pytest.mark.parametrize("method", ["AUTOMATED_RESTORE", "QUERY", "CLIENT_PIT_SCP", "SCP", "THIRD_PARTY_COPY", "NOVEL"])
@pytest.mark.parametrize("status", ["FINISHED", "IN_PROGRESS", "BROKEN"])
def test_a_delivery_by_another_method_is_skipped_and_its_url_is_not_requested(method: str, status: str) -> None:
    job = parse_job(document({"methodName": method}, statusName=status))
    assert decide(job) == Decision(Step.SKIP, "not-delivered-over-http")


@pytest.mark.parametrize("method", ["HTTP", "CLIENT_PIT_HTTP", None])
def test_a_delivery_over_http_is_downloaded(method: str | None) -> None:
    assert decide(parse_job(document({"methodName": method}))).step is Step.DOWNLOAD


@pytest.mark.parametrize("expires", ["1970-01-01T00:00:01Z", "2999-01-01T00:00:00Z", "soon", None])
def test_while_ops_manager_reports_ready_the_time_of_expiry_does_not_matter(expires: str | None) -> None:
    assert decide(parse_job(document({"expires": expires}))).step is Step.DOWNLOAD


def test_a_ready_delivery_with_an_unusable_url_fails() -> None:
    job = parse_job(document({"url": "ftp://om/x.tar.gz"}))
    assert decide(job) == Decision(Step.FAIL, "delivery-url-unusable", DeliveryUrlUnusable)


def test_an_unusable_url_does_not_matter_before_the_delivery_is_ready() -> None:
    job = parse_job(document({"url": "ftp://om/x.tar.gz", "statusName": "IN_PROGRESS"}))
    assert decide(job).step is Step.WAIT


def test_old_servers_leave_the_delivery_out_while_a_job_is_in_progress() -> None:
    job = parse_job({"id": "5c9e", "statusName": "IN_PROGRESS"})
    assert job.delivery_url is None
    assert decide(job) == Decision(Step.WAIT, "not-ready")


def test_every_reason_is_a_stable_kebab_case_id() -> None:
    reasons = {decision.reason for _, _, decision in cells()}
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", reason) for reason in reasons)
    assert len(reasons) == len(MEANS)


# ---------------------------------------------------------------- variants


def test_a_job_of_a_replica_set_has_no_batch() -> None:
    assert parse_job(document()).batch_id is None


def test_a_job_of_a_mirrored_config_server_has_a_host_and_no_cluster() -> None:
    job = parse_job(document(hostId="a1b2"))
    assert (job.host_id, job.cluster_id) == ("a1b2", None)


def test_a_finished_job_may_have_expired_with_its_url_and_hash_still_there() -> None:
    hashes = [{"fileName": NAME, "hash": SHA1, "typeName": "SHA1"}]
    job = parse_job(document({"statusName": "EXPIRED"}, hashes=hashes))
    assert decide(job).reason == "delivery-expired"
    assert job.published_hashes(NAME) == (SHA1,)


def test_an_encrypted_point_in_time_job_has_its_key() -> None:
    job = parse_job(document(encryptionEnabled=True, masterKeyUUID="9b1d", pointInTime=True))
    assert (job.encryption_enabled, job.master_key_uuid, job.point_in_time) == (True, "9b1d", True)


@pytest.mark.parametrize("increment", [1, "1", None, [], "many"])
def test_the_increment_of_a_timestamp_is_not_computed_with(increment: object) -> None:
    job = parse_job(document(timestamp={"date": "2017-04-18T15:14:25Z", "increment": increment}))
    assert job.snapshot_timestamp == "2017-04-18T15:14:25Z"
    assert job.oddities == ()


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2017-04-21T04:49:57Z", 1492750197.0),
        ("2017-04-21T04:49:57.250Z", 1492750197.25),
        ("2017-04-21T06:49:57+02:00", 1492750197.0),
        ("2017-04-21T04:49:57", 1492750197.0),
        ("2017-04-21T04:49:57+0000", 1492750197.0),
    ],
)
def test_a_time_of_expiry_is_read_with_and_without_a_zone(text: str, epoch: float) -> None:
    assert parse_job(document({"expires": text})).expires == epoch


@pytest.mark.parametrize("said", [2147483647, "2147483647", " 2147483647 "])
def test_the_number_of_downloads_may_be_a_string(said: object) -> None:
    job = parse_job(document({"maxDownloads": said}))
    assert job.max_downloads == 2147483647
    assert job.oddities == ()


# ---------------------------------------------------------------- tolerant reading


@pytest.mark.parametrize(
    ("field", "said", "attribute", "read"),
    [
        ("id", 590, "id", "590"),
        ("clusterId", 12, "cluster_id", "12"),
        ("batchId", "", "batch_id", None),
        ("snapshotId", None, "snapshot_id", None),
        ("encryptionEnabled", "true", "encryption_enabled", True),
        ("encryptionEnabled", "False", "encryption_enabled", False),
        ("pointInTime", "TRUE", "point_in_time", True),
        ("statusName", "", "status", None),
    ],
)
def test_a_field_in_another_type_means_the_same(field: str, said: object, attribute: str, read: object) -> None:
    job = parse_job({**document(), field: said})
    assert getattr(job, attribute) == read
    assert job.oddities == ()


@pytest.mark.parametrize(
    ("entry", "oddity"),
    [
        (document(clusterId=["a"]), "clusterId is a list, not a string"),
        (document(snapshotId=True), "snapshotId is a boolean, not a string"),
        (document(encryptionEnabled="perhaps"), "encryptionEnabled is the string 'perhaps', not a boolean"),
        (document(pointInTime=1), "pointInTime is a number, not a boolean"),
        (document(timestamp="2017"), "timestamp is the string '2017', not an object"),
        (document(hashes={"hash": SHA1}), "hashes is an object, not a list"),
        (document({"expires": "soon"}), "delivery.expires is the string 'soon', not a time"),
        (document({"maxDownloads": "many"}), "delivery.maxDownloads is the string 'many', not a number"),
        (document({"maxDownloads": 1.5}), "delivery.maxDownloads is a number, not a number"),
        ({"id": "5c9e", "delivery": []}, "delivery is a list, not an object"),
    ],
)
def test_an_invalid_field_is_noted_and_ignored(entry: dict[str, Any], oddity: str) -> None:
    assert parse_job(entry).oddities == (oddity,)


def test_a_note_on_an_odd_field_is_short_and_printable() -> None:
    (oddity,) = parse_job(document({"expires": "\x1b[2J" + "x" * 5000})).oddities
    assert oddity.isprintable()
    assert len(oddity) < 120


def test_unknown_fields_are_ignored() -> None:
    plain, more = document(), document({"novelty": {"a": 1}}, novelty=[1], deploymentJobId="a", clusterName="c")
    assert parse_job(more) == parse_job(plain)


@pytest.mark.parametrize("entry", [None, [], "job", 5, True, 1.5, {}, {"id": None}, {"id": ""}, {"id": []}])
def test_an_entry_without_an_id_is_not_a_job(entry: object) -> None:
    with pytest.raises(ValueError, match="a restore job"):
        parse_job(entry)


# ---------------------------------------------------------------- hashes


@pytest.mark.parametrize(
    ("entry", "published"),
    [
        ({"fileName": NAME, "hash": SHA1, "typeName": "SHA1"}, SHA1),
        ({"fileName": NAME, "hash": SHA1.upper(), "typeName": "SHA1"}, SHA1),
        ({"fileName": NAME, "hash": f" {SHA1}\n", "typeName": "SHA1"}, SHA1),
        ({"fileName": NAME, "hash": SHA1}, SHA1),
        ({"fileName": NAME, "hash": SHA1, "typeName": "sha1"}, SHA1),
        ({"fileName": NAME, "hash": SHA1, "typeName": "SHA-1"}, SHA1),
        ({"fileName": NAME, "hash": SHA1, "typeName": "SHA1", "links": []}, SHA1),
        ({"fileName": f"/snapshots/{NAME}", "hash": SHA1}, SHA1),
        ({"fileName": "another.tar.gz", "hash": SHA1}, None),
        ({"fileName": NAME, "hash": SHA1, "typeName": "MD5"}, None),
        ({"fileName": NAME, "hash": SHA1, "typeName": "SHA256"}, None),
        ({"fileName": NAME, "hash": SHA1[:-1]}, None),
        ({"fileName": NAME, "hash": SHA1 + "0"}, None),
        ({"fileName": NAME, "hash": "g" * 40}, None),
        ({"fileName": NAME, "hash": ""}, None),
        ({"fileName": NAME}, None),
        ({"hash": SHA1}, None),
        ("not an object", None),
        (None, None),
    ],
)
def test_a_published_hash_is_40_hex_digits_for_this_very_file(entry: object, published: str | None) -> None:
    assert parse_job(document(hashes=[entry])).published_hashes(NAME) == ((published,) if published else ())


@pytest.mark.parametrize("hashes", [None, [], {}, "none", 5])
def test_without_hashes_none_is_published(hashes: object) -> None:
    assert parse_job({**document(), "hashes": hashes}).published_hashes(NAME) == ()


def test_the_hash_is_found_among_those_of_other_files() -> None:
    other = {"fileName": "other.tar.gz", "hash": "f" * 40}
    mine = {"fileName": NAME, "hash": SHA1}
    assert parse_job(document(hashes=[other, mine])).published_hashes(NAME) == (SHA1,)


# ---------------------------------------------------------------- links


def link_of(**delivery: Any) -> DeliveryUrl | None:
    return parse_job(document(delivery)).delivery_url


@pytest.mark.parametrize(
    ("said", "header"),
    [
        (
            {"authHeader": "Authorization", "authBearer": "Bearer", "authValue": "t0k3n"},
            ("Authorization", "Bearer t0k3n"),
        ),
        ({"authHeader": "Authorization", "authValue": "t0k3n"}, ("Authorization", "Bearer t0k3n")),
        ({"authValue": "t0k3n"}, ("Authorization", "Bearer t0k3n")),
        ({"authValue": "Bearer t0k3n"}, ("Authorization", "Bearer t0k3n")),
        ({"authBearer": "Bearer", "authValue": "Bearer t0k3n"}, ("Authorization", "Bearer t0k3n")),
        ({"authBearer": "Token", "authValue": "t0k3n"}, ("Authorization", "Token t0k3n")),
        ({"authBearer": "", "authValue": "t0k3n"}, ("Authorization", "Bearer t0k3n")),
        ({"authHeader": "X-Restore-Token", "authValue": "t0k3n"}, ("X-Restore-Token", "Bearer t0k3n")),
        ({"authHeader": "Bad Name\r\nX: y", "authValue": "t0k3n"}, ("Authorization", "Bearer t0k3n")),
        ({"authHeader": 5, "authValue": "t0k3n="}, ("5", "Bearer t0k3n=")),
    ],
)
def test_the_newer_url_comes_with_its_header(said: dict[str, Any], header: tuple[str, str]) -> None:
    link = link_of(urlV2=URL_V2, **said)
    assert link is not None
    assert link.url == URL_V2
    assert link.header == (header[0], Secret(header[1]))


def test_the_scheme_of_the_token_is_found_although_a_space_follows_it() -> None:
    link = link_of(urlV2=URL_V2, authBearer="Bearer ", authValue="t0k3n")
    assert link is not None
    assert link.header == ("Authorization", Secret("Bearer t0k3n"))


@pytest.mark.parametrize("value", [None, "", "two\r\nlines", "\x00", "tök", ["t0k3n"]])
def test_without_a_usable_token_the_older_url_is_used(value: object) -> None:
    link = link_of(urlV2=URL_V2, authHeader="Authorization", authValue=value)
    assert link == DeliveryUrl(URL, NAME)


def test_a_newer_url_without_an_older_one_is_used_without_a_token() -> None:
    assert link_of(url=None, urlV2=URL_V2) == DeliveryUrl(URL_V2, NAME)


def test_an_empty_newer_url_is_one_that_is_not_there() -> None:
    assert link_of(urlV2="", authValue="t0k3n") == DeliveryUrl(URL, NAME)


def test_the_older_url_gets_no_header() -> None:
    assert link_of(authHeader="Authorization", authValue="t0k3n") == DeliveryUrl(URL, NAME)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://om/pull/rs0.tar.gz", "rs0.tar.gz"),
        ("https://om/pull/rs0.tar", "rs0.tar"),
        ("https://om/pull/rs0.tar.gz?sig=a/b", "rs0.tar.gz"),
        ("https://om/pull/rs0.tar.gz#top", "rs0.tar.gz"),
        ("https://om/pull/rs%200.tar.gz", "rs 0.tar.gz"),
        ("https://om/pull/", ""),
        ("https://om", ""),
        ("https://om/pull/..%2f..%2fetc", "etc"),
        ("http://[2001:db8::1]:8080/rs0.tar.gz", "rs0.tar.gz"),
    ],
)
def test_the_name_is_the_last_segment_of_the_path(url: str, name: str) -> None:
    assert link_of(url=url) == DeliveryUrl(url, name)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://om/x.tar.gz", "not an http or https"),
        ("/backup/restore/x.tar.gz", "not an http or https"),
        ("https:///x.tar.gz", "not an http or https"),
        ("x", "not an http or https"),
        ("https://om:port/x.tar.gz", "not parse"),
        ("https://om:70000/x.tar.gz", "not parse"),
        ("https://[::1/x.tar.gz", "not parse"),
        ("https://user@om/x.tar.gz", "user name or a password"),
        ("https://user:word@om/x.tar.gz", "user name or a password"),
        ("https://om/a b.tar.gz", "white space"),
        ("https://om/a\r\nb.tar.gz", "control characters"),
        ("https://om/a\ud800.tar.gz", "control characters"),
    ],
)
@pytest.mark.parametrize("field", ["url", "urlV2"])
def test_a_url_that_cannot_be_fetched_is_named_without_being_shown(field: str, url: str, why: str) -> None:
    job = parse_job(document({"url": None, field: url}))
    assert job.delivery_url is None
    assert why in (job.delivery_url_defect or "")
    assert not any(part in repr(job) for part in ("x.tar.gz", "user@", ":word"))


@pytest.mark.parametrize("url", [None, "", [], {}])
def test_a_missing_url_is_not_a_defect(url: object) -> None:
    job = parse_job(document({"url": url}))
    assert (job.delivery_url, job.delivery_url_defect) == (None, None)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, f"https://om.example.net:8443/…/{NAME}"),
        (f"http://OM/pull/{TOKEN}/a.tar", "http://om/…/a.tar"),
        (f"https://om/pull/{TOKEN}/a%1b%5b2J.tar", "https://om/…/a\\x1b[2J.tar"),
        (f"https://om/pull/a.tar?token={TOKEN}", "https://om/…/a.tar"),
    ],
)
def test_a_delivery_url_shows_host_and_archive_only(url: str, shown: str) -> None:
    link = link_of(url=url)
    assert str(link) == shown
    assert TOKEN not in f"{link} {link!r}"


def test_a_delivery_url_with_an_ipv6_address_keeps_its_brackets() -> None:
    assert str(link_of(url="https://[2001:db8::1]:8443/pull/a.tar")) == "https://[2001:db8::1]:8443/…/a.tar"


def test_a_job_does_not_show_its_secrets() -> None:
    job = parse_job(document({"urlV2": URL, "authValue": "t0k3n-t0k3n"}))
    assert job.delivery_url is not None
    assert TOKEN not in repr(job)
    assert "t0k3n" not in repr(job)


# ---------------------------------------------------------------- whatever comes

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
urls = st.builds(
    "{}{}{}/{}".format,
    st.sampled_from(["", "http://", "https://", "HTTPS://", "ftp://", "//", "https://["]),
    st.sampled_from(["", "om", "om:1", "om:x", "u:p@om", "[::1]", "[::1", "\u2100", "a\\b"]) | st.text(max_size=5),
    st.sampled_from(["", ":", ":0", ":99999", "/a", "?a", "#"]),
    st.text(st.characters(exclude_categories=()), max_size=8),
)


def objects(*names: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(names, anything), **fields})


documents = objects(
    *("batchId", "clusterId", "hostId", "snapshotId", "statusName", "encryptionEnabled", "masterKeyUUID"),
    *("pointInTime", "timestamp", "created", "links"),
    id=anything | st.just("5c9e"),
    hashes=anything | st.lists(objects("fileName", "hash", "typeName"), max_size=3),
    delivery=anything
    | objects(
        *("methodName", "targetClusterId", "authHeader", "authBearer", "authValue", "maxDownloads"),
        statusName=anything | st.just("READY"),
        expires=anything | st.datetimes().map(str),
        url=anything | urls,
        urlV2=anything | urls,
    ),
)


@hypothesis_settings(deadline=None, max_examples=75)
@given(anything | documents)
def test_any_document_of_the_api_is_parsed_or_refused(sent: object) -> None:
    try:
        job = parse_job(sent)
    except ValueError:
        return
    assert isinstance(decide(job), Decision)
    assert all(oddity.isprintable() for oddity in job.oddities)
    assert job.delivery_url is None or str(job.delivery_url)


@hypothesis_settings(deadline=None, max_examples=75)
@given(urls)
def test_an_accepted_delivery_url_has_an_http_host_and_no_credentials(url: str) -> None:
    link = link_of(url=url)
    assert link is None or re.match(r"https?://[^/@\s]", link.url, re.IGNORECASE)
    assert link is None or link.url.isprintable()


@pytest.mark.parametrize("spelt", ["a%20b+c-%C3%BC.tar.gz", "a b+c-ü.tar.gz", "somewhere/a%20b+c-%C3%BC.tar.gz"])
def test_a_hash_is_found_by_the_name_as_the_url_spells_it_or_decoded(spelt: str) -> None:
    url = "https://om.example.net/backup/restore/v2/pull/1/TOKEN/a%20b+c-%C3%BC.tar.gz"
    job = parse_job({"id": "1", "delivery": {"url": url}, "hashes": [{"fileName": spelt, "hash": "a" * 40}]})
    assert job.delivery_url is not None
    assert job.published_hashes(job.delivery_url.file_name) == ("a" * 40,)
