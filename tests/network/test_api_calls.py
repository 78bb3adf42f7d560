"""Calls of the API against raw sockets: refusals, lists, odd documents, snapshots, and the request for a restore."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from support.agents import PATIENCE, Json, Restore, StartSimulator, deliveries
from support.servers import Script, says, serving

from restore_agent.core.clock import ServerClock, SystemClock
from restore_agent.core.errors import (
    AccessRefused,
    AgentError,
    AnswerUnusable,
    CreationUnconfirmed,
    NotFound,
    RequestRefused,
    Unreachable,
)
from restore_agent.core.jobs import Job
from restore_agent.core.redaction import Redactor, Secret
from restore_agent.core.settings import Connection, Target
from restore_agent.network.opsmanager import OpsManager

T = TypeVar("T")

BATCH = Target("g", "c", None, "b")

Call = Callable[[OpsManager], Awaitable[T]]

CHALLENGE = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'


def answer(status: str, body: bytes | Json, *headers: str) -> Script:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", "Connection: close", *headers]
    return says("\r\n".join([*lines, "", ""]).encode() + raw)


def asked(call: Call[T], *scripts: Script, heads: list[bytes] | None = None, timeout: float = 5.0) -> T:
    """The result of one call; `heads` gets the requests."""

    async def ask(url: str) -> T:
        clock = ServerClock(SystemClock())
        connection = Connection(url, "user", Secret("private key"))
        async with OpsManager(connection, clock, Redactor(), timeout) as api:
            return await call(api)

    with serving(*scripts) as (url, seen):
        try:
            return asyncio.run(asyncio.wait_for(ask(url.partition("/pull")[0]), PATIENCE))
        finally:
            if heads is not None:
                heads += seen


def jobs_in(*scripts: Script, target: Target = BATCH) -> tuple[list[Job], tuple[str, ...]]:
    async def call(api: OpsManager) -> tuple[list[Job], tuple[str, ...]]:
        return await api.jobs(target), api.remarks

    return asked(call, *scripts)


ERROR: Json = {"error": 0, "errorCode": "SOME_CODE", "reason": "Some reason", "detail": "The detail."}


# ---------------------------------------------------------------- refusals as what they are


@pytest.mark.parametrize(
    ("status", "body", "kind", "hint"),
    [
        ("407 Proxy Authentication Required", b"", RequestRefused, "password of the proxy"),
        ("400 Bad Request", b"The plain HTTP request was sent to HTTPS port", RequestRefused, "https://"),
        ("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n", RequestRefused, "https://"),
        ("400 Bad Request", b"<h1>Bad Request</h1>", RequestRefused, "address of Ops Manager"),
        ("405 Method Not Allowed", ERROR, RequestRefused, "address of Ops Manager"),
        ("406 Not Acceptable", b"", RequestRefused, "address of Ops Manager"),
        ("414 URI Too Long", b"", RequestRefused, "address of Ops Manager"),
        ("418 I'm a teapot", b"", RequestRefused, "address of Ops Manager"),
        ("431 Too Large", b"", RequestRefused, "address of Ops Manager"),
        ("451 Legal", b"", RequestRefused, "address of Ops Manager"),
        ("400 Bad Request", ERROR, NotFound, "Check the IDs"),
        ("409 Conflict", ERROR, NotFound, "Check the IDs"),
        ("404 Not Found", b"", NotFound, "--batch-id"),
        ("403 Forbidden", b"", AccessRefused, "role"),
        ("408 Timeout", b"", Unreachable, "Run the command again"),
        ("421 Misdirected", b"", Unreachable, "Run the command again"),
        ("425 Too Early", b"", Unreachable, "Run the command again"),
    ],
)
def test_a_refusal_of_the_api_is_reported_with_its_cause(
    status: str, body: bytes | Json, kind: type[AgentError], hint: str
) -> None:
    with pytest.raises(kind, match=status[:3]) as refused:
        jobs_in(answer(status, body))
    assert hint in refused.value.hint


def test_plain_http_to_a_tls_port_causes_the_advice_to_use_https() -> None:
    with pytest.raises(RequestRefused, match="expects TLS") as refused:
        jobs_in(says(b"\x15\x03\x03\x00\x02\x02\x46"))
    assert (refused.value.exit_code, refused.value.hint) == (32, "Give --url with https:// instead of http://.")


def test_a_connection_that_ends_without_an_answer_to_plain_http_may_need_https() -> None:
    with pytest.raises(Unreachable, match="if the port serves TLS, --url needs https://"):
        jobs_in(says(b""))


# ---------------------------------------------------------------- lists


def listed(*ids: str, total: int | None = None, batch: str | None = "b") -> Script:
    jobs = [{"id": each, **({"batchId": batch} if batch else {})} for each in ids]
    return answer("200 OK", {"results": jobs, **({} if total is None else {"totalCount": total})})


def test_a_list_shorter_than_its_total_count_is_not_a_poll_result() -> None:
    for scripts in ([listed("1", total=2), listed()], [listed("1", "2", total=3), listed("2"), listed()]):
        with pytest.raises(Unreachable, match=r"listed \d of \d"):
            jobs_in(*scripts)
    found, _ = jobs_in(listed("1", "2", total=3), listed("2", "3", total=3))
    assert [job.id for job in found] == ["1", "2", "3"]


def test_a_job_of_another_batch_or_none_is_reported_and_not_used() -> None:
    body = {"results": [{"id": "1", "batchId": "b"}, {"id": "2", "batchId": "x"}, {"id": "3"}], "totalCount": 3}
    found, remarks = jobs_in(answer("200 OK", body))
    assert [job.id for job in found] == ["1"]
    assert remarks == (
        "Ops Manager listed job 2 of batch x, which is not used",
        "Ops Manager listed job 3 of no batch, which is not used",
    )


def test_an_answer_that_is_about_another_job_is_not_used() -> None:
    with pytest.raises(AnswerUnusable, match="answer for job A is about B"):
        jobs_in(answer("200 OK", {"id": "B"}), target=Target("g", "c", None, None, ("A",)))


def test_a_missing_job_is_an_error_of_its_own_while_other_jobs_are_found() -> None:
    async def call(api: OpsManager) -> list[str | None]:
        await api.jobs(Target("g", "c", None, None, ("A", "B")))
        return [error.archive for error in api.unknown.values()]

    assert asked(call, answer("404 Not Found", ERROR), answer("200 OK", {"id": "B"})) == ["A"]


def test_all_hashes_of_a_file_are_kept() -> None:
    entries = [{"fileName": name, "hash": digit * 40, "typeName": "SHA1"} for name, digit in ("a1", "a2", "b3", "a1")]
    (job,), _ = jobs_in(
        answer("200 OK", {"results": [{"id": "1", "batchId": "b", "hashes": entries}], "totalCount": 1})
    )
    assert job.hashes == tuple((name, digit * 40) for name, digit in ("a1", "a2", "b3", "a1"))


SURROGATE = "\\ud800"


@pytest.mark.parametrize("field", ["id", "clusterId", "snapshotId", "statusName", "hostId", "masterKeyUUID"])
def test_a_lone_surrogate_in_a_document_is_replaced_and_noted(field: str) -> None:
    fields = {"id": '"1"', "batchId": '"b"', field: f'"x{SURROGATE}"'}
    document = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    (job,), _ = jobs_in(answer("200 OK", f'{{"results": [{{{document}}}], "totalCount": 1}}'.encode()))
    json.dumps(vars(job), default=str).encode()
    repr(job).encode()
    assert any("valid Unicode" in oddity for oddity in job.oddities)


def test_lone_surrogates_in_any_field_are_not_a_defect(simulator: StartSimulator, restore: Restore) -> None:
    for field in ("delivery.url", "delivery.statusName", "clusterId", "hashes", "snapshotId", "clusterName"):
        value = '[{"fileName":"\\ud800","hash":"\\udfff"}]' if field == "hashes" else '"\\ud800"'
        ended = restore(simulator(f"job-field={field}:{value}"), "--wait-timeout=0.3s", "--hash-timeout=0.3s")
        assert ended.code != 1, (field, ended.out)


# ---------------------------------------------------------------- slow answers


def test_a_slow_answer_is_awaited_however_long_its_challenge_took() -> None:
    challenge = says(
        0.3, b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 0\r\n\r\n'
    )
    slow = says(0.3, b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"results"', 0.3, b": []}")

    async def call(api: OpsManager) -> list[Job]:
        return await api.jobs(BATCH)

    assert asked(call, challenge, slow, timeout=0.5) == []
    with pytest.raises(Unreachable, match="no answer in time"):
        asked(call, says(2.0), timeout=0.2)


# ---------------------------------------------------------------- snapshots, cluster, project


def test_snapshots_of_all_pages_are_read_with_their_missing_parts() -> None:
    whole = {
        "id": "s1",
        "clusterId": "c",
        "complete": True,
        "created": {"date": "2026-11-25T00:00:00Z", "increment": 1},
        "expires": "2026-11-27T00:00:00Z",
        "isPossiblyInconsistent": False,
        "missingShards": [],
        "parts": [
            {"fileSizeBytes": 5, "mongodVersion": "7.0.1"},
            {"fileSizeBytes": "7", "mongodVersion": "7.0.1"},
            {"mongodVersion": "7.0.2"},
        ],
    }
    poor = {"id": "s2", "complete": False, "isPossiblyInconsistent": "true", "missingShards": ["sh0", {"groupId": "x"}]}
    pages = [answer("200 OK", {"results": [one], "totalCount": 2}) for one in (whole, poor)]
    heads: list[bytes] = []
    first, second = asked(lambda api: api.snapshots(BATCH), *pages, heads=heads)
    assert (first.id, first.created, first.size, first.mongodb_version) == ("s1", 1795564800.0, 12, "7.0.1, 7.0.2")
    assert (first.complete, first.restorable, second.complete, second.restorable) == (True, True, False, False)
    assert (second.possibly_inconsistent, second.missing_shards, second.size) == (True, ("sh0", "x"), None)
    assert [re.findall(rb"completed=(\w+)&pageNum=(\d)", head) for head in heads] == [
        [(b"all", b"1")],
        [(b"all", b"2")],
    ]


def test_project_cluster_and_version_of_the_server_are_read() -> None:
    headers = ("X-MongoDB-Service-Version: gitHash=1; versionString=7.0", "Date: Wed, 25 Nov 2026 00:00:00 GMT")

    async def call(api: OpsManager) -> tuple[Any, ...]:
        group = await api.group(BATCH)
        return group, await api.cluster(BATCH), api.server_version, round(api.clock.now())

    scripts = [
        answer("200 OK", {"id": "g", "name": "payments\x1b"}),
        answer("200 OK", {"clusterName": "prod"}, *headers),
    ]
    group, cluster, version, now = asked(call, *scripts)
    assert (group, cluster, version) == ("payments\\x1b", "prod", "gitHash=1; versionString=7.0")
    assert now == pytest.approx(1795564800, abs=2)


# ---------------------------------------------------------------- the request for a restore


async def created(api: OpsManager) -> list[Job]:
    return await api.create_restore(BATCH, "s1", max_downloads=3, expiration_hours=12)


def bodies(heads: list[bytes]) -> list[Any]:
    return [json.loads(head.partition(b"\r\n\r\n")[2]) for head in heads]


def test_one_post_is_sent_and_again_after_a_challenge() -> None:
    heads: list[bytes] = []
    jobs = answer("201 Created", {"results": [{"id": "1", "batchId": "b"}, {"id": "2", "batchId": "b"}]})
    found = asked(created, answer("401 Unauthorized", b"", CHALLENGE), jobs, heads=heads)
    assert [job.id for job in found] == ["1", "2"]
    assert [head.partition(b" ")[0] for head in heads] == [b"POST", b"POST"]
    assert b"authorization: digest" not in heads[0].lower()
    assert b"authorization: digest" in heads[1].lower()
    delivery = {"methodName": "HTTP", "maxDownloads": 3, "expirationHours": 12}
    assert bodies(heads) == [{"snapshotId": "s1", "delivery": delivery}] * 2


def test_the_answer_to_a_post_may_be_a_single_job() -> None:
    (job,) = asked(created, answer("200 OK", {"id": "1"}))
    assert (job.id, job.batch_id) == ("1", None)


@pytest.mark.parametrize(
    "script",
    [
        says(),
        says(b"HTTP/1.1 2"),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"),
        says(2.0),
        answer("429 Too Many Requests", b""),
        answer("500 Oops", ERROR),
        answer("503 Busy", b""),
        answer("200 OK", b"<html>"),
        answer("200 OK", {"results": [{}]}),
        answer("204 No Content", b""),
    ],
    ids=range(10),
)
def test_a_post_whose_answer_is_lost_is_never_repeated(script: Script) -> None:
    heads: list[bytes] = []
    with pytest.raises(CreationUnconfirmed, match="a restore may have been created") as lost:
        asked(created, script, answer("200 OK", {"id": "1"}), heads=heads, timeout=0.4)
    assert len(heads) == 1
    assert lost.value.exit_code == 32
    assert "restore-agent jobs" in lost.value.hint


def test_a_post_that_was_refused_or_never_sent_has_created_nothing() -> None:
    with pytest.raises(AccessRefused):
        asked(created, answer("403 Forbidden", ERROR))
    with pytest.raises(NotFound):
        asked(created, answer("404 Not Found", ERROR))
    with serving() as (url, _):
        pass

    async def ask() -> None:
        async with OpsManager(
            Connection(url.partition("/pull")[0], "u", Secret("k")), ServerClock(SystemClock()), Redactor()
        ) as api:
            await created(api)

    with pytest.raises(Unreachable, match="no connection"):
        asyncio.run(ask())


def test_deliveries_of_a_batch_are_fetched_only_if_they_are_its_own(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator('job-field=batchId:"000000000000000000000000"@0', shards=1)
    ended = restore(sim, "--wait-timeout=1s")
    fetched = {request.path for request in deliveries(sim)}
    assert not any(sim.job(0).file_name in path for path in fetched), ended.out
