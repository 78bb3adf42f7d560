"""Coverage-guided fuzzing of every parser that meets foreign bytes: `scripts/fuzz [TARGET] [--seconds N]`.

Each target may raise the errors that its docstring names and no others. Short runs of the same kind, by hypothesis,
are part of the tests; this one is for an hour or a night.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["restore_agent"]):
    from restore_agent.core.clock import ServerClock, SystemClock, retry_after
    from restore_agent.core.errors import RecordUnreadable
    from restore_agent.core.jobs import decide
    from restore_agent.core.names import safe_name
    from restore_agent.core.receipt import parse_receipt
    from restore_agent.core.untrusted import printable
    from restore_agent.dest.journal import Journal
    from restore_agent.dest.journal.journal import _parse
    from restore_agent.dest.structure import StructureCheck, looks_like_archive
    from restore_agent.network import digest
    from restore_agent.network.documents import parse_job

    from . import fuzz_unpack


def job(data: bytes) -> None:
    """A document of the API."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    with suppress(ValueError):
        decide(parse_job(document))


def header(data: bytes) -> None:
    """Headers: a digest challenge, Retry-After, Date."""
    text = data.decode("latin-1")
    digest._challenge([text])
    retry_after(text, 0.0)
    ServerClock(SystemClock()).observe(text)


def structure(data: bytes) -> None:
    """An archive, whole or not, in two blocks."""
    looks_like_archive(data)
    check = StructureCheck()
    for block in (data[: len(data) // 2], data[len(data) // 2 :], b"\x1f\x8b" + data):
        check.feed(block)
    check.finish()


def journal(data: bytes) -> None:
    """The journal."""
    with suppress(RecordUnreadable):
        lines, _ = _parse(data)
        Journal(lines)


def receipt(data: bytes) -> None:
    """The receipt."""
    with suppress(RecordUnreadable):
        parse_receipt(data)


def name(data: bytes) -> None:
    """A name that a server gives, on its way into DEST and onto a terminal."""
    text = data.decode("utf-8", "surrogateescape")
    safe = safe_name(text, "job")
    assert safe and "/" not in safe and not safe.startswith(".") and len(safe.encode()) <= 255
    assert not any(unicodedata.category(char) == "Cc" for char in printable(text))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (job, header, structure, journal, receipt, name)
} | fuzz_unpack.TARGETS


def main() -> None:
    """Fuzz one target, for a bounded time."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    given = parser.parse_args()
    limits = [f"-max_total_time={given.seconds}", "-max_len=8192", "-rss_limit_mb=1024", "-len_control=10"]
    atheris.Setup([sys.argv[0], *limits], TARGETS[given.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
