"""The transfer of one body to its consumers: blocks, threads, rate."""
