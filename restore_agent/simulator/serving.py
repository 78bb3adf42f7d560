"""The simulator as a process: serves until a signal."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

from .config_file import write_config
from .simulator import Simulator


def serve(
    host: str,
    port: int,
    tls: bool,
    shards: int,
    archive_size: int,
    faults: Iterable[str],
    *,
    archives: Iterable[str | Path] = (),
    config: Path | None = None,
) -> int:
    """Print one line of JSON (see `Simulator.hello`), serve until SIGTERM or SIGINT, and return the exit code, 0.

    `archives`: see `Simulator`. `config`: file to write for `run --config` before the line is printed.

    Call it in the main thread, as it handles signals. Raises ValueError and OSError as `Simulator` does.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Simulator(
            host=host,
            port=port,
            tls=tls,
            shards=shards,
            archive_size=archive_size,
            faults=faults,
            archives=archives,
        ) as simulator:
            if config is not None:
                write_config(config, simulator.hello)
            print(json.dumps(simulator.hello), flush=True)
            threading.Event().wait()
    except _Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class _Stopped(BaseException):
    """End requested by a signal, possibly while large archives are still being made."""


def _stop(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    raise _Stopped
