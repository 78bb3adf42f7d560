"""A link of a known rate: two network namespaces, a veth pair between them, and a token bucket at the server's end."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_SERVER, _CLIENT = "10.231.0.1", "10.231.0.2"
_BURST = "2mb"  # what may leave at once; the timer of the kernel refills it at least every 4 ms
_LATENCY = "50ms"  # how long a packet may wait in the queue


@dataclass(frozen=True)
class Link:
    """What runs a command at either end, and the address of the server's end."""

    server: tuple[str, ...]
    client: tuple[str, ...]
    address: str = _SERVER


@contextlib.contextmanager
def link(rate: str) -> Iterator[Link]:
    """Make a link; `rate` is in the form of tc(8), such as `1gbit`. Needs root and iproute2; removed at the end."""
    names = [f"restore-agent-{os.getpid()}-{end}" for end in ("server", "client")]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", names[0], "link", "add", "bench", "type", "veth", "peer", "name", "bench", "netns", names[1])
        for name, address in zip(names, (_SERVER, _CLIENT), strict=True):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", "bench")
            _ip("-n", name, "link", "set", "bench", "up")
        limit = ("root", "tbf", "rate", rate, "burst", _BURST, "latency", _LATENCY)
        _run("ip", "netns", "exec", names[0], "tc", "qdisc", "add", "dev", "bench", *limit)
        server, client = (("ip", "netns", "exec", name) for name in names)
        yield Link(server, client)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
