"""SIGINT, SIGTERM, and SIGHUP before an event loop handles them: stored while the program loads, then raised.

A stopped run always ends with its result and exit code 129, 130, or 143, never with a traceback.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import Stopped

SIGNALS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
"""Signals that end a run, and their exit codes."""

_pending: list[int] = []


def handled() -> list[signal.Signals]:
    """Return the signals that end a run. SIGHUP is left out if the process was started with it ignored (nohup)."""
    return [one for one in SIGNALS if one is not signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]


def store_signals() -> None:
    """Store each signal until `raise_signals` raises it."""
    for number in handled():
        signal.signal(number, lambda number, _: _pending.append(number))


@contextmanager
def raise_signals() -> Iterator[None]:
    """Raise Stopped for each signal inside of the context, and immediately for a stored one."""
    try:
        before = {number: signal.signal(number, _raise) for number in handled()}
    except ValueError:  # only the main thread can set handlers; in another thread, the caller's handlers stay
        yield
        return
    try:
        if _pending:
            _raise(_pending.pop(), None)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold signals back while modules are imported: an import that is interrupted leaves half a module behind."""
    _holding.append(True)
    try:
        yield
    finally:
        _holding.pop()
        if _pending and not _holding:
            _raise(_pending.pop(), None)


_holding: list[bool] = []


def _raise(number: int, _: object) -> None:
    if _holding:
        _pending.append(number)
        return
    raise Stopped(f"stopped by {signal.Signals(number).name}", exit_code=SIGNALS[signal.Signals(number)])
