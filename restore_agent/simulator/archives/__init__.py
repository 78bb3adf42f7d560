"""Archives as Ops Manager sends them: a gzip tar of one directory with the files of a MongoDB data path."""

from .archive import Archive, make_archive
from .recipe import Recipe
from .store import ArchiveStore

__all__ = ["Archive", "ArchiveStore", "Recipe", "make_archive"]
