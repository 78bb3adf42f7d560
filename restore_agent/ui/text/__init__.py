"""Text output: console, sentences for events, tables of results, and the status of a run."""
