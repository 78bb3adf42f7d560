"""Exit codes: meaning, next step, and the explanation that `restore-agent explain` prints, in one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .errors import AgentError

_STATUS = "restore-agent status --dest DEST"

_RUN_AGAIN = "restore-agent run …         # the same options; it resumes"

_NEW_JOB = (
    "Create a new restore job in Ops Manager (delivery method HTTP), then run with its --batch-id or --job-id. "
    "Choose an empty --dest for a new batch."
)

_RUN_FILES_KEPT = "Verified archives, each .part for a resume, and the journal."

_RUN_MAY_HAVE_SPENT = "Perhaps one for each archive that was being downloaded. The next run resumes if it can."


@dataclass(frozen=True)
class ExitCode:
    """One exit code. `meaning` and `next_step` are an interface; `steps` are the next steps in detail, in order."""

    meaning: str
    next_step: str
    on_disk: str
    download: str
    steps: tuple[str, ...]


EXIT_CODES: dict[int, ExitCode] = {
    0: ExitCode(
        "every selected archive is verified, now or already",
        "go on",
        on_disk="Every selected archive under its final name, SHA1SUMS, and receipt.json as the completion marker. "
        "With --allow-unproven, perhaps also complete archives as <archive>.unproven.",
        download="One for each archive that this run downloaded; none if `changed` is false.",
        steps=(
            "cd DEST && sha1sum -c SHA1SUMS      # optional: check the archives again",
            "restore-agent run --unpack DIR …    # unpacks them, without a download",
        ),
    ),
    1: ExitCode(
        "a defect of the agent",
        "report it",
        on_disk="Existing files are kept. An archive under its final name is verified.",
        download="Perhaps: see `downloads_spent` of each archive in receipt.json or status.json.",
        steps=(
            "restore-agent run … --debug      # prints a traceback, with secrets hidden",
            "Report the traceback.",
        ),
    ),
    2: ExitCode(
        "usage or configuration",
        "fix the call",
        on_disk="Nothing was written.",
        download="None.",
        steps=(
            "restore-agent run --help",
            "Correct the option, variable, configuration key, or key file that the error names.",
        ),
    ),
    10: ExitCode(
        "whole on disk, but no hash was published in time",
        "run `verify` later",
        on_disk="<archive>.unproven: structurally complete (gzip CRC and length, end of tar), but not under its final "
        "name.",
        download="One for each archive that was downloaded. No further one is needed.",
        steps=(
            "restore-agent verify …      # later: promotes it if a hash is published",
            "If brs.restore.digest.method is NONE on the server, no hash is ever published: decide whether the "
            "structure check is sufficient, and run with --allow-unproven.",
        ),
    ),
    11: ExitCode(
        "differs from the published hash, or is damaged; quarantined",
        "new restore job",
        on_disk="<archive>.mismatch: quarantined, for analysis only. Other archives of the batch may be verified.",
        download="One for each archive that was downloaded.",
        steps=(
            "Do not restore from a quarantined file.",
            _NEW_JOB,
            "If it happens again, check the snapshot and the backup log in Ops Manager, and the memory of this host.",
        ),
    ),
    12: ExitCode(
        "several archives failed, for different reasons",
        "read the receipt",
        on_disk="Verified archives under their final names. For the others, see receipt.json.",
        download="See `downloads_spent` of each archive in receipt.json.",
        steps=(_STATUS, "Read `reason` and `exit_code` of each archive in receipt.json, and explain those codes."),
    ),
    13: ExitCode(
        "proven, but not unpacked; the archive is safe, the reason is in the receipt",
        "mend the cause, run again: no download",
        on_disk="Every selected archive under its final name. No incomplete data path is kept.",
        download="One for each archive that this run downloaded. No further one is needed.",
        steps=(
            _STATUS,
            "Correct the cause that `reason` of the archive in receipt.json names.",
            "restore-agent run …         # the same options; it does not download",
        ),
    ),
    20: ExitCode(
        "jobs not READY within `--wait-timeout`",
        "run again",
        on_disk="Archives whose jobs were READY are verified. There is no file for the other jobs.",
        download="None for the jobs that are not READY.",
        steps=(
            _RUN_AGAIN,
            "If the snapshot is large, increase --wait-timeout. Check the state of the job in Ops Manager.",
        ),
    ),
    21: ExitCode(
        "job BROKEN or KILLED, or delivery FAILED or INTERRUPTED",
        "new restore job",
        on_disk="Perhaps a <archive>.part of this job. Archives of the other jobs may be verified.",
        download="Perhaps, if the delivery failed during the download.",
        steps=("Check the restore job and the log of the backup daemon in Ops Manager.", _NEW_JOB),
    ),
    22: ExitCode(
        "delivery expired",
        "new restore job, longer expiry",
        on_disk="Perhaps a <archive>.part, which a new job cannot resume. Other archives may be verified.",
        download="Perhaps, but the delivery can no longer be downloaded.",
        steps=(
            _NEW_JOB,
            "Set a longer delivery.expirationHours: divide the size by the transfer rate, then double the result.",
        ),
    ),
    23: ExitCode(
        "downloads used up before an archive was whole",
        "new restore job, more downloads",
        on_disk="<archive>.part with the bytes received before the transfer was interrupted. Other archives may be "
        "verified.",
        download="All downloads of the job.",
        steps=(
            _NEW_JOB,
            "Set a higher delivery.maxDownloads, so that an interrupted transfer can be followed by another attempt.",
        ),
    ),
    24: ExitCode(
        "no such batch, job, cluster or group; or fewer jobs than expected",
        "check the ids",
        on_disk="Nothing new, or only the archives of the jobs that were listed.",
        download="None for the jobs that were not found.",
        steps=(
            "restore-agent plan …        # asks again, never requests a delivery URL",
            "Check --group-id, --cluster-id or --host-id, --batch-id or --job-id, --select, and --expect-jobs.",
        ),
    ),
    25: ExitCode(
        "READY, yet the delivery URL keeps refusing or sends something else",
        "look at Ops Manager",
        on_disk="<archive>.part, if any bytes were received. Other archives may be verified.",
        download="Perhaps one for each attempt that was answered; `downloads_spent` counts them.",
        steps=(
            "Check the job in Ops Manager: is its delivery URL valid, and is the delivery host reachable? "
            "(It may not be the host of Ops Manager.)",
            _RUN_AGAIN,
        ),
    ),
    30: ExitCode(
        "401 or 403 from the API",
        "key, role, access list",
        on_disk="Existing files are kept.",
        download="None: the error is found before a delivery URL is requested.",
        steps=(
            "Check the key pair, its role in the project (Project Read Only is enough), and that the API access list "
            "contains the address of this host.",
            "restore-agent plan …        # shows whether the problem is solved",
        ),
    ),
    31: ExitCode(
        "TLS: untrusted, wrong host, client certificate refused",
        "CA file, client certificate",
        on_disk="Existing files are kept.",
        download="None on a connection that TLS refused.",
        steps=(
            "Set --ca-file to the CA that signed the server's certificate, and use the host name of the certificate in "
            "--url.",
            "If the server requires a client certificate, set --client-cert and --client-key.",
        ),
    ),
    32: ExitCode(
        "Ops Manager cannot be reached, or keeps answering 429/5xx",
        "run again",
        on_disk="Existing files are kept: verified archives, and each .part for a resume.",
        download="Perhaps, if archives were being downloaded; `downloads_spent` counts them.",
        steps=("Check --url, proxies, and DNS, and that Ops Manager is running.", _RUN_AGAIN),
    ),
    40: ExitCode(
        "no space",
        "free space",
        on_disk="Received bytes are kept as <archive>.part if the server supports resuming. Verified archives are "
        "kept.",
        download="None if the lack of space was detected before the download; otherwise, see the error.",
        steps=("df -h DEST", "Free the space that the error names, or choose another --dest.", _RUN_AGAIN),
    ),
    41: ExitCode(
        "cannot write, sync or lock in DEST",
        "host team",
        on_disk="Synced files are kept. After a failed sync, the .part is discarded and downloaded again.",
        download="None if the problem was detected before the download; otherwise, see the error.",
        steps=("Check owner, mode, mount, and kernel log (I/O errors, read-only remount) of DEST.", _RUN_AGAIN),
    ),
    42: ExitCode(
        "something else is in the way in DEST",
        "look at DEST",
        on_disk="The file in the way is unchanged. restore-agent never overwrites a file that it did not create.",
        download="None.",
        steps=(
            "Check DEST: a file with the name of an archive, the receipt of another batch, or an unreadable record.",
            "Move it away, or choose an empty --dest for this batch.",
        ),
    ),
    50: ExitCode(
        "another run holds DEST",
        "wait",
        on_disk="The files of the other run. This run changed nothing.",
        download="None by this run.",
        steps=(
            f"{_STATUS}      # shows the progress",
            "Wait for the other run to end, then run again.",
        ),
    ),
    129: ExitCode(
        "stopped by SIGHUP; state kept", "run again", _RUN_FILES_KEPT, _RUN_MAY_HAVE_SPENT, steps=(_RUN_AGAIN,)
    ),
    130: ExitCode(
        "stopped by SIGINT; state kept", "run again", _RUN_FILES_KEPT, _RUN_MAY_HAVE_SPENT, steps=(_RUN_AGAIN,)
    ),
    143: ExitCode(
        "stopped by SIGTERM; state kept", "run again", _RUN_FILES_KEPT, _RUN_MAY_HAVE_SPENT, steps=(_RUN_AGAIN,)
    ),
}

SIGNAL_CODES = (129, 130, 143)

SEVERAL_REASONS = 12

NOT_UNPACKED = 13

RECEIPT_CODES = frozenset({0, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 40, 41, 42})
"""Exit codes of a run that writes the receipt."""


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


def codes() -> list[int]:
    """Return every exit code, in ascending order."""
    return sorted(EXIT_CODES)


@dataclass(frozen=True)
class Reason:
    """An ID that errors, receipts, plans, and events contain; `exit_code` is None for one that is not a failure."""

    id: str
    exit_code: int | None
    text: str
    hint: str | None = None


_OTHER_REASONS = (
    Reason("ready", None, "The delivery is READY: `run` downloads the archive."),
    Reason("no-url-yet", 20, "The delivery is READY, but Ops Manager lists no delivery URL yet: `run` waits for it."),
    Reason("automated-restore", None, "The job is an automated restore, which MongoDB Agents perform: it is skipped."),
    Reason("not-delivered-over-http", None, "The delivery method of the job is not HTTP: it is skipped."),
    Reason("proven-before", None, "An earlier run verified the archive: `run` does not download it again."),
    Reason("same-as-published", None, "The SHA1 of the file on disk equals the published hash: no download is needed."),
    Reason("whole-on-disk", None, "The archive is complete on disk and waits for its hash: no download is needed."),
    Reason("not-downloaded", 20, "The archive was not downloaded yet.", "Run `restore-agent run`."),
)
"""Reasons that are not errors."""


def all_reasons() -> dict[str, Reason]:
    """Return every reason by its ID: those of the errors, described by their classes, and the others."""
    found = {reason.id: reason for reason in _OTHER_REASONS}
    for kind in _subclasses(AgentError):
        if "id" in vars(kind):
            text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
            found[kind.id] = Reason(kind.id, kind.exit_code, text, kind.hint)
    found["stopped"] = replace(found["stopped"], exit_code=SIGNAL_CODES[-1])
    return found


def reasons(code: int) -> list[str]:
    """Return the IDs of all reasons that end with this exit code."""
    found = {reason.id for reason in all_reasons().values() if reason.exit_code == code}
    return sorted(found | ({"stopped"} if code in SIGNAL_CODES else set()))


def code_of(word: str) -> int | None:
    """Return the exit code that a word names by its number, or None."""
    if word.isascii() and word.isdigit() and len(word) <= 3:
        return int(word) if int(word) in EXIT_CODES else None
    return None


def _subclasses(kind: type[AgentError]) -> Iterator[type[AgentError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _subclasses(subclass)


def explained(code: int) -> dict[str, Any]:
    """Return the explanation of an exit code as plain values, for a line of JSON."""
    row = EXIT_CODES[code]
    return {
        "exit_code": code,
        "meaning": row.meaning,
        "hint": row.next_step,
        "reasons": reasons(code),
        "on_disk": row.on_disk,
        "download": row.download,
        "steps": list(row.steps),
    }
