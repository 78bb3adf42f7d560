"""Faults of the simulated server, and their syntax."""
