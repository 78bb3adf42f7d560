"""Names that are not ASCII, whatever the locale of the host: on disk and in the records they are UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.agents import QUICK, Result, StartAgent, StartSimulator, connection_args, deliveries, finished, receipt_in

from restore_agent.simulator import Simulator

NAME = "größe-档案.tar.gz"

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN_1 = {**ASCII, "PYTHONIOENCODING": "latin-1"}
UTF_8 = {"LC_ALL": "C.UTF-8"}


def called(start_agent: StartAgent, sim: Simulator, command: str, dest: Path, env: dict[str, str]) -> Result:
    """The end of a command in a process of its own, with --unpack into a directory next to DEST."""
    pace = QUICK if command == "run" else ()
    unpack = [] if command == "verify" else [f"--unpack={dest.parent}/unpacked-é"]
    args = [command, *connection_args(sim), *pace, f"--dest={dest}", *unpack, "--output=json"]
    return finished(start_agent(args, env))


@pytest.mark.parametrize("env", [ASCII, LATIN_1], ids=["ascii", "latin-1"])
def test_a_name_that_is_not_ascii_is_restored_and_unpacked_in_any_locale(
    simulator: StartSimulator, start_agent: StartAgent, tmp_path: Path, env: dict[str, str]
) -> None:
    sim, dest = simulator(f"name={NAME}"), tmp_path / "restore-é"
    for command, change in (("plan", env), ("run", env), ("verify", env), ("plan", UTF_8), ("run", UTF_8)):
        ended = called(start_agent, sim, command, dest, change)
        assert ended.code == 0, ended.out + ended.err
    assert ended.result["changed"] is False
    assert len(deliveries(sim)) == 1
    names = os.listdir(os.fsencode(dest))
    assert NAME.encode() in names
    assert os.listdir(os.fsencode(tmp_path / "unpacked-é")) == [NAME.removesuffix(".tar.gz").encode()]
    subprocess.run(["sha1sum", "--check", "--strict", "SHA1SUMS"], cwd=dest, capture_output=True, check=True)


def test_the_receipt_has_the_same_paths_in_every_locale(
    simulator: StartSimulator, start_agent: StartAgent, tmp_path: Path
) -> None:
    sim, dest = simulator(f"name={NAME}"), tmp_path / "restore-é"
    assert called(start_agent, sim, "run", dest, ASCII).code == 0
    (record,) = receipt_in(dest)["archives"]
    assert record["path"] == f"{tmp_path}/restore-é/{NAME}"
    assert record["data_path"] == f"{tmp_path}/unpacked-é/{NAME.removesuffix('.tar.gz')}"
    assert json.dumps(record, ensure_ascii=False).encode()  # no lone surrogates
