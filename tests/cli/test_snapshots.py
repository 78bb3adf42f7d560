"""`snapshots` lists the snapshots of a cluster, and which of them can be restored."""

from __future__ import annotations

from support.agents import Result, RunAgent, StartSimulator, connection_args
from support.consoles import CONTROL

from restore_agent.simulator import Simulator

FIELDS = [
    "event",
    "time",
    "snapshot_id",
    "created",
    "complete",
    "possibly_inconsistent",
    "missing_shards",
    "restorable",
    "bytes",
    "mongodb_version",
    "expires",
]


def listed(run_agent: RunAgent, sim: Simulator, *options: object) -> Result:
    return run_agent(["snapshots", *connection_args(sim, jobs=False), *options])


def test_each_snapshot_is_a_line_newest_first_and_the_result_is_last(
    run_agent: RunAgent, simulator: StartSimulator
) -> None:
    sim = simulator("snapshots=complete:2,incomplete:1,inconsistent:3,missing:4", shards=2)
    ended = listed(run_agent, sim, "-o", "json")
    assert (ended.code, ended.err) == (0, "")
    assert [line["event"] for line in ended.lines] == ["snapshot"] * 4 + ["result"]
    assert all(list(line) == FIELDS for line in ended.events("snapshot"))
    lines = ended.events("snapshot")
    assert [line["created"] for line in lines] == sorted((line["created"] for line in lines), reverse=True)
    assert [line["complete"] for line in lines] == [False, True, True, True]
    assert [line["possibly_inconsistent"] for line in lines] == [False, False, True, False]
    assert [line["missing_shards"] for line in lines] == [[], [], [], ["electron_1"]]
    assert [line["restorable"] for line in lines] == [False, True, False, False]
    assert lines[0]["bytes"] is None
    assert lines[1]["bytes"] > lines[3]["bytes"] > 0
    assert lines[1]["mongodb_version"] == "3.4.4"
    assert lines[1]["expires"] > lines[1]["created"]
    result = ended.result
    assert (result["exit_code"], result["changed"], result["archives"]) == (0, False, [])
    assert (result["group_id"], result["cluster_id"]) == (sim.hello["group_id"], sim.hello["cluster_id"])


def test_the_table_fits_80_columns_and_shows_what_a_snapshot_lacks(
    run_agent: RunAgent, simulator: StartSimulator
) -> None:
    ended = listed(run_agent, simulator("snapshots=complete:2,incomplete:3,inconsistent:4,missing:5", shards=2))
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["SNAPSHOT", "CREATED", "(UTC)", "RESTORABLE", "SIZE", "MONGODB"]
    rows = [line.split() for line in lines[1:] if not line.startswith(" ")]
    assert [row[3] for row in rows] == ["yes", "no", "no", "no"]
    notes = [line.strip() for line in lines if line.startswith(" ")]
    assert [note.partition(", ")[2] for note in notes] == ["", "incomplete", "inconsistent", "misses electron_1"]
    assert all(note.startswith("expires in 13d") for note in notes)


def test_without_a_snapshot_the_list_is_empty_and_the_code_is_0(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("snapshots=none", shards=1)
    ended = listed(run_agent, sim)
    assert (ended.code, ended.out, ended.err) == (0, "No snapshots.\n", "")
    ended = listed(run_agent, sim, "-o", "json")
    assert (ended.code, [line["event"] for line in ended.lines]) == (0, ["result"])


def test_all_pages_are_read(run_agent: RunAgent, simulator: StartSimulator) -> None:
    ended = listed(run_agent, simulator("snapshots=complete*5", "page-size=2", shards=1), "-o", "json")
    assert len({line["snapshot_id"] for line in ended.events("snapshot")}) == 5


def test_the_time_left_is_by_the_clock_of_the_server(run_agent: RunAgent, simulator: StartSimulator) -> None:
    ended = listed(run_agent, simulator("snapshots=complete:1", "clock-skew=86400", shards=1))
    assert "expires in 13d22h" in ended.out or "expires in 13d23h" in ended.out


def test_a_transient_error_is_retried_and_reported(run_agent: RunAgent, simulator: StartSimulator) -> None:
    ended = listed(run_agent, simulator("api-503=1", shards=1), "-o", "json")
    assert ended.code == 0
    assert [line["over"] for line in ended.events("trouble")] == [False, True]
    assert "HTTP 503" in ended.events("trouble")[0]["message"]


def test_text_of_the_server_cannot_control_the_terminal(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("hostile-text", "forbidden", shards=1)
    ended = listed(run_agent, sim)
    assert ended.code == 30
    assert not CONTROL.search(ended.out + ended.err)


def test_all_missing_options_are_named_together(run_agent: RunAgent) -> None:
    ended = run_agent(["snapshots"])
    assert (ended.code, ended.out) == (2, "")
    for name in ("--url", "--public-key", "--private-key-file", "--group-id", "--cluster-id"):
        assert name in ended.err
