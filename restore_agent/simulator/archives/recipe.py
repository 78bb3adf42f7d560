"""Recipe of an archive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Recipe of an archive: `name` with extension, approximate `size` in bytes as sent, `seed`, and its faults."""

    name: str
    size: int
    seed: str
    gzipped: bool = True
    damaged: bool = False
    bomb: bool = False
    info: tuple[tuple[str, str], ...] = ()

    @property
    def top(self) -> str:
        """Name of the top directory: the archive's name without extension."""
        return self.name.removesuffix(".gz").removesuffix(".tar")
