"""Faults that the simulator injects, and their syntax."""
