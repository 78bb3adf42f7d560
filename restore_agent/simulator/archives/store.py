"""Archives on disk: made when first needed, or given."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import IO, cast

from .archive import Archive, described, make_archive
from .members import header
from .recipe import Recipe


class ArchiveStore:
    """Archives in a directory. Callers hold the lock of the server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[Recipe, Archive] = {}

    def get(self, recipe: Recipe) -> Archive:
        """Return the archive for a recipe."""
        if recipe not in self._made:
            self._made[recipe] = self._make(recipe)
        return self._made[recipe]

    def _make(self, recipe: Recipe) -> Archive:
        path = self._directory / f"archive-{len(self._made)}"
        if recipe.source is None:
            return make_archive(path, recipe)
        if recipe.source.is_dir():
            _pack(path, recipe, recipe.source)
            return described(path, _unpacked_size(path))
        return described(recipe.source, _unpacked_size(recipe.source))


def _pack(path: Path, recipe: Recipe, source: Path) -> None:
    """Write an archive of a directory, with a restoreInfo.txt if it has none."""
    with path.open("wb") as raw:
        packing = cast(IO[bytes], gzip.GzipFile("", "wb", 1, raw, mtime=0)) if recipe.gzipped else raw
        with tarfile.open(fileobj=packing, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(source, recipe.top)
            if recipe.info is not None and not (source / "restoreInfo.txt").exists():
                tar.addfile(
                    header(f"{recipe.top}/restoreInfo.txt", len(recipe.info_text)), io.BytesIO(recipe.info_text)
                )
        if packing is not raw:
            packing.close()


def _unpacked_size(path: Path) -> int:
    try:
        with tarfile.open(path) as tar:
            return sum(member.size for member in tar if member.isreg())
    except (tarfile.TarError, OSError, EOFError):
        return 2 * path.stat().st_size  # not an archive: any bound will do
