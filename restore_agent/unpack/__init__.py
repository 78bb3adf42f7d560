"""From an archive on disk to a data path.

`source` reads the archive while it grows, `inflate` makes plain bytes of it, `headers` reads the tar, `members` decides
what may be written where, `writer` writes and syncs it, `pipeline` has the threads, `unpacker` runs all of it,
`datapath` stages and publishes the result, `restore_info` reads the file that Ops Manager adds.
"""
