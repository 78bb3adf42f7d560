"""Memory and dirty pages over a large archive, and over eight at once: what must not grow with the size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .contest import Contest
from .servers import Nginx, ops_manager

_TRANSPORT = "https length"
_EVERY = 0.05  # seconds


def _meminfo() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value, *_ = line.replace(":", "").split()
        found[name] = int(value) * 1024
    return {"Dirty": found["Dirty"] + found["Writeback"], "Cached": found["Cached"]}


@dataclass
class Memory:
    """The host's dirty and cached memory, in bytes: before, and at most since."""

    before: dict[str, int] = field(default_factory=_meminfo)
    peak: dict[str, int] = field(default_factory=_meminfo)

    def look(self) -> None:
        """Take another sample."""
        self.peak = {name: max(value, self.peak[name]) for name, value in _meminfo().items()}

    def line(self) -> str:
        """What grew, in MiB."""
        grown = {name: (self.peak[name] - self.before[name]) >> 20 for name in self.peak}
        return f"dirty and under write-back at most +{grown['Dirty']} MiB, page cache at most +{grown['Cached']} MiB"


@contextmanager
def _watched() -> Iterator[Memory]:
    memory, over = Memory(), threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            memory.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def flat(home: Path, target: Path, size: int) -> int:
    """One archive of `size` bytes, then eight at once that share it; prints a line each."""
    nginx = Nginx(home)
    whole = nginx.make("whole", size)
    with nginx.running():
        contest = Contest(nginx, target / "target")
        for archive, count in ((whole, 1), (nginx.make("part", size // 8), 8)):
            with ops_manager(nginx, _TRANSPORT, archive, count, home / f"of-{count}") as options:
                contest.empty()
                with _watched() as memory:
                    sample = contest.agent(options, archive, count, f"--parallel={count}")
            (nginx.root / "archives" / archive.which).unlink()
            rate, peak = size / 1e6 / sample.transfer, sample.cost.memory >> 20
            print(f"{count} x {archive.size >> 20} MiB: {rate:.0f} MB/s, peak memory {peak} MiB, {memory.line()}")
    return 0
