"""Exit codes: meaning, next step, and the explanation that `restore-agent explain` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .errors import AgentError

_NOTHING = "Nothing: it is found before a delivery URL is touched."

_RECEIPT = "restore-agent status --dest DEST"

_AGAIN = "restore-agent run …            # the same call; it continues"

_NEW_JOB = (
    "Create a new restore job in Ops Manager (delivery method HTTP), then run with its --batch-id or --job-id. A new "
    "batch wants an empty --dest."
)


@dataclass(frozen=True)
class Explanation:
    """The long answer to one exit code; `next` are steps in their order."""

    on_disk: str
    download: str
    next: tuple[str, ...]


_EXPLAINED: dict[int, Explanation] = {
    0: Explanation(
        "Every selected archive under its final name, SHA1SUMS, and receipt.json as the completion marker. With "
        "--allow-unproven also whole archives as <archive>.unproven.",
        "One for each archive that this run fetched; none when `changed` is false.",
        (
            "cd DEST && sha1sum -c SHA1SUMS      # if you want to see it once more",
            "Unpack each archive into the data path of its shard or config server.",
        ),
    ),
    1: Explanation(
        "What was there is kept; an archive under its final name is proven even now.",
        "Perhaps: receipt.json, or `downloads_spent` of status.json, tells for each archive.",
        ("restore-agent run … --debug      # shows a traceback, secrets hidden", "Report what it printed."),
    ),
    2: Explanation(
        "Nothing was written.",
        "None.",
        ("restore-agent run --help", "Mend the option, variable, configuration key or key file that the error names."),
    ),
    10: Explanation(
        "<archive>.unproven: whole by its own structure (gzip CRC and length, end of tar), not under its final name.",
        "One for each archive that was fetched. No further one is needed.",
        (
            "restore-agent verify …         # later: promotes it once there is a hash",
            "If brs.restore.digest.method is NONE on the server, no hash will ever come: decide whether structure is "
            "proof enough, and run with --allow-unproven.",
        ),
    ),
    11: Explanation(
        "<archive>.mismatch: quarantined, for looking at only. Other archives of the batch may be verified.",
        "One for each archive that was fetched.",
        (
            "Do not restore from a quarantined file.",
            _NEW_JOB,
            "If it happens again: check the snapshot and the backup log in Ops Manager, and the memory of this host.",
        ),
    ),
    12: Explanation(
        "Archives that are verified stand under their final names; the others as receipt.json says of each.",
        "As `downloads_spent` says of each archive.",
        (f"{_RECEIPT}", "Read `reason` and `exit_code` of each archive in receipt.json, and explain those codes."),
    ),
    20: Explanation(
        "Archives whose jobs were READY are verified; nothing of those that were not.",
        "None for the jobs that are not READY.",
        (_AGAIN, "Give --wait-timeout more time if the snapshot is large; look at the job's state in Ops Manager."),
    ),
    21: Explanation(
        "Archives of the other jobs are verified; perhaps a <archive>.part of this one.",
        "Perhaps, if the delivery failed in the middle.",
        ("Look at the restore job and the backup daemon's log in Ops Manager.", _NEW_JOB),
    ),
    22: Explanation(
        "Perhaps a <archive>.part, which a new job cannot continue. Other archives may be verified.",
        "Perhaps; it no longer matters, the link is dead.",
        (_NEW_JOB, "Give it a longer delivery.expirationHours: size by rate, and then twice that."),
    ),
    23: Explanation(
        "<archive>.part with the bytes that came before the cut. Other archives may be verified.",
        "All that the job had.",
        (_NEW_JOB, "Give it a higher delivery.maxDownloads, so that a cut may be followed by another attempt."),
    ),
    24: Explanation(
        "Nothing new, or only the archives of the jobs that were listed.",
        "None for what was not found.",
        (
            "restore-agent plan …               # asks again, touches no delivery URL",
            "Check --group-id, --cluster-id or --host-id, --batch-id or --job-id, --select and --expect-jobs.",
        ),
    ),
    25: Explanation(
        "<archive>.part, if any bytes came. Other archives may be verified.",
        "Perhaps one for each attempt that was answered; `downloads_spent` counts them.",
        (
            "Look at the job in Ops Manager: is its link usable, is the backup host (which may be another) reachable?",
            _AGAIN,
        ),
    ),
    30: Explanation(
        "What was there is kept.",
        _NOTHING,
        (
            "Check the key pair, its role in the project (Project Read Only is enough), and the API access list for "
            "this host's address.",
            "restore-agent plan …               # tells whether it is mended",
        ),
    ),
    31: Explanation(
        "What was there is kept.",
        "None on a connection that TLS refused.",
        (
            "Give --ca-file the CA that signed the server's certificate, and --url the name that it was made out for.",
            "If the server wants a client certificate: --client-cert and --client-key.",
        ),
    ),
    32: Explanation(
        "What was there is kept: verified archives, and each .part for a resume.",
        "Perhaps, if archives were under way; `downloads_spent` counts them.",
        ("Check that --url, proxies and DNS lead to Ops Manager and that it answers.", _AGAIN),
    ),
    40: Explanation(
        "What came before is kept as <archive>.part where the server allows a resume; verified archives stay.",
        "None where the space was missed beforehand; else as the error says.",
        ("df -h DEST", "Free the space that the error names, or choose another --dest.", _AGAIN),
    ),
    41: Explanation(
        "What is synced is kept; after a failed sync a .part is not trusted and fetched afresh.",
        "None where it was found beforehand; else as the error says.",
        ("Check owner, mode, mount and the kernel log (I/O errors, read-only remount) of DEST.", _AGAIN),
    ),
    42: Explanation(
        "What is in the way is untouched; the agent overwrites nothing that it did not put there.",
        "None.",
        (
            "Look at DEST: a file at an archive's name, the receipt of another batch, or a record that does not read.",
            "Move it away, or choose an empty --dest for this batch.",
        ),
    ),
    50: Explanation(
        "Whatever the other run is writing; this one touched nothing.",
        "None by this run.",
        (f"{_RECEIPT}      # how far the other one is", "Wait for it, then run again: it finds everything done."),
    ),
    130: Explanation(
        "Verified archives, and each .part for a resume, with the journal that knows about them.",
        "Perhaps one for each archive that was under way; running again needs another where no resume is possible.",
        (_AGAIN,),
    ),
    143: Explanation(
        "Verified archives, and each .part for a resume, with the journal that knows about them.",
        "Perhaps one for each archive that was under way; running again needs another where no resume is possible.",
        (_AGAIN,),
    ),
}


def codes() -> list[int]:
    """Every exit code, in order."""
    return sorted(EXIT_CODES)


def reasons(code: int) -> list[str]:
    """The stable ids that end with this code, as errors and receipts name them."""
    found = {kind.id for kind in _leaves(AgentError) if kind.exit_code == code and "id" in vars(kind)}
    return sorted(found | ({"stopped"} if code in (130, 143) else set()))


def code_of(word: str) -> int | None:
    """The exit code that `word` means: a number, or the id of a reason."""
    if word.isascii() and word.isdigit() and len(word) <= 3:
        return int(word) if int(word) in EXIT_CODES else None
    return next((code for code in codes() if word in reasons(code)), None)


def _leaves(kind: type[AgentError]) -> Iterator[type[AgentError]]:
    yield kind
    for heir in kind.__subclasses__():
        yield from _leaves(heir)


def explained(code: int) -> dict[str, Any]:
    """The whole answer as plain values, for a line of JSON."""
    meaning, advice = EXIT_CODES[code]
    told = {"exit_code": code, "meaning": meaning, "advice": advice, "reasons": reasons(code)}
    return told | asdict(_EXPLAINED[code])


EXIT_CODES: dict[int, tuple[str, str]] = {
    0: ("every selected archive is verified, now or already", "go on"),
    1: ("a defect of the agent", "report it"),
    2: ("usage or configuration", "fix the call"),
    10: ("whole on disk, but no hash was published in time", "run `verify` later"),
    11: ("differs from the published hash, or is damaged; quarantined", "new restore job"),
    12: ("several archives failed, for different reasons", "read the receipt"),
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
    130: ("stopped by SIGINT; state kept", "run again"),
    143: ("stopped by SIGTERM; state kept", "run again"),
}

"""Exit code to what it means and what the runbook does."""

SEVERAL_REASONS = 12
NOT_UNPACKED = 13


def combined_exit_code(codes: Iterable[int]) -> int:
    """Return one exit code for many archives: 0, the code that all failed ones share, or 12.

    A verified archive that could not be unpacked (13) decides the code only if no archive failed otherwise.
    """
    failed = {code for code in codes if code}
    if failed > {NOT_UNPACKED}:
        failed.remove(NOT_UNPACKED)
    if not failed:
        return 0
    return failed.pop() if len(failed) == 1 else SEVERAL_REASONS


RECEIPT_CODES = frozenset({0, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 40, 41, 42})
"""Exit codes of a run after which the receipt is written."""
