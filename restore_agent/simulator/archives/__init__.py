"""Archives as Ops Manager sends them: a gzip tar of one directory with the files of a MongoDB data path."""

from .archive import Archive, make_archive
from .recipe import Recipe, Shape
from .store import ArchiveStore

__all__ = ["Archive", "ArchiveStore", "Recipe", "Shape", "make_archive"]
