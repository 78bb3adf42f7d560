"""`python -m restore_agent`."""

from .cli import main

if __name__ == "__main__":
    main()
