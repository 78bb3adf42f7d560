"""Torture of the real agent: drawn servers, drawn fates, power loss, broken disks, and the invariants that must hold.

`scripts/torture` runs it; `tests/test_torture*.py`, `test_power_loss.py` and `test_disk_faults.py` run CI's share.
"""
