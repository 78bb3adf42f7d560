"""Power loss: record what the agent does to the disk, make every state that may be left, run the agent again on each.

`python -m tests.torture --power-loss` tries all states of all scenarios; `tests/test_power_loss.py` a seeded sample.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from restore_agent.cli.main import main as agent_main
from restore_agent.simulator import Job, Simulator

from . import checks, crashdata
from .crash import State, Tree, crash_states, final_tree
from .defects import killed_at, program
from .process import Ended
from .trace import Op, Recorder
from .witness import STATE, Violation, Witness, attempts_in, final_names, journal_lines

PROGRAM = ("-m", "restore_agent")
_JUDGED = 30
QUICK = ("--poll-interval=0.05s", "--wait-timeout=5s", "--hash-timeout=0.3s", "--stall-timeout=5s", "--output=json")


@dataclass(frozen=True)
class Scenario:
    """Runs that are recorded one after the other: each with its server's faults, and the exit code it must have.

    `kill_at`: the first run meets `kill -9` instead of its so-maniest fsync. `conditions` are those of `defects.py`.
    `options` are more options of each run; DIR in them is the directory of data paths.
    """

    name: str
    runs: tuple[tuple[str, int], ...]
    shards: int = 0
    archive_size: int = 24 << 10
    commands: tuple[str, ...] = ()
    kill_at: int | None = None
    conditions: tuple[str, ...] = ()
    options: tuple[tuple[str, ...], ...] = ()

    def options_of(self, run: int, root: Path) -> list[str]:
        """The options of one run beside the usual ones; the last ones are those of the runs after it, too."""
        given = self.options[min(run, len(self.options) - 1)] if self.options else ()
        return [option.replace("DIR", str(root / "data")) for option in given]


SYNCED_IN_THE_BACKGROUND = Scenario(
    "synced in the background, cut, and resumed",
    (("cut=60% range=honour max-downloads=3 drip=120k", 0),),
    archive_size=40 << 10,
    conditions=("sync often",),
)

UNPACKED = Scenario(
    "unpacked while it comes, and discarded",
    (("cut=60% range=honour max-downloads=3 drip=60k member=hard-link", 0),),
    archive_size=1 << 10,
    options=(("--unpack=DIR", "--discard-archive"),),
)

SCENARIOS = (
    UNPACKED,
    Scenario(
        "unpacked from the disk by a later run",
        (("", 0), ("", 0)),
        archive_size=1 << 10,
        options=((), ("--unpack=DIR",)),
    ),
    Scenario(
        "an unproven data path, then its final name",
        (("hash=never", 0), ("", 0)),
        archive_size=1 << 10,
        options=(("--unpack=DIR", "--allow-unproven"),),
    ),
    Scenario("two archives, one of them cut and resumed", (("cut=60%@0 range=honour max-downloads=3 drip=60k", 0),), 1),
    Scenario(
        "a cut, then another version from the start",
        (("cut=70% range=honour etag-changes different-bytes max-downloads=4 drip=60k", 0),),
    ),
    Scenario("unproven, then proven by a later run", (("hash=never", 10), ("", 0))),
    Scenario("unproven, then promoted by verify", (("hash=never", 10), ("", 0)), commands=("run", "verify")),
    Scenario(
        "a mismatch, quarantined, then fetched again",
        (("damaged=1 max-downloads=3", 11), ("damaged=1 max-downloads=3", 0)),
    ),
    Scenario("cut without a resume", (("cut=50% max-downloads=3 drip=60k", 0),)),
    SYNCED_IN_THE_BACKGROUND,
    Scenario("run again after success", (("", 0), ("", 0))),
    Scenario("killed before DEST's name is durable, then run again", (("", -9), ("", 0)), kill_at=1),
    Scenario("killed before the state directory's name is durable, then run again", (("", -9), ("", 0)), kill_at=2),
    Scenario("killed before the journal's line is durable, then run again", (("", -9), ("", 0)), kill_at=3),
    Scenario("killed before the journal's name is durable, then run again", (("", -9), ("", 0)), kill_at=4),
)
"""What is recorded. Every one ends in success, so that the end of each is the whole way."""


@dataclass
class Tally:
    """What was tried, and what was violated."""

    points: int = 0
    states: int = 0
    restarts: int = 0
    violations: list[str] = field(default_factory=list)
    by_label: Counter[str] = field(default_factory=Counter)

    def add(self, found: Sequence[Violation], where: str) -> None:
        """Count what was violated in one state."""
        self.violations += [f"{violation} [{where}]" for violation in found]
        self.by_label.update(violation.invariant for violation in found)


# ---------------------------------------------------------------- recording


def start(scenario: Scenario, faults: str) -> Simulator:
    """A simulator with the ids and archives that all of this scenario have."""
    return Simulator(shards=scenario.shards, archive_size=scenario.archive_size, faults=faults.split())


def _mended(faults: str) -> str:
    """The same server without what spoils an attempt, so that the next one goes well."""
    return " ".join(fault for fault in faults.split() if not fault.startswith(("cut", "damaged", "drip", "max-")))


def options(simulator: Simulator, dest: Path, key: Path) -> list[str]:
    """The command line of `run` that reaches a simulator."""
    hello = simulator.hello
    key.touch(mode=0o600)
    key.write_text(hello["private_key"] + "\n")
    found = [f"--url={hello['url']}", f"--public-key={hello['public_key']}", f"--private-key-file={key}"]
    found += [f"--group-id={hello['group_id']}", f"--cluster-id={hello['cluster_id']}", f"--dest={dest}"]
    if hello["batch_id"]:
        return [*found, f"--batch-id={hello['batch_id']}", *QUICK]
    return [*found, *(f"--job-id={job_id}" for job_id in hello["job_ids"]), *QUICK]


def verify_options(arguments: Sequence[str]) -> list[str]:
    """Those of them that `verify` takes."""
    wanted = ("--url", "--public", "--private", "--group", "--cluster", "--batch", "--dest", "--poll", "--output")
    return [argument for argument in arguments if argument.startswith(wanted)]


@dataclass(frozen=True)
class Sent:
    """One answer of a delivery: where its bytes end in the archive, and whether it brought all of them."""

    stop: int
    whole: bool


@dataclass
class Recording:
    """The operations of a scenario, and the answers of the server: `sent` are its deliveries of each job, in order."""

    scenario: Scenario
    ops: list[Op]
    ends: list[int]
    faults: list[str]
    archives: dict[str, set[str]]
    sent: dict[str, list[Sent]]
    root: Path
    contents: dict[str, crashdata.Names] = field(default_factory=dict)

    def run_at(self, point: int) -> int:
        """Which run an operation belongs to."""
        return next(number for number, end in enumerate(self.ends) if point <= end)

    def gets_before(self, point: int) -> Counter[str]:
        """How many GETs of each job had been sent."""
        return Counter(op.name for op in self.ops[:point] if op.kind == "get")

    def whole_before(self, point: int) -> set[str]:
        """The jobs of which the server had sent a whole body, by its own count of bytes and those on the disk.

        Not by the agent's journal: a run that was killed before that line has the archive all the same.
        """
        return {job_id for job_id in self.sent if self.last_whole(job_id, point) is not None}

    def last_whole(self, job_id: str, point: int) -> int | None:
        """The number (from 0) of the last GET of a job whose answer was complete at this point, or None."""
        gets = [number for number, op in enumerate(self.ops[:point]) if op.kind == "get" and op.name == job_id]
        for number in reversed(range(len(gets))):
            answer = self.sent[job_id][number]
            over = number + 1 < len(gets) or self._written(job_id, gets[number], point) >= answer.stop
            if answer.whole and over:
                return number
        return None

    def _written(self, job_id: str, begin: int, point: int) -> int:
        """How far the part file of a job was written between two points."""
        names = {op.object: op.name for op in self.ops[:point] if op.kind == "create"}
        ends = [
            op.offset + len(op.data)
            for op in self.ops[begin:point]
            if op.kind == "write" and job_id in names.get(op.object, "") and names[op.object].endswith(".part")
        ]
        return max(ends, default=0)

    def said_before(self, point: int) -> bytes:
        """What had been said on standard output by the run of this operation."""
        run = self.run_at(point)
        begin = self.ends[run - 1] if run else 0
        return b"".join(op.data for op in self.ops[begin:point] if op.kind == "said")


def _facts(lines: Sequence[bytes]) -> Iterator[checks.Json]:
    for line in lines:
        with contextlib.suppress(ValueError):
            fact = json.loads(line)
            if isinstance(fact, dict):
                yield fact


def record(scenario: Scenario, work: Path, defects: Sequence[str] = ()) -> tuple[Recording, Path]:
    """Record a scenario; the recording and the root of the final tree. AssertionError when a run ends otherwise."""
    names = (*scenario.conditions, *defects)
    usual = program(*names) if names else PROGRAM
    root = work / "root"
    root.mkdir()
    recorder = Recorder(root, work)
    archives: dict[str, set[str]] = {}
    sent: dict[str, list[Sent]] = {}
    contents: dict[str, crashdata.Names] = {}
    before: list[Job] = []
    for number, (faults, code) in enumerate(scenario.runs):
        with start(scenario, faults) as simulator:
            _carry_over(before, simulator)
            arguments = options(simulator, root / "restore", work / "key")
            command = scenario.commands[number] if scenario.commands else "run"
            more = scenario.options_of(number, root)
            given = [command, *(arguments + more if command == "run" else verify_options(arguments))]
            killed = killed_at(scenario.kill_at) if scenario.kill_at and not number else usual
            ended = recorder.run(given, environment(work), killed)
            assert ended == code, f"{scenario.name}: run {number} ended with {ended}, not {code}: {simulator.dump()}"
            for job in simulator.jobs:
                archives.setdefault(job.id, set()).update(job.archive(n).sha1 for n in range(max(1, job.attempts)))
                sent.setdefault(job.id, []).extend(_answers(simulator, job))
                contents |= crashdata.served(job, work) if scenario.options else {}
            before = simulator.jobs
    if final_tree(recorder.ops) != tree_on_disk(root):
        raise RuntimeError(f"{scenario.name}: the recording does not lead to what is on the disk")
    faults_of_runs = [faults for faults, _ in scenario.runs]
    found = Recording(scenario, recorder.ops, recorder.ends, faults_of_runs, archives, sent, root, contents)
    return found, root


def _answers(simulator: Simulator, job: Job) -> Iterator[Sent]:
    for request in simulator.requests:
        if request.kind == "delivery" and request.job_id == job.id:
            begin = int((request.range or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            stop = request.bytes_sent + (begin if request.status == 206 else 0)
            yield Sent(stop, request.completed and request.status in (200, 206))


def tree_on_disk(place: Path) -> Tree:
    """What lies below a directory."""
    return {path.name: tree_on_disk(path) if path.is_dir() else path.read_bytes() for path in place.iterdir()}


def _carry_over(before: Sequence[Job], simulator: Simulator) -> None:
    for old, new in zip(before, simulator.jobs, strict=False):
        new.attempts, new.downloads, new.completed = old.attempts, old.downloads, old.completed
        new.completed_at, new.sha1 = old.completed_at, old.sha1
        new.max_downloads = max(new.max_downloads, old.max_downloads)


def environment(home: Path) -> dict[str, str]:
    """What the agents see of this host's environment."""
    keep = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "LANG": "C.UTF-8"}
    keep |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**keep, "SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


# ---------------------------------------------------------------- one state


def build(tree: Tree, place: Path) -> None:
    """Make a tree on disk, for its user only."""
    place.mkdir(mode=0o700)
    for name, item in tree.items():
        if isinstance(item, dict):
            build(item, place / name)
        else:
            (place / name).touch(mode=0o600)
            (place / name).write_bytes(item)


def try_state(
    recording: Recording, state: State, work: Path, *, generous: bool, defects: Sequence[str] = ()
) -> list[Violation]:
    """Make one state and run the agent on it; what does not hold. `generous`: one more download is left, else none.

    An agent with defects runs in a process of its own.
    """
    place = Path(tempfile.mkdtemp(prefix="state-", dir=work))
    try:
        build(state.tree, place / "root")
        crashdata.moved_to(place / "root", recording.root)
        dest = place / "root" / "restore"
        with start(recording.scenario, _mended(recording.faults[-1])) as simulator:
            _set_back(simulator, recording, state.point, generous=generous)
            witness = Witness(simulator, dest)
            witness.earlier.update(recording.gets_before(state.point))
            found = [*_check_state(recording, state, dest)]
            _vouch_for_the_worst(dest)
            bent = "damaged" in recording.faults[0] and recording.whole_before(state.point)
            spoilt = frozenset({11}) if bent else frozenset()  # what came first was damaged, and may be judged again
            return found or [
                *_restart(simulator, witness, dest, place, recording, generous=generous, spoilt=spoilt, defects=defects)
            ]
    finally:
        shutil.rmtree(place)


def _set_back(simulator: Simulator, recording: Recording, point: int, *, generous: bool) -> None:
    """Make a server what the power loss left: what it had counted, and which archives it had sent whole."""
    gets, whole = recording.gets_before(point), recording.whole_before(point)
    for job in simulator.jobs:
        job.attempts = job.downloads = gets[job.id]
        job.max_downloads = max(1, gets[job.id] + generous)
        if job.id in whole:
            job.completed, job.sha1 = 1, job.archive(recording.last_whole(job.id, point) or 0).sha1
            job.completed_at = simulator.clock.now()


def _check_state(recording: Recording, state: State, dest: Path) -> Iterator[Violation]:
    """What must hold on the disk itself, before anybody mends it."""
    known = set().union(*recording.archives.values())
    for name in final_names(dest):
        if checks.sha1_of(dest / name) not in known:
            yield Violation("a final name holds published bytes", f"{name} after a power loss")
    lines = journal_lines(dest)
    for job_id, seen in recording.gets_before(state.point).items():
        if (owned := attempts_in(lines, job_id)) < seen:
            yield Violation("a journal line before every GET", f"{job_id}: {seen} GETs, {owned} after a power loss")
    said = checks.result_of(Ended(0, recording.said_before(state.point), b""))
    if said is not None:
        yield from _check_promised(said, dest)
    yield from _check_receipt_file(dest)
    if recording.scenario.options:
        yield from crashdata.check_on_disk(dest, recording.contents)


def _check_promised(said: checks.Json, dest: Path) -> Iterator[Violation]:
    """What the last line has promised is durable."""
    for record_ in said["archives"]:
        path = dest / os.path.basename(record_["path"]) if record_["path"] else None
        if path and (not path.is_file() or checks.sha1_of(path) != record_["sha1"]):
            yield Violation("what was said is durable", f"{path.name} is not there after a power loss")
    if not (dest / "receipt.json").is_file():
        yield Violation("what was said is durable", "no receipt after a power loss")


def _check_receipt_file(dest: Path) -> Iterator[Violation]:
    """A receipt is whole, and an archive that it calls verified is there; so is one in SHA1SUMS."""
    try:
        raw = (dest / "receipt.json").read_bytes()
    except OSError:
        raw = b'{"archives": []}'
    try:
        verified = [r for r in json.loads(raw)["archives"] if r["verdict"] == "verified" and r["archive_kept"]]
    except ValueError:
        yield Violation("the receipt reads", f"{len(raw)} bytes after a power loss")
        return
    for entry in verified:
        path = dest / entry["file_name"]
        if not path.is_file() or checks.sha1_of(path) != entry["sha1"]:
            yield Violation("the receipt tells the truth", f"{entry['file_name']} after a power loss")
    sums = dest / "SHA1SUMS"
    for line in sums.read_text("latin-1").splitlines() if sums.is_file() else ():
        path = dest / line[42:]
        if not path.is_file() or checks.sha1_of(path) != line[:40]:
            yield Violation("SHA1SUMS tells the truth", f"{line!r} after a power loss")


def _vouch_for_the_worst(dest: Path) -> None:
    """Make the journal's identities those of the files as they lie here: a real disk would keep inodes and times.

    And let it have been written in another boot of the host.
    """
    path = dest / STATE / "journal.jsonl"
    if not path.is_file():
        return
    names: dict[str, str] = {}
    changed = []
    for line in path.read_bytes().splitlines(keepends=True):
        fact = next(_facts([line]), {}) if line.endswith(b"\n") else {}
        if fact.get("fact") == "proven":
            names[fact["job_id"]] = fact["file_name"]
        final = dest / names.get(fact.get("job_id", ""), "none")
        if fact.get("fact") == "published" and final.is_file():
            status = final.stat()
            fact |= {"inode": status.st_ino, "changed_ns": status.st_ctime_ns}
        if fact.get("fact") in ("staged", "unpacked"):
            fact["inode"] = crashdata.inode_of(fact, dest) or fact["inode"]
        if "boot" in fact:
            fact["boot"] = "the-one-before"
        changed.append(json.dumps(fact, separators=(",", ":")).encode() + b"\n" if fact else line)
    path.write_bytes(b"".join(changed))


def _restart(
    simulator: Simulator,
    witness: Witness,
    dest: Path,
    place: Path,
    recording: Recording,
    *,
    generous: bool,
    spoilt: frozenset[int],
    defects: Sequence[str] = (),
) -> Iterator[Violation]:
    arguments = options(simulator, dest, place / "key")
    arguments += recording.scenario.options_of(len(recording.faults) - 1, dest.parent)
    had_status = (dest / STATE / "status.json").is_file()
    status = call(["status", f"--dest={dest}", "--output=json"])
    if status.code not in (0, 41, 42) or (had_status and status.code):
        yield Violation("the status can be asked for", f"{status.code}: {status.out.decode()[-300:]}")
    discarded = {job.id for job in simulator.jobs if crashdata.is_discarded(dest, job)}
    wholes = {job.id: _is_whole_somewhere(job, dest) or job.id in discarded for job in simulator.jobs}
    witness.run += 1
    ended = _process(["run", *arguments], place, defects) if defects else call(["run", *arguments])
    witness.look()
    yield from witness.violations
    yield from checks.check_output(ended)
    yield from checks.check_leftovers(dest)
    yield from checks.check_receipt(dest, ended, witness, 1)
    yield from checks.check_finals(dest, ended)
    yield from checks.check_status(dest, ended)
    yield from checks.check_secrets([("output", ended.out + ended.err), *checks.texts_below(dest)], simulator.secrets)
    records = {r["job_id"]: r for r in (checks.result_of(ended) or {"archives": []})["archives"]}
    for job in simulator.jobs:
        code = records.get(job.id, {}).get("exit_code")
        right = {0} if generous or wholes[job.id] or not witness.earlier[job.id] else {23}
        if code not in right | spoilt:
            told = f"{code} ({records.get(job.id, {}).get('reason')}), right is {sorted(right)}"
            yield Violation("every archive that can be had is had, else the code is right", f"{job.id}: {told}")
        elif recording.scenario.options:
            yield from crashdata.check_after(dest, job, code, recording.contents)


def _is_whole_somewhere(job: Job, dest: Path) -> bool:
    """Whether DEST holds a whole archive under any name, of which the server publishes the hash."""
    names = [path for path in dest.glob("*") if path.is_file() and path.name.startswith(job.archive_name)]
    return job.sha1 is not None and any(checks.sha1_of(path) == job.sha1 for path in names)


def call(arguments: Sequence[str]) -> Ended:
    """The command line in this process, which is quick."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            agent_main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Ended(code, out.getvalue().encode(), err.getvalue().encode())


def _process(arguments: Sequence[str], place: Path, defects: Sequence[str]) -> Ended:
    command = [sys.executable, *program(*defects), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, env=environment(place), cwd="/", timeout=60)
    return Ended(done.returncode, done.stdout, done.stderr)


# ---------------------------------------------------------------- all of them


def enumerate_states(
    scenario: Scenario,
    work: Path,
    *,
    sample: int | None = None,
    seed: int = 1,
    share: tuple[int, int] = (0, 1),
    defects: Sequence[str] = (),
) -> Tally:
    """Record a scenario and try its states, all or a seeded sample of them, each with and without a download left.

    With a sample, thirty times as many states are judged as they lie on the disk. `share` (number, of how many) takes
    every so-maniest state only, so that several processes can divide the work.
    """
    os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull
    recording, place = _recorded(scenario, work, defects)
    states = list(crash_states(recording.ops))
    tally = Tally(points=len(recording.ops), states=len(states))
    if sample is not None and sample < len(states):
        rng = random.Random(seed)
        _judge_all(recording, rng.sample(states, min(len(states), _JUDGED * sample)), place, tally)
        states = sorted(rng.sample(states, sample), key=lambda state: state.point)
    for state in states[share[0] :: share[1]]:
        for generous in (True, False):
            tally.restarts += 1
            found = try_state(recording, state, place, generous=generous, defects=defects)
            left = "a download left" if generous else "no download left"
            tally.add(found, f"{_where(recording, state)}; {left}")
    shutil.rmtree(place)
    return tally


def _recorded(scenario: Scenario, work: Path, defects: Sequence[str], repeats: int = 2) -> tuple[Recording, Path]:
    """Record a scenario in a directory of its own, again if calls of two threads were recorded in another order."""
    place = Path(tempfile.mkdtemp(prefix="power-loss-", dir=work))
    try:
        return record(scenario, place, defects)[0], place
    except RuntimeError:
        if not repeats:
            raise
        return _recorded(scenario, work, defects, repeats - 1)


def judge_states(
    scenario: Scenario, work: Path, defects: Sequence[str] = (), after: Callable[[Op], bool] = lambda _: True
) -> Tally:
    """Record a scenario and look at its states as they lie on the disk, without running the agent on them.

    All of them, or those after some operations only; the first one that shows something ends it.
    """
    place = Path(tempfile.mkdtemp(prefix="power-loss-", dir=work))
    recording, _ = record(scenario, place, defects)
    tally = Tally(points=len(recording.ops))
    for state in crash_states(recording.ops, after):
        tally.states += 1
        _judge_all(recording, [state], place, tally)
        if tally.violations:
            break
    return tally


def states_of_parts(recording: Recording) -> list[State]:
    """The states right before and after a journal line is synced, latest first: what it says is durable, is it?"""
    journal = {op.object for op in recording.ops if op.kind == "create" and op.name == "journal.jsonl"}
    points = {number for number, op in enumerate(recording.ops, 1) if op.kind == "sync" and op.object in journal}
    found = [state for state in crash_states(recording.ops) if {state.point, state.point + 1} & points]
    return [state for state in reversed(found) if state.label == "all names; data zeros"]


def _judge_all(recording: Recording, states: Sequence[State], place: Path, tally: Tally) -> None:
    for state in states:
        root = place / "state"
        build(state.tree, root)
        crashdata.moved_to(root, recording.root)
        tally.add([*_check_state(recording, state, root / "restore")], _where(recording, state))
        shutil.rmtree(root)


def _where(recording: Recording, state: State) -> str:
    return f"{recording.scenario.name}; after {state.point} ({recording.ops[state.point - 1]}); {state.label}"


def _part_of(number: int, share: tuple[int, int], sample: int | None, seed: int) -> Tally:
    with tempfile.TemporaryDirectory(prefix="torture-") as work:
        return enumerate_states(SCENARIOS[number], Path(work), sample=sample, seed=seed, share=share)


def main(seed: int, jobs: int, sample: int | None = None) -> int:
    """Every state of every scenario; figures on stdout, 1 when anything was violated."""
    began, totals = time.monotonic(), Tally()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [
            [pool.submit(_part_of, number, (part, jobs), sample, seed) for part in range(jobs)]
            for number in range(len(SCENARIOS))
        ]
        for scenario, parts in zip(SCENARIOS, running, strict=True):
            tallies = [part.result() for part in parts]
            _tell(scenario, tallies)
            totals.points += tallies[0].points
            totals.states += tallies[0].states
            totals.restarts += sum(tally.restarts for tally in tallies)
            totals.violations += [violation for tally in tallies for violation in tally.violations]
    print(f"operations {totals.points}, crash states {totals.states}, restarts {totals.restarts}")
    print(f"violations {len(totals.violations)}, seconds {time.monotonic() - began:.0f}")
    return 1 if totals.violations else 0


def _tell(scenario: Scenario, tallies: Sequence[Tally]) -> None:
    restarts = sum(tally.restarts for tally in tallies)
    figures = f"{tallies[0].points} operations, {tallies[0].states} states, {restarts} restarts"
    print(f"{scenario.name}: {figures}", flush=True)
    kinds = sum((tally.by_label for tally in tallies), Counter[str]())
    for kind, count in kinds.items():
        example = next(violation for tally in tallies for violation in tally.violations if violation.startswith(kind))
        print(f"  {count} times: {example[:900]}", flush=True)
