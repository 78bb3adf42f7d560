"""`python -m restore_agent`, and what the installed command calls."""

from .signals import keep


def main() -> None:
    """Load the command line, which takes a while, and go through its door."""
    keep()
    from .cli import main as door

    door()


if __name__ == "__main__":
    main()
