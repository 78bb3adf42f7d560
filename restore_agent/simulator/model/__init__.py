"""Live state of the simulated Ops Manager: one project, its clusters, snapshots, restore jobs, and deliveries.

A model of the server, not a mock: everything that depends on time follows from the clock, and tests may change jobs,
clock, and faults while it serves. To read or change several things in one step, hold `Manager.lock`.
"""

from .job import Job
from .manager import Manager

__all__ = ["Job", "Manager"]
