"""Recipe of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """Unusual contents of an archive, as the faults with these names ask for; its hash includes its `damage`."""

    top: str = "one"
    members: tuple[str, ...] = ()
    small_files: int = 0
    bomb: bool = False
    gzip_members: bool = False
    damage: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Recipe of an archive: `name` with extension, approximate `size` in bytes as sent, and `seed`.

    `info`: lines of restoreInfo.txt, None for no such file. `source`: a file to send, or a directory to pack, instead
    of simulated contents.
    """

    name: str
    size: int
    seed: str
    gzipped: bool = True
    info: tuple[tuple[str, str], ...] | None = ()
    shape: Shape = Shape()
    source: Path | None = None

    @property
    def top(self) -> str:
        """Name of the top directory: the archive's name without extension."""
        return self.name.removesuffix(".gz").removesuffix(".tar")

    @property
    def info_text(self) -> bytes:
        """Contents of restoreInfo.txt."""
        text = "".join(f"{key}: {value}\n" for key, value in self.info or ())
        return text.encode("utf-8", "surrogateescape")
