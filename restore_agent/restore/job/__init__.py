"""One restore job: attempts, transfer, verification."""
