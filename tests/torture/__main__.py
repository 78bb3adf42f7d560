"""`python -m tests.torture`: plays rounds until a count or a time is reached; exit 1 at the first violation."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from .rounds import faults_of, play
from .stage import Outcome


def main() -> int:
    """Parse, play, tell."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="how many rounds (200)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="seed of the first round (1); +1 for each")
    parser.add_argument(
        "--seconds", type=float, default=3600.0, metavar="MAX", help="begin no round or disk fault after this (3600)"
    )
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), metavar="K", help="rounds at once")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first violation")
    parser.add_argument("--show", action="store_true", help="show what each round drew and how it went")
    parser.add_argument(
        "--power-loss", action="store_true", help="every crash state instead of rounds; see powerloss.py"
    )
    parser.add_argument(
        "--disk-faults", action="store_true", help="disk faults instead, in an order drawn from the seed"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="with --power-loss: N states of each scenario only")
    given = parser.parse_args()
    if given.power_loss:
        from .powerloss import main as power_loss

        return power_loss(given.seed, given.jobs, given.sample)
    if given.disk_faults:
        from .diskfaults import main as disk_faults

        return disk_faults(given.jobs, given.seed, given.seconds)
    return _torture(given)


def _torture(given: argparse.Namespace) -> int:
    began = time.monotonic()
    totals: Counter[str] = Counter()
    families: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    bad: list[Outcome] = []
    for outcome in _outcomes(given, began):
        totals["rounds"] += 1
        totals += outcome.counts
        families += faults_of(outcome.drawn)
        codes[str(outcome.codes[-1] if outcome.codes else "none")] += 1
        if given.show:
            print(
                f"seed {outcome.drawn.seed}: {outcome.codes} in {outcome.seconds:.1f} s\n{outcome.drawn}\n", flush=True
            )
        if outcome.violations:
            bad.append(outcome)
            _tell(outcome)
    print(f"rounds {totals['rounds']}, runs of the agent {totals['runs']}, reruns {totals['reruns']}")
    print("fates: " + _list({name[5:]: n for name, n in totals.items() if name.startswith("fate ")}))
    print(
        "signals: "
        + _list({n: totals[k] for k, n in (("SIGKILL", "kill -9"), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"))})
    )
    print("faults: " + _list(families))
    print("last exit codes: " + _list(codes))
    print(f"violations {sum(len(outcome.violations) for outcome in bad)}, seconds {time.monotonic() - began:.0f}")
    return 1 if bad else 0


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _tell(outcome: Outcome) -> None:
    print(f"\nVIOLATION in the round with seed {outcome.drawn.seed}; exit codes {outcome.codes}")
    print(outcome.drawn)
    for violation in outcome.violations[:6]:
        print(f"  {str(violation)[:1500]}")
    print(f"evidence: {outcome.evidence}")
    print(f"again: scripts/torture --seed {outcome.drawn.seed} --rounds 1\n", flush=True)


def _outcomes(given: argparse.Namespace, began: float) -> Iterator[Outcome]:
    """The rounds as they end; after a violation or when the time is over no new one begins."""
    seeds = iter(range(given.seed, given.seed + given.rounds))
    if given.jobs == 1:
        for seed in seeds:
            if time.monotonic() - began >= given.seconds:
                return
            outcome = play(seed)
            yield outcome
            if outcome.violations and not given.keep_going:
                return
        return
    with ProcessPoolExecutor(given.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[Outcome]] = set()
        going = True
        while True:
            while going and len(running) < given.jobs and time.monotonic() - began < given.seconds:
                if (another := next(seeds, None)) is None:
                    break
                running.add(pool.submit(play, another))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                going = going and (given.keep_going or not outcome.violations)
                yield outcome


if __name__ == "__main__":
    sys.exit(main())
