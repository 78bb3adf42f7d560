"""The first Python code of the executable, in its archive as `_start`."""

from __future__ import annotations

import signal
import sys
from importlib.machinery import BuiltinImporter, ModuleSpec
from typing import Any


class PackageModules:
    """Finder of built-in modules that belong to a package; Python looks only for those without one."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return BuiltinImporter.find_spec(name) if "." in name else None


def main() -> None:
    """Run the program."""
    sys.frozen = True  # type: ignore[attr-defined]
    sys.meta_path.append(PackageModules)  # type: ignore[arg-type]
    from restore_agent.__main__ import main as run
    from restore_agent.cli.signals import SIGNALS, store_signals

    store_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # program.c holds them until now
    run()
