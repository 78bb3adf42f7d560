"""Data paths that a run unpacks: what is in their directory, and what GNU tar makes of the same archive."""

from __future__ import annotations

import subprocess
from pathlib import Path

from restore_agent.simulator import Simulator

from .agents import QUICK, Json, connection_args, sha1_of


def data_path_of(sim: Simulator, index: int = 0) -> str:
    """Return the name of a job's data path."""
    return sim.job(index).archive_name.removesuffix(".tar.gz").removesuffix(".tar")


def staging_of(sim: Simulator, index: int = 0) -> str:
    """Return the name of a job's staging directory."""
    return f".{sim.job(index).id}.unpacking"


def names_in(place: Path) -> set[str]:
    """Return the names in a directory; none if it does not exist."""
    return {entry.name for entry in place.iterdir()} if place.exists() else set()


def content_of(root: Path) -> dict[str, tuple[str, int]]:
    """Return kind, or SHA1, and time of everything below a directory, its own time included."""
    found = {".": ("directory", root.stat().st_mtime_ns)}
    for path in sorted(root.rglob("*")):
        kind = "directory" if path.is_dir() else sha1_of(path)
        found[str(path.relative_to(root))] = (kind, path.lstat().st_mtime_ns)
    return found


def extracted(archive: Path, into: Path) -> Path:
    """Return the data path as GNU tar makes it: the only top directory of the archive."""
    into.mkdir(parents=True, exist_ok=True)
    command = [
        "tar",
        "--extract",
        "--no-same-owner",
        "--delay-directory-restore",
        "--file",
        str(archive),
        "--directory",
        str(into),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (top,) = into.iterdir()
    return top


def served(sim: Simulator, scratch: Path, index: int = 0) -> dict[str, tuple[str, int]]:
    """Return the content of the data path that a job's archive has, by GNU tar."""
    return content_of(extracted(sim.job(index).archive().path, scratch / f"by-gnu-tar-{index}"))


def is_whole(path: Path, archive: Json) -> bool:
    """Return whether a data path holds as many files and bytes as the receipt says."""
    files = [one for one in path.rglob("*") if one.is_file()]
    return (len(files), sum(one.stat().st_size for one in files)) == (archive["data_files"], archive["data_bytes"])


def run_args(sim: Simulator, dest: Path, *options: str) -> list[str]:
    """Return the command line of a run in a process of its own."""
    return ["run", *connection_args(sim), *QUICK, f"--dest={dest}", "--output=json", *options]
