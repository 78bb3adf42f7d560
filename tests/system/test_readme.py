"""Every command of the README, as it stands there, on a fresh clone.

Only addresses, IDs, and paths outside of the clone are replaced. The simulators of its practice run in the background.
`scripts/test` is not run from within itself; CI does that. `scripts/build-executable` takes minutes and has tests:
an executable that is in dist/ is installed, or the zipapp in its place.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import single_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
HOST = "https://opsmanager.example.net:8443"


def commands_of(section: str) -> list[str]:
    """Return the commands in the indented blocks of a section, and those in its sentences that have an argument."""
    found = re.search(rf"^## {section}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
    assert found, section
    commands = []
    for indented, inline in re.findall(r"^ {4,}(.+)$|`((?:restore-agent) [^`\n]+ [^`\n]+)`", found[1], re.MULTILINE):
        command = (indented or inline).partition("  #")[0].strip()
        if re.match(r"(restore-agent|scripts/|python3 |ln |install |/opt/)", command):
            commands.append(command)
    return commands


class Newcomer:
    """A person with a fresh clone, and a shell whose paths outside of it are in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.clone = directory, directory / "clone"
        for name in ("bin", "opt", "etc", "work"):
            (directory / name).mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
        self.env = {**kept, "PATH": f"{directory}/bin:{os.environ['PATH']}", "HOME": str(directory)}
        subprocess.run(["git", "clone", "--quiet", ROOT, self.clone], check=True)

    def local(self, command: str) -> str:
        """Return a command with the paths of this test."""
        for path, name in (("/usr/local/bin", "bin"), ("/opt/", "opt/"), ("/etc/restore-agent", "etc")):
            command = command.replace(path, f"{self._directory}/{name}")
        for path in ("/data/restore", "/backup/restore"):
            command = command.replace(path, f"{self.work}{path}")
        return command

    @property
    def work(self) -> Path:
        """The directory in which the practice takes place."""
        return self._directory / "work"

    def shell(self, command: str, place: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the README in bash, in the work directory or another one."""
        return subprocess.run(
            ["bash", "-c", self.local(command)],
            cwd=place or self.work,
            env={**self.env, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def passes(self, command: str, place: Path | None = None, **more: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self.shell(command, place, **more)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def serving(self, command: str) -> Iterator[None]:
        """Run a simulator of the README until the end of the block."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.work, env=self.env, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        try:
            assert "group_id" in process.stdout.readline()
            yield
        finally:
            process.terminate()
            process.stdout.close()
            assert process.wait(20) == 0


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """A newcomer who has followed the section Install."""
    person = Newcomer(tmp_path_factory.mktemp("readme"))
    build, install, version = commands_of("Install")
    assert (ROOT / build).exists()
    machine = f"restore-agent-linux-{platform.machine()}"
    built = ROOT / "dist" / machine
    program = built if built.exists() else single_file.built(tmp_path_factory) / "restore-agent.pyz"
    shutil.copy(program, person.clone / machine)
    person.passes(install.replace("restore-agent-linux-x86_64", machine), person.clone)
    assert person.passes(version).startswith("restore-agent")
    return person


def test_the_demo_leaves_archives_data_paths_and_a_report(newcomer: Newcomer) -> None:
    assert commands_of("Two commands") == ["scripts/demo", "scripts/test"]
    assert "4 archives verified." in newcomer.passes("scripts/demo", newcomer.clone)
    demo = newcomer.clone / ".demo"
    assert (demo / "report.html").exists()
    assert len(list((demo / "data").iterdir())) == 4
    assert "\nscripts/test --coverage\n" in (ROOT / ".ci" / "run").read_text()


def test_help_and_a_usage_error_of_the_demo_delete_no_file(newcomer: Newcomer) -> None:
    last = newcomer.clone / ".demo" / "receipt.json"
    last.parent.mkdir(exist_ok=True)
    last.touch()
    assert "Usage: restore-agent rehearse" in newcomer.passes("scripts/demo --help", newcomer.clone)
    assert newcomer.shell("scripts/demo --fault nonsense", newcomer.clone).returncode == 2
    assert last.exists()
    assert not (newcomer.clone / ".demo.last").exists()


def test_the_practice_is_a_restore_a_failed_one_and_a_resumed_one(newcomer: Newcomer) -> None:
    good, check, plan, run, status, report, broken, resumed, again, explain = commands_of("Practice")
    with newcomer.serving(good):
        assert "ok      cluster" in newcomer.passes(check)
        assert "Nothing stands in the way." in newcomer.passes(plan)
        assert "3 archives verified." in newcomer.passes(run)
        assert "finished, exit code 0" in newcomer.passes(status)
        assert "The batch is complete" in newcomer.passes(report)
    with newcomer.serving(broken):
        failed = newcomer.shell(again)
        assert failed.returncode == 23, failed.stderr
        assert "2 of 3 archives verified." in failed.stdout
        assert "Exit code 23" in newcomer.passes(explain)
    with newcomer.serving(resumed):
        done = newcomer.shell(again)
        assert done.returncode == 0, done.stderr
        assert ": resuming at " in done.stderr


def test_a_real_run_follows_the_steps(newcomer: Newcomer) -> None:
    install, config, check, snapshots, request, plan, run, watch, report = commands_of("A real run")
    with newcomer.serving("restore-agent simulator --tls --write-config real.toml"):
        real = dict(re.findall(r'^(\w+) = "(.*)"$', (newcomer.work / "real.toml").read_text(), re.MULTILINE))
        newcomer.passes(install, PRIVATE_KEY=Path(real["private_key_file"]).read_text().strip())
        newcomer.passes(config)
        filled = newcomer.work / "restore.toml"
        text = filled.read_text()
        given = {**real, "private_key_file": newcomer.local("/etc/restore-agent/key"), "dest": "backup/restore"}
        for name in ("url", "public_key", "private_key_file", "ca_file", "group_id", "cluster_id", "dest"):
            text, count = re.subn(rf'^# {name} = ".*"$', f'{name} = "{given[name]}"', text, flags=re.MULTILINE)
            assert count == 1, name
        filled.write_text(text.replace('cluster_id = "', '# cluster_id = "'))
        assert real["cluster_id"] in newcomer.passes(check)
        filled.write_text(text)
        assert "ok      cluster" in newcomer.passes(check)
        assert "RESTORABLE" in newcomer.passes(snapshots)
        batch = re.search(r"--batch-id (\w+)", newcomer.passes(request))
        assert batch
        me = f"{os.getuid()}:{os.getgid()}"
        owner = "" if os.getuid() else f"--owner {me}"
        assert "Nothing stands in the way." in newcomer.passes(plan.replace("BATCH", batch[1]))
        newcomer.passes(run.replace("BATCH", batch[1]).replace("--owner mongod:mongod", owner))
    assert "finished, exit code 0" in newcomer.passes(watch)
    assert len(list((newcomer.work / "data" / "restore").iterdir())) == 3
    (newcomer.work / "receipts").mkdir()
    os.link(newcomer.work / "backup" / "restore" / "receipt.json", newcomer.work / "receipts" / "host.json")
    newcomer.passes(report)
    assert (newcomer.work / "report.html").exists()
