"""The error tree equals its docstring, and the exit codes are those of the contract."""

import ast
import inspect
import pathlib
import re
from dataclasses import dataclass

import pytest

import restore_agent
from restore_agent.core import errors
from restore_agent.core.errors import AgentError, ArchiveError, Expired, ResumeRefused, Stopped, TransferCut
from restore_agent.core.exit_codes import EXIT_CODES, combined_exit_code

# the contract's section 4, row by row
CONTRACT = {
    0: ("every selected archive is verified, now or already", "go on"),
    1: ("a defect of the agent", "report it"),
    2: ("usage or configuration", "fix the call"),
    10: ("whole on disk, but no hash was published in time", "run `verify` later"),
    11: ("differs from the published hash, or is damaged; quarantined", "new restore job"),
    12: ("several archives failed, for different reasons", "read the receipt"),
    13: (
        "proven, but not unpacked; the archive is safe, the reason is in the receipt",
        "mend the cause, run again: no download",
    ),
    20: ("jobs not READY within `--wait-timeout`", "run again"),
    21: ("job BROKEN or KILLED, or delivery FAILED or INTERRUPTED", "new restore job"),
    22: ("delivery expired", "new restore job, longer expiry"),
    23: ("downloads used up before an archive was whole", "new restore job, more downloads"),
    24: ("no such batch, job, cluster or group; or fewer jobs than expected", "check the ids"),
    25: ("READY, yet the delivery URL keeps refusing or sends something else", "look at Ops Manager"),
    30: ("401 or 403 from the API", "key, role, access list"),
    31: ("TLS: untrusted, wrong host, client certificate refused", "CA file, client certificate"),
    32: ("Ops Manager cannot be reached, or keeps answering 429/5xx", "run again"),
    40: ("no space", "free space"),
    41: ("cannot write, sync or lock in DEST", "host team"),
    42: ("something else is in the way in DEST", "look at DEST"),
    50: ("another run holds DEST", "wait"),
    129: ("stopped by SIGHUP; state kept", "run again"),
    130: ("stopped by SIGINT; state kept", "run again"),
    143: ("stopped by SIGTERM; state kept", "run again"),
}

CLASSES = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, AgentError)]
WITH_ID = [one for one in CLASSES if "id" in vars(one)]
BASES = {one for one in CLASSES if any(other is not one and issubclass(other, one) for other in CLASSES)}


def test_the_exit_codes_are_the_contracts() -> None:
    assert {code: (row.meaning, row.next_step) for code, row in EXIT_CODES.items()} == CONTRACT


def test_only_a_signal_and_success_have_no_error_of_their_own_code() -> None:
    raised = {one.exit_code for one in CLASSES}
    assert raised <= set(EXIT_CODES)
    assert set(EXIT_CODES) - raised - {13} == {0, 12, 129, 130, 143}  # 12 sums up, the signals are Stopped


# ---------------------------------------------------------------- the tree


@dataclass(frozen=True)
class Drawn:
    """One line of the tree in the docstring."""

    name: str
    parent: str | None
    codes: tuple[int, ...]
    id: str | None


def drawn_tree() -> list[Drawn]:
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.search(r"[A-Z]\w+ {2,}|─", line)]
    found: list[Drawn] = []
    above: list[tuple[int, str]] = []
    for line in lines:
        match = re.fullmatch(r"([ │├└─]*)([A-Z]\w+)(?: +([\d, ]*\d))?(?: +(\(.*\)|[a-z].*))?", line)
        assert match, line
        depth = len(match[1])
        above = [(at, name) for at, name in above if at < depth]
        codes = tuple(int(code) for code in (match[3] or "").split(",") if code.strip())
        words = match[4] or ""
        named = words if re.fullmatch(r"[a-z]+(-[a-z]+)*", words) else None
        found.append(Drawn(match[2], above[-1][1] if above else None, codes, named))
        above.append((depth, match[2]))
    return found


TREE = drawn_tree()


def test_every_class_is_in_the_tree_once() -> None:
    assert sorted(drawn.name for drawn in TREE) == sorted(one.__name__ for one in CLASSES)
    assert len(TREE) > 35


@pytest.mark.parametrize("drawn", TREE, ids=lambda drawn: drawn.name)
def test_a_class_has_the_parent_code_and_id_of_the_tree(drawn: Drawn) -> None:
    one = getattr(errors, drawn.name)
    assert one.__bases__[0].__name__ == (drawn.parent or "Exception")
    if "id" in vars(one):
        assert drawn.id == one.id
    if drawn.name == "Stopped":
        assert drawn.codes == (129, 130, 143)
    elif drawn.codes:
        assert drawn.codes == (one.exit_code,)
    else:
        assert "exit_code" not in vars(one)
        assert one in BASES


# ---------------------------------------------------------------- ids and hints


def test_ids_are_unique_and_in_kebab_case() -> None:
    ids = [one.id for one in WITH_ID]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", each) for each in ids)


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__name__)
def test_an_error_that_an_operator_can_see_has_an_id(one: type[AgentError]) -> None:
    assert "id" in vars(one) or one in BASES


@pytest.mark.parametrize("one", [one for one in WITH_ID if one is not AgentError], ids=lambda one: one.__name__)
def test_an_error_that_an_operator_can_see_has_a_hint(one: type[AgentError]) -> None:
    assert one.hint != AgentError.hint
    assert one.hint.endswith(".")
    assert "\n" not in one.hint


def test_the_hint_of_a_defect_asks_for_a_report() -> None:
    assert "report" in AgentError.hint
    assert AgentError.exit_code == 1


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__name__)
def test_the_docstring_of_an_error_begins_with_a_sentence(one: type[AgentError]) -> None:
    assert (one.__doc__ or "").splitlines()[0].strip().endswith(".")


def test_no_error_without_an_id_is_ever_raised() -> None:
    nameless = {one.__name__ for one in CLASSES if one not in WITH_ID}
    raised = set()
    for path in pathlib.Path(restore_agent.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                raised.add(node.exc.func.id)
    assert "TransferCut" in raised
    assert raised & nameless == set()


# ---------------------------------------------------------------- fields


def test_an_error_has_message_archive_files_on_disk_and_hint() -> None:
    error = Expired("it expired", archive="rs0.tar.gz", left="rs0.tar.gz.part is kept", spent=True)
    assert str(error) == "it expired"
    assert error.fields() == {
        "id": "delivery-expired",
        "exit_code": 22,
        "message": "it expired",
        "file_name": "rs0.tar.gz",
        "on_disk": "rs0.tar.gz.part is kept",
        "download_spent": True,
        "hint": Expired.hint,
    }


def test_an_error_may_have_a_better_hint_than_its_class() -> None:
    assert ArchiveError("x", hint="Do this.").hint == "Do this."
    assert Expired("x").hint == Expired.hint


@pytest.mark.parametrize("code", [129, 130, 143])
def test_a_signal_carries_its_own_exit_code(code: int) -> None:
    error = Stopped("stopped", exit_code=code)
    assert (error.exit_code, error.fields()["exit_code"]) == (code, code)
    assert Stopped.exit_code not in (129, 130, 143)


@pytest.mark.parametrize(
    ("codes", "combined"),
    [
        *(([], 0), ([0], 0), ([0, 0], 0), ([22], 22), ([0, 22, 22], 22), ([22, 23], 12), ([0, 10, 11, 22], 12)),
        *(([12], 12), ([13], 13), ([0, 13, 13], 13), ([13, 22], 22), ([13, 10, 22], 12)),
    ],
)
def test_many_archives_have_one_exit_code(codes: list[int], combined: int) -> None:
    assert combined_exit_code(codes) == combined


# ---------------------------------------------------------------- with_context


def test_with_context_returns_a_completed_copy_and_leaves_the_error_as_it_is() -> None:
    error = TransferCut("interrupted", spent=True, retry_after=5.0)
    completed = error.with_context(message="given up", archive="rs0.tar.gz", left="nothing of it", exit_code=23)
    assert type(completed) is TransferCut
    assert completed.fields() == error.fields() | {
        "message": "given up",
        "file_name": "rs0.tar.gz",
        "on_disk": "nothing of it",
        "exit_code": 23,
    }
    assert (str(completed), completed.retry_after) == ("given up", 5.0)
    assert (error.message, str(error), error.archive, error.exit_code) == ("interrupted", "interrupted", None, 25)


def test_with_context_without_a_field_changes_nothing() -> None:
    error = Expired("it expired", archive="a", left="b", spent=False, hint="Do this.")
    assert error.with_context().fields() == error.fields()
    assert error.with_context(spent=True).fields() == error.fields() | {"download_spent": True}


def test_with_context_keeps_the_fields_of_the_subclass_and_the_cause() -> None:
    cause = OSError("disk")
    try:
        try:
            raise cause
        except OSError as error:
            raise ResumeRefused("the server sent 416", complete=True) from error
    except ResumeRefused as refused:
        completed = refused.with_context(left="a.part")
    assert completed.complete
    assert completed.__cause__ is cause
    assert completed.__traceback__ is not None
