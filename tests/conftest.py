"""What tests of whole commands share: a simulator per test, the command line in this process, and as a process.

`run_agent` calls the real command line here and now, which is quick and counted by coverage; `start_agent` starts a
process of its own, for signals, kills and pipes. Both see an environment without this host's settings.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from support.agents import QUICK, SMALL, Result, RunAgent, StartAgent, StartSimulator, connection_args
from support.program import EXECUTABLE, PROGRAM

from restore_agent.cli.main import main
from restore_agent.simulator import Simulator

if "PYTEST_XDIST_WORKER" in os.environ:  # is measured itself; measuring each agent that it starts takes too long
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and the agents would inherit that
hypothesis_settings.register_profile("restore-agent", deadline=None)  # a loaded machine is no failure
hypothesis_settings.load_profile("restore-agent")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With the executable as the program under test, keep only the tests that start it."""
    if EXECUTABLE:
        starting = {"start_agent", "host"}
        others = [one for one in items if not starting & set(getattr(one, "fixturenames", ()))]
        left_out = {one for one in others if one.path.stem != "test_executable"}
        config.hook.pytest_deselected(items=left_out)
        items[:] = [one for one in items if one not in left_out]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, proxy, systemd credential or trust store of this host reaches a test."""
    for name in list(os.environ):
        if name.startswith("RESTORE_AGENT_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "JOURNAL_STREAM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)  # reading the system's store takes longer than most runs here
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A DEST that does not exist yet."""
    return tmp_path / "restore"


@pytest.fixture
def simulator() -> Iterator[StartSimulator]:
    """Start a simulator: `simulator("cut=50%", shards=0, archive_size=..., tls=True)`. Stopped after the test."""
    running: list[Simulator] = []

    def start(*faults: str, shards: int = 0, archive_size: int = SMALL, **more: Any) -> Simulator:
        sim = Simulator(faults=faults, shards=shards, archive_size=archive_size, **more)
        sim.start()
        running.append(sim)
        return sim

    yield start
    for sim in running:
        sim.stop()


@pytest.fixture
def run_agent(monkeypatch: pytest.MonkeyPatch) -> RunAgent:
    """Call the command line in this process: `run_agent(["run", ...], {"NAME": "value"})`."""

    def run(args: Sequence[object], env: Mapping[str, str] | None = None) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as end,
            ):
                main([str(arg) for arg in args])
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def restore(run_agent: RunAgent, dest: Path) -> Callable[..., Result]:
    """`restore(sim, *options, env=...)`: `run` with quick pace and JSON output against a simulator, into `dest`."""

    def run(sim: Simulator, *options: object, env: Mapping[str, str] | None = None, to: Path | None = None) -> Result:
        args = ["run", *connection_args(sim), *QUICK, f"--dest={to or dest}", "--output=json", *options]
        return run_agent(args, env)

    return run


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Start the command line as a process: `start_agent(["run", ...], {"NAME": "value"})` gives its Popen."""
    running: list[subprocess.Popen[str]] = []

    def start(args: Sequence[object], env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        command = [*PROGRAM, *map(str, args)]
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, text=True, **more)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a tmpfs: `small_disk(kib, "ro")` gives its directory. Skips where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(kib: int, *options: str) -> Path:
        if os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("mounting a small file system needs root")
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        wanted = ",".join([f"size={kib}k", "mode=0700", *options])
        command = ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(place)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a small file system is not allowed here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
