"""The invariants, each a function over what a run left behind: DEST, its output, the tree around it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from restore_agent.simulator import Simulator

from .process import Ended
from .witness import STATE, Violation, Witness, attempts_in, final_names, journal_lines

CODES = frozenset({0, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 30, 31, 32, 40, 41, 42, 50, 129, 130, 143})
"""Every end that is neither a defect (1) nor a wrong call (2), which is what this driver never makes."""
RECEIPT_CODES = frozenset({0, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 40, 41, 42})
_SUFFIX = {"verified": "", "unproven": ".unproven", "mismatch": ".mismatch"}
_DIGEST_RESPONSE = re.compile(r'\bresponse="?([0-9a-f]{32,64})')

Json = dict[str, Any]


def sha1_of(path: Path) -> str:
    """SHA1 of a file."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def result_of(ended: Ended) -> Json | None:
    """The last line of JSON, if it is a result."""
    lines = ended.out.splitlines()
    try:
        last = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return last if isinstance(last, dict) and last.get("event") == "result" else None


# ---------------------------------------------------------------- output


def check_output(ended: Ended) -> Iterator[Violation]:
    """JSON Lines only, each with an event and a time, and a last one that knows the exit code."""
    if ended.code is None:
        yield Violation(
            "every run ends in bounded time", f"it had to be killed: {ended.err.decode(errors='replace')[-6000:]}"
        )
        return
    if ended.code not in CODES:
        tail = ended.err[-2000:].decode(errors="replace")
        yield Violation("no defect and no wrong call", f"exit code {ended.code}: {tail}")
    if ended.mute:
        return
    for text in ended.out.splitlines():
        try:
            line = json.loads(text)
            fine = isinstance(line["event"], str) and isinstance(line["time"], str)
        except (ValueError, KeyError, TypeError):
            fine = False
        if not fine:
            yield Violation("standard output is JSON Lines with event and time", repr(text[:200]))
    result = result_of(ended)
    if result is None:
        yield Violation("the last line is the result", repr(ended.out[-200:]))
    elif result["exit_code"] != ended.code:
        yield Violation("the result knows the exit code", f"{result['exit_code']} said, {ended.code} met")


# ---------------------------------------------------------------- secrets


def secrets_of(simulator: Simulator) -> list[str]:
    """Every secret of the round so far: key, tokens, and the digest responses that the log has seen."""
    found = {response for request in simulator.requests for response in _responses(request.headers)}
    return [*simulator.secrets, *sorted(found)]


def _responses(headers: Mapping[str, str]) -> list[str]:
    return _DIGEST_RESPONSE.findall(headers.get("authorization", ""))


def check_secrets(texts: Iterable[tuple[str, bytes]], secrets: Iterable[str]) -> Iterator[Violation]:
    """No secret in any of these (name, bytes), in no encoding."""
    forms = {form.encode(): secret for secret in secrets for form in _forms(secret)}
    for name, text in texts:
        for form, secret in forms.items():
            if form in text:
                yield Violation("no secret anywhere", f"{name} holds {form.decode()!r} ({secret[:4]}…)")


def _forms(secret: str) -> set[str]:
    raw = secret.encode()
    based = [base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]
    return {secret, secret.rstrip("="), quote(secret, safe=""), quote_plus(secret), *(b.rstrip("=") for b in based)}


def texts_below(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below `root` but archives on their way, with its name as a text of its own."""
    for path in sorted((*root.glob("*"), *(root / STATE).glob("*"))):  # not in data paths
        yield f"the name {path.name!r}", path.name.encode()
        if path.is_symlink():
            yield f"the link {path.name}", os.readlink(path).encode()
        elif path.is_file() and (path.parent.name == STATE or path.suffix in (".json", ".tmp", "")):
            yield str(path.relative_to(root)), path.read_bytes()


# ---------------------------------------------------------------- DEST and around it


def tree_of(root: Path, *without: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below `root` but `without`: mode, time of change, content. Equal trees: nothing was touched."""
    found = {}
    for path in sorted(root.rglob("*")):
        if any(path == one or one in path.parents for one in without):
            continue
        status = path.lstat()
        content = sha1_of(path) if stat.S_ISREG(status.st_mode) else ""
        changed = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
        found[str(path.relative_to(root))] = (status.st_mode, changed, content)
    return found


def check_untouched(before: Mapping[str, Any], after: Mapping[str, Any], invariant: str) -> Iterator[Violation]:
    """Nothing came, went or changed between two trees."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Violation(invariant, f"{name}: {before.get(name)} became {after.get(name)}")


def check_leftovers(dest: Path) -> Iterator[Violation]:
    """No temporary file is left after an end that was no kill."""
    for place in (dest, dest / STATE):
        for path in place.glob(".*.tmp"):
            yield Violation("no temporary file is left", str(path.relative_to(dest)))


def check_modes(dest: Path) -> Iterator[Violation]:
    """DEST and what the agent put there is for its user only."""
    for path in (dest, *dest.rglob("*")):
        if path.lstat().st_mode & 0o077 and not path.is_symlink():
            yield Violation("nothing in DEST is for others", f"{path.name}: {path.lstat().st_mode:o}")


# ---------------------------------------------------------------- receipt, sums, status


def check_receipt(
    dest: Path, ended: Ended, witness: Witness, disturbances: int, judged: Collection[str] | None = None
) -> Iterator[Violation]:
    """The receipt is the result, and each of its records is true of the disk, the log and the journal.

    `judged` are the jobs of this run; the records of others may be older than what is on the disk.
    """
    result = result_of(ended)
    if result is None:
        return
    records = {record["job_id"]: record for record in result["archives"]}
    if ended.code in RECEIPT_CODES and records:
        yield from _check_same(dest, result)
    lines = journal_lines(dest)
    for job_id, record in records.items():
        if judged is not None and job_id not in judged:
            continue
        yield from _check_file(dest, record, witness.published.get(job_id, set()))
        owned, seen = attempts_in(lines, job_id), witness.earlier[job_id] + len(witness.of(job_id))
        loops = sum(get.record.status in (301, 302, 307, 308) for get in witness.of(job_id))
        spent = record["downloads_spent"]
        if spent != owned or not seen - loops <= spent <= seen + disturbances:
            told = f"{spent} said, {owned} journalled, {seen} GETs seen, {disturbances} disturbances"
            yield Violation("downloads_spent is true", f"{job_id}: {told}")


def _check_same(dest: Path, result: Json) -> Iterator[Violation]:
    try:
        receipt = json.loads((dest / "receipt.json").read_bytes())
    except (OSError, ValueError) as error:
        yield Violation("the receipt is there and reads", str(error))
        return
    said = {name: value for name, value in result.items() if name not in ("event", "time")}
    if result["exit_code"] == 24 and receipt["archives"] == said["archives"]:
        return  # this run never knew a job: the receipt of an earlier command stays as it was
    if receipt != said:
        yield Violation("the receipt is the result", f"{receipt} against {said}")


def _check_file(dest: Path, record: Json, published: set[str]) -> Iterator[Violation]:
    verdict, name = record["verdict"], record["file_name"]
    if verdict not in _SUFFIX:
        if record["path"] is not None:
            yield Violation("a failed archive has no path", str(record))
        return
    path = dest / f"{name}{_SUFFIX[verdict]}"
    if verdict == "verified" and not record["archive_kept"]:
        if record["path"] is not None or path.exists() or record["sha1"] not in published:
            yield Violation("a discarded archive is gone, and its proof is kept", str(record))
        return
    if record["path"] != str(path) or not path.is_file() or path.is_symlink():
        yield Violation("the receipt's path is there", f"{record['path']}, expected {path}")
        return
    digest, size = sha1_of(path), path.stat().st_size
    if (record["sha1"], record["bytes"]) != (digest, size):
        yield Violation("the receipt's SHA1 and size are the file's", f"{record}; found {size} bytes, SHA1 {digest}")
    expected = record["expected_sha1"]
    if verdict == "verified" and (digest not in published or expected != digest or record["exit_code"] not in (0, 13)):
        yield Violation("verified is what was published", f"{record}; published {sorted(published)}")
    if verdict == "mismatch" and expected == digest:
        yield Violation("a mismatch differs", str(record))
    if verdict == "unproven" and (expected or digest in published):
        yield Violation("unproven means no hash", f"{record}; published {sorted(published)}")


def check_finals(
    dest: Path, ended: Ended, foreign: Collection[str] = (), *, partial: bool = False
) -> Iterator[Violation]:
    """Every final name is in the receipt as verified, and SHA1SUMS names exactly the verified ones.

    `foreign` are names of other programs' files. After a `partial` run, for some jobs only, the receipt may lack
    archives that a killed run verified; SHA1SUMS must not.
    """
    result = result_of(ended)
    if result is None or ended.code not in RECEIPT_CODES or not result["archives"]:
        return
    kept = [r for r in result["archives"] if r["verdict"] == "verified" and r["archive_kept"]]
    verified = {r["file_name"]: r["sha1"] for r in kept}
    finals = set(final_names(dest)) - set(foreign)
    if not set(verified) <= finals or (finals != set(verified) and not partial):
        yield Violation("final names are the verified ones", f"{sorted(finals)}, said {sorted(verified)}")
    sums = dest / "SHA1SUMS"
    text = sums.read_text() if sums.exists() else ""
    listed = {line[42:]: line[:40] for line in text.splitlines()}
    wanted = {name: sha1_of(dest / name) for name in finals}
    if listed != wanted:
        yield Violation("SHA1SUMS lists the verified ones", f"{listed}, there are {wanted}")


def check_status(dest: Path, ended: Ended) -> Iterator[Violation]:
    """The status file says how the run ended."""
    try:
        status = json.loads((dest / STATE / "status.json").read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield Violation("the status file reads", str(error))
        return
    wanted = "interrupted" if ended.code in (129, 130, 143) else "finished"
    if (status["state"], status["exit_code"]) != (wanted, ended.code):
        yield Violation("the status file knows the end", f"{status['state']}, {status['exit_code']}, not {ended.code}")
