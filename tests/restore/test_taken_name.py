"""Another program takes the final name of an archive while it is downloaded."""

from __future__ import annotations

from pathlib import Path

from support.agents import (
    QUICK,
    RunAgent,
    StartSimulator,
    connection_args,
    deliveries,
    journal_in,
    meanwhile,
    wait_until,
)

FOREIGN = "of another program\n"


def test_a_foreign_file_at_a_final_name_stays_and_is_not_in_the_sums(
    simulator: StartSimulator, run_agent: RunAgent, dest: Path
) -> None:
    sim = simulator("drip=200k", shards=1)
    taken = dest / sim.job(0).file_name

    def intrude() -> None:
        wait_until(lambda: deliveries(sim) and any(line.get("fact") == "answered" for line in journal_in(dest)))
        taken.write_text(FOREIGN)

    args = ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json"]
    with meanwhile(intrude):
        ended = run_agent(args)
    assert (ended.code, taken.read_text()) == (42, FOREIGN)
    assert (dest / f"{taken.name}.part").exists()
    assert taken.name not in (dest / "SHA1SUMS").read_text()

    assert run_agent(["verify", f"--dest={dest}"]).code == 42
    assert taken.read_text() == FOREIGN
    taken.unlink()
    again = run_agent(args)
    assert (again.code, len(deliveries(sim))) == (0, 2)
