"""One round: a simulator, an agent that meets its fate, reruns until it ends by itself, and checks after every step."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from restore_agent.simulator import Job

from . import checks, draw, oracle
from .draw import Draw, Interruption, Piece
from .judging import STOPPED, Judging
from .process import AgentProcess, Ended
from .stage import Outcome
from .witness import final_names, journal_lines

MOST_RERUNS = 8
_RUN_AGAIN = (20, 24, 25, 32)  # ends after which another run may succeed; it may try twice
_FORGIVING = 2


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


class Round(Judging):
    """One round from its first process to its last check."""

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
                if self._data:
                    self._data.active = True
                ended = self._run("rerun")
                if again >= MOST_RERUNS:
                    self._blame("it ends by itself", f"not in {again} reruns: {self._outcome.codes}")
            self._verify_between(ended)
            if not self._failed():
                ended = self._unpack_what_is_left(ended)
            if not self._failed() and ended.code == 0:
                self._confirm()
            self._company.write_once_more()
        self._blame_all(self._witness.violations)
        self._blame_all(checks.check_untouched(self._around, self._tree_around(), "nothing outside DEST is touched"))

    def _unpack_what_is_left(self, ended: Ended) -> Ended:
        """Once every archive is safe, data paths cost no download: neither a first one nor one that was in the way."""
        if not self._data or ended.code not in (0, 13) or not self._data.mend():
            return ended
        seen = len(self._witness.gets)
        ended = self._run("unpacking")
        if len(self._witness.gets) > seen:
            self._blame("unpacking costs no download", f"{len(self._witness.gets) - seen} GETs")
        return ended

    def _failed(self) -> bool:
        return bool(self._outcome.violations or self._witness.violations)

    def _over(self, ended: Ended, again: int) -> bool:
        """Whether the agent has ended by itself, in a way that running it again would not mend."""
        if ended.interrupted or ended.code in (40, 50, *STOPPED):
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
        """If no reader could take the output, the result is what the receipt of this run says."""
        receipt = self._dest / "receipt.json"
        if not ended.mute or ended.code not in checks.RECEIPT_CODES or not receipt.is_file():
            return ended
        if receipt.stat().st_mtime < self._started_at:
            return ended
        result = {"event": "result", "time": "", **json.loads(receipt.read_bytes())}
        return dataclasses.replace(ended, out=json.dumps(result).encode() + b"\n")

    def _happened(self, step: Interruption) -> bool:
        if step.after == "held":
            return (self._home / "held").exists()
        if step.after == "unpack":
            return self._data is not None and self._data.happened(step.number)
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
        if self._data:
            self._data.change_a_data_path()
        data = self._data.tree() if self._data else {}
        seen, before = len(self._witness.gets), self._lasting()
        ended = self._run("after success")
        result = checks.result_of(ended) or {}
        if ended.code != 0 or (result.get("changed") and not self._unproven(result)):
            self._blame("a run after success changes nothing", f"code {ended.code}, changed {result.get('changed')}")
        if len(self._witness.gets) > seen:
            self._blame("nothing after success", f"{len(self._witness.gets) - seen} GETs in a run after success")
        self._blame_all(checks.check_untouched(before, self._lasting(), "a run after success changes nothing"))
        if self._data and not self._unproven(result):
            self._blame_all(checks.check_untouched(data, self._data.tree(), "a run after success changes nothing"))

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
        before = journal_lines(self._dest)
        if not any("fact" in line or (line.get("restore") or {}).get("batch_id") for line in before):
            return  # a run for single jobs that was killed before it knew their batch leaves DEST free
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


def faults_of(drawn: Draw) -> Counter[str]:
    """The kinds of faults of a round, for the figures."""
    return Counter(drawn.families)
