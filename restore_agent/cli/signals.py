"""SIGINT and SIGTERM before a loop takes them over: kept while the program loads, raised as Stopped from then on.

Whatever the moment, a run that was told to stop ends with its result and 130 or 143, never with a traceback.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import Stopped

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}

"""Signals that end a run, and the exit codes that tell of them."""

_kept: list[int] = []


def keep() -> None:
    """From now on remember a signal until `raised` can do something about it."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: _kept.append(number))


@contextmanager
def raised() -> Iterator[None]:
    """Inside of it a signal raises Stopped; one that was kept does at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may; whoever runs us elsewhere keeps its own
        return
    before = {number: signal.signal(number, _raise) for number in SIGNALS}
    try:
        if _kept:
            _raise(_kept.pop(), None)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _: object) -> None:
    raise Stopped(f"stopped by {signal.Signals(number).name}", exit_code=SIGNALS[signal.Signals(number)])
