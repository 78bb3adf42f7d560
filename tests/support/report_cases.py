"""Batches that the report is looked at with: each is a name and the files of all its receipts."""

from __future__ import annotations

from restore_agent.ui.report import ReceiptFile

from .receipts import Json, archive, failed, files, old, receipt

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}\u202egnp.exe\x1b[31m\x00\u200b-" + "A" * 200 + ".tar.gz"


def success() -> list[ReceiptFile]:
    """Return three archives on three hosts, all verified and unpacked."""
    return files(*(receipt(archive(number), host=f"db-restore-{number:02d}.example.com") for number in range(3)))


def one_missing() -> list[ReceiptFile]:
    """Return two verified archives and one whose delivery expired; a fourth job is in no receipt if 4 are expected."""
    expired = failed(
        2, 22, "delivery-expired", downloads_spent=1, download_started_at=archive(2)["download_started_at"]
    )
    return files(
        receipt(archive(0), host="db-restore-00.example.com"),
        receipt(archive(1), expired, host="db-restore-01.example.com"),
    )


def large() -> list[ReceiptFile]:
    """Return 40 archives on 12 hosts: most verified, some failed for every kind of reason."""
    entries: list[Json] = [archive(number) for number in range(40)]
    entries[3] = failed(
        3, 10, "hash-not-published", "unproven", bytes=18_000_000_123, sha1="ab" * 20, downloads_spent=1
    )
    entries[9] = archive(9, verdict="mismatch", exit_code=11, reason="hash-mismatch", expected_sha1="0f" * 20)
    entries[17] = archive(17, exit_code=13, reason="no-space-to-unpack", data_path=None, unpacked_at=None)
    entries[21] = failed(21, 22, "delivery-expired", downloads_spent=1)
    entries[22] = failed(22, 22, "delivery-expired", downloads_spent=1)
    entries[39] = failed(39, 0, None, "skipped")
    return files(*(receipt(*entries[host::12], host=f"db-restore-{host:02d}.example.com") for host in range(12)))


def hostile() -> list[ReceiptFile]:
    """Return receipts whose every text is hostile: markup, control characters, right-to-left marks, great length."""
    names = (HOSTILE, "إستعادة\u202e\u2066" + "漢字" * 60, "e" + "\u0301" * 90 + "</style></title>-->]]>")
    entries = [
        archive(
            number, file_name=name, path=f"/{name}", data_path=f"/data/{name}", reason=name, snapshot_timestamp=name
        )
        for number, name in enumerate(names)
    ]
    entries[0] |= {"restore_info": {"MongoDB Version": HOSTILE}, "sha1": HOSTILE, "expected_sha1": None}
    entries[1] |= {"verdict": "failed", "exit_code": 25, "job_id": HOSTILE}
    host = receipt(*entries, host=HOSTILE, agent_version=HOSTILE, ops_manager=HOSTILE, cluster_id=HOSTILE)
    return files(host | {"started_at": HOSTILE, "batch_id": HOSTILE, "outcome": HOSTILE})


def old_agent() -> list[ReceiptFile]:
    """Return receipts without host names, moments, and data paths."""
    return files(*(receipt(old(number), host=..., agent_version="1.0.2") for number in range(2)))


CASES = {"success": success, "one-missing": one_missing, "large": large, "hostile": hostile, "old-agent": old_agent}

EXPECTED_JOBS = {"one-missing": 4}
