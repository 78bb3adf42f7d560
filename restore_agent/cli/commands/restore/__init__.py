"""Commands of a real restore."""
