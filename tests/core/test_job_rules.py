"""Rules about a restore job that need no document: the hashes published for it, and the error of its status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore_agent.core.errors import DeliveryUrlUnusable, Expired, JobFailed
from restore_agent.core.jobs import STATUS_RULES, Decision, DeliveryUrl, Job, StatusRule, Step, decide, refusal

NAME = "rs0.tar.gz"
ONE, TWO, OTHER = "1" * 40, "2" * 40, "3" * 40
READY = Job("j1", status="FINISHED", delivery_status="READY", delivery_url=DeliveryUrl("https://om/rs0.tar.gz", NAME))


def job(*hashes: tuple[str, str]) -> Job:
    return Job("j1", hashes=hashes)


# ---------------------------------------------------------------- published hashes


def test_every_hash_published_for_the_file_counts_once_in_its_order() -> None:
    published = job((NAME, TWO), ("other.tar.gz", OTHER), (NAME, ONE), (NAME, TWO)).published_hashes(NAME)
    assert published == (TWO, ONE)


def test_a_file_that_had_several_names_is_found_by_each_of_them() -> None:
    known = job(("served.tar.gz", ONE), ("renamed.tar.gz", TWO))
    assert known.published_hashes("served.tar.gz", None, "renamed.tar.gz") == (ONE, TWO)
    assert known.published_hashes("served.tar.gz") == (ONE,)


@pytest.mark.parametrize("names", [(), (None,), ("",), (None, "")])
def test_without_a_name_no_hash_is_published(names: tuple[str | None, ...]) -> None:
    assert job((NAME, ONE), ("", TWO)).published_hashes(*names) == ()


def test_a_name_that_looks_percent_encoded_but_is_meant_literally_is_found_too() -> None:
    assert job(("a%20b.tar", ONE)).published_hashes("a%20b.tar") == (ONE,)
    assert job(("a%20b.tar", ONE)).published_hashes("a b.tar") == (ONE,)


@given(st.lists(st.tuples(st.sampled_from([NAME, f"x/{NAME}", "other"]), st.sampled_from([ONE, TWO]))))
def test_only_hashes_next_to_the_name_are_published(hashes: list[tuple[str, str]]) -> None:
    published = job(*hashes).published_hashes(NAME)
    assert set(published) == {digest for name, digest in hashes if name.endswith(NAME)}
    assert len(set(published)) == len(published)


# ---------------------------------------------------------------- the error of a status


def ended(rule: StatusRule) -> Job:
    of_job, of_delivery = (rule.status, None) if rule.of == "job" else (None, rule.status)
    return Job("j1", status=of_job, delivery_status=of_delivery, delivery_url=READY.delivery_url)


@pytest.mark.parametrize("rule", STATUS_RULES, ids=lambda rule: rule.status)
def test_each_status_that_ends_a_job_raises_its_own_error(rule: StatusRule) -> None:
    decision = decide(ended(rule))
    error = refusal(ended(rule), decision, " after: the transfer was interrupted")
    assert (decision.step, decision.reason) == (Step.FAIL, rule.error.id)
    assert type(error) is rule.error
    assert error.message.endswith(" after: the transfer was interrupted")


@pytest.mark.parametrize("rule", STATUS_RULES, ids=lambda rule: rule.status)
def test_the_error_of_a_failed_job_names_both_statuses(rule: StatusRule) -> None:
    error = refusal(ended(rule), decide(ended(rule)))
    if isinstance(error, JobFailed):
        assert rule.status in error.message
        assert "none" in error.message
    else:
        assert "before the archive was complete" in error.message


def test_the_rules_name_every_error_once() -> None:
    assert len({rule.error for rule in STATUS_RULES}) == len(STATUS_RULES)
    assert all(rule.of in ("job", "delivery") for rule in STATUS_RULES)


def test_the_status_of_the_job_has_precedence_over_that_of_its_delivery() -> None:
    broken = Job("j1", status="BROKEN", delivery_status="EXPIRED")
    assert decide(broken).reason == "job-broken"


def test_a_status_counts_only_in_its_own_field() -> None:
    """A delivery that is called BROKEN, or a job that is called EXPIRED, is an unknown status: not ready yet."""
    for odd in (Job("j1", delivery_status="BROKEN"), Job("j1", status="EXPIRED")):
        assert decide(odd) == Decision(Step.WAIT, "not-ready")
    assert decide(Job("j1", status="EXPIRED", delivery_status="READY", delivery_url=READY.delivery_url)) == Decision(
        Step.DOWNLOAD, "ready"
    )


def test_a_url_that_cannot_be_used_is_named_by_its_defect() -> None:
    odd = Job("j1", delivery_status="READY", delivery_url_defect="it contains white space")
    error = refusal(odd, decide(odd))
    assert type(error) is DeliveryUrlUnusable
    assert error.message == "the delivery URL cannot be used: it contains white space"


def test_only_a_decision_to_fail_has_an_error() -> None:
    assert decide(READY).error is None
    assert decide(Job("j1", automated=True)).error is None
    assert decide(Job("j1", delivery_status="EXPIRED")).error is Expired
