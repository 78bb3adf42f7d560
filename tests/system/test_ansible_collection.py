"""The Ansible collection as far as it can be tried without ansible-core: its rules, its tables, where it lies.

What needs Ansible is in tests/ansible/, which `scripts/test-ansible` runs.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from base64 import b64encode
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import restore_agent
from restore_agent.cli.options import CONNECTION, OPTIONS, REQUEST, RUN_OPTIONS
from restore_agent.core.exit_codes import EXIT_CODES

COLLECTION = Path(restore_agent.__file__).parent / "share" / "ansible_collections" / "restore_agent" / "mongodb"
PLUGINS = COLLECTION / "plugins"
ROLE = COLLECTION / "roles" / "restore"
OWN_BUSINESS = {"output", "progress"}
"""Options of `run` that the module sets itself."""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def constant(path: Path, name: str) -> Any:
    """A literal that a source assigns, read without importing it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} assigns no {name}")


batch = load(PLUGINS / "filter" / "batch.py")


def job(name: str, **more: Any) -> dict[str, Any]:
    """A row of a plan."""
    return {"job_id": f"id-{name}", "file_name": f"{name}-1.tar.gz", "step": "download", **more}


def archive(name: str, **more: Any) -> dict[str, Any]:
    """An archive in a receipt."""
    found = {"job_id": f"id-{name}", "file_name": f"{name}-1.tar.gz", "verdict": "verified", "downloads_spent": 1}
    return {**found, **more}


def host(*rows: dict[str, Any], select: tuple[str, ...] = (), failure: str = "", batch_id: str = "b") -> dict[str, Any]:
    return {"rows": list(rows), "select": list(select), "failure": failure, "batch_id": batch_id}


# ---------------------------------------------------------------- before a download


def test_hosts_that_download_different_jobs_do_not_overlap() -> None:
    assert batch.batch_overlaps({"a": host(job("s0")), "b": host(job("s1")), "c": host()}) == []


def test_two_hosts_that_would_download_the_same_job_overlap() -> None:
    (said,) = batch.batch_overlaps({"b": host(job("s0"), job("s1")), "a": host(job("s0"))})
    assert said.startswith("s0-1.tar.gz: a and b would each download it")


def test_a_job_that_is_not_downloaded_does_not_overlap() -> None:
    assert batch.batch_overlaps({"a": host(job("s0", step="skip")), "b": host(job("s0", step="skip"))}) == []


@pytest.mark.parametrize(("select", "overlaps"), [(("s0-*",), 0), ((), 1), (("id-s0",), 1)])
def test_a_job_without_a_name_yet_counts_only_if_it_is_certainly_selected(
    select: tuple[str, ...], overlaps: int
) -> None:
    waiting = job("s0", file_name=None, step="wait")
    hosts = {"a": host(waiting, select=select), "b": host(waiting, select=select)}
    assert len(batch.batch_overlaps(hosts)) == overlaps


# ---------------------------------------------------------------- after all runs


JOBS = [job("s0"), job("s1"), job("config")]


def complete() -> dict[str, dict[str, Any]]:
    return {
        "a": host(archive("s0"), select=("s0-*",)),
        "b": host(archive("s1"), archive("config"), select=("s1-*", "config-*")),
    }


def test_a_batch_is_complete_if_each_job_is_verified_on_the_host_that_selects_it() -> None:
    assert batch.batch_problems(complete(), JOBS + JOBS, "b") == [], "each host lists the same jobs"


def test_a_job_on_no_host_is_a_problem() -> None:
    hosts = {**complete(), "a": host(select=("s9-*",))}
    assert batch.batch_problems(hosts, JOBS) == ["s0-1.tar.gz: verified on no host (no select matches it)"]


def test_a_job_without_a_receipt_on_the_host_that_selects_it_is_a_problem_that_names_the_host() -> None:
    hosts = {**complete(), "a": host(select=("s0-*",))}
    assert batch.batch_problems(hosts, JOBS) == ["s0-1.tar.gz: verified on no host (not in the receipt of a)"]


@pytest.mark.parametrize("verdict", ["failed", "mismatch", "unproven", None])
def test_a_job_that_is_not_verified_is_a_problem_that_names_its_host(verdict: str | None) -> None:
    hosts = {**complete(), "a": host(archive("s0", verdict=verdict, reason="because"))}
    assert batch.batch_problems(hosts, JOBS) == [f"s0-1.tar.gz: verified on no host ({verdict or 'because'} on a)"]


def test_unproven_archives_count_only_if_they_are_allowed() -> None:
    hosts = {**complete(), "a": host(archive("s0", verdict="unproven"))}
    assert batch.batch_problems(hosts, JOBS, "b", True) == []


def test_a_job_that_two_hosts_downloaded_is_a_problem_even_if_only_one_has_it() -> None:
    hosts = {**complete(), "c": host(archive("s0", verdict="failed"))}
    assert batch.batch_problems(hosts, JOBS) == ["s0-1.tar.gz: downloaded by a and c"]


def test_a_job_that_was_copied_to_a_second_host_manually_is_a_problem() -> None:
    hosts = {**complete(), "c": host(archive("s0", downloads_spent=0))}
    assert batch.batch_problems(hosts, JOBS) == ["s0-1.tar.gz: verified on a and c, but must be on exactly one host"]


def test_a_job_on_a_host_that_does_not_select_it_is_a_problem() -> None:
    hosts = {"a": host(archive("s1"), archive("config"), select=("s0-*",)), "b": host(archive("s0"))}
    assert batch.batch_problems(hosts, JOBS) == [
        "config-1.tar.gz: verified on a, whose select does not match it",
        "s1-1.tar.gz: verified on a, whose select does not match it",
    ]


def test_a_host_that_failed_or_stopped_answering_is_named_first() -> None:
    hosts = {**complete(), "c": host(failure="unreachable")}
    assert batch.batch_problems(hosts, JOBS) == ["c: unreachable"]


def test_a_receipt_of_another_batch_is_a_problem() -> None:
    hosts = {**complete(), "c": host(batch_id="old")}
    assert batch.batch_problems(hosts, JOBS, "b") == ["c: its receipt belongs to another batch, old"]


def test_a_batch_is_not_complete_while_its_jobs_are_unknown() -> None:
    (said,) = batch.batch_problems(complete(), [job("s0", step="skip")])
    assert "could not be listed" in said


def test_an_archive_that_is_verified_but_not_unpacked_is_a_problem_if_unpacking_was_requested() -> None:
    hosts = complete()
    hosts["a"]["unpack"] = True
    assert batch.batch_problems(hosts, JOBS) == ["s0-1.tar.gz: verified on a, but not unpacked (no data path)"]
    row = hosts["a"]["rows"][0]
    row |= {"data_path": "/data/s0-1", "exit_code": 0}
    assert batch.batch_problems(hosts, JOBS) == []
    row |= {"reason": "no-space-to-unpack", "exit_code": 13}
    assert batch.batch_problems(hosts, JOBS) == ["s0-1.tar.gz: verified on a, but not unpacked (no-space-to-unpack)"]
    hosts["a"]["unpack"] = False
    assert batch.batch_problems(hosts, JOBS) == []


def test_an_archive_is_described_in_one_line() -> None:
    assert batch.archive_line(archive("s0", path="/d/s0.tar.gz", sha1="ab")) == "verified /d/s0.tar.gz sha1 ab"
    assert batch.archive_line({"job_id": "x", "verdict": "failed"}) == "failed x"
    unpacked = archive("s0", path=None, sha1="ab", data_path="/data/s0-1")
    assert batch.archive_line(unpacked) == "verified s0-1.tar.gz sha1 ab data path /data/s0-1"


def record(moment: str) -> str:
    return b64encode(json.dumps({"requested_at": moment}).encode()).decode()


@pytest.mark.parametrize(
    ("records", "chosen"),
    [
        ({"b": "", "a": ""}, "b"),
        ({"b": None, "a": ""}, "a"),
        ({"b": "", "a": record("2026-11-01T00:00:00Z")}, "a"),
        ({"a": record("2026-11-01T00:00:00Z"), "b": record("2026-12-01T00:00:00Z")}, "b"),
        ({"a": record("2026-11-01T00:00:00Z"), "b": b64encode(b"{").decode()}, "b"),
    ],
    ids=[
        "the first",
        "the first that works",
        "the one with a record",
        "the newest record",
        "an unreadable record, which is then reported",
    ],
)
def test_the_host_that_requests_a_restore(records: dict[str, str | None], chosen: str) -> None:
    assert batch.request_host(records) == chosen


def test_every_filter_is_documented_in_a_file_of_its_name() -> None:
    assert {path.stem for path in (PLUGINS / "filter").glob("*.yml")} == set(batch.FilterModule().filters())


# ---------------------------------------------------------------- the same tables as the agent's


def test_the_module_has_the_same_next_steps_by_exit_code_as_the_agent() -> None:
    advice = constant(PLUGINS / "module_utils" / "agent_cli.py", "NEXT")
    assert advice == {code: row.next_step for code, row in EXIT_CODES.items() if code}


def test_the_module_falls_back_to_the_variables_of_the_agent() -> None:
    variables = constant(PLUGINS / "module_utils" / "agent_cli.py", "ENVIRONMENT")
    known = {option.name: option.env for option in OPTIONS.values()}
    known |= {"private_key": "RESTORE_AGENT_PRIVATE_KEY", "config": "RESTORE_AGENT_CONFIG"}
    assert {name: known[name] for name in variables} == variables  # the agent reads the others itself


def options_of(module: str) -> set[str]:
    """The documented options of a module, with those of the shared fragment."""
    shared: str = load(PLUGINS / "doc_fragments" / "connection.py").ModuleDocFragment.DOCUMENTATION
    texts = [constant(PLUGINS / "modules" / f"{module}.py", "DOCUMENTATION"), shared]
    return {
        name
        for text in texts
        for name in re.findall(r"^  (\w+):\n    description:", text.partition("\noptions:\n")[2], re.MULTILINE)
    }


def test_every_option_of_run_is_one_of_the_module() -> None:
    assert options_of("restore") == set(RUN_OPTIONS) - OWN_BUSINESS | {"private_key", "config", "executable"}


def test_every_option_of_request_is_one_of_its_module() -> None:
    of_request = {*CONNECTION, *REQUEST, "group_id", "cluster_id", "host_id"} - {"dry_run"}
    assert options_of("restore_request") == of_request | {"private_key", "config", "executable", "record"}


def test_every_variable_of_the_role_is_documented_in_its_readme() -> None:
    named = set(
        re.findall(r"^      (restore_agent_\w+):", (ROLE / "meta" / "argument_specs.yml").read_text(), re.MULTILINE)
    )
    told = set(re.findall(r"^\| `(restore_agent_\w+)`", (ROLE / "README.md").read_text(), re.MULTILINE))
    defaults = set(re.findall(r"^(restore_agent_\w+):", (ROLE / "defaults" / "main.yml").read_text(), re.MULTILINE))
    assert told == named
    assert defaults < named


# ---------------------------------------------------------------- where it lies


def test_plugins_import_only_the_standard_library_ansible_and_each_other() -> None:
    for path in PLUGINS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                ours = name.startswith("ansible_collections.restore_agent.mongodb.plugins.module_utils.")
                allowed = ours or name == "ansible.module_utils.basic" or name in sys.stdlib_module_names
                assert allowed, f"{path.name} imports {name}: it runs on hosts that have the agent as a program only"
