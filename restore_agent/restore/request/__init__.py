"""What comes before a restore: check of the connection, lists, choice of a snapshot, request for a restore."""
