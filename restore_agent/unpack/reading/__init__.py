"""Reading of an archive: its bytes, inflated, as tar members."""
