"""The command line: entry point, options, configuration, commands."""
