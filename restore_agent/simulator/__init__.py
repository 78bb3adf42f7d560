"""A simulated Ops Manager on real sockets, with faults, for drills and tests.

It imports nothing from the rest of the package, so that a wrong idea of the API there cannot be met by the same wrong
idea here; and nothing beyond the standard library.
"""

from .faults.faults import FaultRow, Faults, describe
from .log import Request
from .model import Job
from .simulator import Simulator, serve

__all__ = ["FaultRow", "Faults", "Job", "Request", "Simulator", "describe", "serve"]
