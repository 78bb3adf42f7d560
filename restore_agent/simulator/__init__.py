"""Simulated Ops Manager on real sockets, with faults, for practice runs and tests.

It imports nothing from the rest of the package, so that a wrong assumption about the API there is not repeated here,
and nothing but the standard library.
"""

from .faults.faults import Faults, describe
from .faults.rows import FaultRow
from .log import Request
from .model import Job
from .serving import serve
from .simulator import Simulator

__all__ = ["FaultRow", "Faults", "Job", "Request", "Simulator", "describe", "serve"]
