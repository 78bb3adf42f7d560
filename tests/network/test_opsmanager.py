"""The API of Ops Manager: digest, pages, errors, faults that pass and faults that do not, and hostile answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.agents import (
    PATIENCE,
    QUICK,
    Json,
    Restore,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    meanwhile,
    wait_until,
)
from support.servers import Script, says, serving

from restore_agent.core.clock import ServerClock, SystemClock
from restore_agent.core.errors import (
    AccessRefused,
    AgentError,
    AnswerUnusable,
    NotFound,
    RedirectRefused,
    TlsError,
    Unreachable,
)
from restore_agent.core.jobs import Job
from restore_agent.core.redaction import Redactor, Secret
from restore_agent.core.settings import Connection, Target
from restore_agent.network import opsmanager
from restore_agent.network.opsmanager import OpsManager
from restore_agent.restore import completion
from restore_agent.simulator import Simulator

BRIEF = ("--wait-timeout=0.4s", "--hash-timeout=0.4s")


def lists_of(sim: Simulator) -> list[str]:
    """The list calls that were answered, each by its query."""
    return [r.path.partition("?")[2] for r in sim.requests if r.status == 200 and "restoreJobs?" in r.path]


# ---------------------------------------------------------------- digest over real sockets


@pytest.mark.parametrize("qop", ["auth", "none", "op"])
def test_a_digest_is_answered_with_and_without_qop(qop: str, simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(f"qop={qop}", shards=1)
    assert restore(sim).code == 0
    proven = [request for request in sim.requests if request.auth == "digest"]
    assert all(("qop=auth" in request.headers["authorization"]) == (qop == "auth") for request in proven)


def test_a_nonce_is_used_again_with_a_new_count(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("hash=late:0.3")
    assert restore(sim).code == 0
    api = [request for request in sim.requests if request.kind == "api"]
    assert [request.status for request in api].count(401) == 1
    counts = [re.findall(r"nc=(\w{8})", request.headers.get("authorization", "")) for request in api[1:]]
    assert counts == [[f"{number:08x}"] for number in range(1, len(api))]


def test_stale_nonces_are_renewed_without_an_error(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("stale-nonce=1", "hash=late:0.2", shards=1)
    assert restore(sim).code == 0
    assert {request.auth for request in sim.requests if request.kind == "api"} == {"none", "digest", "digest-stale"}


def test_a_server_that_accepts_one_nonce_at_a_time_gets_no_requests_in_parallel(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("one-nonce", "hash=late:0.2", shards=2)
    jobs = [f"--job-id={job_id}" for job_id in sim.hello["job_ids"]]
    options = [*connection_args(sim, jobs=False), *jobs, *QUICK, f"--dest={dest}", "--output=json"]
    assert run_agent(["run", *options]).code == 0


def test_a_wrong_key_is_refused_after_one_answer_to_the_challenge(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator()
    ended = restore(sim, "--public-key=somebody")
    assert ended.code == 30
    assert [request.auth for request in sim.requests] == ["none", "digest-refused"]
    assert "USER_UNAUTHORIZED" in ended.events("error")[0]["message"]


def test_access_that_is_withdrawn_during_a_run_ends_it_after_the_running_download(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("drip=200K", shards=0)

    def withdraw() -> None:
        wait_until(lambda: deliveries(sim))
        sim.set_faults("drip=200K", "forbidden")

    with meanwhile(withdraw):
        assert restore(sim).code == 30
    assert deliveries(sim)[0].completed
    sim.set_faults()
    assert restore(sim).code == 0
    assert len(deliveries(sim)) == 1


# ---------------------------------------------------------------- pages and envelopes


@pytest.mark.parametrize(
    "faults",
    [
        ["page-size=1"],
        ["page-size=2", "no-total-count"],
        ["page-size=2", "no-next-link"],
        ["page-size=1", "next-drops-batch"],
        ["page-size=2", "numbers-as-strings"],
        ["envelope-always"],
        ["envelope-always", "page-size=1"],
        ["no-total-count", "no-next-link"],
        ["page-size=2", "no-total-count", "no-next-link"],
    ],
    ids="+".join,
)
def test_every_page_of_the_batch_is_read(faults: list[str], simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(*faults, shards=3)
    ended = restore(sim)
    assert ended.code == 0
    assert ended.verdicts == ["verified"] * 4
    assert all(f"batchId={sim.hello['batch_id']}" in query for query in lists_of(sim))


def test_a_single_job_is_read_out_of_its_envelope(simulator: StartSimulator, restore: Restore) -> None:
    assert restore(simulator("envelope-always")).code == 0


def test_an_endless_list_is_abandoned(
    simulator: StartSimulator, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opsmanager, "_MOST_PAGES", 7)
    sim = simulator("endless-pages", "page-size=1", shards=1)
    ended = restore(sim, *BRIEF)
    assert ended.code == 32
    assert "does not end" in ended.events("error")[0]["message"]
    assert deliveries(sim) == []


def test_one_list_call_serves_a_poll_however_many_jobs_there_are(
    simulator: StartSimulator, restore: Restore, tmp_path: Path
) -> None:
    calls = []
    for shards in (1, 20):
        sim = simulator("never-ready", shards=shards)
        assert restore(sim, "--wait-timeout=0.5s", "--poll-interval=0.1s", to=tmp_path / str(shards)).code == 20
        calls.append(len(lists_of(sim)))
        single = [r for r in sim.requests if r.kind == "api" and "/restoreJobs/" in r.path]
        assert single == []
    assert max(calls) <= 5


def test_many_waiting_jobs_do_not_flood_the_api(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("cut=50%", "max-downloads=2", "hash=late:0.4", shards=5, archive_size=8192)
    ended = restore(sim, "--poll-interval=0.2s")
    assert ended.code == 0
    assert len(lists_of(sim)) < 30  # six jobs, each in a hurry twice


def test_polls_back_off_to_eight_times_the_interval_with_jitter(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("never-ready", shards=1)
    assert restore(sim, "--wait-timeout=2.5s", "--poll-interval=0.02s").code == 20
    times = [request.time for request in sim.requests if request.status == 200 and "restoreJobs?" in request.path]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) >= 5
    assert min(gaps) < 0.1
    assert sorted(gaps)[len(gaps) // 2] < 0.02 * 8 * 1.2 + 0.2
    assert max(gaps) > 0.02 * 8 * 0.8 - 0.01


def test_a_job_that_is_no_longer_listed_keeps_its_last_document(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("hash=late:3600", "drip=200K", shards=1)

    def hide() -> None:
        wait_until(lambda: len(deliveries(sim)) == 2)
        sim.set_faults("drip=200K", "no-batch")
        wait_until(lambda: all(request.completed for request in deliveries(sim)))
        lists = len(lists_of(sim))
        wait_until(lambda: len(lists_of(sim)) > lists + 4)
        sim.set_faults()

    with meanwhile(hide):
        assert restore(sim, "--hash-timeout=10s").code == 0


# ---------------------------------------------------------------- faults that pass


@pytest.mark.parametrize(
    "faults",
    [
        ["api-429=2"],
        ["api-500=2"],
        ["api-503=2"],
        ["api-reset=2"],
        ["api-429=1", "api-reset=1", "api-503=1"],
        ["not-json=2"],
    ],
    ids="+".join,
)
def test_a_transient_error_does_not_stop_a_run(faults: list[str], simulator: StartSimulator, restore: Restore) -> None:
    assert restore(simulator(*faults, shards=1)).code == 0


def test_retry_after_is_honoured(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("api-429=1", "api-retry-after=1")
    assert restore(sim).code == 0
    refused, next_one = sim.requests[:2]
    assert refused.status == 429
    assert next_one.time - refused.time >= 1


def test_an_api_that_does_not_answer_is_asked_again(
    simulator: StartSimulator, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opsmanager.OpsManager.__init__, "__defaults__", (0.2,))
    assert restore(simulator("api-stall=1")).code == 0


def test_over_tls_a_late_answer_is_not_a_tls_error(
    simulator: StartSimulator, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opsmanager.OpsManager.__init__, "__defaults__", (0.3,))
    assert restore(simulator("api-stall=1", tls=True)).code == 0


def test_32_when_the_api_accepts_but_does_not_answer_within_the_time_of_the_phase(
    simulator: StartSimulator, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_SILENCE", 0.5)
    began = time.monotonic()
    ended = restore(simulator("api-stall=9"), "--wait-timeout=0.2s")
    assert (ended.code, ended.events("error")[0]["id"]) == (32, "ops-manager-unreachable")
    assert time.monotonic() - began < 10


def test_a_run_survives_an_outage_while_it_waits_for_a_hash(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("hash=late:3600")

    def outage() -> None:
        wait_until(lambda: any(request.completed for request in deliveries(sim)))
        sim.set_faults("hash=late:3600", "api-503=always")
        before = len(sim.requests)
        wait_until(lambda: len(sim.requests) > before + 3)
        sim.set_faults()

    with meanwhile(outage):
        assert restore(sim, "--hash-timeout=10s").code == 0


def test_an_outage_does_not_interrupt_an_active_download(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("drip=100K")

    def outage() -> None:
        wait_until(lambda: deliveries(sim))
        sim.set_faults("drip=100K", "api-reset=always")
        wait_until(lambda: deliveries(sim)[0].completed)
        sim.set_faults()

    with meanwhile(outage):
        assert restore(sim, "--wait-timeout=0.2s").code == 0
    assert len(deliveries(sim)) == 1


# ---------------------------------------------------------------- faults that do not pass


@pytest.mark.parametrize(
    "fault", ["not-json=always", "json-array", "null-results", "huge-answer=33M", "endless-header"]
)
def test_32_when_the_answers_are_not_usable(fault: str, simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator(fault, shards=1)
    began = time.monotonic()
    ended = restore(sim, "--wait-timeout=1s", "--hash-timeout=1s")
    assert ended.code == 32
    assert time.monotonic() - began < PATIENCE
    assert ended.events("error")[0]["hint"]


def test_an_unusable_answer_is_not_requested_until_the_wait_timeout(
    simulator: StartSimulator, restore: Restore
) -> None:
    began = time.monotonic()
    ended = restore(simulator("not-json=always"), "--wait-timeout=1h", "--poll-interval=0.02s")
    assert ended.code == 32
    assert time.monotonic() - began < 5
    assert "an HTML page" in ended.events("error")[0]["message"]


@pytest.mark.parametrize("depth", [100, 900, 200_000])
def test_a_deeply_nested_answer_does_not_end_a_run(depth: int, simulator: StartSimulator, restore: Restore) -> None:
    ended = restore(simulator(f"deep-json={depth}"), "--wait-timeout=1s", "--hash-timeout=1s")
    assert ended.code in ((0,) if depth < 900 else (0, 32))


def test_a_redirect_of_the_api_is_refused_and_no_credential_is_sent_to_it(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator("api-redirect")
    ended = restore(sim)
    assert ended.code == 32
    assert ended.events("error")[0]["id"] == "api-redirect"
    assert "final address" in ended.events("error")[0]["hint"]
    assert len(sim.requests) == 1


# ---------------------------------------------------------------- answers of raw bytes


async def _jobs(url: str) -> list[Job]:
    clock = ServerClock(SystemClock())
    async with OpsManager(Connection(url, "user", Secret("private key")), clock, Redactor()) as api:
        return await api.jobs(Target("g", "c", None, "b"))


def jobs_of(script: Script) -> list[Job]:
    """What the client makes of one raw answer to its list call."""
    with serving(script) as (url, _):
        return asyncio.run(asyncio.wait_for(_jobs(url.partition("/pull")[0]), PATIENCE))


def answer(status: str, body: bytes | Json, *headers: str) -> Script:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", "Connection: close", *headers]
    return says("\r\n".join([*lines, "", ""]).encode() + raw)


ERROR: Json = {"error": 0, "errorCode": "SOME_CODE", "reason": "Some reason", "detail": "The detail."}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", NotFound),
        ("401 Unauthorized", AccessRefused),
        ("403 Forbidden", AccessRefused),
        ("404 Not Found", NotFound),
        ("409 Conflict", NotFound),
        ("429 Too Many Requests", Unreachable),
        ("500 Internal Server Error", Unreachable),
        ("503 Service Unavailable", Unreachable),
    ],
)
def test_the_error_document_is_in_the_message(status: str, kind: type[AgentError]) -> None:
    with pytest.raises(kind, match=rf"HTTP {status[:3]} SOME_CODE: The detail\."):
        jobs_of(answer(status, ERROR))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "HTTP 503"),
        (b"<html>", "HTTP 503"),
        (b"[]", "HTTP 503"),
        (b"null", "HTTP 503"),
        (b'"text"', "HTTP 503"),
        (b"{}", "HTTP 503"),
        (b'{"errorCode": null, "detail": 5}', "HTTP 503: 5"),
        (b'{"errorCode": ["x"], "reason": "only a reason"}', r"HTTP 503 \['x'\]: only a reason"),
        (b"\xff\xfe", "HTTP 503"),
        (b"[" * 60_000, "HTTP 503"),
    ],
)
def test_an_invalid_error_document_leaves_the_status_in_the_message(body: bytes, said: str) -> None:
    with pytest.raises(Unreachable, match=said + "$"):
        jobs_of(answer("503 Busy", body))


def test_retry_after_is_taken_from_seconds_or_a_date() -> None:
    for header, least, most in [("7", 7, 7), ("99999999", 3600, 3600), ("soon", 0, 0)]:
        with pytest.raises(Unreachable) as busy:
            jobs_of(answer("503 Busy", b"", f"Retry-After: {header}"))
        assert least <= (busy.value.retry_after or 0) <= most
    date = "Date: Mon, 01 Jan 2024 00:00:00 GMT"
    with pytest.raises(Unreachable) as busy:
        jobs_of(answer("503 Busy", b"", date, "Retry-After: Mon, 01 Jan 2024 00:00:30 GMT"))
    assert busy.value.retry_after == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        (answer("302 Found", b"", "Location: http://127.0.0.1:9/"), RedirectRefused, "302"),
        (answer("304 Not Modified", b""), RedirectRefused, "304"),
        (answer("201 Created", {"results": []}), AnswerUnusable, "201"),
        (answer("204 No Content", b""), AnswerUnusable, "204"),
        (answer("200 OK", b"{"), AnswerUnusable, "not JSON"),
        (answer("200 OK", b""), AnswerUnusable, "not JSON"),
        (answer("200 OK", b"\xff\xfe\x00"), AnswerUnusable, "not JSON"),
        (answer("200 OK", b"[" * 100_000), AnswerUnusable, "not JSON"),
        (answer("200 OK", b"[]"), AnswerUnusable, "not an object"),
        (answer("200 OK", b"null"), AnswerUnusable, "not an object"),
        (answer("200 OK", b"{}"), AnswerUnusable, "no list of results"),
        (answer("200 OK", {"results": {}}), AnswerUnusable, "no list of results"),
        (answer("200 OK", {"results": [None]}), AnswerUnusable, "not an object"),
        (answer("200 OK", {"results": [{}]}), AnswerUnusable, "no id"),
        (answer("200 OK", {"results": [{"id": ["x"]}]}), AnswerUnusable, "no id"),
        (answer("200 OK", {"results": []}, "Content-Encoding: gzip"), AnswerUnusable, "compressed"),
        (answer("400 Bad", b"<h1>No required SSL certificate was sent</h1>"), TlsError, "client certificate"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), Unreachable, "cannot be reached"),
        (says(b"SSH-2.0-OpenSSH\r\n"), Unreachable, "not HTTP"),
        (says(b""), Unreachable, "cannot be reached"),
    ],
    ids=range(20),
)
def test_an_answer_that_is_not_the_document_is_an_agent_error(
    script: Script, kind: type[AgentError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        jobs_of(script)


def test_a_list_with_additional_content_is_read() -> None:
    job = {"id": 5, "batchId": "b", "statusName": None, "delivery": [], "hashes": {}, "new": {"deep": [1]}}
    document = {"results": [job, job], "totalCount": "1", "links": "none", "status": 200, "more": None}
    (read,) = jobs_of(answer("200 OK", document))
    assert (read.id, read.status, read.delivery_url) == ("5", None, None)


def test_only_a_digest_is_ever_sent() -> None:
    asks_for_basic = answer("401 Unauthorized", ERROR, 'WWW-Authenticate: Basic realm="x"')
    with serving(asks_for_basic, asks_for_basic) as (url, heads), pytest.raises(AccessRefused):
        asyncio.run(_jobs(url.partition("/pull")[0]))
    assert len(heads) == 1
    assert b"authorization" not in heads[0].lower()
    assert b"accept-encoding: identity" in heads[0].lower()


# ---------------------------------------------------------------- hostile text, wrong clocks

RAW = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]")
"""Characters that clear terminals, forge lines and turn writing round."""


def strings_in(value: object) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings_in(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    "faults", [[], ["forbidden"], ["never-ready"], ["broken"], ["name=a\x1b[2J\x9b31m\u202e\r\n.tar.gz", "cut=50%"]]
)
def test_hostile_text_never_reaches_the_terminal_raw(
    faults: list[str], output: str, simulator: StartSimulator, restore: Restore
) -> None:
    ended = restore(simulator("hostile-text", *faults, shards=1), *BRIEF, f"--output={output}", "--progress=plain")
    shown = ended.out + ended.err
    assert RAW.findall(shown) == []
    if output == "json":
        assert [text for text in strings_in(ended.lines) if RAW.search(text) or "\n" in text] == []
        assert [line["event"] for line in ended.lines].count("result") == 1
    assert not any(line.startswith('{"event": "result", "exit_code": 0}') for line in shown.splitlines())


@pytest.mark.parametrize("fault", ["clock-skew=86400", "clock-skew=-86400", "no-date", "bad-date"])
def test_a_wrong_clock_does_not_abandon_a_valid_delivery_url(
    fault: str, simulator: StartSimulator, restore: Restore
) -> None:
    assert restore(simulator(fault, "cut=50%", "max-downloads=2")).code == 0


def test_expiry_is_measured_by_the_servers_clock(simulator: StartSimulator, restore: Restore) -> None:
    sim = simulator("clock-skew=-86400", "never-ready")
    ended = restore(sim, "--wait-timeout=0.2s", "--output=json")
    assert ended.code == 20
    (row,) = ended.events("progress")[-1]["archives"]
    assert row["expires_in"] == pytest.approx(3600, abs=30)


def test_a_delivery_url_past_its_expiry_is_requested_while_the_api_reports_ready(
    simulator: StartSimulator, restore: Restore
) -> None:
    sim = simulator('job-field=delivery.expires:"2001-01-01T00:00:00Z"')
    assert restore(sim).code == 0
