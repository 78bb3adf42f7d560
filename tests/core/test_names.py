"""Names of archives in DEST: safe whatever a server calls them, unique, and kept."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restore_agent.core.names import MISMATCH, OWN_NAMES, PART, UNPROVEN, Names, data_path_names, safe_name

COMPANIONS = ("", PART, UNPROVEN, MISMATCH)


def test_the_suffixes_and_own_names_are_those_of_the_contract() -> None:
    assert (PART, UNPROVEN, MISMATCH) == (".part", ".unproven", ".mismatch")
    assert OWN_NAMES == ("receipt.json", "SHA1SUMS")


@pytest.mark.parametrize(
    ("served_as", "name"),
    [
        ("rs0-1492636465-5c9e.tar.gz", "rs0-1492636465-5c9e.tar.gz"),
        ("rs0.tar", "rs0.tar"),
        ("config-{5c9e}-x.tar.gz", "config-{5c9e}-x.tar.gz"),
        ("größe 測試.tar.gz", "größe 測試.tar.gz"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("a\\b\\c.tar.gz", "c.tar.gz"),
        (".bashrc", "bashrc"),
        ("...rs0.tar.gz", "rs0.tar.gz"),
        (". .restore-agent", "restore-agent"),
        (" . . .x.tar", "x.tar"),
        ("  rs0.tar.gz ", "rs0.tar.gz"),
        ("rs0\n.tar\x00.gz\x1b[2J", "rs0.tar.gz[2J"),
        ("gz.\u202erat", "gz.rat"),
        ("a\u2028b\u2029c", "abc"),
        ("a\ud800b", "ab"),
        ("-rf", "-rf"),
        ("", "5c9e.tar.gz"),
        (".", "5c9e.tar.gz"),
        ("..", "5c9e.tar.gz"),
        ("a/", "5c9e.tar.gz"),
        ("a/..", "5c9e.tar.gz"),
        (" \t\n", "5c9e.tar.gz"),
        ("\x00\x01", "5c9e.tar.gz"),
    ],
)
def test_a_served_name_is_reduced_to_a_safe_one(served_as: str, name: str) -> None:
    assert safe_name(served_as, "5c9e") == name


@pytest.mark.parametrize(
    ("job_id", "name"),
    [("../x", "___x.tar.gz"), ("", "job.tar.gz"), ("é", "_.tar.gz"), ("a" * 500, "a" * 64 + ".tar.gz")],
)
def test_a_job_without_a_served_name_is_named_by_its_id(job_id: str, name: str) -> None:
    assert safe_name("", job_id) == name


@pytest.mark.parametrize("extension", [".tar.gz", ".tgz", ".tar"])
@pytest.mark.parametrize("letter", ["x", "é", "測", "😀"])
def test_a_long_name_is_cut_and_keeps_its_extension(letter: str, extension: str) -> None:
    name = safe_name(letter * 400 + extension, "5c9e")
    assert name.endswith(letter + extension)
    assert 240 < len((name + MISMATCH).encode()) <= 255


def test_a_name_that_just_fits_is_not_cut() -> None:
    longest = "x" * (255 - len(MISMATCH))
    assert safe_name(longest, "5c9e") == longest


ugly = st.text(
    st.sampled_from([*"ab./\\ -~é😀", "\x00", "\n", "\x7f", "\u202e", "\u2028", "\ud800"]),
    max_size=12,
)
served_names = (
    ugly
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.builds(str.__mul__, ugly, st.integers(1, 60))
    | st.builds(str.__add__, ugly, st.sampled_from([".tar.gz", ".tar", ".part", ".unproven", ".mismatch", ".tmp"]))
    | st.sampled_from([*OWN_NAMES, ".restore-agent", "..", "receipt.json.part", "SHA1SUMS.mismatch"])
)
job_ids = st.sampled_from(["j1", "j2", "j1-j2", "5c9e", "a/b", "a_b", "..", "", "x" * 80, "x" * 81]) | ugly


def assert_safe(name: str) -> None:
    assert name
    assert "/" not in name
    assert "\\" not in name
    assert not name.startswith(".")
    assert not any(unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" for char in name)
    assert all(len((name + suffix).encode()) <= 255 for suffix in COMPANIONS)
    assert os.path.basename(os.path.normpath(f"/dest/{name}")) == name


@hypothesis_settings(deadline=None, max_examples=100)
@given(served_names, job_ids)
@example(". .restore-agent", "j1")
@example("x" * 245 + " .tar.gz", "j1")
@example("." * 300, ".")
def test_no_served_name_is_unsafe(served_as: str, job_id: str) -> None:
    assert_safe(safe_name(served_as, job_id))


@hypothesis_settings(deadline=None, max_examples=100)
@given(served_names, job_ids)
@example(". .restore-agent", "j1")
def test_a_safe_name_stays_as_it_is_when_a_later_run_reads_it_again(served_as: str, job_id: str) -> None:
    given = [safe_name(served_as, job_id), *names_of({job_id: served_as, "another": served_as}).values()]
    assert [safe_name(name, job_id) for name in given] == given


def names_of(*wanted: dict[str, str], ignore_case: bool = False) -> dict[str, str]:
    """Return the names that jobs get if they are listed in these groups, one after the other."""
    names = Names(ignore_case=ignore_case)
    for group in wanted:
        names.give(group)
    return {job_id: names.of(job_id) or "" for group in wanted for job_id in group}


def test_a_name_that_is_not_shared_stays_plain() -> None:
    assert names_of({"j1": "a.tar.gz", "j2": "b.tar.gz"}) == {"j1": "a.tar.gz", "j2": "b.tar.gz"}


def test_jobs_that_share_a_name_get_their_id_in_front() -> None:
    assert names_of({"j1": "a.tar.gz", "j2": "a.tar.gz", "j3": "b.tar.gz"}) == {
        "j1": "j1-a.tar.gz",
        "j2": "j2-a.tar.gz",
        "j3": "b.tar.gz",
    }


def test_names_that_become_the_same_are_shared_too() -> None:
    assert names_of({"j1": "x/a.tar.gz", "j2": ".a.tar.gz"}) == {"j1": "j1-a.tar.gz", "j2": "j2-a.tar.gz"}


@pytest.mark.parametrize("name", [*OWN_NAMES, "receipt.json.part", "SHA1SUMS.mismatch", "-"])
def test_a_name_that_the_agent_uses_itself_gets_the_job_id_in_front(name: str) -> None:
    assert names_of({"j1": name})["j1"].startswith("j1-")


@pytest.mark.parametrize("suffix", [PART, UNPROVEN, MISMATCH])
def test_a_final_name_never_looks_like_an_incomplete_archive(suffix: str) -> None:
    assert names_of({"j1": f"a.tar.gz{suffix}"}) == {"j1": "j1-a.tar.gz"}
    assert names_of({"j1": f"a.tar.gz{suffix}{suffix}"}) == {"j1": "j1-a.tar.gz"}


def test_an_assigned_name_stays_and_a_later_job_gets_its_id_in_front() -> None:
    assert names_of({"j1": "a.tar.gz"}, {"j1": "b.tar.gz", "j2": "a.tar.gz"}) == {
        "j1": "a.tar.gz",
        "j2": "j2-a.tar.gz",
    }


def test_a_name_that_an_earlier_run_assigned_is_kept() -> None:
    names = Names()
    names.keep("j1", "j1-a.tar.gz")
    names.give({"j1": "a.tar.gz", "j2": "a.tar.gz"})
    assert (names.of("j1"), names.of("j2"), names.of("j3")) == ("j1-a.tar.gz", "a.tar.gz", None)


def assert_apart(names: dict[str, str], key: Callable[[str], str] = str) -> None:
    taken = [{key(name + suffix) for suffix in COMPANIONS} for name in names.values()]
    taken.append({key(name) for name in OWN_NAMES})
    assert all(not one & other for one, other in combinations(taken, 2)), names


@pytest.mark.parametrize(
    "groups",
    [
        ({"1": "x", "2": "x", "3": "1-x"},),
        ({"3": "1-x"}, {"1": "x", "2": "x"}),
        ({"1": "x"}, {"2": "x", "3": "2-x"}),
        ({"a/b": "x", "a_b": "x"},),
        ({"y" * 64 + "1": "x", "y" * 64 + "2": "x"},),
        ({"j1": "j2-a.tar.gz", "j2": "a.tar.gz.part"},),
        ({"j1": "a.tar.gz", "j2": "a.tar.gz.unproven"},),
        ({"j1": "a", "j2": "a.part", "j3": "a.part.part"},),
        ({"receipt": "json", "j2": "receipt-json"},),
    ],
    ids=str,
)
def test_no_file_of_an_archive_has_the_name_of_another_file(groups: tuple[dict[str, str], ...]) -> None:
    assert_apart(names_of(*groups))


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(job_ids, served_names, max_size=4), max_size=3))
def test_no_names_of_archives_ever_overlap(wanted: list[dict[str, str]]) -> None:
    names = names_of(*wanted)
    for name in names.values():
        assert_safe(name)
    assert_apart(names)


# ---------------------------------------------------------------- a file system that ignores case


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rs0.tar.gz", "RS0.tar.gz"),
        ("rs0.tar.gz", "rs0.TAR.GZ"),
        ("stra\u00dfe.tar", "STRASSE.tar"),
        ("caf\u00e9.tar", "cafe\u0301.tar"),
    ],
)
def test_names_that_differ_only_in_case_are_shared_where_case_is_ignored(one: str, other: str) -> None:
    assert names_of({"j1": one, "j2": other}, ignore_case=True) == {"j1": f"j1-{one}", "j2": f"j2-{other}"}
    assert names_of({"j1": one, "j2": other}) == {"j1": one, "j2": other}


@pytest.mark.parametrize("name", ["RECEIPT.json", "sha1sums", "Receipt.JSON.part", "Sha1Sums.mismatch"])
def test_a_name_of_the_agent_in_another_case_is_its_own_where_case_is_ignored(name: str) -> None:
    assert names_of({"j1": name}, ignore_case=True)["j1"].startswith("j1-")


def test_a_later_job_whose_name_differs_only_in_case_gets_its_id_in_front() -> None:
    assert names_of({"j1": "a.tar"}, {"j2": "A.tar"}, ignore_case=True) == {"j1": "a.tar", "j2": "j2-A.tar"}


def test_a_kept_name_occupies_every_case_of_it() -> None:
    names = Names(ignore_case=True)
    names.keep("j1", "A.tar")
    names.give({"j2": "a.TAR"})
    assert (names.of("j1"), names.of("j2")) == ("A.tar", "j2-a.TAR")


def test_a_kept_name_is_given_to_its_job_again() -> None:
    names = Names(ignore_case=True)
    names.keep("j1", "a.tar")
    names.give({"j1": "A.tar"})
    assert names.of("j1") == "a.tar"


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(job_ids, served_names, max_size=4), max_size=3))
@example([{"A": "x.tar", "a": "X.tar"}])
@example([{"J": "x"}, {"j": "X"}])
def test_no_names_overlap_where_case_is_ignored(wanted: list[dict[str, str]]) -> None:
    names = names_of(*wanted, ignore_case=True)
    for name in names.values():
        assert_safe(name)
    assert_apart(names, folded)


def test_data_paths_are_named_as_their_archives_without_the_extension() -> None:
    assert data_path_names({"j1": "a.tar.gz", "j2": "b.tgz", "j3": "c"}) == {"j1": "a", "j2": "b", "j3": "j3-c"}


@pytest.mark.parametrize("ignore_case", [False, True])
def test_data_paths_that_would_share_a_name_get_the_job_id_in_front(ignore_case: bool) -> None:
    same, only_case = {"j1": "a.tar.gz", "j2": "a.tgz"}, {"j1": "a.tar.gz", "j2": "A.tgz"}
    assert data_path_names(same, ignore_case=ignore_case) == {"j1": "j1-a", "j2": "j2-a"}
    apart = {"j1": "j1-a", "j2": "j2-A"} if ignore_case else {"j1": "a", "j2": "A"}
    assert data_path_names(only_case, ignore_case=ignore_case) == apart
