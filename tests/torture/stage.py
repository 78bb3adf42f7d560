"""The stage of a round: its directory, its simulator, its witness, its other programs, and the agent's command line."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from restore_agent.simulator import Simulator
from tests.support.proxy import proxy

from . import checks, draw
from .company import Company
from .datapaths import DataPlace
from .defects import program
from .disk import SmallDisk, may_mount, small_disk
from .draw import Draw, Piece
from .witness import Violation, Witness


@dataclasses.dataclass
class Outcome:
    """What came of a round. `evidence` is kept where something was violated."""

    drawn: Draw
    violations: list[Violation] = dataclasses.field(default_factory=list)
    codes: list[int | None] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    evidence: Path | None = None
    seconds: float = 0.0


class Stage:
    """The stage of one round: its directory, its simulator, its witness."""

    def __init__(self, drawn: Draw, home: Path, outcome: Outcome, defects: Sequence[str]) -> None:
        self._drawn, self._home, self._outcome = drawn, home, outcome
        conditions = (*drawn.extras.conditions, *defects)
        self._program = program(*conditions) if conditions else ("-m", "restore_agent")
        self._stack = ExitStack()
        self._disk: SmallDisk | None = None
        self._file_limit: int | None = None
        self._disturbances = 0
        self._starved = False
        self._made_canaries()
        self._dest = self._place_for_dest() / "restore"
        self._simulator = self._stack.enter_context(
            Simulator(tls=drawn.tls, shards=drawn.shards, archive_size=drawn.archive_size, faults=drawn.faults)
        )
        self._jobs = [job for job in self._simulator.jobs if not job.stray]
        self._asked = {job.id for job in self._jobs}
        self._witness = Witness(self._simulator, self._dest)
        self._options = self._command_line()
        self._environment: dict[str, str] = {}
        if drawn.extras.proxy:
            url = self._stack.enter_context(proxy()).url
            self._environment = {"http_proxy": url, "https_proxy": url}
        self._data = self._data_place()
        self._company = Company(drawn.extras, self._jobs, self._dest, self._witness)
        self._stack.callback(self._company.leave)
        self._around = self._tree_around()

    def close(self) -> None:
        """Stop the simulator, keep what the log saw beside the other evidence, unmount the disk."""
        if self._outcome.violations:
            (self._home / "draw.txt").write_text(f"seed {self._drawn.seed}\n{self._drawn}\n")
            (self._home / "server.txt").write_text(self._simulator.dump())
            if self._dest.exists() and self._disk:
                shutil.copytree(self._dest, self._home / "restore-copy", symlinks=True)
        self._stack.close()

    def _made_canaries(self) -> None:
        canaries = self._home / "canaries"
        (canaries / "beside").mkdir(parents=True)
        (canaries / "beside" / "bird").write_text("it sings\n")
        (canaries / "bird").write_text("it sings, too\n")
        (self._home / "cwd").mkdir()

    def _place_for_dest(self) -> Path:
        """A directory among the canaries, or a small disk."""
        kib = self._drawn.fate.disk_kib
        if not kib:
            return self._home / "canaries"
        if not may_mount(self._home):
            self._file_limit = kib << 9
            return self._home / "canaries"
        self._disk = self._stack.enter_context(small_disk(self._home / "disk", kib))
        return self._home / "disk"

    def _data_place(self) -> DataPlace | None:
        """The directory of `--unpack`, watched like DEST."""
        if self._drawn.unpack is None:
            return None
        data = DataPlace(self._drawn.unpack, self._home, self._witness, self._simulator)
        self._stack.callback(data.close)
        self._witness.also.append(data.look)
        return data

    def _command_line(self) -> list[str]:
        drawn, hello = self._drawn, self._simulator.hello
        key = self._home / "private-key"
        key.touch(mode=0o600)
        key.write_text(hello["private_key"] + "\n")
        options = {
            "url": hello["url"],
            "public-key": hello["public_key"],
            "private-key-file": key,
            "group-id": hello["group_id"],
            "cluster-id": hello["cluster_id"],
            "dest": self._dest,
            "poll-interval": f"{draw.POLL_INTERVAL}s",
            "wait-timeout": f"{drawn.wait_timeout}s",
            "hash-timeout": f"{draw.HASH_TIMEOUT}s",
            "stall-timeout": f"{draw.STALL_TIMEOUT}s",
            "retries": drawn.retries,
            "parallel": drawn.parallel,
            "output": "json",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        if hello["ca_file"]:
            arguments.append(f"--ca-file={hello['ca_file']}")
        return [*arguments, *["--allow-unproven"] * drawn.allow_unproven, *["--debug"] * drawn.debug]

    def _run_arguments(self, piece: Piece | None = None) -> list[str]:
        """The command line of a run for all jobs, or for some."""
        hello = self._simulator.hello
        batch = [f"--batch-id={hello['batch_id']}"] if hello["batch_id"] else []
        options = [*self._options, *(self._data.options() if self._data else ())]
        ids = [self._jobs[number].id for number in piece.jobs] if piece else hello["job_ids"]
        self._asked = set(ids) if piece else {job.id for job in self._jobs}
        if piece and piece.by == "select":
            return ["run", *options, *batch, *(f"--select={job_id[:-1]}[{job_id[-1]}]" for job_id in ids)]
        if piece or not batch:
            return ["run", *options, *(f"--job-id={job_id}" for job_id in ids)]
        expected = [f"--expect-jobs={len(self._jobs)}"] if self._drawn.extras.expect_jobs else []
        return ["run", *options, *batch, *expected]

    def _tree_around(self) -> dict[str, tuple[int, int, str]]:
        """What lies around DEST and DIR, which must not change."""
        data = (self._data.directory,) if self._data else ()
        return checks.tree_of(self._home / "canaries", self._dest, *data)

    def _blame(self, invariant: str, seen: str) -> None:
        self._outcome.violations.append(Violation(invariant, seen))

    def _blame_all(self, violations: Iterator[Violation] | list[Violation]) -> None:
        self._outcome.violations.extend(violations)
