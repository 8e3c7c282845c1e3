"""``python -m photoflux``: the command line."""

from photoflux.cli import main

if __name__ == "__main__":
    main()
