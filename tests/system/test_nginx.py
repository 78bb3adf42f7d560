"""DeliveryClient with a real server: nginx, over http and https, with its framing and its ranges."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from support.agents import QUICK, Restore, StartAgent, StartSimulator, connection_args, finished, journal_in, wait_until

from restore_agent.core.clock import SystemClock
from restore_agent.core.errors import AgentError, ConnectFailed, DeliveryRefused, TlsError
from restore_agent.core.jobs import DeliveryUrl
from restore_agent.core.redaction import Redactor
from restore_agent.dest.archive import Part
from restore_agent.dest.directory import Directory
from restore_agent.network.delivery import Body, DeliveryClient, Resume
from restore_agent.restore.transfer.pipeline import Pipeline
from restore_agent.restore.transfer.rate import RateLimit
from restore_agent.restore.transfer.transfer import pour
from restore_agent.simulator.archives import Recipe, make_archive

NAME = "electron_0-1492528465-0123456789abcdef01234567.tar.gz"
SIZE = 3 << 20

_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {root}/tmp;
    proxy_temp_path {root}/tmp;
    fastcgi_temp_path {root}/tmp;
    uwsgi_temp_path {root}/tmp;
    scgi_temp_path {root}/tmp;
    log_format asked '$status|$request_method|$uri|$http_range|$http_if_range|$http_authorization|$body_bytes_sent';
    access_log {root}/asked.log asked;
    default_type application/x-gzip;
    gzip on;
    gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        listen 127.0.0.2:{tls_port} ssl;
        server_name localhost;
        ssl_certificate {root}/server.pem;
        ssl_certificate_key {root}/server.key;
        location /plain/ {{ alias {root}/archives/; }}
        location /slow/ {{ alias {root}/archives/; limit_rate 1m; }}
        location /no-etag/ {{ alias {root}/archives/; etag off; }}
        location /no-ranges/ {{ alias {root}/archives/; max_ranges 0; }}
        location /chunked/ {{ alias {root}/archives/; add_after_body /empty; addition_types *; }}
        location = /empty {{ return 200 ""; }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /plain/$1 redirect; }}
        location /elsewhere/ {{ rewrite ^/elsewhere/(.*)$ http://127.0.0.1:{port}/plain/$1 redirect; }}
        location /forbidden/ {{ return 403; }}
        location /login/ {{ default_type text/html; return 200 "<html>please log in</html>"; }}
    }}
}}
"""


def free_port() -> int:
    """A free one that the kernel does not give to other processes: nginx takes it a little later."""
    while True:
        port = random.randrange(10_000, 30_000)  # below Linux's range of ephemeral ports, in which other tests listen
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class Asked:
    """One request as nginx saw it; absent headers are `-`."""

    status: str
    method: str
    uri: str
    range: str
    if_range: str
    authorization: str
    sent: str


class Nginx:
    """A running nginx with one archive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, self.tls_port = free_port(), free_port()
        for name in ("archives", "tmp"):
            (root / name).mkdir()
        info = (("Restore Information", ""), ("Group Name", "nginx"))
        made = make_archive(root / "archive", Recipe(NAME, SIZE, "nginx", gzipped=True, info=info))
        self.archive = root / "archives" / NAME
        shutil.move(made.path, self.archive)
        self.archive.chmod(0o644)
        self.sha1 = hashlib.sha1(self.archive.read_bytes()).hexdigest()
        self.ca = root / "ca.pem"
        self._make_certificates()
        (root / "nginx.conf").write_text(_CONFIG.format(root=root, port=self.port, tls_port=self.tls_port))
        (root / "asked.log").touch()

    def _make_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        server = authority.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(self.root / "server.key")
        for number, blob in enumerate(server.cert_chain_pems):
            blob.write_to_path(self.root / "server.pem", append=number > 0)

    def url(self, place: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port if scheme == 'http' else self.tls_port}/{place}/{NAME}"

    def link(self, place: str, scheme: str = "http") -> DeliveryUrl:
        return DeliveryUrl(self.url(place, scheme), NAME)

    @property
    def asked(self) -> list[Asked]:
        return [Asked(*line.split("|")) for line in (self.root / "asked.log").read_text().splitlines()]

    def is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.tls_port)) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        assert not os.environ.get("CI"), "nginx is missing, and CI has to run these tests"
        pytest.skip("nginx is not installed")
    nginx = Nginx(tmp_path_factory.mktemp("nginx"))
    # -e: before it reads its configuration, nginx would log to a place that only root may write
    command = [
        program,
        "-p",
        str(nginx.root),
        "-c",
        str(nginx.root / "nginx.conf"),
        "-e",
        str(nginx.root / "early.log"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or nginx.is_up(), "nginx")
        if process.poll() is not None:
            raise AssertionError(f"nginx did not start: {process.communicate()[1]}")
        yield nginx
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def nginx(server: Nginx) -> Nginx:
    """The running server, its log emptied."""
    os.truncate(server.root / "asked.log", 0)
    return server


# One attempt at a time: delivery and part file without the rest of the agent


def context(nginx: Nginx) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(nginx.ca))


async def stream(body: Body, part: Part) -> None:
    flow = Pipeline([memoryview(bytearray(1 << 18)) for _ in range(4)], len(part.consumers))
    consuming = [consumer(flow.stage(number)) for number, consumer in enumerate(part.consumers)]
    await asyncio.gather(pour(body, flow, RateLimit(SystemClock(), None)), *consuming)


def fetch(
    nginx: Nginx,
    link: DeliveryUrl,
    dest: Path,
    *,
    have: bytes = b"",
    validator: str = "",
    tls: ssl.SSLContext | None = None,
) -> tuple[Body, str]:
    """Download into a part file, after `have` bytes if there are any; the body's head and the SHA1 of the file."""
    dest.mkdir(exist_ok=True)

    async def go() -> tuple[Body, str]:
        if have:
            (dest / f"{NAME}.part").write_bytes(have)
        with Directory.open(dest, create=False) as where:
            part = await Part.open(where, NAME, ours=True)
            try:
                resume = Resume(len(have), validator, nginx.archive.stat().st_size) if have else None
                if resume:
                    await part.hash_existing(len(have), lambda _: None)
                async with (
                    DeliveryClient(tls or context(nginx), 5.0, Redactor()) as deliveries,
                    deliveries.open(link, resume, 0.0) as body,
                ):
                    if body.offset == 0:
                        await part.restart()
                    await stream(body, part)
                return body, (await part.sync()).sha1
            finally:
                await part.close()

    return asyncio.run(go())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_body_with_a_length_has_that_length(nginx: Nginx, dest: Path, scheme: str) -> None:
    body, sha1 = fetch(nginx, nginx.link("plain", scheme), dest)
    assert (sha1, body.total, body.offset) == (nginx.sha1, nginx.archive.stat().st_size, 0)
    assert body.validator
    assert body.validator.startswith('"')


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_chunked_body_has_no_size_and_all_its_bytes(nginx: Nginx, dest: Path, scheme: str) -> None:
    body, sha1 = fetch(nginx, nginx.link("chunked", scheme), dest)
    assert (sha1, body.total) == (nginx.sha1, None)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("place", ["plain", "no-etag"])
def test_half_a_part_file_is_completed_by_a_range(nginx: Nginx, dest: Path, scheme: str, place: str) -> None:
    whole = nginx.archive.read_bytes()
    head, _ = fetch(nginx, nginx.link(place), dest)
    assert head.validator, "an ETag, or without it Last-Modified"
    have = whole[: len(whole) // 2]
    body, sha1 = fetch(nginx, nginx.link(place, scheme), dest, have=have, validator=head.validator)
    assert (body.offset, body.total, sha1) == (len(have), len(whole), nginx.sha1)
    asked = nginx.asked[-1]
    assert (asked.status, asked.range) == ("206", f"bytes={len(have)}-")
    assert int(asked.sent) == len(whole) - len(have)


def test_another_validator_gets_the_complete_archive(nginx: Nginx, dest: Path) -> None:
    body, sha1 = fetch(nginx, nginx.link("plain"), dest, have=b"\x1f\x8bold", validator='"another"')
    assert (body.offset, sha1) == (0, nginx.sha1)
    assert nginx.asked[-1].status == "200"


def test_a_server_without_ranges_sends_the_complete_archive(nginx: Nginx, dest: Path) -> None:
    head, _ = fetch(nginx, nginx.link("plain"), dest)
    assert head.validator
    body, sha1 = fetch(nginx, nginx.link("no-ranges"), dest, have=b"\x1f\x8bold", validator=head.validator)
    assert (body.offset, sha1) == (0, nginx.sha1)


@pytest.mark.parametrize("place", ["moved", "elsewhere"])
def test_redirects_are_followed(nginx: Nginx, dest: Path, place: str) -> None:
    _, sha1 = fetch(nginx, nginx.link(place), dest)
    assert sha1 == nginx.sha1
    assert [asked.status for asked in nginx.asked] == ["302", "200"]


def test_a_redirect_from_https_to_http_is_refused(nginx: Nginx, dest: Path) -> None:
    with pytest.raises(DeliveryRefused, match="from https to http"):
        fetch(nginx, nginx.link("elsewhere", "https"), dest)
    assert [asked.status for asked in nginx.asked] == ["302"]


@pytest.mark.parametrize(
    ("place", "status"), [("forbidden", "HTTP 403 Forbidden"), ("nothing-there", "HTTP 404 Not Found")]
)
def test_a_refusal_names_its_status(nginx: Nginx, dest: Path, place: str, status: str) -> None:
    with pytest.raises(DeliveryRefused, match=status):
        fetch(nginx, nginx.link(place), dest)


def test_an_untrusted_certificate_prevents_a_connection(nginx: Nginx, dest: Path) -> None:
    with pytest.raises(TlsError):
        fetch(nginx, nginx.link("plain", "https"), dest, tls=ssl.create_default_context())
    assert not nginx.asked


def test_a_certificate_for_another_host_prevents_a_connection(nginx: Nginx, dest: Path) -> None:
    link = DeliveryUrl(nginx.url("plain", "https").replace("127.0.0.1", "127.0.0.2"), NAME)
    with pytest.raises(TlsError, match=r"(?i)mismatch|not valid"):
        fetch(nginx, link, dest)
    assert not nginx.asked


def test_an_answer_to_plain_http_on_a_tls_port_is_refused(nginx: Nginx, dest: Path) -> None:
    link = DeliveryUrl(f"http://127.0.0.1:{nginx.tls_port}/plain/{NAME}", NAME)
    with pytest.raises(DeliveryRefused, match="expects https") as refused:
        fetch(nginx, link, dest)
    assert refused.value.spent is False


def test_tls_on_a_plain_port_is_a_tls_error(nginx: Nginx, dest: Path) -> None:
    link = DeliveryUrl(f"https://127.0.0.1:{nginx.port}/plain/{NAME}", NAME)
    with pytest.raises(AgentError) as refused:
        fetch(nginx, link, dest)
    assert isinstance(refused.value, (TlsError, ConnectFailed))


def test_every_request_is_a_get(nginx: Nginx, dest: Path) -> None:
    fetch(nginx, nginx.link("plain"), dest)
    # nginx may log the TLS that an earlier test sent to its plain port late, without a name
    assert [asked.method for asked in nginx.asked if asked.uri.endswith(NAME)] == ["GET"]


# End to end: Ops Manager simulated, the archive from nginx


PointAt = Callable[..., list[str]]


@pytest.fixture
def pointed_at(nginx: Nginx) -> PointAt:
    """Faults that make a simulated job's delivery URL lead to nginx, with or without the hash."""

    def faults(place: str, scheme: str = "http", *, sha1: str | None = nginx.sha1) -> list[str]:
        hashes = [] if sha1 is None else [{"fileName": NAME, "hash": sha1, "typeName": "SHA1"}]
        return [
            f"job-field=delivery.url:{json.dumps(nginx.url(place, scheme))}",
            f"job-field=hashes:{json.dumps(hashes)}",
            "max-downloads=9",
        ]

    return faults


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("place", ["plain", "chunked", "moved", "no-ranges"])
def test_an_archive_from_nginx_is_verified(
    nginx: Nginx,
    pointed_at: PointAt,
    simulator: StartSimulator,
    restore: Restore,
    dest: Path,
    place: str,
    scheme: str,
) -> None:
    sim = simulator(*pointed_at(place, scheme))
    ended = restore(sim, f"--ca-file={nginx.ca}")
    assert ended.code == 0, ended.out
    assert ended.archive["sha1"] == nginx.sha1
    assert (dest / NAME).read_bytes() == nginx.archive.read_bytes()
    assert all(asked.authorization == "-" for asked in nginx.asked), "the API's credentials stay with the API"


def test_an_archive_from_nginx_without_a_hash_is_unproven(
    nginx: Nginx, pointed_at: PointAt, simulator: StartSimulator, restore: Restore
) -> None:
    ended = restore(simulator(*pointed_at("chunked", sha1=None)), "--hash-timeout=0.1s")
    assert (ended.code, ended.archive["verdict"], ended.archive["sha1"]) == (10, "unproven", nginx.sha1)


def test_a_transfer_that_was_killed_is_resumed_by_the_next_run(
    nginx: Nginx,
    pointed_at: PointAt,
    simulator: StartSimulator,
    start_agent: StartAgent,
    restore: Restore,
    dest: Path,
) -> None:
    sim = simulator(*pointed_at("slow", "https"))
    process = start_agent(["run", *connection_args(sim), *QUICK, f"--ca-file={nginx.ca}", f"--dest={dest}"])
    part = dest / f"{NAME}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 1 << 19, "half a mebibyte")
    process.kill()
    assert finished(process).code < 0
    have = part.stat().st_size
    sim.set_faults(*pointed_at("plain", "https"))
    ended = restore(sim, f"--ca-file={nginx.ca}")
    assert ended.code == 0, ended.out
    record = ended.archive
    assert (record["verdict"], record["resumed"], record["downloads_spent"]) == ("verified", True, 2)
    assert (nginx.asked[-1].status, nginx.asked[-1].range) == ("206", f"bytes={have}-")
    assert int(nginx.asked[-1].sent) == record["bytes"] - have
    assert [line["resumed"] for line in journal_in(dest) if line.get("fact") == "answered"] == [False, True]


def test_a_login_page_is_not_an_archive(
    nginx: Nginx, pointed_at: PointAt, simulator: StartSimulator, restore: Restore, dest: Path
) -> None:
    ended = restore(simulator(*pointed_at("login")), "--retries=1")
    assert (ended.code, ended.archive["reason"]) == (25, "not-an-archive")
    assert len(nginx.asked) == 2
    assert not (dest / NAME).exists()


def test_an_untrusted_delivery_host_is_31(
    nginx: Nginx, pointed_at: PointAt, simulator: StartSimulator, restore: Restore
) -> None:
    ended = restore(simulator(*pointed_at("plain", "https")))
    assert ended.code == 31
    assert not nginx.asked
