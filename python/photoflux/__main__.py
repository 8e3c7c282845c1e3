"""Run the command line as ``python -m photoflux``."""

from photoflux.cli import main

if __name__ == "__main__":
    main()
