"""Commands that set up a host."""
