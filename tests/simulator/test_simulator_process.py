"""TLS, request log, secrets, and the end of the simulator."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from api_client import PATIENCE, SMALL, Client, Start, archive_of

from restore_agent.simulator import Simulator, serve

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


def test_strict_verification_accepts_the_newly_generated_certificate(start: Start) -> None:
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


def test_a_client_certificate_may_be_required(start: Start) -> None:
    client = start("client-cert", tls=True)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate required"):
        connect(client, client.hello["ca_file"])
    certificate = client.simulator.client_certificate()
    assert connect(client, client.hello["ca_file"], certificate) == b"Not found.\n"


def test_client_certificates_need_tls(start: Start) -> None:
    with pytest.raises(RuntimeError, match="tls=True"):
        start().simulator.client_certificate()


def test_a_client_without_a_tls_handshake_delays_no_other_client(start: Start) -> None:
    client = start(tls=True)
    address = urlsplit(client.hello["url"])
    with socket.create_connection((address.hostname, address.port)):
        assert client.get().status_code == 200


# The log, the secrets, the end


def test_the_log_has_each_request_and_its_outcome(start: Start) -> None:
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


def test_a_dump_shows_jobs_and_requests_without_secrets(start: Start) -> None:
    client = start("cut=50%")
    client.raw_body()
    dump = client.simulator.dump()
    assert "MAX_DOWNLOADS_EXCEEDED, 1/1 downloads, 0 complete" in dump
    assert dump.splitlines()[-1].endswith(f"200 (token), {len(archive_of(client)) // 2} bytes, incomplete")
    assert not [secret for secret in client.simulator.secrets if secret in dump]


def test_every_secret_that_was_handed_out_is_known(start: Start) -> None:
    client = start("url-v2", "renew-url=60")
    delivery = client.job()["delivery"]
    client.simulator.clock.advance(60)
    assert client.simulator.job(0).token in client.simulator.secrets
    assert {client.hello["private_key"], delivery["authValue"], delivery["url"].split("/")[-2]} <= set(
        client.simulator.secrets
    )


def test_a_stop_closes_open_connections_and_leaves_no_file() -> None:
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


def test_a_port_that_is_in_use_is_an_error_and_leaves_no_file(start: Start) -> None:
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


def test_a_defect_of_the_simulator_is_shown_and_not_treated_as_a_fault(
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


def test_a_client_that_disconnects_causes_no_output(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    client = start(archive_size=8 << 20, tls=True)
    with client.plain.stream("GET", client.url()) as response:
        next(response.iter_raw())
    client.close()
    client.simulator.stop()
    assert not client.simulator.requests[-1].completed
    assert capsys.readouterr().err == ""


def test_the_simulator_can_listen_on_ipv6() -> None:
    with Simulator(host="::1", shards=0, archive_size=SMALL) as simulator:
        client = Client(simulator)
        assert client.download().content == archive_of(client)
        client.close()


def test_serve_restores_the_signal_handlers(capsys: pytest.CaptureFixture[str]) -> None:
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
