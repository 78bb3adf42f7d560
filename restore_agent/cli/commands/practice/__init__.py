"""Commands that practice a restore without Ops Manager."""
