"""A disk that fails at one system call: `strace` makes the kernel answer an error, whatever library asked.

Each case is one real run with one fault, judged, and one run without, which must mend everything.
"""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from restore_agent.simulator import Job, Simulator

from . import checks
from .datapaths import STAGING, content_of, extracted
from .defects import program
from .powerloss import PROGRAM, environment, options
from .process import Ended
from .witness import STATE, Violation, Witness

_CODES = {"ENOSPC": 40, "EDQUOT": 40, "EIO": 41, "EROFS": 41, "EACCES": 41, "EINVAL": 0, "ENOSYS": 0}
ARCHIVE = "<archive>.part"

_LONGEST = 60.0

PLAIN, CUT = "max-downloads=10", "max-downloads=10 range=honour cut=70%"
SLOW, SLOW_CUT = f"{PLAIN} drip=16k", f"{CUT} drip=16k"
"""What the server does: a transfer, and one that is cut and can be resumed. The slow ones sync in the background."""

STAGED = "<data>/<staging>/collection-0-4581296413374023456.wt"

_DIRECTORY = "rename,renameat,renameat2,link,linkat"


@dataclass(frozen=True)
class DiskFault:
    """`call` on `place` (below DEST) fails with `error` at its `number`th time in a thread.

    `for_good`: and ever after. `server` are the faults of the simulator.
    """

    call: str
    place: str
    error: str
    number: int = 1
    for_good: bool = False
    server: str = PLAIN

    def __str__(self) -> str:
        again = " and ever after" if self.for_good else ""
        cut = " (a transfer that is cut)" if self.is_cut else ""
        return f"{self.call} number {self.number}{again} on {self.place or 'DEST'}: {self.error}{cut}"

    @property
    def is_cut(self) -> bool:
        """Whether the transfer is cut and resumed."""
        return "cut=" in self.server

    @property
    def unpacks(self) -> bool:
        """Whether it concerns the directory of data paths."""
        return self.place.startswith("<data>")

    @property
    def codes(self) -> tuple[int, ...]:
        """The exit codes that the run may end with."""
        return (0, 13) if self.unpacks else (0, _CODES[self.error])

    @property
    def spoils_a_sync_of_data(self) -> bool:
        """Whether what the kernel still shows of an archive proves nothing after this."""
        return self.place == ARCHIVE and self.call in ("fsync", "fdatasync")


def cases() -> tuple[DiskFault, ...]:
    """Every kind of call on every kind of file, at its first times."""
    files = (ARCHIVE, f"{STATE}/journal.jsonl", f"{STATE}/.status.json.tmp", ".receipt.json.tmp", ".SHA1SUMS.tmp")
    found = [DiskFault("write", place, error) for place in files for error in ("ENOSPC", "EDQUOT", "EIO")]
    found += [DiskFault("write", f"{STATE}/journal.jsonl", "ENOSPC", number) for number in range(2, 8)]
    found += [DiskFault("write", ARCHIVE, "ENOSPC", number, server=SLOW) for number in (2, 3)]
    found += [DiskFault("fsync", place, error) for place in (*files, "", STATE) for error in ("EIO", "ENOSPC")]
    found += [DiskFault("fsync", f"{STATE}/journal.jsonl", "EIO", number) for number in range(2, 8)]
    found += [DiskFault("fsync", "", "EIO", number) for number in range(2, 6)]
    found += [DiskFault("fdatasync", ARCHIVE, error, server=SLOW) for error in ("EIO", "ENOSPC", "EDQUOT")]
    found += [DiskFault("fdatasync", ARCHIVE, "EIO", 2, server=SLOW)]  # in one of three threads
    found += [DiskFault("fdatasync", ARCHIVE, "EIO", number, server=SLOW_CUT) for number in (1, 2)]
    found += [DiskFault("fsync", ARCHIVE, "EIO", number, server=SLOW_CUT) for number in (1, 2)]
    found += [DiskFault("write", ARCHIVE, "EIO", number, server=SLOW_CUT) for number in (2, 4)]
    found += [DiskFault(_DIRECTORY, place, "EIO", n) for place in ("", STATE) for n in (1, 2, 3)]
    found += [DiskFault(_DIRECTORY, place, "ENOSPC") for place in ("", STATE)]
    found += [DiskFault("renameat2", "", error) for error in ("EINVAL", "ENOSYS")]  # file systems without the flag
    found += [DiskFault("fsync", place, "EINVAL", for_good=True) for place in ("", STATE)]  # FUSE, CIFS
    found += [
        DiskFault("openat", place, error, n) for place in ("", STATE) for error in ("EIO", "EROFS") for n in range(1, 7)
    ]
    found += [DiskFault("mkdirat", "", error) for error in ("ENOSPC", "EACCES", "EROFS")]
    found += [
        DiskFault("ftruncate", ARCHIVE, "EIO"),
        DiskFault("unlinkat,unlink", "", "EIO"),
        DiskFault("fchmod", ARCHIVE, "EIO"),
    ]
    return tuple(found + list(read_only_cases()) + list(data_path_cases()))


def data_path_cases() -> Iterator[DiskFault]:
    """Every kind of call in the directory of data paths."""
    data, staging = "<data>", "<data>/<staging>"
    for call in ("pwrite64", "openat", "fsync"):
        for error in ("ENOSPC", "EDQUOT", "EIO"):
            yield DiskFault(call, STAGED if call != "openat" else staging, error)
    for call in ("ftruncate", "fchmod", "utimensat"):
        yield DiskFault(call, STAGED, "EIO")
    for call in ("mkdir", "mkdirat", "renameat,renameat2", "fsync", "openat"):
        yield from (DiskFault(call, data, error) for error in ("ENOSPC", "EIO"))
    for call in ("mkdirat", "fsync", "linkat", "fstatfs", "flock", "fchmod", "getdents64", "newfstatat"):
        yield DiskFault(call, staging, "EIO")
    yield from (DiskFault("openat", staging, "EIO", number) for number in range(2, 14))
    yield from (DiskFault("fsync", f"{staging}/journal", error) for error in ("EIO", "ENOSPC"))
    yield DiskFault("flock", staging, "ENOLCK")  # NFS
    changing = "mkdirat,renameat,linkat,unlinkat,fsync,ftruncate,pwrite64,openat"
    for number in (1, 3, 8):
        yield DiskFault(changing, staging, "EROFS", number, for_good=True)
    yield DiskFault(changing, data, "EROFS", 1, for_good=True)


def read_only_cases() -> Iterator[DiskFault]:
    """A file system that goes read-only under a run: from some call on nothing can be changed any more."""
    changing = "mkdirat,renameat,rename,unlinkat,fsync,ftruncate,write"
    for place in (ARCHIVE, f"{STATE}/journal.jsonl", "", STATE):
        for number in (1, 2, 3):
            yield DiskFault(changing, place, "EROFS", number, for_good=True)


@dataclass
class Tally:
    """How many faults were met (a run may end before one's turn comes), and what was violated."""

    tried: int = 0
    met: int = 0
    violations: list[str] = field(default_factory=list)


def try_fault(fault: DiskFault, work: Path, defects: Sequence[str] = ()) -> tuple[bool, list[Violation]]:
    """One run with the fault and one without; whether the fault was met, and what does not hold.

    The agent syncs every few KiB in the background, as it does with large archives.
    """
    home = Path(tempfile.mkdtemp(prefix="disk-fault-", dir=work))
    agent = program("sync often", *defects)
    try:
        server = [*fault.server.split(), *["member=hard-link"] * fault.unpacks]
        with Simulator(shards=0, archive_size=24 << 10, faults=server) as simulator:
            dest = home / "restore"
            witness = Witness(simulator, dest)
            with witness.watching():
                ended, met = _run(fault, simulator, witness, dest, home, agent)
                found = [*_with_fault(fault, ended, met, witness, dest)]
                found += [] if found else _without(fault, met and ended.code != 0, simulator, witness, dest, home)
            return met, witness.violations + found
    finally:
        shutil.rmtree(home)


def _with_fault(fault: DiskFault, ended: Ended, met: bool, witness: Witness, dest: Path) -> Iterator[Violation]:
    yield from _check(ended, witness, dest, fault)
    if ended.code not in fault.codes:
        yield Violation("the exit code is the right one", f"{ended.code}, not {fault.codes}: {ended.out[-400:]!r}")
    if fault.unpacks:
        yield from _check_unpacked(fault, ended, met, dest)
        return
    if ended.code == 0 and met and not _may_pass(fault):
        yield Violation("no fault of the disk is passed over", f"exit code 0 after: {fault}")
    resumed = [get.record.range for get in witness.gets if get.record.range]
    if ended.code == 0 and met and fault.spoils_a_sync_of_data and resumed:
        yield Violation("after a failed sync the data is not trusted", f"a resume in the same run: {resumed}")


def _may_pass(fault: DiskFault) -> bool:
    """The status file only shows; SHA1SUMS is written again at the end; a leftover that stays is no harm."""
    shown = fault.place in (STATE, f"{STATE}/.status.json.tmp", ".SHA1SUMS.tmp")
    after_a_cut = fault.is_cut and fault.spoils_a_sync_of_data  # the next attempt starts again
    return shown or after_a_cut or fault.call.startswith(("unlink", "openat", "rename", "fsync"))


def _check_unpacked(fault: DiskFault, ended: Ended, met: bool, dest: Path) -> Iterator[Violation]:
    """Whatever fails in DIR, the archive is safe, and a data path is whole or not there."""
    (record,) = (checks.result_of(ended) or {"archives": [{"verdict": "none"}]})["archives"]
    if record["verdict"] != "verified" or not (dest / str(record["file_name"])).is_file():
        yield Violation("unpacking never costs an archive", str(record))
    found = data_paths_in(dest)
    if len(found) != (ended.code == 0):
        yield Violation("a data path is there if the exit code is 0", f"{ended.code}: {found}")
    space = fault.error in ("ENOSPC", "EDQUOT")
    reason = "no-space-to-unpack" if space else "cannot-unpack"
    if ended.code == 13 and record["reason"] != reason:
        yield Violation("the reason is the right one", f"{record['reason']}, not {reason}")
    if ended.code == 0 and met and fault.error in ("EIO", "ENOSPC", "EDQUOT") and not fault.call.startswith("openat"):
        yield Violation("no fault of the disk is passed over", f"exit code 0 after: {fault}")


def data_paths_in(dest: Path) -> list[Path]:
    """The data paths beside DEST."""
    data = dest.parent / "data"
    return [path for path in data.iterdir() if not path.name.endswith(STAGING)] if data.is_dir() else []


def _check_mended_data_path(simulator: Simulator, dest: Path, home: Path) -> Iterator[Violation]:
    """After a run without a fault, DIR holds one whole data path and nothing else, and nothing was fetched for it."""
    there = [path.name for path in (dest.parent / "data").iterdir()]
    if there != [path.name for path in data_paths_in(dest)] or len(there) != 1:
        yield Violation("only data paths are left in DIR", str(there))
        return
    if content_of(dest.parent / "data" / there[0]) != extracted(simulator.job(0).archive().path, home):
        yield Violation("a data path is whole", there[0])
    gets = [request for request in simulator.requests if request.kind == "delivery"]
    if len(gets) > 1:
        yield Violation("unpacking costs no download", f"{len(gets)} GETs")


def _without(
    fault: DiskFault, met: bool, simulator: Simulator, witness: Witness, dest: Path, home: Path
) -> Iterator[Violation]:
    before = len(witness.gets)
    ended, _ = _run(None, simulator, witness, dest, home, PROGRAM, unpack=fault.unpacks)
    yield from _check(ended, witness, dest, None)
    if ended.code != 0:
        yield Violation("a run on a mended disk succeeds", f"exit code {ended.code}: {ended.out.decode()[-600:]}")
    if fault.unpacks:
        yield from _check_mended_data_path(simulator, dest, home)
        return
    after = [get.record for get in witness.gets[before:]]
    if met and fault.spoils_a_sync_of_data and not (after and after[0].range is None):
        yield Violation("after a failed sync the data is not trusted", f"{len(after)} GETs, or the first a resume")


def _check(ended: Ended, witness: Witness, dest: Path, fault: DiskFault | None) -> Iterator[Violation]:
    yield from checks.check_output(ended)
    if not dest.exists():
        return
    if fault is None or not (fault.for_good or fault.call.startswith("unlink")):
        yield from checks.check_leftovers(dest)
    if fault is None:
        yield from checks.check_receipt(dest, ended, witness, 1)
        yield from checks.check_finals(dest, ended)
        yield from checks.check_status(dest, ended)


def _run(
    fault: DiskFault | None,
    simulator: Simulator,
    witness: Witness,
    dest: Path,
    home: Path,
    agent: Sequence[str],
    *,
    unpack: bool = False,
) -> tuple[Ended, bool]:
    """One run, under strace when there is a fault; whether the fault was met."""
    witness.run += 1
    log = home / "strace.log"
    command = [sys.executable, *agent, "run", *options(simulator, dest, home / "key")]
    if unpack or (fault and fault.unpacks):
        command.append(f"--unpack={dest.parent / 'data'}")
    if fault:
        place = _place_of(fault, simulator.job(0), dest)
        when = f"{fault.number}{'+' if fault.for_good else ''}"
        inject = f"inject={fault.call}:error={fault.error}:when={when}"
        command = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            str(log),
            "-P",
            str(place),
            "-e",
            f"trace={fault.call}",
            "-e",
            inject,
            *command,
        ]
    with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(home), cwd="/"
        )
        try:
            code: int | None = process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    met = log.exists() and "(INJECTED)" in log.read_text(errors="replace")
    return Ended(code, (home / "out").read_bytes(), (home / "err").read_bytes()), met


def _place_of(fault: DiskFault, job: Job, dest: Path) -> Path:
    place = fault.place.replace("<archive>", job.archive_name).replace("<staging>", f".{job.id}{STAGING}")
    return dest.parent / place.replace("<data>", "data") if fault.unpacks else dest / place


def main(jobs: int, seed: int, seconds: float) -> int:
    """Every fault in an order drawn from the seed, as many as can begin in the time; 1 when anything was violated."""
    began, faults = time.monotonic(), list(cases())
    random.Random(seed).shuffle(faults)
    with tempfile.TemporaryDirectory(prefix="torture-") as work:
        tally = try_all(faults, Path(work), jobs, until=began + seconds)
    print("\n".join(tally.violations))
    print(
        f"disk faults {len(faults)}, tried {tally.tried}, met {tally.met}, violations {len(tally.violations)}", end=""
    )
    print(f", seconds {time.monotonic() - began:.0f}")
    return 1 if tally.violations else 0


def try_all(faults: Sequence[DiskFault], work: Path, jobs: int = 4, until: float = math.inf) -> Tally:
    """Try these, some at once; none begins after `until` (monotonic)."""
    tally = Tally()

    def try_in_time(fault: DiskFault) -> tuple[bool, list[Violation]] | None:
        return try_fault(fault, work) if time.monotonic() < until else None

    with ThreadPoolExecutor(jobs) as pool:
        for fault, outcome in zip(faults, pool.map(try_in_time, faults), strict=True):
            if outcome is not None:
                tally.tried += 1
                tally.met += outcome[0]
                tally.violations += [f"{fault}: {violation}" for violation in outcome[1]]
    return tally
