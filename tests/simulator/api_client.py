"""Client of a running simulator that does not know its implementation, and helpers of its tests."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from restore_agent.simulator import Simulator

SMALL = 1 << 16
PATIENCE = 30.0
API = "/api/public/v1.0"
FRAMINGS = ["length", "chunked", "close"]

Json = dict[str, Any]
Start = Callable[..., "Client"]


class Client:
    """A plain client of a running simulator: digest for the API, nothing for deliveries, no redirects."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        hello = simulator.hello
        self.hello = hello
        verify = ssl.create_default_context(cafile=hello["ca_file"]) if hello["ca_file"] else False
        auth = httpx.DigestAuth(hello["public_key"], hello["private_key"])
        self.api = httpx.Client(base_url=f"{hello['url']}/api/public/v1.0", auth=auth, verify=verify, timeout=PATIENCE)
        self.plain = httpx.Client(verify=verify, timeout=PATIENCE)
        self.cluster = f"/groups/{hello['group_id']}/clusters/{hello['cluster_id']}"

    def get(self, path: str = "/restoreJobs", **query: object) -> httpx.Response:
        return self.api.get(self.cluster + path, params={key: str(value) for key, value in query.items()})

    def jobs(self) -> list[Json]:
        results: list[Json] = self.get(batchId=self.hello["batch_id"]).json()["results"]
        return results

    def job(self, index: int = 0) -> Json:
        document: Json = self.get(f"/restoreJobs/{self.hello['job_ids'][index]}").json()
        return document

    def url(self, index: int = 0) -> str:
        return str(self.job(index)["delivery"]["url"])

    def download(self, index: int = 0, **headers: str) -> httpx.Response:
        return self.plain.get(self.url(index), headers=headers)

    def raw_body(self, index: int = 0) -> tuple[bytes, BaseException | None]:
        """All bytes of a delivery that arrived, with the error that ended it."""
        received = bytearray()
        try:
            with self.plain.stream("GET", self.url(index)) as response:
                for block in response.iter_raw():
                    received += block
        except httpx.HTTPError as error:
            return bytes(received), error
        return bytes(received), None

    def close(self) -> None:
        self.api.close()
        self.plain.close()


def archive_of(client: Client, index: int = 0) -> bytes:
    return client.simulator.job(index).archive().path.read_bytes()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def statuses(client: Client) -> list[str]:
    return [job["delivery"]["statusName"] for job in client.get().json()["results"]]


def raw_answer(client: Client, index: int = 0) -> bytes:
    """All bytes of a delivery's answer as they are on the connection, head and framing included, until it closes."""
    address = urlsplit(client.url(index))
    target = f"{address.path}?{address.query}" if address.query else address.path
    received = bytearray()
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(1 << 20):
                received += block
    return bytes(received)
