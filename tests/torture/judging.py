"""The judge of a round: every check that holds after an end of the agent."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

from restore_agent.simulator import Job

from . import checks, oracle
from .draw import Interruption
from .process import AgentProcess, Ended
from .stage import Stage
from .witness import Get, Violation

STOPPED = (129, 130, 143)
_LONGEST_STOP = 3.0 + 4.0  # seconds from a signal to the end; the second number is for a busy host


class Judging(Stage):
    """What must hold after each process of a round."""

    def _judge(self, ended: Ended, process: AgentProcess, step: Interruption | None) -> None:
        """Every check that holds after this end."""
        self._witness.settle()
        self._outcome.codes.append(ended.code)
        self._blame_all(self._check_secrets(ended))
        self._blame_all(self._check_tries())
        self._blame_all(self._check_resumes())
        if self._data:
            self._data.check_kept()
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
        if self._data and ended.code in checks.RECEIPT_CODES and not self._is_forgotten(ended):
            finished = [record["job_id"] for record in (checks.result_of(ended) or {"archives": []})["archives"]]
            yield from self._data.check_clean(set(finished) & self._asked)

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
        if ended.code in (*STOPPED, 50) or (self._starved and ended.code == 40):
            return
        if refusals:
            if ended.code not in refusals[0]:
                yield Violation("the exit code is the right one", f"{ended.code}, not one of {sorted(refusals[0])}")
            return
        if self._is_forgotten(ended):
            return
        result = checks.result_of(ended)
        if result is not None:
            yield from self._check_archives(ended, result)

    def _is_forgotten(self, ended: Ended) -> bool:
        """Whether the run ended because Ops Manager did not know its jobs for a while; it has judged none then."""
        return ended.code == 24 and oracle.comes_and_goes(self._drawn.faults)

    def _check_archives(self, ended: Ended, result: checks.Json) -> Iterator[Violation]:
        records = {one["job_id"]: one for one in result["archives"] if one["job_id"] in self._asked}
        codes = {record["exit_code"] for record in records.values()} - {0}
        codes = codes - {13} or codes  # what is proven and only not unpacked decides where nothing else does
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
        right = oracle.allowed_codes(self._story(job))
        if oracle.is_delivered(job.faults) and record["verdict"] != "unproven":  # that one never had its final name
            right = self._company.allowed(job, right)
        code = record["exit_code"]
        if self._data:
            yield from self._data.check_record(job, record, self._data.reasons(job, starved=self._starved))
            safe = record["verdict"] == "verified" or (record["verdict"] == "unproven" and self._drawn.allow_unproven)
            code = 0 if code == 13 and safe and self._data.active else code
        if code not in right:
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
        return oracle.GetStory(whole, sound, disturbed=get.run < self._witness.run, resumed=record.status == 206)
