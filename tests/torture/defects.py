"""Defects planted on purpose: the agent with one thing broken, to show that each invariant would catch it.

`program(name, …)` is what to run instead of `-m restore_agent`. Conditions of the host go the same way: "slow disk
SECONDS" and those of `CONDITIONS`.
"""

from __future__ import annotations

import itertools
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HELD = 600.0  # seconds; longer than any run of torture may take


def program(*names: str) -> tuple[str, str]:
    """The arguments of a Python that runs the agent with these defects, or under these conditions."""
    return "-c", f"from {__name__} import run_with; run_with(*{names!r})"


def killed_at(number: int) -> tuple[str, str]:
    """The arguments of a Python that runs the agent and meets `kill -9` instead of the so-maniest fsync."""
    return "-c", f"from {__name__} import run_until; run_until({number})"


def run_until(number: int) -> None:
    """Run the agent's command line until so many fsyncs were asked for."""
    from restore_agent.cli.main import main

    asked = itertools.count(1)

    def counted(_: Any) -> bool:
        if next(asked) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    _skip_fsync(counted)
    main()


def run_with(*names: str) -> None:
    """Break the agent, then run its command line."""
    from restore_agent.cli.signals import store_signals

    store_signals()  # before anything else, as `-m restore_agent` does
    from restore_agent.cli.main import main

    for name in names:
        if name.startswith("slow disk "):
            _slow_disk(float(name.removeprefix("slow disk ")))
        elif name in CONDITIONS:
            CONDITIONS[name]()
        else:
            DEFECTS[name]()
    main()


def _slow_disk(seconds: float) -> None:
    """Let every sync take a while."""
    for name in ("fsync", "fdatasync"):
        setattr(os, name, _late(seconds, getattr(os, name)))


def _late(seconds: float, original: Callable[[Any], None]) -> Callable[[Any], None]:
    def late(descriptor: Any) -> None:
        time.sleep(seconds)
        original(descriptor)

    return late


def _sync_often() -> None:
    """Let a transfer sync in the background after a few KiB already."""
    from restore_agent.restore.transfer import transfer

    transfer._KEEP_EVERY = transfer._LEAST_KEEP = 4096
    transfer._PROGRESS_EVERY = 0.01


def _hold_the_first_receipt() -> None:
    """Let the first run that comes to its receipt wait there, and say so: it is to be killed at this moment."""
    from restore_agent.restore import run

    write, held = run.write_receipt, Path(os.environ["HOME"]) / "held"

    def holding(*given: Any) -> None:
        if not held.exists():
            held.touch()
            time.sleep(_HELD)
        write(*given)

    run.write_receipt = holding


def _publish_before_the_hash() -> None:
    from restore_agent.restore.job.job import JobRestore

    async def verify(self: Any) -> None:
        await self._finishing.promote(self.state.candidate)

    JobRestore._verify = verify  # type: ignore[method-assign]


def _forget_the_journal_line() -> None:
    from restore_agent.dest.journal import journal

    write = journal._write

    def forgetful(descriptor: int, lines: Any) -> int:
        return write(descriptor, [line for line in lines if line.get("fact") != "attempt"])

    journal._write = forgetful


def _log_the_url() -> None:
    from restore_agent.network.delivery import DeliveryClient

    send = DeliveryClient._send

    async def talkative(self: Any, link: Any, *more: Any) -> Any:
        print(f"fetching {link.url}", file=sys.stderr)
        return await send(self, link, *more)

    DeliveryClient._send = talkative  # type: ignore[method-assign, assignment]


def _probe_with_head() -> None:
    from restore_agent.network.delivery import DeliveryClient

    send = DeliveryClient._send

    async def curious(self: Any, link: Any, *more: Any) -> Any:
        await (await self._client.send(self._client.build_request("HEAD", link.url), stream=True)).aclose()
        return await send(self, link, *more)

    DeliveryClient._send = curious  # type: ignore[method-assign, assignment]


def _leave_a_temporary_file() -> None:
    from restore_agent.dest.directory import Directory

    write = Directory.write_atomically

    def untidy(self: Any, name: str, data: bytes, **more: Any) -> None:
        write(self, name, data, **more)
        os.close(self.open_file(f".{name}.tmp", os.O_WRONLY | os.O_CREAT))

    Directory.write_atomically = untidy  # type: ignore[method-assign]


def _flatter_the_receipt() -> None:
    from dataclasses import replace

    from restore_agent.restore.job.state import JobState

    record = JobState.record_as

    def flattering(self: Any, *more: Any, **named: Any) -> Any:
        return replace(record(self, *more, **named), downloads_spent=0)

    JobState.record_as = flattering  # type: ignore[method-assign]


def _write_outside() -> None:
    from restore_agent.restore.run import Run

    written = Run._write_records

    def stray(self: Any, receipt: Any) -> Any:
        (self._settings.dest.parent / "receipt-copy.json").write_text("{}")
        return written(self, receipt)

    Run._write_records = stray  # type: ignore[method-assign]


def _forget_reserved_names() -> None:
    """Two jobs that are listed in different runs get one file."""
    from restore_agent.dest.journal import Journal
    from restore_agent.restore.selection import JobSelection

    begin = JobSelection.__init__

    def forgetful(self: Any, target: Any, _: Any, **more: Any) -> None:
        begin(self, target, Journal(), **more)

    JobSelection.__init__ = forgetful  # type: ignore[method-assign, assignment]


def _trust_any_companion() -> None:
    from restore_agent.dest.journal import Entry
    from restore_agent.restore.job import state
    from restore_agent.restore.proof import Kind, Standing

    standing_of = state.standing_of

    def trusting(found: Any) -> Standing:
        standing = standing_of(found)
        foreign = found.kind is Kind.UNPROVEN and standing is Standing.FOREIGN
        return Standing.AWAITS_HASH if foreign else standing

    state.standing_of = trusting
    Entry.is_ours = property(lambda _: True)  # type: ignore[assignment, method-assign]


def _ignore_whole_bytes() -> None:
    """Whatever came before an unclean end counts as cut."""
    from restore_agent.restore.job.job import JobRestore
    from restore_agent.restore.job.proving import Proving

    async def never(_: Any) -> bool:
        return False

    JobRestore._complete_all_the_same = never  # type: ignore[method-assign]
    Proving.verified_now = lambda _: None  # type: ignore[method-assign]


def _forget_the_restore() -> None:
    """The journal does not say which restore DEST belongs to."""
    from restore_agent.dest.journal import journal

    journal._header = lambda _: {"schema": journal.SCHEMA, "restore": None}


def _trust_a_failed_sync() -> None:
    from contextlib import suppress

    from restore_agent.core.errors import DestError
    from restore_agent.dest.archive import Part

    synced = Part._synced

    async def trusting(self: Any, sync: Any) -> None:
        with suppress(DestError):
            await synced(self, sync)
        self.sync_failed = False

    Part._synced = trusting  # type: ignore[method-assign]


def _claim_a_sync() -> None:
    """The journal says that bytes are durable, and nothing was synced."""
    from restore_agent.dest.archive import Part

    async def flush(self: Any) -> int:
        return int(self.size)

    Part.flush = flush  # type: ignore[method-assign]


def _believe_the_journal_alone() -> None:
    """A complete part file counts only with the fact that it is complete."""
    from restore_agent.restore.job.proving import Proving
    from restore_agent.restore.proof import Standing

    part = Proving.part

    async def believing(self: Any) -> Standing:
        return await part(self) if self._state.entry.whole else Standing.INCOMPLETE

    Proving.part = believing  # type: ignore[method-assign]


def _use_any_part() -> None:
    """A part file is used whichever program made it."""
    from restore_agent.dest.directory import Directory

    Directory.require_own = lambda *_: None  # type: ignore[assignment, method-assign]
    from restore_agent.dest import archive

    opened = archive._open_part

    def use_any(*given: Any, **named: Any) -> Any:
        return opened(*given, **{**named, "ours": True})

    archive._open_part = use_any


def _replace_at_the_final_name() -> None:
    from restore_agent.dest.directory import Directory

    rename = Directory.rename

    def replacing(self: Any, source: str, target: str, **_: Any) -> None:
        rename(self, source, target)

    Directory.rename = replacing  # type: ignore[method-assign]


def _sums_of_this_run_only() -> None:
    from restore_agent.restore import run

    write = run.write_sums
    run.write_sums = lambda directory, _, receipt: write(directory, {}, receipt)


def _write_on_the_loop() -> None:
    from restore_agent.cli import session

    session.background = lambda stream: stream


def _share_one_pool() -> None:
    """All threads of the archives, and that of the journal, come from one pool, smaller than two transfers need."""
    from concurrent.futures import ThreadPoolExecutor

    from restore_agent.dest import archive
    from restore_agent.dest.journal import journal

    shared = ThreadPoolExecutor(3)
    shared.shutdown = lambda *_, **__: None  # type: ignore[method-assign]
    archive._started = lambda _: shared
    journal.ThreadPoolExecutor = lambda *_, **__: shared


def _publish_data_paths_before_the_hash() -> None:
    """A data path gets its name as soon as it is unpacked."""
    from restore_agent.restore.job.follower import Follower

    unpack = Follower._unpack

    def eager(self: Any, source: Any) -> Any:
        result = unpack(self, source)
        name = self._place.name_of(self._state.job_id)
        os.rename(self._place.path / self.staging.name, self._place.path / name)
        return result

    Follower._unpack = eager  # type: ignore[method-assign]


def _follow_links() -> None:
    """A link at the name of a staging directory leads to where files are removed and written."""
    from restore_agent.unpack import datapath

    datapath._DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    datapath._Names.find = lambda self, name: _status_of(self.fd, name)  # type: ignore[method-assign]


def _status_of(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def _unpack_again() -> None:
    """What was unpacked before does not count."""
    from restore_agent.restore.job.unpacking import JobUnpacking

    async def publish(self: Any, digest: Any, file_name: str, *, verified: bool) -> Any:
        return await self._rename(await self._unpacked(digest, file_name), digest, final=verified)

    JobUnpacking.publish = publish  # type: ignore[method-assign]
    JobUnpacking.is_published = lambda _: False  # type: ignore[method-assign]


def _discard_before_publishing() -> None:
    from restore_agent.restore.job.job import JobRestore

    unpack = JobRestore._unpack

    async def hasty(self: Any) -> None:
        assert self._unpacking is not None
        await self._promoter.remove_archive(self.state.job_id, self.state.named())
        await unpack(self)

    JobRestore._unpack = hasty  # type: ignore[method-assign]


def _share_one_staging_directory() -> None:
    from restore_agent.unpack import datapath

    datapath.staging_name = lambda _: ".all.unpacking"


def _forget_the_sync_of_unpacked_files() -> None:
    from restore_agent.unpack.pipeline import Syncer

    Syncer._sync = lambda _, descriptor: os.close(descriptor)  # type: ignore[method-assign]


def _is_unpacked_directory(descriptor: Any) -> bool:
    return _is_directory(descriptor) and "unpacking" in os.readlink(f"/proc/self/fd/{descriptor}")


def _skip_fsync(wanted: Callable[[Any], bool]) -> None:
    for name in ("fsync", "fdatasync"):
        original: Callable[[Any], None] = getattr(os, name)
        setattr(os, name, _unless(wanted, original))


def _unless(wanted: Callable[[Any], bool], original: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda descriptor: None if wanted(descriptor) else original(descriptor)


def _is_directory(descriptor: Any) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _ends_with(suffix: str) -> Callable[[Any], bool]:
    return lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}").endswith(suffix)


CONDITIONS: dict[str, Callable[[], None]] = {
    "sync often": _sync_often,
    "hold the first receipt": _hold_the_first_receipt,
}
"""Conditions of the host, and moments that a run is stopped at, by name."""

DEFECTS: dict[str, Callable[[], None]] = {
    "publish before the hash": _publish_before_the_hash,
    "forget the journal line": _forget_the_journal_line,
    "log the URL": _log_the_url,
    "probe with HEAD": _probe_with_head,
    "leave a temporary file": _leave_a_temporary_file,
    "flatter the receipt": _flatter_the_receipt,
    "write outside of DEST": _write_outside,
    "forget reserved names": _forget_reserved_names,
    "trust any companion": _trust_any_companion,
    "ignore whole bytes": _ignore_whole_bytes,
    "forget the restore": _forget_the_restore,
    "trust a failed sync": _trust_a_failed_sync,
    "claim a sync": _claim_a_sync,
    "believe the journal alone": _believe_the_journal_alone,
    "use any part": _use_any_part,
    "replace at the final name": _replace_at_the_final_name,
    "sums of this run only": _sums_of_this_run_only,
    "write on the loop": _write_on_the_loop,
    "share one pool": _share_one_pool,
    "publish data paths before the hash": _publish_data_paths_before_the_hash,
    "follow links": _follow_links,
    "unpack again": _unpack_again,
    "discard before publishing": _discard_before_publishing,
    "share one staging directory": _share_one_staging_directory,
    "forget the sync of unpacked files": _forget_the_sync_of_unpacked_files,
    "forget the sync of unpacked directories": lambda: _skip_fsync(_is_unpacked_directory),
    "forget the directory's fsync": lambda: _skip_fsync(_is_directory),
    "forget the data's fsync": lambda: _skip_fsync(_ends_with(".part")),
    "forget the journal's fsync": lambda: _skip_fsync(_ends_with("journal.jsonl")),
    "forget the receipt's fsync": lambda: _skip_fsync(_ends_with(".receipt.json.tmp")),
}
"""What is broken, by name; the last ones show only when the power is lost."""
