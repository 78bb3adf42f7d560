"""State that all jobs of the simulated server share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from ..archives import Archive, ArchiveStore, Recipe
from ..clock import Clock
from ..faults.faults import Faults
from .deployment import Deployment
from .tokens import Secrets


class ServerState:
    """State that all jobs share. `faults` may be replaced at any time; `origin` is set when the server listens.

    `sources`: files or directories that the jobs send, in turn, instead of simulated archives.
    """

    def __init__(
        self, *, shards: int, archive_size: int, faults: Faults, seed: str, sources: Sequence[Path] = ()
    ) -> None:
        self.lock = threading.RLock()
        self.faults = faults
        self.clock = Clock(faults.clock_skew)
        self.deployment = Deployment(shards=shards, archive_size=archive_size, seed=seed, sccc=faults.sccc)
        self.keys = Secrets()
        self.origin = self.second_origin = ""
        self.archives: ArchiveStore | None = None
        self.sources = tuple(sources)

    def archive(self, recipe: Recipe) -> Archive:
        """Return an archive on disk. Raises RuntimeError before the simulator has started."""
        if self.archives is None:
            raise RuntimeError("the simulator has not been started: there are no archives yet")
        return self.archives.get(recipe)

    @property
    def secrets(self) -> list[str]:
        """All secrets issued so far: the private key and the tokens of URLs and headers."""
        with self.lock:
            return self.keys.all()
