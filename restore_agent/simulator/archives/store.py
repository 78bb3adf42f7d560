"""Archives on disk, made when first needed."""

from __future__ import annotations

from pathlib import Path

from .archive import Archive, make_archive
from .recipe import Recipe


class ArchiveStore:
    """Archives in a directory. Callers hold the lock of the server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[Recipe, Archive] = {}

    def get(self, recipe: Recipe) -> Archive:
        """Return the archive for a recipe."""
        if recipe not in self._made:
            self._made[recipe] = make_archive(self._directory / f"archive-{len(self._made)}", recipe)
        return self._made[recipe]
