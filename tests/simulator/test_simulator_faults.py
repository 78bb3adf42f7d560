"""The table of faults and the plan of a delivery."""

from __future__ import annotations

import pytest

from restore_agent.simulator import Faults, describe
from restore_agent.simulator.delivery.plan import Ask, Content, plan_delivery
from restore_agent.simulator.faults.values import step_at

# The table of faults


def test_an_unknown_fault_is_refused_with_similar_faults() -> None:
    with pytest.raises(ValueError, match=r"unknown fault 'clean-cutt'; did you mean clean-cut"):
        Faults.parse(["clean-cutt=5%"])


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("zzzzzz", "--list-faults"),
        ("cut", "needs a value"),
        ("cut=120%", "between 0 and 100"),
        ("cut=60%xmany", "invalid literal"),
        ("cut=1Z", "a size is digits"),
        ("html-body=-1", "at least 1"),
        ("never-ready=5", "takes no value"),
        ("hash=late:soon", "bad value 'late:soon'"),
        ("hash=never:3", "never takes no seconds"),
        ("hash=maybe", "one of ready, late"),
        ("range=perhaps", "one of none, honour"),
        ("ready-after=-1", "must not be negative"),
        ("ready-after=inf", "not a finite number"),
        ("refuse=99", "between 200 and 599"),
        ("job-field=id", "a dotted path"),
        ("job-field=id:{", "bad value"),
        ("drip=0", "at least 1"),
        ("api-429=2@1", "belongs to the server"),
    ],
)
def test_a_bad_value_is_refused_with_the_expected_form(fault: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Faults.parse([fault])


def test_the_table_documents_every_fault() -> None:
    rows = {row.name: row for row in describe()}
    assert all(row.help for row in rows.values())
    assert rows["cut"].value == "PERCENT%|BYTES[xTIMES]"
    assert rows["max-downloads"].default == "1"
    assert rows["hash"].default == "ready"
    assert not rows["api-429"].per_job
    assert {"stagger", "clean-cut", "other-origin", "numbers-as-strings", "bad-date"} <= rows.keys()


def test_a_fault_for_one_job_does_not_apply_to_other_jobs() -> None:
    faults = Faults.parse(["cut=10%", "plain-tar@1", "max-downloads=3@1"])
    assert faults.for_job(1).plain_tar
    assert faults.for_job(1).max_downloads == 3
    assert not faults.for_job(0).plain_tar
    assert faults.for_job(0).attempts == faults.attempts
    assert Faults().for_job(5) == Faults()


def test_attempts_end_in_the_order_written() -> None:
    steps = Faults.parse(["stall=10%", "cut=50%x2", "refuse=503", "reset=1"]).attempts
    met = [step_at(steps, number) for number in range(6)]
    assert [step and step.kind for step in met] == ["stall", "cut", "cut", "refuse", "reset", None]


def test_a_step_that_lasts_always_never_ends() -> None:
    step = step_at(Faults.parse(["cut=1xalways"]).attempts, 10_000)
    assert step is not None and step.kind == "cut"


# The plan of a delivery


CONTENT = Content(1000, '"tag"', "Tue, 18 Apr 2017 15:14:25 GMT")


@pytest.mark.parametrize(
    ("faults", "attempt", "span", "status", "sent", "content_range"),
    [
        ("", 0, None, 200, (0, 1000), None),
        ("", 0, "bytes=100-", 200, (0, 1000), None),
        ("range=ignore", 0, "bytes=100-", 200, (0, 1000), None),
        ("range=honour", 0, "bytes=100-", 206, (100, 1000), "bytes 100-999/1000"),
        ("range=honour", 0, "bytes=100-199", 206, (100, 200), "bytes 100-199/1000"),
        ("range=honour", 0, "bytes=-10", 206, (990, 1000), "bytes 990-999/1000"),
        ("range=honour", 0, "bytes=-", 200, (0, 1000), None),
        ("range=honour", 0, "bytes=9-3", 200, (0, 1000), None),
        ("range=honour", 0, "lines=1-", 200, (0, 1000), None),
        ("range=honour", 0, "bytes=1000-", 416, (0, 23), "bytes */1000"),
        ("range=416", 0, "bytes=1-", 416, (0, 23), "bytes */1000"),
        ("range=wrong-offset", 0, "bytes=100-", 206, (50, 1000), "bytes 50-999/1000"),
        ("range=wrong-total", 0, "bytes=100-", 206, (100, 1000), "bytes 100-999/1001"),
        ("range=wrong-bytes", 0, "bytes=100-", 206, (0, 900), "bytes 100-999/1000"),
        ("cut=60%", 0, None, 200, (0, 600), None),
        ("cut=60%", 1, None, 200, (0, 1000), None),
        ("cut=60%x2", 1, None, 200, (0, 600), None),
        ("range=honour cut=50%", 0, "bytes=100-", 206, (100, 550), "bytes 100-999/1000"),
        ("reset=1K", 0, None, 200, (0, 1000), None),
        ("refuse=503", 0, None, 503, (0, 26), None),
        ("html-body=1", 1, None, 200, (0, 1000), None),
    ],
)
def test_the_plan_of_a_delivery(
    faults: str, attempt: int, span: str | None, status: int, sent: tuple[int, int], content_range: str | None
) -> None:
    plan = plan_delivery(Faults.parse(faults.split()), attempt, Ask(span), CONTENT)
    assert plan.status == status
    assert (plan.start, plan.start + plan.send) == sent
    assert dict(plan.headers).get("Content-Range") == content_range


@pytest.mark.parametrize(("validator", "status"), [('"tag"', 206), (CONTENT.last_modified, 206), ('"old"', 200)])
def test_a_range_is_honored_only_for_the_current_validator(validator: str, status: int) -> None:
    plan = plan_delivery(Faults.parse(["range=honour"]), 0, Ask("bytes=5-", validator), CONTENT)
    assert plan.status == status


@pytest.mark.parametrize(
    ("faults", "proves"),
    [
        ("", True),
        ("cut=60%", False),
        ("clean-cut=60%", False),
        ("stall=99%", False),
        ("stall=100%", True),
        ("cut=100%", True),
        ("hash-after=complete reset=100%", False),
        ("wrong-length=1", True),
        ("wrong-length=1 hash-after=complete", False),
        ("html-body", False),
        ("range=honour", True),
        ("refuse=403", False),
    ],
)
def test_only_a_download_of_all_bytes_publishes_a_hash(faults: str, proves: bool) -> None:
    assert plan_delivery(Faults.parse(faults.split()), 0, Ask("bytes=5-"), CONTENT).proves is proves
