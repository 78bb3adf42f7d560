"""`check` tells what of a connection is good, one line each, and ends with the code of the first that is not."""

from __future__ import annotations

import json
import re

import pytest
from support.agents import Json, Result, RunAgent, StartSimulator, connection_args
from support.servers import ForwardProxy, Script, says, serving

from restore_agent.restore.request import asking
from restore_agent.simulator import Simulator

NAMES = ["address", "tls", "proxy", "key", "project", "cluster", "version", "clock"]


def check(run_agent: RunAgent, sim: Simulator, *options: object, **more: Json) -> Result:
    return run_agent(["check", *connection_args(sim, jobs=False), *options, "-o", "json"], more.get("env"))


def found(ended: Result) -> dict[str, tuple[bool | None, str]]:
    return {line["name"]: (line["ok"], line["detail"]) for line in ended.events("check")}


def verdicts(ended: Result) -> list[bool | None]:
    return [line["ok"] for line in ended.events("check")]


def test_a_good_connection_passes_every_check(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1, tls=True)
    ended = check(run_agent, sim)
    assert (ended.code, ended.err, ended.result["exit_code"]) == (0, "", 0)
    assert [list(line) for line in ended.events("check")] == [["event", "time", "name", "ok", "detail"]] * 8
    assert list(found(ended)) == NAMES
    assert verdicts(ended) == [True] * 8
    details = {name: detail for name, (_, detail) in found(ended).items()}
    assert details["address"].startswith("https://127.0.0.1:")
    assert f"--ca-file {sim.hello['ca_file']}" in details["tls"]
    assert details["proxy"] == "none"
    assert sim.hello["public_key"] in details["key"]
    assert details["project"] == f"{sim.hello['group_id']} (simulated)"
    assert details["cluster"] == f"{sim.hello['cluster_id']} (electron)"
    assert "versionString=4.0.0" in details["version"]
    assert details["clock"] == "no difference to this host"


def test_as_text_each_check_is_a_line_of_a_table(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    ended = run_agent(["check", *connection_args(sim, jobs=False)])
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 80
    rows = [line.split()[:2] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert rows == [["ok", name] for name in NAMES]


def test_project_and_cluster_are_checked_only_if_they_are_given(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1)
    reach = [arg for arg in connection_args(sim, jobs=False) if not arg.startswith(("--group-id", "--cluster-id"))]
    ended = run_agent(["check", *reach, "-o", "json"])
    assert (ended.code, list(found(ended))) == (0, [name for name in NAMES if name not in ("project", "cluster")])
    ended = run_agent(["check", *reach, f"--group-id={sim.hello['group_id']}", "-o", "json"])
    assert (ended.code, list(found(ended))) == (0, [name for name in NAMES if name != "cluster"])
    assert found(ended)["project"][1].endswith(f"; clusters: {sim.hello['cluster_id']} (electron)")
    ended = run_agent(["check", *reach, "--cluster-id=c", "-o", "json"])
    assert (ended.code, ended.events("error")[0]["message"]) == (2, "--cluster-id needs --group-id")


@pytest.mark.parametrize(
    ("faults", "options", "failed", "code"),
    [
        (["unauthorized"], [], "key", 30),
        (["forbidden"], [], "key", 30),
        ([], ["--public-key=wrong"], "key", 30),
        ([], ["--group-id=000000000000000000000000"], "project", 24),
        ([], ["--cluster-id=000000000000000000000000"], "cluster", 24),
        (["api-redirect"], [], "address", 32),
    ],
)
def test_the_first_failed_check_decides_the_code_and_skips_the_rest(
    run_agent: RunAgent, simulator: StartSimulator, faults: list[str], options: list[str], failed: str, code: int
) -> None:
    ended = check(run_agent, simulator(*faults, shards=1), *options)
    assert (ended.code, ended.result["exit_code"]) == (code, code)
    checked = found(ended)
    assert sorted(checked) == sorted(NAMES)
    assert [name for name, (ok, _) in checked.items() if ok is False] == [failed]
    before = NAMES[: NAMES.index(failed)]
    assert all(checked[name][0] for name in before)
    unchecked = [name for name in NAMES[NAMES.index(failed) + 1 :] if name not in ("version", "clock")]
    assert all(checked[name][0] is None for name in unchecked)
    assert ended.events("error")[0]["hint"]


def test_an_untrusted_certificate_is_a_failure_of_tls(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator(shards=1, tls=True)
    args = [arg for arg in connection_args(sim, jobs=False) if not arg.startswith("--ca-file")]
    ended = run_agent(["check", *args, "-o", "json"])
    assert ended.code == 31
    assert verdicts(ended) == [True, False] + [None] * 6
    assert check(run_agent, simulator("wrong-host", shards=1, tls=True)).code == 31


def test_an_address_without_a_server_is_32_after_retries(
    run_agent: RunAgent, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 1.0)
    sim = simulator(shards=1)
    args = [*connection_args(sim, jobs=False), "--url=http://127.0.0.1:9"]
    ended = run_agent(["check", *args, "-o", "json"])
    assert ended.code == 32
    assert verdicts(ended) == [False] + [None] * 7
    assert [line["event"] for line in ended.lines][:2] == ["trouble", "check"]
    text = run_agent(["check", *args])
    assert text.out.startswith("FAILED  address")
    assert "retrying until" in text.err


def test_the_clock_difference_is_shown_and_is_not_a_failure(run_agent: RunAgent, simulator: StartSimulator) -> None:
    ended = check(run_agent, simulator("clock-skew=300", shards=1))
    assert (ended.code, found(ended)["clock"][0]) == (0, True)
    assert re.fullmatch(r"the server is (299|300) s ahead of this host", found(ended)["clock"][1])
    ended = check(run_agent, simulator("clock-skew=-300", shards=1))
    assert re.fullmatch(r"the server is (300|301) s behind this host", found(ended)["clock"][1])
    ended = check(run_agent, simulator("no-date", "no-version", shards=1))
    assert (ended.code, found(ended)["clock"]) == (0, (True, "unknown: the server sends no Date"))
    assert found(ended)["version"] == (True, "unknown: the server does not report it")


def test_a_proxy_is_shown_without_its_password(run_agent: RunAgent, simulator: StartSimulator) -> None:
    proxy = ForwardProxy()
    sim = simulator(shards=1)
    place = proxy.url.removeprefix("http://")
    try:
        for form in ("json", "text"):
            args = ["check", *connection_args(sim, jobs=False), "-o", form]
            ended = run_agent(args, {"http_proxy": f"http://user:s3cretpassword@{place}"})
            assert ended.code == 0
            assert f"http://{place}" in ended.out
            assert "s3cretpassword" not in ended.out + ended.err
    finally:
        proxy.close()
    assert proxy.targets


def answer(status: str, body: Json) -> Script:
    raw = json.dumps(body).encode()
    return says(f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw)


def test_a_key_without_access_to_the_project_is_distinguished_from_a_wrong_key(run_agent: RunAgent) -> None:
    refused = answer("403 Forbidden", {"errorCode": "USER_UNAUTHORIZED", "detail": "no role"})
    for root, failed in ((answer("200 OK", {}), "project"), (refused, "key")):
        with serving(refused, root) as (url, heads):
            args = ["--url", url.partition("/pull")[0], "--public-key=user", "--group-id=g", "-o", "json"]
            ended = run_agent(["check", *args], {"RESTORE_AGENT_PRIVATE_KEY": "private key"})
        assert ended.code == 30
        assert [name for name, (ok, _) in found(ended).items() if ok is False] == [failed]
        assert [head.split()[1] for head in heads] == [b"/api/public/v1.0/groups/g", b"/api/public/v1.0"]


def test_no_secret_is_printed(run_agent: RunAgent, simulator: StartSimulator) -> None:
    sim = simulator("unauthorized", shards=1)
    for options in ([], ["-o", "json"], ["--debug"]):
        ended = run_agent(["check", *connection_args(sim, jobs=False), *options])
        assert ended.code == 30
        assert [secret for secret in sim.secrets if secret in ended.out + ended.err] == []
