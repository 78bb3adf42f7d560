"""A real storage engine: a WiredTiger home is served, downloaded, and unpacked; `wt` finds every record in it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.agents import Restore
from support.data_paths import names_in

from restore_agent.simulator import Simulator

pytestmark = pytest.mark.skipif(shutil.which("wt") is None, reason="needs wt, from Debian's package wiredtiger")

TABLES = ("table:collection-0", "table:index-1", "table:empty")


def wt(home: Path, *args: str, given: str | None = None) -> str:
    """Call WiredTiger's command line tool on a home; return its output."""
    command = ["wt", "-h", str(home), *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=given)
    return done.stdout


def dumped(home: Path) -> dict[str, str]:
    """Return the records of every table, after the engine has verified its file."""
    for table in TABLES:
        wt(home, "verify", table)
    return {table: wt(home, "dump", table) for table in TABLES}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WiredTiger home with tables and records, closed cleanly."""
    home, rnd = tmp_path_factory.mktemp("wiredtiger") / "home", random.Random(7)
    home.mkdir()
    for table in TABLES:
        wt(home, "create", "-c", "key_format=S,value_format=S", table)
    for table in TABLES[:2]:
        header = wt(home, "dump", table)
        records = [f"key{number:06}\\00\n{rnd.randbytes(200).hex()}\\00\n" for number in range(3000)]
        wt(home, "load", given=header + "".join(records))
    return home


@pytest.mark.parametrize("options", [[], ["--discard-archive"]])
def test_a_wiredtiger_home_is_the_same_after_download_and_unpacking(
    home: Path, restore: Restore, tmp_path: Path, options: list[str]
) -> None:
    expected = dumped(home)
    assert all(len(expected[table]) > 1_000_000 for table in TABLES[:2])
    source = tmp_path / "source" / home.name
    shutil.copytree(home, source)  # `wt` writes to a home that it opens
    data = tmp_path / "data"
    with Simulator(shards=0, archives=[source]) as sim:
        ended = restore(sim, f"--unpack={data}", *options)
    assert ended.code == 0, ended.err
    (name,) = names_in(data)
    assert ended.archive["data_path"] == str(data / name)
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    assert {path.name: path.read_bytes() for path in (data / name).iterdir() if path.name in files} == files
    assert dumped(data / name) == expected
