"""What a bench found: medians, the goals that were set, and both as a table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contest import AGENT, BEFORE, CURL, CURL_SUM, PEERS, VERIFYING, Sample
from .measure import median

MIB, GIB = float(1 << 20), float(1 << 30)
START_UP = {"python -c 'import click'": ("-c", "import click"), "--version": ("--version",), "--help": ("--help",)}


@dataclass(frozen=True)
class Goal:
    """A row of the table of goals: what was measured against what was set."""

    work: str
    measured: float
    least: float
    goal: float
    smaller_is_better: bool = False

    def reached(self, wanted: float) -> bool:
        """Whether the measured value is as good as this one."""
        return self.measured <= wanted if self.smaller_is_better else self.measured >= wanted

    def line(self) -> str:
        """The row as text."""
        verdict = "goal" if self.reached(self.goal) else "pass" if self.reached(self.least) else "MISSED"
        sign = "<=" if self.smaller_is_better else ">="
        return f"{self.work:<58} {self.measured:8.2f}  {sign} {self.least:<6g} {sign} {self.goal:<6g} {verdict}"


@dataclass
class Findings:
    """Samples on one target by (transport, who), single archives and four at once, and what else was measured."""

    target: str
    size: int
    conditions: str
    single: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    together: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    memory_of_eight: int | None = None
    start_up: dict[str, list[float]] = field(default_factory=dict)

    def seconds(self, transport: str, who: str) -> float:
        """The median time of a whole run."""
        return median([sample.cost.seconds for sample in self.single[transport, who]])

    def transfer(self, transport: str) -> float:
        """The median time of the agent's transfer."""
        return median([sample.transfer for sample in self.single[transport, AGENT]])

    def cpu(self, transport: str, who: str) -> float:
        """Median CPU seconds per GiB."""
        return median([sample.cost.cpu for sample in self.single[transport, who]]) / (self.size / GIB)

    # ------------------------------------------------------------ the goals

    def goals(self) -> list[Goal]:
        """The goals as far as this run can tell of them."""
        found: list[Goal] = []
        for transport in dict.fromkeys(transport for transport, who in self.single if who == AGENT):
            found += self._goals_of(transport)
        for transport in dict.fromkeys(transport for transport, _ in self.together):
            ours, theirs = (
                median([sample.cost.seconds for sample in self.together[transport, who]]) for who in (AGENT, CURL_SUM)
            )
            found.append(Goal(f"{transport}: 4 archives against 4 x curl && sha1sum", theirs / ours, 1.2, 1.5))
        if singles := [sample for (_, who), all_of in self.single.items() if who == AGENT for sample in all_of]:
            peak = max(sample.cost.memory for sample in singles) / MIB
            found.append(Goal("peak memory, one archive, MiB", peak, 64, 45, True))
        if self.memory_of_eight:
            found.append(Goal("peak memory, 8 archives at once, MiB", self.memory_of_eight / MIB, 140, 100, True))
        if self.start_up:
            base, *ours = (median(self.start_up[name]) for name in START_UP)
            for name, seconds in zip(list(START_UP)[1:], ours, strict=True):
                found.append(Goal(f"{name} against python -c 'import click'", seconds / base, 1.5, 1.5, True))
        return found

    def _goals_of(self, transport: str) -> list[Goal]:
        found, who = [], {who for seen, who in self.single if seen == transport}
        if CURL in who:
            ratio = self.seconds(transport, CURL) / self.transfer(transport)
            found.append(Goal(f"{transport}: transfer against curl, which verifies nothing", ratio, 0.8, 1.0))
        if rivals := [self.seconds(transport, peer) for peer in VERIFYING if peer in who]:
            ratio = min(rivals) / self.seconds(transport, AGENT)
            found.append(Goal(f"{transport}: whole run against the fastest that verifies", ratio, 1.3, 1.8))
        if CURL_SUM in who:
            ratio = self.cpu(transport, AGENT) / self.cpu(transport, CURL_SUM)
            found.append(Goal(f"{transport}: CPU per GiB against curl && sha1sum", ratio, 1.0, 0.8, True))
        if BEFORE in who:
            ratio = self.seconds(transport, AGENT) / self.seconds(transport, BEFORE)
            found.append(Goal(f"{transport}: time of a whole run against before", ratio, 1.05, 1.0, True))
        rest = median([sample.cost.seconds - sample.transfer for sample in self.single[transport, AGENT]])
        return [*found, Goal(f"{transport}: all else of a run, seconds", rest, 0.5, 0.25, True)]

    # ------------------------------------------------------------ as text and as data

    def table(self) -> str:
        """Everything, for a terminal."""
        heads = f"{'':<24}{'MB/s':>7}{'lowest':>8}{'highest':>8}{'synced':>8}{'CPU s/GiB':>11}{'peak MiB':>10}"
        size = f"archives of {self.size / MIB:g} MiB, medians of whole runs"
        lines = [f"== {self.target}, {size}, {self.conditions}, TCP {_pace()} =="]
        for transport in dict.fromkeys(transport for transport, _ in self.single):
            lines += ["", f"{transport:<24}{heads[24:]}"]
            lines += [self._row(transport, who) for who in (AGENT, BEFORE, *PEERS) if (transport, who) in self.single]
        for (transport, who), samples in self.together.items():
            lines += ["" if who == AGENT else None, self._row_of(f"4 at once, {who}, {transport}", samples)]  # type: ignore[list-item]  # dropped below
        lines += ["", f"{'':<58} measured  at least  goal"]
        return "\n".join(line for line in [*lines, *(goal.line() for goal in self.goals())] if line is not None)

    def _row(self, transport: str, who: str) -> str:
        row = self._row_of(who, self.single[transport, who])
        if who != AGENT:
            return row
        return f"{row}\n{'  its transfer alone':<24}{self.size / 1e6 / self.transfer(transport):>7.0f}"

    def _row_of(self, name: str, samples: Sequence[Sample]) -> str:
        times = sorted(sample.cost.seconds for sample in samples)
        low, high, middle = (self.size / 1e6 / seconds for seconds in (times[-1], times[0], median(times)))
        durable = self.size / 1e6 / median([sample.cost.seconds + sample.sync for sample in samples])
        cpu = median([sample.cost.cpu for sample in samples]) / (self.size / GIB)
        peak = max(sample.cost.memory for sample in samples) / MIB
        return f"{name:<24}{middle:>7.0f}{low:>8.0f}{high:>8.0f}{durable:>8.0f}{cpu:>11.2f}{peak:>10.0f}"

    def data(self) -> dict[str, Any]:
        """Everything, for a program."""

        def rows(samples: dict[tuple[str, str], list[Sample]]) -> list[dict[str, Any]]:
            return [
                {"transport": transport, "who": who, "runs": [_sample(sample) for sample in all_of]}
                for (transport, who), all_of in samples.items()
            ]

        return {
            "target": self.target,
            "archive_bytes": self.size,
            "conditions": self.conditions,
            "machine": {
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "python": platform.python_version(),
                "tcp": _pace(),
            },
            "single": rows(self.single),
            "four_at_once": rows(self.together),
            "start_up_seconds": self.start_up,
            "peak_memory_of_eight": self.memory_of_eight,
            "goals": [
                {"work": g.work, "measured": g.measured, "least": g.least, "goal": g.goal, "reached": g.reached(g.goal)}
                for g in self.goals()
            ],
        }


def _pace() -> str:
    """How this machine's TCP paces what nginx sends; with `bbr` by timers, which take time from other processes."""
    setting = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return setting.read_text().strip() if setting.exists() else "unknown"


def _sample(sample: Sample) -> dict[str, float]:
    return {
        "seconds": sample.cost.seconds,
        "transfer_seconds": sample.transfer,
        "sync_seconds": sample.sync,
        "cpu_seconds": sample.cost.cpu,
        "peak_memory": sample.cost.memory,
    }
