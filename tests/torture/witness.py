"""Who watches while the agent runs: every GET of a delivery URL as it arrives, every word of the API, every final name.

The simulator lives in this process, so a request can be looked at in the moment it is taken down, before any byte
of the answer goes out: what the journal does not hold by then was not there before the GET.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_agent.simulator import Job, Request, Simulator

STATE = ".restore-agent"
OWN_NAMES = ("receipt.json", "SHA1SUMS", STATE)
COMPANIONS = (".part", ".unproven", ".mismatch")
_HOP = re.compile(r"[?&]hop=\d+")
_LOOK_EVERY = 0.003  # seconds between two looks at the final names
_SETTLED = 2.0  # seconds; a server that stalls does not notice the end
_STALE_WORD = 1.0  # seconds for which a GET may still act on what the API said before


@dataclass(frozen=True)
class Violation:
    """An invariant that did not hold, and what was seen."""

    invariant: str
    seen: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.seen}"


@dataclass(frozen=True)
class Word:
    """What the API said of a job: `at` is monotonic; `ready`: READY with a URL, so that a GET was allowed."""

    at: float
    status: str
    ready: bool


@dataclass(frozen=True)
class Get:
    """A GET of a delivery URL. `first`: not a redirect's next hop. `run` counts the agent's processes."""

    job_id: str
    record: Request
    first: bool
    run: int


def journal_lines(dest: Path) -> list[dict[str, Any]]:
    """The whole lines of the journal in DEST, none when there is none; lines that do not read are left out."""
    try:
        raw = (dest / STATE / "journal.jsonl").read_bytes()
    except OSError:
        return []
    lines = []
    for text in raw[: raw.rfind(b"\n") + 1].splitlines():
        with suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def attempts_in(lines: list[dict[str, Any]], job_id: str) -> int:
    """How many GETs of a job the journal owns to."""
    facts = [line.get("fact") for line in lines if line.get("job_id") == job_id]
    return facts.count("attempt") - facts.count("unsent")


def final_names(dest: Path) -> list[str]:
    """The names in DEST that say `proven`. A directory is none: DEST may hold data paths."""
    with suppress(OSError), os.scandir(dest) as entries:
        return [one.name for one in entries if _is_final(one.name) and not one.is_dir(follow_symlinks=False)]
    return []


def _is_final(name: str) -> bool:
    temporary = name.startswith(".") and name.endswith(".tmp")
    return not (name in OWN_NAMES or name.endswith(COMPANIONS) or temporary)


class Witness:
    """Sees what goes on between one simulator and DEST; `violations` grows as they are seen."""

    def __init__(self, simulator: Simulator, dest: Path) -> None:
        self._simulator, self._dest = simulator, dest
        self.also: list[Callable[[], None]] = []  # what else is looked at all the time
        self._verified: dict[str, str] = {}
        self._lock = threading.Lock()
        self._handlers: list[threading.Thread] = []
        self.run = 0
        self.earlier: Counter[str] = Counter()  # GETs that a simulator before this one saw, by job
        self.violations: list[Violation] = []
        self.gets: list[Get] = []
        self.words: dict[str, list[Word]] = {}
        self.published: dict[str, set[str]] = {job.id: set() for job in simulator.jobs}
        self.foreign: dict[str, str] = {}  # files of other programs at final names, and their SHA1
        self.looks = 0
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._listen()

    def blame(self, invariant: str, seen: str) -> None:
        """Take down a violation."""
        with self._lock:
            self.violations.append(Violation(invariant, seen))

    # ------------------------------------------------------------ the simulator's side

    def _listen(self) -> None:
        """Hear every request when it is taken down, and every answer of the API when it is given."""
        log, api = self._simulator._log, self._simulator._api
        add, answer = log.add, api.answer

        def heard(request: Request) -> Request:
            add(request)
            if request.kind == "delivery":
                self._handlers.append(threading.current_thread())
                self._on_delivery(request)
            return request

        def answered(question: Any) -> Any:
            with self._simulator.lock:
                given = answer(question)
                if given.status == 200 and "restoreJobs" in question.path:
                    self._on_words()
                return given

        log.add, api.answer = heard, answered  # type: ignore[method-assign]

    def _on_words(self) -> None:
        now = time.monotonic()
        for job in self._simulator.jobs:
            self.words.setdefault(job.id, []).append(Word(now, job.delivery_status, job.is_ready and job.has_url))
            for entry in job.hashes or ():
                digest, name = entry["hash"], entry["fileName"]
                if digest and name == job.file_name:
                    self.published[job.id].add(digest.lower())

    def _on_delivery(self, request: Request) -> None:
        job = next((job for job in self._simulator.jobs if job.id == request.job_id), None)
        if request.method != "GET":
            self.blame("no HEAD", f"{request.method} of the delivery of {request.job_id}")
        if job is None:
            self.blame("a GET of a delivery is of a known job", request.path)
            return
        if job.stray:
            self.blame("a job of another batch is left alone", job.id)
        lines = journal_lines(self._dest)
        with self._lock:
            self.gets.append(Get(job.id, request, not _HOP.search(request.path), self.run))
        self._check_ledger(job, lines)
        self._check_word(job)
        self._check_unproven(job, lines)

    def _check_ledger(self, job: Job, lines: list[dict[str, Any]]) -> None:
        loops = 6 if job.faults.redirect_loop else 1  # a link that redirects to itself: each hop looks like a first one
        seen = self.earlier[job.id] + sum(get.first for get in self.gets if get.job_id == job.id)
        owned = attempts_in(lines, job.id)
        if seen > owned * loops:
            self.blame("a journal line before every GET", f"{job.id}: {seen} GETs, {owned} attempts in the journal")

    def _check_word(self, job: Job) -> None:
        """The last thing the API said long enough ago for the agent to know must have been READY."""
        now = time.monotonic()
        words = self.words.get(job.id, [])
        recent = [word for word in words if word.at > now - _STALE_WORD]
        known = [word for word in words if word.at <= now - _STALE_WORD][-1:]
        if not any(word.ready for word in known + recent):
            last = (known + recent)[-1:]
            self.blame("a GET only while the API says READY", f"{job.id}: {last[0].status if last else 'never asked'}")
        if job.faults.automated or job.faults.method != "HTTP":
            self.blame("an automated restore is left alone", job.id)

    def _check_unproven(self, job: Job, lines: list[dict[str, Any]]) -> None:
        mine = [line for line in lines if line.get("job_id") == job.id]
        if mine and mine[-1].get("fact") == "archive-discarded":
            self.blame("nothing after success", f"{job.id}: a GET after its archive was discarded")
        proven = {str(line["file_name"]) for line in mine if line.get("fact") == "proven"}
        for name in proven & set(final_names(self._dest)) - self.foreign.keys():
            self.blame("nothing after success", f"{job.id}: a GET while {name} is there")

    def settle(self) -> None:
        """After the end of a run, wait until its deliveries have ended, too: their records count every byte then."""
        until = time.monotonic() + _SETTLED
        while self._handlers:
            self._handlers.pop().join(max(0.0, until - time.monotonic()))

    # ------------------------------------------------------------ DEST's side

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the final names all the time while the body runs, and once more after it."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(_LOOK_EVERY):
                self.look()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Hash every final name that is new or was touched, and hold it against what was published."""
        self.looks += 1
        for look in self.also:
            look()
        for name in final_names(self._dest):
            try:
                descriptor = os.open(self._dest / name, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.blame("a final name is a regular file", f"{name}: {error.strerror}")
                continue
            with os.fdopen(descriptor, "rb") as file:
                self._judge(name, file)

    def _judge(self, name: str, file: Any) -> None:
        status = os.fstat(file.fileno())
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._seen.get(name) == identity:
            return
        self._seen[name] = identity
        digest = hashlib.sha1(file.read(), usedforsecurity=False).hexdigest()
        if name in self.foreign:
            if digest != self.foreign[name]:
                self.blame("a file of another program is never replaced", f"{name} has SHA1 {digest} now")
            return
        if status.st_uid != os.geteuid():
            self.blame("a final name is a file of the agent's own", f"{name} is owned by user {status.st_uid}")
        known: set[str] = set().union(*self.published.values())
        for job_id, published in self.published.items():
            if digest in published:
                self._verified[name] = job_id
        if digest not in known:
            self.blame("a final name holds published bytes", f"{name} has {status.st_size} bytes with SHA1 {digest}")
        if stat.S_IMODE(status.st_mode) != 0o600:
            self.blame("a final name has mode 0600", f"{name}: {stat.S_IMODE(status.st_mode):o}")

    # ------------------------------------------------------------ what there is to tell

    @property
    def dest(self) -> Path:
        """DEST."""
        return self._dest

    def verified_files(self) -> dict[str, str]:
        """The final names that held verified bytes at some time, and the jobs that these are of."""
        return {name: job_id for name, job_id in list(self._verified.items()) if name not in self.foreign}

    def of(self, job_id: str, run: int | None = None, *, first: bool = True) -> list[Get]:
        """The GETs of a job, in one run or all; with `first` no redirect's next hops."""
        with self._lock:
            gets = [get for get in self.gets if get.job_id == job_id and (run is None or get.run == run)]
        return [get for get in gets if get.first or not first]
