"""One attempt at a delivery URL against raw sockets, and the meaning of every httpx error."""

from __future__ import annotations

import asyncio
import base64
import html
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from support.agents import PATIENCE, Restore, StartSimulator, deliveries
from support.servers import Script, full_listener, resolve_to, says, serving

from restore_agent.core.errors import (
    AgentError,
    AttemptFailed,
    ConnectFailed,
    DeliveryRefused,
    ResumeRefused,
    TlsError,
    TransferCut,
    Unreachable,
)
from restore_agent.core.jobs import DeliveryUrl
from restore_agent.core.redaction import Redactor, Secret
from restore_agent.network.delivery import DeliveryClient, Resume, delivery_error
from restore_agent.network.opsmanager import api_error
from restore_agent.network.tls import tls_problem

Attempt = Callable[..., tuple[int, bytes]]

OK = b"HTTP/1.1 200 OK\r\n"

# ---------------------------------------------------------------- one attempt


async def _attempt(url: str, resume: Resume | None, header: tuple[str, Secret] | None = None) -> tuple[int, bytes]:
    collected = bytearray()
    block = memoryview(bytearray(1 << 16))
    async with (
        DeliveryClient(ssl.create_default_context(), 2.0, Redactor()) as deliveries,
        deliveries.open(DeliveryUrl(url, "a.tar.gz", header), resume, time.time()) as body,
    ):
        while got := await body.read(block):
            collected += block[:got]
        return body.offset, bytes(collected)


@pytest.fixture
def attempt() -> Attempt:
    """Make one attempt at a raw server: `attempt(script, resume=resume)` gives the body's offset and bytes."""

    def make(*scripts: Script, resume: Resume | None = None) -> tuple[int, bytes]:
        with serving(*scripts) as (url, _):
            return asyncio.run(asyncio.wait_for(_attempt(url, resume), PATIENCE))

    return make


RESUME = Resume(4, '"v1"', 10)


def partial(content_range: str | None, *headers: str, body: bytes = b"456789") -> Script:
    lines = ["HTTP/1.1 206 Partial Content", f"Content-Length: {len(body)}", *headers]
    if content_range is not None:
        lines.append(f"Content-Range: {content_range}")
    return says("\r\n".join([*lines, "", ""]).encode() + body)


@pytest.mark.parametrize("headers", [(), ('ETag: "v1"',)])
def test_an_exact_remainder_is_resumed(headers: Sequence[str], attempt: Attempt) -> None:
    assert attempt(partial("bytes 4-9/10", *headers), resume=RESUME) == (4, b"456789")


def test_a_chunked_remainder_is_resumed(attempt: Attempt) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert attempt(says(head + b"6\r\n456789\r\n0\r\n\r\n"), resume=RESUME) == (4, b"456789")


@pytest.mark.parametrize(
    "script",
    [
        partial(None),
        partial("bytes 4-9/*"),
        partial("bytes 4-8/10", body=b"45678"),
        partial("bytes 3-9/10", body=b"3456789"),
        partial("bytes 4-10/11", body=b"456789a"),
        partial("bytes 4-9/10", 'ETag: "v2"'),
        partial("bytes 4-9/10", body=b"45678"),
        partial("items 4-9/10"),
        partial("bytes 4-9/10, bytes 4-9/10"),
        partial("bytes 99999999999999999999-9/10"),
        says(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=range(11),
)
def test_an_unverifiable_remainder_is_refused(script: Script, attempt: Attempt) -> None:
    with pytest.raises(ResumeRefused) as refused:
        attempt(script, resume=RESUME)
    assert refused.value.spent is True


def test_a_whole_answer_to_a_range_starts_at_the_beginning(attempt: Attempt) -> None:
    assert attempt(says(OK + b"Content-Length: 10\r\n\r\n0123456789"), resume=RESUME) == (0, b"0123456789")


@pytest.mark.parametrize("content_range", [None, "bytes 0-5/7", "bytes 1-6/7", "bytes 0-5/*", "bytes 0-5/5"])
def test_a_partial_answer_without_a_range_request_is_refused(content_range: str | None, attempt: Attempt) -> None:
    with pytest.raises(DeliveryRefused):
        attempt(partial(content_range))


def test_a_partial_answer_with_the_complete_archive_is_accepted(attempt: Attempt) -> None:
    assert attempt(partial("bytes 0-5/6")) == (0, b"456789")


@pytest.mark.parametrize("length", [b"Content-Length: 6\r\n", b""])
def test_a_partial_answer_that_is_shorter_than_announced_is_interrupted(length: bytes, attempt: Attempt) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n" + length + b"\r\n"
    with pytest.raises(TransferCut):
        attempt(says(head + b"012345"))


@pytest.mark.parametrize("resume", [None, RESUME])
def test_an_answer_that_a_proxy_reports_as_changed_is_accepted_and_left_to_the_hash(
    resume: Resume | None, attempt: Attempt
) -> None:
    head = b"HTTP/1.1 203 Non-Authoritative Information\r\nContent-Length: 10\r\n\r\n"
    assert attempt(says(head + b"0123456789"), resume=resume) == (0, b"0123456789")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 10\r\n\r\n", b"01234"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n01234\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n012345\r\n0\r\n\r\n"),
    ],
)
def test_a_body_with_broken_framing_is_interrupted(head: bytes, body: bytes, attempt: Attempt) -> None:
    with pytest.raises(TransferCut) as cut:
        attempt(says(OK + head + body))
    assert cut.value.spent is True


@pytest.mark.parametrize("body", [b"45678", b"456789a"])
def test_a_remainder_of_another_length_than_announced_is_interrupted(body: bytes, attempt: Attempt) -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\n\r\n"
    with pytest.raises(TransferCut):
        attempt(says(head + body), resume=RESUME)


@pytest.mark.parametrize(
    "status", [b"201 Created", b"204 No Content", b"400 Bad", b"403 No", b"404 No", b"500 No", b"599 ?", b"999 ?"]
)
def test_any_other_status_is_a_refusal(status: bytes, attempt: Attempt) -> None:
    with pytest.raises(DeliveryRefused, match=status[:3].decode()) as refused:
        attempt(says(b"HTTP/1.1 " + status + b"\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"))
    assert refused.value.retry_after == 7


@pytest.mark.parametrize(
    "location",
    [b"ftp://127.0.0.1/a", b"http://[", b"http://127.0.0.1:99999/", b"file:///etc/passwd", b"http://a b/"],
)
def test_a_redirect_to_a_url_that_is_not_http_is_refused(location: bytes, attempt: Attempt) -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(AttemptFailed):
        attempt(says(answer))


def test_a_relative_redirect_is_followed_and_cookies_are_not_carried() -> None:
    found = b"HTTP/1.1 307 Elsewhere\r\nLocation: ../other/a\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    with serving(says(found), says(OK + b"Content-Length: 5\r\n\r\nhello")) as (url, heads):
        assert asyncio.run(_attempt(url, None, ("Authorization", Secret("Bearer token")))) == (0, b"hello")
    assert [head.split(b" ")[1] for head in heads] == [b"/pull/secret/a.tar.gz", b"/pull/other/a"]
    assert b"cookie" not in heads[1].lower()
    assert all(b"Authorization: Bearer token" in head for head in heads)


def test_the_token_is_never_sent_again_once_a_redirect_has_left_its_origin() -> None:
    with serving(says(OK + b"Content-Length: 5\r\n\r\nhello")) as (there, heads):
        away = f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()
        with serving(says(away)) as (url, first):
            asyncio.run(_attempt(url, RESUME, ("X-Token", Secret("very secret"))))
    assert b"very secret" in first[0]
    assert b"very secret" not in heads[0]
    assert b"Range: bytes=4-" in heads[0]


def test_a_redirect_from_https_to_http_is_not_followed(simulator: StartSimulator, restore: Restore) -> None:
    plain = simulator()
    sim = simulator("redirect-other-origin", "max-downloads=9", tls=True)
    sim.manager.second_origin = plain.manager.origin
    ended = restore(sim, "--retries=0")
    assert ended.code == 25
    assert "https to http" in ended.events("archive")[0]["problem"]["message"]
    assert plain.requests == []


@pytest.mark.parametrize("etag", ['W/"weak"', "unquoted", '"a" "b"', '"' + "x" * 300 + '"'])
def test_a_validator_that_if_range_does_not_allow_is_not_kept(etag: str) -> None:
    async def ask(url: str) -> str | None:
        async with (
            DeliveryClient(ssl.create_default_context(), 2.0, Redactor()) as deliveries,
            deliveries.open(DeliveryUrl(url, "a"), None, 0) as body,
        ):
            return body.validator

    with serving(says(OK + b"ETag: " + etag.encode() + b"\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert asyncio.run(ask(url)) is None


# ---------------------------------------------------------------- refusals as what they are


@pytest.mark.parametrize(
    ("answer", "kind", "said", "spent"),
    [
        (b"407 Proxy Auth\r\nContent-Length: 0\r\n\r\n", ConnectFailed, "the proxy requires", False),
        (
            b"400 Bad\r\n\r\nThe plain HTTP request was sent to HTTPS port",
            DeliveryRefused,
            "expects https",
            False,
        ),
        (b"400 Bad\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", DeliveryRefused, "expects https", False),
        (b"400 Bad\r\n\r\n<p>You're speaking plain HTTP to an SSL-enabled", DeliveryRefused, "expects https", False),
        (b"400 Bad\r\n\r\nsee https://example.com/help", DeliveryRefused, "HTTP 400 Bad Request", True),
        (b"400 Bad\r\nContent-Length: 9\r\n\r\n", DeliveryRefused, "HTTP 400 Bad Request", True),
        (b"418 tea\r\n\r\n", DeliveryRefused, "HTTP 418", True),
    ],
)
def test_a_refusal_is_reported_with_its_cause(
    answer: bytes, kind: type[AttemptFailed], said: str, spent: bool, attempt: Attempt
) -> None:
    with pytest.raises(kind, match=said) as refused:
        attempt(says(b"HTTP/1.1 " + answer))
    assert refused.value.spent is spent
    assert ("https_proxy" in refused.value.hint) == (b"407" in answer)


def test_plain_http_to_a_tls_port_spends_no_download(attempt: Attempt) -> None:
    with pytest.raises(DeliveryRefused, match="expects https") as refused:
        attempt(says(b"\x15\x03\x01\x00\x02\x02\x0a"))
    assert refused.value.spent is False


def test_unreachable_addresses_spend_no_download(
    simulator: StartSimulator, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = simulator('job-field=delivery.url:"http://six.example:9/pull/token-of-the-url/a.tar.gz"')
    with full_listener() as dead:
        resolve_to(monkeypatch, "six.example", [dead] * 6)
        ended = restore(sim, "--retries=1", "--stall-timeout=0.5s")
    assert (ended.code, ended.archive["downloads_spent"]) == (25, 0)


# ---------------------------------------------------------------- tokens that a server echoes

TOKENS = ["dG9rZW4tb2YtdGhlLVVSTA==", "Zx9q", "Zx9-q+2", "p@ss w0rd/1"]


def encodings(token: str) -> dict[str, str]:
    raw = token.encode()
    return {
        "plain": token,
        "upper": token.upper(),
        "percent": quote(token, safe=""),
        "percent lower": quote(token, safe="").lower(),
        "every octet": "".join(f"%{octet:02x}" for octet in raw),
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "base64": base64.b64encode(raw).decode(),
        "base64 url": base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "base64 inside": base64.b64encode(b"xy" + raw + b"zxy").decode(),
        "html": html.escape(token),
        "html octets": "".join(f"&#{ord(character)};" for character in token),
    }


@pytest.mark.parametrize("encoding", list(encodings("x")))
@pytest.mark.parametrize("token", TOKENS, ids=range(4))
@pytest.mark.parametrize("place", ["path", "query", "header"])
def test_a_token_that_a_delivery_host_echoes_is_neither_shown_nor_kept(place: str, token: str, encoding: str) -> None:
    echoed = encodings(token)[encoding]
    if encoding == "base64 inside" and len(token) < 6:
        pytest.skip("only a few characters of such a short token depend on it alone")
    head = OK + f'ETag: "{echoed}"\r\nContent-Type: text/{echoed}\r\nContent-Length: 0\r\n\r\n'.encode()

    async def ask(url: str) -> tuple[str | None, str]:
        base, header = url.rpartition("/pull")[0], None
        link = f"{base}/pull/{'5' * 24}/{quote(token, safe='')}/a.tar.gz"
        if place == "query":
            link = f"{base}/a.tar.gz?expires=1&token={quote(token)}&x=y"
        if place == "header":
            link, header = f"{base}/a.tar.gz", ("Authorization", Secret(f"Bearer {quote(token)}"))
        redactor = Redactor()
        async with (
            DeliveryClient(ssl.create_default_context(), 2.0, redactor) as client,
            client.open(DeliveryUrl(link, "a", header), None, 0) as body,
        ):
            assert redactor.clean(f"it is {echoed}!") == "it is [hidden]!" or encoding == "base64 inside"
            return body.validator, body.content_type

    with serving(says(head)) as (url, _):
        validator, content_type = asyncio.run(ask(url))
    assert validator is None
    for known in (token, echoed):
        assert known not in content_type


@pytest.mark.parametrize("token", TOKENS[:3], ids=range(3))
def test_a_run_shows_no_token_that_is_echoed_in_a_status_line(
    token: str, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    refusal = f"HTTP/1.1 403 no {token} {token.encode().hex()}\r\nContent-Type: {token}\r\n\r\n{token}".encode()
    with serving(says(refusal), says(refusal)) as (url, _):
        address = url.replace("/secret/", f"/{'5' * 24}/{quote(token, safe='')}/")
        ended = restore(simulator(f'job-field=delivery.url:"{address}"'), "--retries=1")
    assert ended.code == 25
    kept = "".join(path.read_text() for path in dest.rglob("*") if path.is_file())
    for known in (token, quote(token, safe=""), token.encode().hex()):
        assert known not in ended.out + ended.err + kept


# ---------------------------------------------------------------- errors at the border


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    """The exceptions of a tree that have no kinds of their own."""
    below = [one for one in kind.__subclasses__() if one.__module__.startswith("httpx")]
    if not below:
        yield kind
    for one in below:
        yield from leaves(one)


# each transport exception of httpx: what it means for a delivery, whether the request may have been counted, and
# what an operator reads when the API meets it
MEANINGS: dict[type[Exception], tuple[type[AgentError], bool, str]] = {
    httpx.ConnectError: (ConnectFailed, False, "no connection"),
    httpx.ConnectTimeout: (ConnectFailed, False, "no connection in time"),
    httpx.PoolTimeout: (ConnectFailed, False, "no answer in time"),
    httpx.ProxyError: (ConnectFailed, False, "the proxy refused"),
    httpx.LocalProtocolError: (ConnectFailed, False, "the connection broke or the answer is not HTTP"),
    httpx.UnsupportedProtocol: (TransferCut, True, "the request failed"),  # schemes are checked before: cannot come
    httpx.ReadTimeout: (TransferCut, True, "no answer in time"),
    httpx.WriteTimeout: (TransferCut, True, "no answer in time"),
    httpx.ReadError: (TransferCut, True, "the connection broke"),
    httpx.WriteError: (TransferCut, True, "the connection broke"),
    httpx.CloseError: (TransferCut, True, "the connection broke"),
    httpx.RemoteProtocolError: (TransferCut, True, "the connection broke or the answer is not HTTP"),
}


def test_every_transport_exception_of_httpx_has_a_meaning() -> None:
    assert set(leaves(httpx.TransportError)) == set(MEANINGS)


@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: kind.__name__)
def test_a_transport_exception_means_the_same_wherever_it_is_raised(kind: type[Exception]) -> None:
    ours, spent, said = MEANINGS[kind]
    meant = delivery_error(kind("the detail"))
    assert type(meant) is ours
    assert meant.spent is spent
    assert meant.message
    passing = api_error(kind("the detail"))
    assert type(passing) is Unreachable
    assert passing.message == f"Ops Manager cannot be reached: {said} (the detail)"


@pytest.mark.parametrize("error", [httpx.DecodingError("x"), httpx.TooManyRedirects("x"), httpx.InvalidURL("x")])
def test_other_exceptions_of_httpx_become_agent_errors(error: Exception) -> None:
    assert isinstance(delivery_error(error), AttemptFailed)
    assert isinstance(api_error(error), Unreachable)


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def test_a_tls_problem_behind_an_exception_is_found_and_an_interruption_is_not_one() -> None:
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"
    alert = ssl.SSLError(1, "tlsv13 alert certificate required")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert tls_problem(raised_from(httpx.ConnectError("x"), untrusted)) == "self-signed certificate"
    assert tls_problem(raised_from(httpx.ReadError("x"), ssl.SSLEOFError(8, "EOF occurred"))) is None
    assert tls_problem(raised_from(httpx.ReadError("x"), ssl.SSLZeroReturnError(6, "closed"))) is None
    assert tls_problem(raised_from(httpx.ReadTimeout("x"), ssl.SSLWantReadError(2, "not done"))) is None
    assert tls_problem(raised_from(httpx.ReadError("x"), ConnectionResetError("reset"))) is None
    meant = delivery_error(raised_from(httpx.ConnectError("x"), untrusted))
    assert isinstance(meant, TlsError)
    assert meant.spent is False
    assert isinstance(api_error(raised_from(httpx.ReadError("x"), alert)), TlsError)


def test_a_missing_client_certificate_for_the_delivery_host_is_31(simulator: StartSimulator, restore: Restore) -> None:
    elsewhere = simulator("client-cert", tls=True)
    url = elsewhere.document(0)["delivery"]["url"]
    sim = simulator(f'job-field=delivery.url:"{url}"')
    ended = restore(sim, f"--ca-file={elsewhere.hello['ca_file']}", "--retries=0")
    assert ended.code == 31, ended.out
    assert deliveries(elsewhere) == []
