"""A resolver that hangs, for Ops Manager's name, a proxy's, or that of a delivery: SIGTERM still ends the run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.agents import QUICK, StartAgent, StartSimulator, connection_args, finished, wait_until

HANGS = """
import socket, time, pathlib
_real = socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    if host in ("hangs.example", b"hangs.example"):
        pathlib.Path({mark!r}).touch()
        time.sleep(60)
    return _real(host, *more, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.parametrize("host", ["ops manager", "proxy", "delivery"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_is_stopped_within_three_seconds_while_the_resolver_hangs(
    host: str, number: signal.Signals, simulator: StartSimulator, start_agent: StartAgent, dest: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(HANGS.format(mark=str(mark)))
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))}
    fault = ['job-field=delivery.url:"http://hangs.example/pull/token-1/a.tar.gz"'] if host == "delivery" else []
    options = ["--url=http://hangs.example"] if host == "ops manager" else []
    if host == "proxy":
        env["HTTP_PROXY"] = "http://hangs.example:3128"
    args = ["run", *connection_args(simulator(*fault)), *QUICK, f"--dest={dest}", "--wait-timeout=1m", *options]
    process = start_agent(args, env)
    wait_until(mark.exists, "the question to the resolver")
    began = time.monotonic()
    process.send_signal(number)
    ended = finished(process)
    assert ended.code == 128 + number
    assert time.monotonic() - began < 3
