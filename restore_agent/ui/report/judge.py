"""Judgement over the receipts of one batch: which jobs are verified, the exit code, and what to do. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ...core.exit_codes import combined_exit_code
from .advice import DIFFERS, IN_THE_WAY, MISSING, NO_HASH, NOT_LISTED, NOT_UNPACKED, NOTHING, SEVERAL, TWICE, advice
from .receipts import Receipt, ReceiptFile, ReceiptsUnusable, read_receipts
from .values import Archive, Batch, BatchReport, Host, Problem, Row, Standing
from .wording import be, counted

_ORDER = {standing: place for place, standing in enumerate(Standing)}

_FAULTS = {
    Standing.MISMATCH: "be not the published archive",
    Standing.FAILED: "failed",
    Standing.UNPROVEN: "be without a published hash",
    Standing.TWICE: "be verified on more than one host",
    Standing.NOT_UNPACKED: "be not unpacked",
}
"""Words of the sentence; `be` stands for the verb that fits the number."""

_STANDINGS = {"unproven": Standing.UNPROVEN, "mismatch": Standing.MISMATCH}


def judge(files: Iterable[ReceiptFile], expect_jobs: int | None = None) -> BatchReport:
    """Return the report on the batch that all receipts belong to.

    Raises ReceiptsUnusable: no receipt, a file that is not one, or receipts of different restores.
    """
    receipts = read_receipts(files)
    _require_one_batch(receipts)
    archives = [archive for receipt in receipts for archive in receipt.archives]
    by_job: dict[str, list[Archive]] = {}
    for archive in archives:
        by_job.setdefault(archive.job_id, []).append(archive)
    rows = sorted((row for same in by_job.values() for row in _rows(same)), key=_place)
    missing = max(0, (expect_jobs or 0) - len(by_job))
    judged = {row.archive.job_id for row in rows if row.standing is not Standing.SKIPPED}
    verified = {row.archive.job_id for row in rows if row.standing in (Standing.VERIFIED, Standing.NOT_UNPACKED)}
    return BatchReport(
        exit_code=_exit_code(rows, missing, len(judged)),
        sentence=_sentence(rows, missing, len(judged), len(verified)),
        problems=tuple(_problems(rows, missing, expect_jobs, len(judged))),
        notes=tuple(_notes(receipts, rows)),
        rows=tuple(rows),
        hosts=tuple(sorted((receipt.host for receipt in receipts), key=lambda host: host.label)),
        batch=_batch(receipts),
        verified=len(verified),
        jobs=len(judged) + missing,
    )


def _require_one_batch(receipts: Sequence[Receipt]) -> None:
    if not receipts:
        raise ReceiptsUnusable("no receipt was given")
    first = receipts[0]
    reached = {archive.job_id for archive in first.archives}
    for other in receipts[1:]:
        if other.batch_id != first.batch_id:
            raise _different(first, other)
    waiting = list(receipts[1:]) if first.batch_id is None else []
    while waiting:  # jobs without a batch belong together if their receipts share a job
        joined = [one for one in waiting if reached & {archive.job_id for archive in one.archives}]
        if not joined:
            raise _different(first, waiting[0])
        reached |= {archive.job_id for one in joined for archive in one.archives}
        waiting = [one for one in waiting if one not in joined]


def _different(first: Receipt, other: Receipt) -> ReceiptsUnusable:
    def named(receipt: Receipt) -> str:
        return f"{receipt.host.source} ({f'batch {receipt.batch_id}' if receipt.batch_id else 'single restore jobs'})"

    return ReceiptsUnusable(f"the receipts are of different restores: {named(first)} and {named(other)}")


def _rows(same: Sequence[Archive]) -> list[Row]:
    """Return the rows of one job, which may be in the receipts of several hosts."""
    verified = [archive for archive in same if archive.verdict == "verified" and not archive.contradicts]
    if all(archive.verdict == "skipped" for archive in same):
        return [Row(archive, Standing.SKIPPED, 0) for archive in same]
    return [_row(archive, archive in verified, len(verified)) for archive in same]


def _row(archive: Archive, verified: bool, copies: int) -> Row:
    if verified and copies > 1:
        return Row(archive, Standing.TWICE, IN_THE_WAY)
    if verified and archive.exit_code:
        return Row(archive, Standing.NOT_UNPACKED, archive.exit_code)
    if verified:
        return Row(archive, Standing.VERIFIED, 0)
    if archive.verdict == "skipped":
        return Row(archive, Standing.SKIPPED, 0)
    if copies:
        return Row(archive, Standing.ELSEWHERE, 0)
    standing = Standing.MISMATCH if archive.contradicts else _STANDINGS.get(archive.verdict or "", Standing.FAILED)
    return Row(archive, standing, _code(archive, standing))


def _code(archive: Archive, standing: Standing) -> int:
    """Return why an archive without proof keeps the batch from being complete; never 0."""
    if standing is Standing.MISMATCH:
        return archive.exit_code if archive.exit_code not in (0, NOT_UNPACKED) else DIFFERS
    if standing is Standing.UNPROVEN:  # --allow-unproven accepts it on its host, and the batch is still not verified
        return archive.exit_code if archive.exit_code not in (0, NOT_UNPACKED) else NO_HASH
    return archive.exit_code or archive.host.exit_code or SEVERAL


def _exit_code(rows: Sequence[Row], missing: int, judged: int) -> int:
    codes = {row.code for row in rows if row.standing is not Standing.TWICE} - {0}
    if missing or not judged:
        return NOT_LISTED
    if any(row.standing is Standing.TWICE for row in rows):
        return IN_THE_WAY
    return combined_exit_code(codes - {NOT_UNPACKED} or codes)


def _place(row: Row) -> tuple[int, str, str]:
    return _ORDER[row.standing], row.archive.name, row.archive.host.label


# ---------------------------------------------------------------- words


def _sentence(rows: Sequence[Row], missing: int, judged: int, verified: int) -> str:
    jobs = judged + missing
    if not jobs:
        return "Nothing is verified: the receipts hold no restore job with an archive to download."
    everything = "its archive is" if jobs == 1 else f"all {jobs} archives are"
    faults = list(_faults(rows, missing))
    if not faults:
        return f"The batch is complete: {everything} verified."
    if verified == jobs:
        return f"{everything[0].upper()}{everything[1:]} verified, but {', '.join(faults)}."
    return f"The batch is not complete: {verified} of {jobs} archives {be(verified)} verified, {', '.join(faults)}."


def _faults(rows: Sequence[Row], missing: int) -> Iterable[str]:
    jobs: dict[Standing, set[str]] = {}
    seen: set[str] = set()
    for row in rows:  # rows are in the order of Standing: a job with two rows counts with the first
        if row.code and row.archive.job_id not in seen:
            jobs.setdefault(row.standing, set()).add(row.archive.job_id)
            seen.add(row.archive.job_id)
    if missing:
        yield f"{missing} {be(missing)} in no receipt"
    for standing, found in jobs.items():
        yield f"{len(found)} {_FAULTS[standing].replace('be', be(len(found)), 1)}"


def _problems(rows: Sequence[Row], missing: int, expected: int | None, judged: int) -> Iterable[Problem]:
    if missing:
        title = f"{missing} of {counted(expected or 0, 'restore job')} {be(missing)} in no receipt"
        yield Problem(NOT_LISTED, title, MISSING)
    elif not judged:
        yield Problem(NOT_LISTED, "No restore job with an archive to download", NOTHING)
    twice = [row for row in rows if row.standing is Standing.TWICE]
    if twice:
        found = tuple((row.archive.name, f"{row.archive.host.label}, {row.archive.host.source}") for row in twice)
        yield Problem(IN_THE_WAY, "Verified on more than one host", TWICE, found)
    by_code: dict[int, list[Row]] = {}
    for row in rows:
        if row.code and row.standing is not Standing.TWICE:
            by_code.setdefault(row.code, []).append(row)
    for code, same in sorted(by_code.items(), key=lambda item: (item[0] == NOT_UNPACKED, item[0])):
        title, step = advice(code)
        yield Problem(code, title, step, tuple((row.archive.name, _where(row.archive)) for row in same))


def _where(archive: Archive) -> str:
    why = "the receipt calls it verified, but its two hashes differ" if archive.contradicts else archive.reason
    return f"{archive.host.label}: {why}" if why else archive.host.label


def _notes(receipts: Sequence[Receipt], rows: Sequence[Row]) -> Iterable[str]:
    judged = [row.archive for row in rows if row.standing is not Standing.SKIPPED]
    if len({archive.snapshot_time for archive in judged} - {None}) > 1:
        yield (
            "The archives have different snapshot times. Shards from different points in time form an inconsistent "
            "cluster: compare the snapshot of each row before you start a mongod."
        )
    if any(archive.point_in_time for archive in judged):
        yield "Point-in-time restore: apply the oplog with MongoDB's restore utility before the data is used."
    keys = sorted({archive.master_key for archive in judged if archive.encrypted and archive.master_key})
    if any(archive.encrypted for archive in judged):
        named = f" ({', '.join(keys)})" if keys else ""
        yield f"The snapshot is encrypted: its mongod needs the same master key{named}."
    for name, values in (("projects", _several(receipts, "group_id")), ("clusters", _several(receipts, "cluster_id"))):
        if values:
            yield f"The receipts name different {name}: {values}."


def _several(receipts: Sequence[Receipt], field: str) -> str | None:
    values = sorted({getattr(receipt, field) for receipt in receipts} - {None})
    return ", ".join(values) if len(values) > 1 else None


def _batch(receipts: Sequence[Receipt]) -> Batch:
    def common(field: str) -> str | None:
        found = Counter(getattr(receipt, field) for receipt in receipts if getattr(receipt, field))
        return next(iter(found)) if len(found) == 1 else None

    hosts: list[Host] = [receipt.host for receipt in receipts]
    return Batch(
        batch_id=receipts[0].batch_id,
        cluster_id=common("cluster_id"),
        group_id=common("group_id"),
        ops_manager=common("ops_manager"),
        started_at=min((host.started_at for host in hosts if host.started_at), default=None),
        finished_at=max((host.finished_at for host in hosts if host.finished_at), default=None),
    )
