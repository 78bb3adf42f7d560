"""Entry point of `python -m restore_agent` and of the installed command."""

from .cli.signals import store_signals


def main() -> None:
    """Handle signals from the first moment on, then load the command line and run it."""
    store_signals()
    from .cli.main import main as run  # loading takes time, and a signal may arrive meanwhile

    run()


if __name__ == "__main__":
    main()
