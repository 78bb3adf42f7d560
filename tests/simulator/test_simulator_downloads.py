"""Downloads from the simulator over real sockets."""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

import httpx
import pytest
from api_client import FRAMINGS, PATIENCE, Start, archive_of, sha1, statuses

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


def test_a_delivery_url_is_refused_once_used_up_or_expired_or_with_a_bad_token(start: Start) -> None:
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


def test_an_unusable_delivery_url_may_be_left_out_of_the_document(start: Start) -> None:
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


def test_a_head_may_be_answered_without_counting_as_a_download(start: Start) -> None:
    client = start("head=answer")
    answer = client.plain.head(client.url())
    assert (answer.status_code, int(answer.headers["Content-Length"])) == (200, len(archive_of(client)))
    assert client.download().content == archive_of(client)
    assert client.plain.post(client.url()).status_code == 405


def test_unusable_delivery_urls_may_answer_another_status(start: Start) -> None:
    client = start("dead-status=404")
    url = client.url()
    assert [client.plain.get(url).status_code for _ in range(2)] == [200, 404]
    client.simulator.clock.advance(3601)
    assert client.plain.get(url).status_code == 404


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_archive_arrives_complete_in_every_framing(start: Start, framing: str, tls: bool) -> None:
    client = start(f"framing={framing}", tls=tls, archive_size=3 << 20)
    answer = client.download()
    assert answer.content == archive_of(client)
    assert ("Content-Length" in answer.headers) is (framing == "length")
    assert (answer.headers.get("Transfer-Encoding") == "chunked") is (framing == "chunked")


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_cut_ends_the_connection_after_the_given_bytes(start: Start, framing: str, tls: bool) -> None:
    client = start("cut=60%", f"framing={framing}", tls=tls)
    received, error = client.raw_body()
    whole = archive_of(client)
    assert received == whole[: len(received)]
    assert len(received) <= len(whole) * 60 // 100
    assert (error is None) is (framing == "close")
    assert [request.completed for request in client.simulator.requests if request.kind == "delivery"] == [False]
    assert "hashes" not in client.job()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_clean_cut_closes_the_connection_normally(start: Start, framing: str) -> None:
    client = start("clean-cut=60%", f"framing={framing}")
    received, error = client.raw_body()
    assert error is None
    assert len(received) == len(archive_of(client)) * 60 // 100
    assert "hashes" not in client.job()


@pytest.mark.parametrize("tls", [False, True])
def test_a_reset_resets_the_connection(start: Start, tls: bool) -> None:
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


def test_a_stall_keeps_the_connection_without_sending_data(start: Start) -> None:
    client = start("stall=1000")
    received = bytearray()
    with pytest.raises(httpx.ReadTimeout), client.plain.stream("GET", client.url(), timeout=0.3) as response:
        for block in response.iter_raw():
            received += block
    assert bytes(received) == archive_of(client)[:1000]


def test_a_drip_limits_the_rate(start: Start) -> None:
    client = start("drip=100K", archive_size=20_000)
    began = time.monotonic()
    assert client.download().content == archive_of(client)
    assert time.monotonic() - began > 0.15


def test_a_refused_delivery_may_be_retried_later(start: Start) -> None:
    client = start("refuse=503x2", "retry-after=7")
    answers = [client.download() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "7"


@pytest.mark.parametrize(("fault", "goes_on"), [("expires-in", True), ("expires-cut", False)])
def test_a_running_transfer_may_end_after_its_link_expired(start: Start, fault: str, goes_on: bool) -> None:
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
def test_headers_can_have_additional_lines(start: Start, framing: str) -> None:
    client = start("header-noise", f"framing={framing}")
    answer = client.download()
    assert answer.content == archive_of(client)
    assert "../../etc" in answer.headers["content-disposition"]


# Ranges


def test_a_resume_gets_the_remainder_and_the_hash(start: Start) -> None:
    client = start("range=honour", "cut=50%", "max-downloads=2")
    first, error = client.raw_body()
    assert error is not None
    rest = client.download(Range=f"bytes={len(first)}-")
    assert rest.status_code == 206
    whole = archive_of(client)
    assert rest.headers["Content-Range"] == f"bytes {len(first)}-{len(whole) - 1}/{len(whole)}"
    assert first + rest.content == whole
    assert client.job()["hashes"][0]["hash"] == sha1(whole)


def test_wrong_bytes_can_have_an_exact_content_range(start: Start) -> None:
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


def test_each_download_may_have_other_bytes_and_the_hash_is_of_the_last_one(start: Start) -> None:
    client = start("different-bytes", "max-downloads=2")
    first, second = client.download().content, client.download().content
    assert first != second
    assert client.job()["hashes"][0]["hash"] == sha1(second)
