"""One round: a simulator, an agent that meets its fate, reruns until it ends by itself, and checks after every step."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from restore_agent.simulator import Job, Simulator
from tests.support.proxy import proxy

from . import checks, draw, oracle
from .company import Company
from .defects import program
from .disk import SmallDisk, may_mount, small_disk
from .draw import Draw, Interruption, Piece
from .process import AgentProcess, Ended
from .witness import Get, Violation, Witness, final_names, journal_lines

MOST_RERUNS = 8
_RUN_AGAIN = (20, 24, 25, 32)  # ends after which another run may succeed; it may try twice
_FORGIVING = 2
_STOPPED = (129, 130, 143)
_LONGEST_STOP = 3.0 + 4.0  # seconds from a signal to the end; the second number is for a busy host


@dataclasses.dataclass
class Outcome:
    """What came of a round. `evidence` is kept where something was violated."""

    drawn: Draw
    violations: list[Violation] = dataclasses.field(default_factory=list)
    codes: list[int | None] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    evidence: Path | None = None
    seconds: float = 0.0


def play(seed: int, *, defects: Sequence[str] = (), drawn: Draw | None = None) -> Outcome:
    """Play the round with this seed (or one made by hand), with an agent that has these defects.

    Its evidence is removed when nothing was violated.
    """
    drawn = drawn or draw.draw(seed)
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix=f"torture-{seed}-"))
    outcome = Outcome(drawn)
    with ExitStack() as stack:
        stage = Round(drawn, home, outcome, defects)
        stack.callback(stage.close)
        stage.play()
    outcome.seconds = time.monotonic() - began
    if outcome.violations:
        outcome.evidence = home
    else:
        shutil.rmtree(home)
    return outcome


class Round:
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
        self._company = Company(drawn.extras, self._jobs, self._dest, self._witness)
        self._stack.callback(self._company.leave)
        self._around = checks.tree_of(home / "canaries", self._dest)

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
        ids = [self._jobs[number].id for number in piece.jobs] if piece else hello["job_ids"]
        self._asked = set(ids) if piece else {job.id for job in self._jobs}
        if piece and piece.by == "select":
            return ["run", *self._options, *batch, *(f"--select={job_id[:-1]}[{job_id[-1]}]" for job_id in ids)]
        if piece or not batch:
            return ["run", *self._options, *(f"--job-id={job_id}" for job_id in ids)]
        expected = [f"--expect-jobs={len(self._jobs)}"] if self._drawn.extras.expect_jobs else []
        return ["run", *self._options, *batch, *expected]

    # ------------------------------------------------------------ the play

    def play(self) -> None:
        """Fate first, then reruns until the agent ends by itself, then what must not change any more."""
        with self._witness.watching():
            ended = self._meet_fate()
            again = 0
            while not self._failed() and not self._over(ended, again):
                self._verify_between(ended)
                self._run_for_another_batch()
                self._outcome.counts["reruns"] += 1
                again += 1
                ended = self._run("rerun")
                if again >= MOST_RERUNS:
                    self._blame("it ends by itself", f"not in {again} reruns: {self._outcome.codes}")
            self._verify_between(ended)
            if not self._failed() and ended.code == 0:
                self._confirm()
            self._company.write_once_more()
        self._blame_all(self._witness.violations)
        if not self._outcome.violations:
            self._blame_all(
                checks.check_untouched(self._around, self._tree_around(), "nothing outside DEST is touched")
            )

    def _failed(self) -> bool:
        return bool(self._outcome.violations or self._witness.violations)

    def _over(self, ended: Ended, again: int) -> bool:
        """Whether the agent has ended by itself, in a way that running it again would not mend."""
        if ended.interrupted or ended.code in (40, 50, *_STOPPED):
            return False
        return not (ended.code in _RUN_AGAIN and again < _FORGIVING)

    def _meet_fate(self) -> Ended:
        fate = self._drawn.fate
        self._outcome.counts[f"fate {fate.kind}"] += 1
        if fate.kind == "second-agent":
            return self._run_two()
        if fate.kind == "full-disk":
            self._starved = True
            ended = self._run("starved")
            self._grow()
            return dataclasses.replace(ended, interrupted=True)
        ended = Ended(143, b"", b"", interrupted=True)
        for piece in fate.pieces:
            ended = dataclasses.replace(self._run("piece", piece.interruption, piece), interrupted=True)
            self._disturbances += 1  # what it tried counts, and the run for all may be the second one
            if self._failed():
                return ended
            self._verify_between(ended)
        for step in fate.interruptions:
            ended = self._run("interrupted", step)
            if self._failed() or not ended.interrupted:
                return ended
        return ended if fate.interruptions or fate.pieces else self._run("through")

    def _grow(self) -> None:
        """The operator frees space."""
        self._starved, self._file_limit = False, None
        self._disturbances += 1
        if self._disk:
            self._disk.remount("size=64m")

    def _run(self, stem: str, step: Interruption | None = None, piece: Piece | None = None) -> Ended:
        """One process of the agent from start to end, and every check of its end."""
        process = self._start(stem, piece)
        sent = step is not None and process.interrupt(step, self._happened)
        ended = self._with_result(process.wait(interrupted=sent))
        if sent and step:
            self._outcome.counts[signal.Signals(step.signal).name] += 1
            self._disturbances += 1
        self._judge(ended, process, step if sent else None)
        return ended

    def _start(self, stem: str, piece: Piece | None = None) -> AgentProcess:
        self._witness.run += 1
        self._requests_before = len(self._simulator.requests)
        self._journal_before = len(journal_lines(self._dest))
        self._started_at = time.time()
        self._outcome.counts["runs"] += 1
        return self._process(self._run_arguments(piece), f"{self._witness.run:02}-{stem}")

    def _process(self, arguments: Sequence[str], stem: str) -> AgentProcess:
        return AgentProcess(
            arguments,
            self._home,
            stem,
            program=self._program,
            file_limit=self._file_limit,
            environment=self._environment,
            console=self._drawn.extras.console,
        )

    def _with_result(self, ended: Ended) -> Ended:
        """Where nobody could read the output, the result is what the receipt of this run says."""
        receipt = self._dest / "receipt.json"
        if not ended.mute or ended.code not in checks.RECEIPT_CODES or not receipt.is_file():
            return ended
        if receipt.stat().st_mtime < self._started_at:
            return ended
        result = {"event": "result", "time": "", **json.loads(receipt.read_bytes())}
        return dataclasses.replace(ended, out=json.dumps(result).encode() + b"\n")

    def _happened(self, step: Interruption) -> bool:
        if step.after == "journal":
            return len(journal_lines(self._dest)) - self._journal_before >= step.number
        requests = self._simulator.requests[self._requests_before :]
        if step.after in ("delivery", "last-byte"):
            requests = [request for request in requests if request.kind == "delivery"]
        if step.after == "last-byte":
            least = min(job.archive().size for job in self._jobs)
            requests = [one for one in requests if one.status in (200, 206) and one.bytes_sent >= least]
        return step.after == "start" or len(requests) >= step.number

    def _run_two(self) -> Ended:
        """Two agents at once: one works, the other ends with 50, or they work one after the other."""
        first = self._start("first")
        time.sleep(self._drawn.fate.second_after)
        second = self._process(self._run_arguments(), f"{self._witness.run:02}-second")
        both = [first.wait(), second.wait()]
        for ended, process in zip(both, (first, second), strict=True):
            self._blame_all(self._check_process(ended, process))
        codes = [ended.code for ended in both]
        self._outcome.codes += codes
        self._outcome.counts["ended with 50"] += codes.count(50)
        if codes == [50, 50]:
            self._blame("one of two agents works", "both ended with 50")
        self._disturbances += 1  # two runs in one: their tries add up
        return Ended(50, b"", b"")

    def _confirm(self) -> None:
        """After success another run changes nothing and touches no delivery; neither does `verify`."""
        if self._drawn.verify:
            self._verify()
        if not self._drawn.confirm:
            return
        seen, before = len(self._witness.gets), self._lasting()
        ended = self._run("after success")
        result = checks.result_of(ended) or {}
        if ended.code != 0 or (result.get("changed") and not self._unproven(result)):
            self._blame("a run after success changes nothing", f"code {ended.code}, changed {result.get('changed')}")
        if len(self._witness.gets) > seen:
            self._blame("nothing after success", f"{len(self._witness.gets) - seen} GETs in a run after success")
        self._blame_all(checks.check_untouched(before, self._lasting(), "a run after success changes nothing"))

    def _unproven(self, result: checks.Json) -> bool:
        return any(record["verdict"] == "unproven" for record in result["archives"])

    def _verify(self) -> None:
        seen = len(self._witness.gets)
        process = AgentProcess(["verify", f"--dest={self._dest}", "-o", "json"], self._home, "verify")
        ended = process.wait()
        self._outcome.counts["runs"] += 1
        self._blame_all(checks.check_output(ended))
        result = checks.result_of(ended) or {"archives": []}
        if ended.code != (10 if self._unproven(result) else 0) or len(self._witness.gets) > seen:
            self._blame("verify proves what run proved", f"code {ended.code}")

    def _verify_between(self, ended: Ended) -> None:
        """`verify` at any time: it touches no delivery, condemns nothing that `run` would not, and spoils no run."""
        how = self._drawn.extras.verify
        if not how or self._failed() or self._starved or not self._dest.exists() or ended.code == 0:
            return
        seen, before = len(self._witness.gets), set(final_names(self._dest))
        wanted = ("--dest", "--output")
        wanted += (
            ("--url", "--public", "--private", "--group", "--cluster", "--poll", "--ca") if how == "online" else ()
        )
        options = [argument for argument in self._options if argument.startswith(wanted)]
        process = AgentProcess(["verify", *options], self._home, f"{self._witness.run:02}-verify")
        told = process.wait()
        self._outcome.counts["runs"] += 1
        self._outcome.counts["verify"] += 1
        self._disturbances += 1  # a part that it quarantines is not continued
        self._blame_all(checks.check_output(told))
        self._blame_all(self._check_secrets(told))
        self._blame_all(checks.check_leftovers(self._dest))
        if len(self._witness.gets) > seen:
            self._blame("verify touches no delivery", f"{len(self._witness.gets) - seen} GETs")
        if lost := before - set(final_names(self._dest)):
            self._blame("verify keeps what is proven", f"{sorted(lost)} gone, code {told.code}")
        for job, record in self._records(told):
            right = oracle.allowed_codes(self._story(job))
            honest = job.faults.hash.kind in ("ready", "late", "early", "upper") and job.faults.framing != "close"
            if record["verdict"] == "mismatch" and honest and 11 not in right and job.id not in self._company.visited:
                self._blame("verify condemns nothing that run would not", f"{job.id}: {record['reason']}")

    def _run_for_another_batch(self) -> None:
        """DEST belongs to one batch from the first line of its journal on: a run for another one is refused."""
        if not self._drawn.extras.other_batch or self._failed() or self._starved:
            return
        if not (before := journal_lines(self._dest)):
            return
        arguments = ["run", *self._options, f"--batch-id={'0' * 24}"]
        ended = self._process(arguments, f"{self._witness.run:02}-other").wait()
        self._outcome.counts["runs"] += 1
        if ended.code != 42 or journal_lines(self._dest) != before:
            told = f"code {ended.code}, {len(journal_lines(self._dest)) - len(before)} journal lines"
            self._blame("DEST belongs to one batch", told)

    def _records(self, ended: Ended) -> Iterator[tuple[Job, checks.Json]]:
        records = {record["job_id"]: record for record in (checks.result_of(ended) or {"archives": []})["archives"]}
        for job in self._jobs:
            if job.id in records:
                yield job, records[job.id]

    def _lasting(self) -> dict[str, tuple[int, int, str]]:
        """DEST without what every run writes anew."""
        tree = checks.tree_of(self._dest)
        return {name: seen for name, seen in tree.items() if name != "receipt.json" and "status.json" not in name}

    # ------------------------------------------------------------ judging

    def _judge(self, ended: Ended, process: AgentProcess, step: Interruption | None) -> None:
        """Every check that holds after this end."""
        self._outcome.codes.append(ended.code)
        self._blame_all(self._check_secrets(ended))
        self._blame_all(self._check_tries())
        self._blame_all(self._check_resumes())
        if process.leaves_children():
            self._blame("no child is left", f"process group {process.pid}")
        if step and step.signal != signal.SIGKILL and (ended.stopped_after or 0.0) > _LONGEST_STOP:
            self._blame("a signal ends a run within 3 s", f"{ended.stopped_after:.1f} s")
        if ended.code is not None and ended.code < 0:
            if step is None or ended.code != -step.signal:
                self._blame("every run ends by itself", f"signal {-ended.code}: {ended.err[-500:]!r}")
            return
        if step and step.signal == 2 and ended.code == 1 and not ended.out:  # (nor the result of a mute run)
            return  # SIGINT while Python itself starts: nothing of ours runs yet
        self._blame_all(self._check_end(ended, process))

    def _check_process(self, ended: Ended, process: AgentProcess) -> Iterator[Violation]:
        yield from checks.check_output(ended)
        yield from self._check_secrets(ended)
        if process.leaves_children():
            yield Violation("no child is left", f"process group {process.pid}")

    def _check_end(self, ended: Ended, process: AgentProcess) -> Iterator[Violation]:
        yield from checks.check_output(ended)
        if not self._dest.exists():
            return
        yield from checks.check_modes(self._dest)
        yield from checks.check_leftovers(self._dest)
        yield from checks.check_receipt(self._dest, ended, self._witness, self._disturbances, self._asked)
        if not self._starved:
            partial = len(self._asked) < len(self._jobs)
            yield from checks.check_finals(self._dest, ended, self._witness.foreign, partial=partial)
            yield from checks.check_status(self._dest, ended)
        yield from self._check_codes(ended)

    def _check_secrets(self, ended: Ended) -> Iterator[Violation]:
        texts = [("standard output", ended.out), ("standard error", ended.err)]
        if self._dest.exists():
            texts += checks.texts_below(self._dest)
        yield from checks.check_secrets(texts, checks.secrets_of(self._simulator))

    def _check_tries(self) -> Iterator[Violation]:
        """Never more attempts in one run than --retries allows."""
        for job in self._jobs:
            tries = len(self._witness.of(job.id, self._witness.run))
            hops = 6 if job.faults.redirect_loop else 1
            if tries > (self._drawn.retries + 1) * hops:
                yield Violation("no more attempts than --retries allows", f"{job.id}: {tries}")

    def _check_resumes(self) -> Iterator[Violation]:
        """A server that lied about a range is not asked for one again before it sent something from the start."""
        for job in self._jobs:
            gets = self._witness.of(job.id, self._witness.run, first=False)
            for before, after in itertools.pairwise(get.record for get in gets):
                lied = before.status == 416 or (
                    before.status == 206 and job.faults.range in ("wrong-offset", "wrong-total")
                )
                if lied and before.range and after.range:
                    yield Violation(
                        "a refused resume becomes a fresh start", f"{job.id}: {before.range}, {after.range}"
                    )

    def _check_codes(self, ended: Ended) -> Iterator[Violation]:
        """The exit code is the right one, for each archive and for the run."""
        refusals = [oracle.API_REFUSALS[fault] for fault in self._drawn.faults if fault in oracle.API_REFUSALS]
        if ended.code in (*_STOPPED, 50) or (self._starved and ended.code == 40):
            return
        if refusals:
            if ended.code not in refusals[0]:
                yield Violation("the exit code is the right one", f"{ended.code}, not one of {sorted(refusals[0])}")
            return
        if ended.code == 24 and oracle.comes_and_goes(self._drawn.faults):
            return
        result = checks.result_of(ended)
        if result is not None:
            yield from self._check_archives(ended, result)

    def _check_archives(self, ended: Ended, result: checks.Json) -> Iterator[Violation]:
        records = {one["job_id"]: one for one in result["archives"] if one["job_id"] in self._asked}
        codes = {record["exit_code"] for record in records.values()} - {0}
        combined = 0 if not codes else codes.pop() if len(codes) == 1 else 12
        if records and all(record["verdict"] == "skipped" for record in records.values()):
            combined = 24
        if ended.code != combined:
            yield Violation("the exit code is that of the archives", f"{ended.code}, not {combined}: {result}")
        for job in self._jobs:
            record = records.get(job.id)
            if record is not None:
                yield from self._check_archive(job, record)
            elif job.id in self._asked:
                yield Violation("every job has its record", job.id)

    def _check_archive(self, job: Job, record: checks.Json) -> Iterator[Violation]:
        right = self._company.allowed(job, oracle.allowed_codes(self._story(job)))
        if record["exit_code"] not in right:
            told = f"{record['exit_code']} ({record['verdict']}, {record['reason']}), right is {sorted(right)}"
            yield Violation("every archive that can be had is had, else the code is right", f"{job.id}: {told}")
        own = {job.archive(number).sha1 for number in range(max(1, job.attempts))}
        if record["verdict"] == "unproven" and not oracle.is_bent(job.faults) and record["sha1"] not in own:
            yield Violation("an unproven archive holds bytes of its delivery", f"{job.id}: {record['sha1']}")

    def _story(self, job: Job) -> oracle.JobStory:
        gets, words = self._witness.of(job.id), self._witness.words.get(job.id, [])
        return oracle.JobStory(
            faults=job.faults,
            published=bool(self._witness.published[job.id]),
            last_status=words[-1].status if words else "",
            ever_ready=any(word.ready for word in words),
            max_downloads=job.max_downloads,
            gets=tuple(self._get_story(job, number, get) for number, get in enumerate(gets)),
            tries=len(self._witness.of(job.id, self._witness.run)),
            retries=self._drawn.retries,
            disturbances=self._disturbances,
            starved=self._starved,
            allow_unproven=self._drawn.allow_unproven,
        )

    def _get_story(self, job: Job, number: int, get: Get) -> oracle.GetStory:
        record, faults = get.record, job.faults
        if record.status in (301, 302):  # the bytes came with one of the next hops
            hops = [hop.record for hop in self._witness.of(job.id, get.run, first=False) if not hop.first]
            record = next((hop for hop in hops if hop.time > record.time and hop.status in (200, 206)), record)
        variants = range(job.attempts or 1) if faults.different_bytes else (0,)
        size = min(job.archive(variant).size for variant in variants)
        asked = int((record.range or "bytes=0-").removeprefix("bytes=").partition("-")[0] or 0)
        start = asked if record.status == 206 else 0
        honest = record.status == 200 or faults.range == "honour"
        arrived = record.completed or not faults.reset  # what is sent before a RST may be lost
        whole = arrived and record.status in (200, 206) and start + record.bytes_sent >= size
        sound = honest and not oracle.is_bent(faults)
        if record.status == 206 and faults.different_bytes:
            sound = False
        return oracle.GetStory(whole, sound, disturbed=get.run < self._witness.run)

    def _tree_around(self) -> dict[str, tuple[int, int, str]]:
        return checks.tree_of(self._home / "canaries", self._dest)

    def _blame(self, invariant: str, seen: str) -> None:
        self._outcome.violations.append(Violation(invariant, seen))

    def _blame_all(self, violations: Iterator[Violation] | list[Violation]) -> None:
        self._outcome.violations.extend(violations)


def faults_of(drawn: Draw) -> Counter[str]:
    """The kinds of faults of a round, for the figures."""
    return Counter(drawn.families)
