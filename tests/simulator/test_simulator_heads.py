"""Unusual heads, framing, and echoes of simulated deliveries, as they are on the connection."""

from __future__ import annotations

import base64

import httpx
import pytest
from api_client import Start, archive_of, raw_answer, sha1


@pytest.mark.parametrize(
    ("end", "tail"),
    [("missing", b"\r\n"), ("no-crlf", b"\r\n0\r\n"), ("no-data-crlf", b"")],
)
@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_chunked_archive_may_lack_its_end_and_its_hash_is_published(
    start: Start, kind: str, end: str, tail: bytes
) -> None:
    client = start("framing=chunked", f"{kind}=100%", f"chunk-end={end}")
    received = raw_answer(client)
    if kind == "cut":
        assert received.endswith(archive_of(client)[-1:] + tail)
        assert not received.endswith(b"0\r\n\r\n")
    assert client.job()["hashes"][0]["hash"] == sha1(archive_of(client))
    assert client.job()["delivery"]["statusName"] == "MAX_DOWNLOADS_EXCEEDED"


def test_the_end_of_chunks_is_left_out_only_of_unclean_endings(start: Start) -> None:
    client = start("framing=chunked", "chunk-end=no-data-crlf")
    assert raw_answer(client).endswith(b"\r\n0\r\n\r\n")


def test_a_stalled_archive_with_all_bytes_sent_has_a_hash(start: Start) -> None:
    client = start("framing=chunked", "stall=100%")
    received = bytearray()
    with pytest.raises(httpx.ReadTimeout), client.plain.stream("GET", client.url(), timeout=0.3) as response:
        for block in response.iter_raw():
            received += block
    assert bytes(received) == archive_of(client)
    assert client.job()["hashes"][0]["hash"] == sha1(received)


@pytest.mark.parametrize("excess", [1, -1, 100])
def test_content_length_may_be_wrong(start: Start, excess: int) -> None:
    client = start(f"wrong-length={excess:+d}")
    head, body = raw_answer(client).split(b"\r\n\r\n", 1)
    assert f"Content-Length: {len(body) + excess}".encode() in head
    assert body == archive_of(client)
    assert client.job()["hashes"][0]["hash"] == sha1(body)


def test_a_range_at_the_end_of_the_archive_is_not_satisfiable_and_names_its_size(start: Start) -> None:
    client = start("range=honour", "framing=chunked", "cut=100%", "max-downloads=2")
    size = len(archive_of(client))
    client.raw_body()
    answer = client.download(Range=f"bytes={size}-")
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}")


def test_a_hash_may_need_a_complete_ending_or_only_a_get(start: Start) -> None:
    complete, any_get = start("cut=100%", "hash-after=complete"), start("cut=10%", "hash-after=start")
    for client in (complete, any_get):
        client.raw_body()
    assert "hashes" not in complete.job()
    assert any_get.job()["hashes"][0]["hash"] == sha1(archive_of(any_get))


@pytest.mark.parametrize("spelling", [" chunked ", "Chunked", "identity, chunked"])
def test_transfer_encoding_may_have_another_spelling(start: Start, spelling: str) -> None:
    client = start("framing=chunked", f"transfer-encoding={spelling}")
    assert f"Transfer-Encoding: {spelling}\r\n".encode() in raw_answer(client)


def test_chunks_may_have_zeros_extensions_and_trailers(start: Start) -> None:
    client = start("framing=chunked", "chunk-zeros=6", "chunk-extension", "chunk-trailer")
    head, body = raw_answer(client).split(b"\r\n\r\n", 1)
    assert body.startswith(b"000000")
    assert b';note="a; b"\r\n' in body[:60]
    assert body.endswith(b"0000000\r\nX-Checksum: none\r\nX-Trailer: yes\r\n\r\n")
    assert b"chunked" in head


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("many-headers=150", b"X-More-149: m"),
        ("long-header=70K", b"X-Long: " + b"l" * (70 * 1024 - 8) + b"\r\n"),
        ("space-colon", b"X-Space : before"),
        ("non-ascii-header", "X-Größe: 42".encode("latin-1")),
        ("no-reason", b"HTTP/1.1 200 \r\n"),
        ("interim=2", b"HTTP/1.1 103 Early Hints\r\nX-Interim: yes\r\n\r\nHTTP/1.1 200 OK"),
        ("bare-lf", b"HTTP/1.1 200 OK\nDate"),
    ],
)
def test_a_head_may_be_unusual(start: Start, fault: str, line: bytes) -> None:
    client = start(fault)
    received = raw_answer(client)
    assert line in received
    assert received.endswith(archive_of(client))


def test_a_refusal_has_the_same_unusual_head(start: Start) -> None:
    client = start("many-headers=150", "no-reason")
    client.download()
    answer = client.download()
    assert (answer.status_code, len([name for name in answer.headers if name.startswith("x-more")])) == (403, 150)


@pytest.mark.parametrize("url", ["url", "urlV2"])
def test_an_answer_may_repeat_its_token(start: Start, url: str) -> None:
    places = [f"echo-token={place}" for place in ("status-line", "content-type", "etag", "header", "body")]
    client = start("url-v2", *places)
    delivery = client.job()["delivery"]
    token = delivery["url"].split("/")[-2] if url == "url" else delivery["authValue"]
    headers = {} if url == "url" else {"Authorization": f"Bearer {token}"}
    answer = client.plain.get(delivery[url], headers=headers)
    assert answer.status_code == 200
    assert answer.reason_phrase == f"Token {token}"
    assert token in answer.headers["Content-Type"]
    assert answer.headers["ETag"] == f'"{token}"'
    assert answer.headers["X-Token"] == token
    refused = client.plain.get(delivery[url], headers=headers)
    assert (refused.status_code, token in refused.text) == (403, True)


@pytest.mark.parametrize("form", ["plain", "decoded", "hex", "base64", "upper"])
def test_a_repeated_token_has_a_form(start: Start, form: str) -> None:
    client = start("token=encoded", f"echo-token=header:{form}")
    sent = client.url().split("/")[-2]
    assert sent.startswith("%2B%2F")
    token = client.simulator.job(0).token
    forms = {"plain": sent, "decoded": token, "upper": sent.upper()}
    forms |= {"hex": sent.encode().hex(), "base64": base64.b64encode(sent.encode()).decode()}
    assert client.download().headers["X-Token"] == forms[form]
    assert token in client.simulator.secrets


@pytest.mark.parametrize(("form", "length"), [("short", 6), ("hex", 32)])
def test_a_token_has_a_form(start: Start, form: str, length: int) -> None:
    client = start(f"token={form}")
    assert len(client.url().split("/")[-2]) == length
    assert client.download().content == archive_of(client)


def test_a_token_may_be_in_the_query(start: Start) -> None:
    client = start("token=query", "redirect=1")
    token = client.simulator.job(0).token
    assert client.url().endswith(f".tar.gz?token={token.replace('=', '%3D')}")
    assert client.plain.get(client.url(), follow_redirects=True).content == archive_of(client)
    assert client.plain.get(client.url().replace("token=", "token=x")).status_code == 404
    assert token not in client.simulator.dump()
    assert token.replace("=", "%3D") not in client.simulator.dump()


def test_answers_of_deliveries_may_be_late(start: Start) -> None:
    client = start("delivery-delay=0.3")
    with pytest.raises(httpx.ReadTimeout):
        client.plain.get(client.url(), timeout=0.1)
    assert client.download().status_code in (200, 403)


def test_a_refused_delivery_may_be_a_proxys(start: Start) -> None:
    assert start("refuse=407").download().headers["Proxy-Authenticate"].startswith("Basic")
