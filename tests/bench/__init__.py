"""How fast the agent is beside curl, aria2 and wget; `scripts/bench` runs it."""
