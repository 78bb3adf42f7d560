"""What the jobs of a run share to unpack: the directory of data paths, and the space of its disk."""
