"""Problems by exit code: title for one and for several archives, and the next step."""

from __future__ import annotations

NO_HASH, DIFFERS, SEVERAL, NOT_UNPACKED, NOT_LISTED, IN_THE_WAY = 10, 11, 12, 13, 24, 42

_NEW_JOB = "Create a new restore job in Ops Manager, then run restore-agent on its host with an empty --dest."

_AGAIN = "Run the same command again on that host. It keeps the files on disk and resumes."

_ADVICE: dict[int, tuple[str, str]] = {
    NO_HASH: (
        "Complete, but no hash is published",
        "Run `restore-agent verify` on that host later. It verifies the archive without a download once Ops Manager "
        "has published the hash.",
    ),
    DIFFERS: (
        "Does not match the published hash, or is damaged",
        f"Do not restore from the quarantined file. {_NEW_JOB}",
    ),
    SEVERAL: ("Failed", "Read `reason` and `exit_code` of the archive in receipt.json."),
    NOT_UNPACKED: (
        "Verified, but not unpacked",
        "Remove the cause, then run the same command again on that host. No download is needed.",
    ),
    20: ("The restore job was not READY in time", _AGAIN),
    21: ("The restore job failed in Ops Manager", f"Check the restore job in Ops Manager. {_NEW_JOB}"),
    22: ("The delivery expired", f"{_NEW_JOB} Set a longer expiry."),
    23: ("All downloads were used before the archive was complete", f"{_NEW_JOB} Allow more downloads."),
    NOT_LISTED: ("The restore job was not found", "Check the IDs of the batch and of its jobs in Ops Manager."),
    25: (
        "The delivery URL does not return the archive",
        "Check the restore job and the backup daemon; then run again.",
    ),
    40: ("The disk of DEST is full", f"Free space on that host. {_AGAIN}"),
    41: ("DEST cannot be written", f"Check owner, mode, and mount of DEST on that host. {_AGAIN}"),
    IN_THE_WAY: (
        "Another file has the name of the archive in DEST",
        "Check DEST on that host: move away files that restore-agent did not create, or choose an empty --dest.",
    ),
}

MISSING = (
    "Find the host that should have restored each missing job, run restore-agent there, and add its receipt.json to "
    "this report."
)

TWICE = (
    "Decide which host keeps the archive, and stop the restore on the others: two members of the cluster must not "
    "start from the same shard. If one receipt is a copy of another, give only one of them."
)

NOTHING = "Check the batch in Ops Manager: it needs restore jobs with the delivery method HTTP."


def advice(code: int) -> tuple[str, str]:
    """Return title and next step for an exit code of an archive."""
    return _ADVICE.get(code, ("Failed", f"Run `restore-agent explain {code}` for the meaning of the exit code."))
