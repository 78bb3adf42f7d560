"""What the bench downloads from: nginx with a certificate and archives of random bytes, and a simulated Ops Manager
for each kind of run, whose delivery URLs lead to nginx and whose hashes are published at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRANSPORTS = ("http length", "http chunked", "https length", "https chunked")
_CONFIG = """
daemon off;
master_process off;
pid {root}/nginx.pid;
error_log {root}/nginx.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {root}/tmp;
    proxy_temp_path {root}/tmp;
    fastcgi_temp_path {root}/tmp;
    uwsgi_temp_path {root}/tmp;
    scgi_temp_path {root}/tmp;
    access_log off;
    default_type application/x-gzip;
    root {root}/archives;
    server {{
        listen {host}:{port};
        listen {host}:{tls_port} ssl;
        ssl_certificate {root}/server.pem;
        ssl_certificate_key {root}/server.key;
        location ~ ^/length/(?<which>[a-z]+)/ {{ sendfile on; try_files /$which =404; }}
        location ~ ^/chunked/(?<which>[a-z]+)/ {{
            sendfile off;
            output_buffers 2 32k;
            try_files /$which =404;
            add_after_body /empty;
            addition_types *;
        }}
        location = /empty {{ return 200 ""; }}
    }}
}}
"""


@dataclass(frozen=True)
class Archive:
    """An archive that nginx serves. `which` is its name there."""

    which: str
    size: int
    sha1: str


class Nginx:
    """A running nginx below `root`; one process, so that one core is left to the client.

    `host` is the address at which it serves; `prefix` is what runs a command where that address is.
    """

    def __init__(self, root: Path, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self.root, self.host, self._prefix = root, host, prefix
        self.ports = {"http": _free_port(), "https": _free_port()}
        self.certificate = root / "server.pem"
        for name in ("archives", "tmp"):
            (root / name).mkdir(exist_ok=True)

    def make(self, which: str, size: int) -> Archive:
        """Make an archive: 4 MiB of random bytes over and over, behind the first bytes of a gzip file."""
        pattern, digest, left = b"\x1f\x8b\x08" + os.urandom((4 << 20) - 3), hashlib.sha1(usedforsecurity=False), size
        with (self.root / "archives" / which).open("wb") as file:
            while left:
                piece = pattern[:left]
                file.write(piece)
                digest.update(piece)
                left -= len(piece)
        return Archive(which, size, digest.hexdigest())

    def url(self, transport: str, archive: Archive, number: int = 0) -> str:
        """Where an archive can be had; other numbers give the same bytes under other names."""
        scheme, framing = transport.split()
        return f"{scheme}://{self.host}:{self.ports[scheme]}/{framing}/{archive.which}/{name_of(archive, number)}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and stop it at the end. RuntimeError when it does not come up."""
        self._make_certificate()
        ports = {"host": self.host, "port": self.ports["http"], "tls_port": self.ports["https"]}
        (self.root / "nginx.conf").write_text(_CONFIG.format(root=self.root, **ports))
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
        command = [
            *self._prefix,
            program,
            "-p",
            str(self.root),
            "-c",
            str(self.root / "nginx.conf"),
            "-e",
            str(self.root / "early"),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(self.root / "nginx.pid", process)
            yield
        finally:
            process.terminate()
            process.wait(10)

    def _make_certificate(self) -> None:
        key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            str(self.root / "server.key"),
        ]
        about = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        made = ["openssl", "req", "-x509", *key, *about, "-out", str(self.certificate)]
        subprocess.run(made, check=True, capture_output=True)


def name_of(archive: Archive, number: int) -> str:
    """The file name that a delivery URL ends in."""
    return f"{archive.which}_{number}-1492528465-0123456789abcdef01234567.tar.gz"


@contextlib.contextmanager
def ops_manager(
    nginx: Nginx, transport: str, archive: Archive, count: int, home: Path, prefix: Sequence[str] = ()
) -> Iterator[list[str]]:
    """A simulated Ops Manager with `count` jobs; the options that make an agent restore them."""
    faults = ["max-downloads=1000000"]
    for number in range(count):
        hashes = [{"fileName": name_of(archive, number), "hash": archive.sha1, "typeName": "SHA1"}]
        faults.append(f"job-field=delivery.url:{json.dumps(nginx.url(transport, archive, number))}@{number}")
        faults.append(f"job-field=hashes:{json.dumps(hashes)}@{number}")
    command = [
        *prefix,
        sys.executable,
        "-m",
        "restore_agent",
        "simulator",
        f"--shards={count - 1}",
        "--archive-size=64K",
    ]
    command += [f"--fault={fault}" for fault in faults] + (["--tls"] if transport.startswith("https") else [])
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield _options(json.loads(process.stdout.readline()), nginx, home)
    finally:
        process.terminate()
        process.wait(10)


def _options(hello: dict[str, Any], nginx: Nginx, home: Path) -> list[str]:
    home.mkdir()
    (home / "key").touch(mode=0o600)
    (home / "key").write_text(hello["private_key"])
    options = [f"--{name}={hello[name.replace('-', '_')]}" for name in ("url", "public-key", "group-id", "cluster-id")]
    options.append(f"--private-key-file={home / 'key'}")
    if hello["ca_file"]:
        both = Path(hello["ca_file"]).read_text() + nginx.certificate.read_text()
        (home / "ca.pem").write_text(both)
        options.append(f"--ca-file={home / 'ca.pem'}")
    jobs = [f"--batch-id={hello['batch_id']}"] if hello["batch_id"] else [f"--job-id={one}" for one in hello["job_ids"]]
    return options + jobs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(pid_file: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until nginx listens: it writes its process ID after that."""
    end = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        if pid_file.exists():
            return
        time.sleep(0.01)
    raise RuntimeError("nginx did not start")
