"""The program under test: this package in a process, or the built executable, which AGENT_PROGRAM names."""

from __future__ import annotations

import os
import sys

EXECUTABLE = os.environ.get("AGENT_PROGRAM")
"""The built executable; scripts/test-executable sets it."""

PROGRAM = [EXECUTABLE] if EXECUTABLE else [sys.executable, "-m", "restore_agent"]
"""How a process of the agent is started."""
