"""The single file: the same bytes each time, only what is pinned, and a restore on a bare Python without anything."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.single_file import ROOT, build, built

import restore_agent

PINNED = (ROOT / "scripts" / "zipapp-requirements.txt").read_text()


def pythons() -> Iterator[tuple[tuple[int, ...], str]]:
    """Every Python 3 on this host, one of each version, by the path of its real file."""
    found: dict[tuple[int, ...], str] = {}
    places = [*map(Path, os.environ["PATH"].split(":")), *Path.home().glob(".pyenv/versions/*/bin")]
    for path in sorted(path for place in places if place.name != "shims" for path in place.glob("python3.*")):
        if re.fullmatch(r"python3\.\d+", path.name):
            command = [path, "-I", "-S", "-c", "import sys; print(*sys.version_info[:3], sys.executable)"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:  # not a shim that leads nowhere
                *version, where = done.stdout.split()
                found.setdefault(tuple(map(int, version)), where)
    yield from sorted(found.items())


FOUND = list(pythons())
NEW = [where for version, where in FOUND if version >= (3, 11)]
OLD = [where for version, where in FOUND if version < (3, 11)][-1:]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The single file."""
    return built(tmp_path_factory) / "restore-agent.pyz"


def bare(python: str, single: Path, *args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the single file with nothing: no environment, no site-packages, no user directory, from elsewhere."""
    command = [python, "-I", "-S", "-W", "error", str(single), *map(str, args)]
    return subprocess.run(command, env={}, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


# ---------------------------------------------------------------- how it is built


def test_building_it_again_gives_the_same_bytes(single: Path, tmp_path: Path) -> None:
    build(tmp_path)
    for name in ("restore-agent.pyz", "restore-agent.cdx.json"):
        assert (tmp_path / name).read_bytes() == (single.parent / name).read_bytes()


def test_another_python_builds_the_same_bytes(single: Path, tmp_path: Path) -> None:
    command = [NEW[-1], ROOT / "scripts" / "zipapp.py", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / single.name).read_bytes() == single.read_bytes()


def test_the_zipapp_contains_sorted_sources_only_with_one_time_and_one_mode(single: Path) -> None:
    with zipfile.ZipFile(single) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert [name for name in names if name.endswith((".pyc", ".so", "/RECORD"))] == []
    assert "restore_agent/cli/main.py" in names
    assert os.access(single, os.X_OK)


def test_the_zipapp_contains_no_path_of_the_host_that_built_it(single: Path) -> None:
    data = single.read_bytes()
    for place in (ROOT, Path.home() / ".", single.parent):
        assert f"{place}/".encode() not in data


def test_a_time_of_the_build_can_be_given(tmp_path: Path) -> None:
    build(tmp_path, SOURCE_DATE_EPOCH="1700000000")
    with zipfile.ZipFile(tmp_path / "restore-agent.pyz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def test_every_dependency_is_pinned_to_one_version_and_one_hash(single: Path) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", PINNED, re.MULTILINE))
    assert len(pinned) == PINNED.count("--hash=sha256:")
    declared = re.search(r"\ndependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert declared
    assert set(re.findall(r'"([a-z0-9-]+)', declared[1])) | {"prometheus-client", "jinja2", "markupsafe"} <= pinned


# ---------------------------------------------------------------- the list of contents


def test_the_list_of_contents_is_valid_cyclonedx(single: Path) -> None:
    """In a process of its own: what the validator loads would count for those that other tests measure."""
    script = (
        "import pathlib, sys\n"
        "from cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text()))\n"
    )
    command = [sys.executable, "-c", script, single.parent / "restore-agent.cdx.json"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"


def test_the_list_names_every_pin_with_license_hash_and_purl_and_no_other_package(single: Path) -> None:
    listed = json.loads((single.parent / "restore-agent.cdx.json").read_text())
    ours = listed["metadata"]["component"]
    assert ours["version"] == restore_agent.__version__
    assert ours["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(single.read_bytes()).hexdigest()}]
    told = {(one["name"], one["version"], one["hashes"][0]["content"]) for one in listed["components"]}
    assert told == set(re.findall(r"^([a-z0-9-]+)==(\S+) \\\n\s+--hash=sha256:([0-9a-f]{64})$", PINNED, re.MULTILINE))
    for one in listed["components"]:
        assert one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}"
        assert one["licenses"][0]["expression"]


def test_the_list_has_the_dependencies_of_each_component(single: Path) -> None:
    listed = json.loads((single.parent / "restore-agent.cdx.json").read_text())
    needs = {
        entry["ref"].split("@")[0]: {ref.split("@")[0] for ref in entry["dependsOn"]}
        for entry in listed["dependencies"]
    }
    assert needs["pkg:pypi/httpx"] == {f"pkg:pypi/{name}" for name in ("anyio", "certifi", "httpcore", "idna")}
    assert needs["pkg:pypi/tqdm"] == set()
    assert needs["pkg:pypi/jinja2"] == {"pkg:pypi/markupsafe"}


# ---------------------------------------------------------------- on a bare Python


@pytest.mark.parametrize("python", NEW)
def test_a_rehearsal_over_tls_succeeds_on_a_bare_python(single: Path, tmp_path: Path, python: str) -> None:
    args = ["rehearse", f"--dest={tmp_path / 'dest'}", "--shards=1", "--archive-size=256K", "-o", "json"]
    done = bare(python, single, *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert [one["verdict"] for one in result["archives"]] == ["verified", "verified"]
    assert result["ops_manager"].startswith("https://")
    assert (tmp_path / "dest" / "report.html").read_text().startswith("<!DOCTYPE html>"), "Jinja2 is inside"
    assert done.stderr == ""


def test_the_zipapp_contains_every_file_of_an_installed_agent(single: Path, tmp_path: Path) -> None:
    for args, said in [
        (["--version"], restore_agent.__version__),
        (["--help"], "ansible-collections"),
        (["explain", "23"], "downloads used up"),
        (["man", "run"], '.TH "RESTORE-AGENT-RUN"'),
        (["completion", "bash"], "_RESTORE_AGENT_COMPLETE"),
        (["systemd", "--program=/opt/restore-agent.pyz"], "ExecStart=/opt/restore-agent.pyz run"),
        (["alerts"], "RestoreFailed"),
        (["simulator", "--list-faults"], "max-downloads"),
    ]:
        done = bare(NEW[0], single, *args, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), args
        assert said in done.stdout


def test_the_zipapp_writes_metrics_without_an_installed_package(single: Path, tmp_path: Path) -> None:
    args = ["run", f"--metrics-file={tmp_path / 'a.prom'}", "--url=http://127.0.0.1:9", "-o", "json"]
    assert bare(NEW[0], single, *args, cwd=tmp_path).returncode == 2  # most options are missing
    assert "restore_agent_run_exit_code" in (tmp_path / "a.prom").read_text()


def test_the_zipapp_can_be_executed_directly(single: Path, tmp_path: Path) -> None:
    env = {"PATH": f"{Path(NEW[0]).parent}:/usr/bin:/bin"}
    done = subprocess.run([single, "--version"], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert restore_agent.__version__ in done.stdout


@pytest.mark.parametrize("python", OLD)
def test_an_older_python_is_refused_with_the_required_version(single: Path, tmp_path: Path, python: str) -> None:
    done = bare(python, single, "--version", cwd=tmp_path)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr


def test_the_collection_must_be_extracted_from_the_zipapp(single: Path, tmp_path: Path) -> None:
    done = bare(NEW[0], single, "ansible-collections", cwd=tmp_path)
    assert done.returncode == 2
    assert "--extract" in done.stderr
