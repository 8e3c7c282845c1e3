"""The command line: a command is added to the module of what it is for, and an exit code to `command`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from photoflux import api
from photoflux.cli.command import DONE, ERROR, app
from photoflux.errors import PhotoFluxError
from photoflux.system.streams import open_closed_descriptors
from photoflux.system.terminal import release, result, say
from photoflux.system.version import __version__

# In the order in which the help lists them.
# isort: split
from photoflux.cli import training

# isort: split
from photoflux.cli import judging

# isort: split
from photoflux.cli import applying

__all__ = ["api", "app", "applying", "judging", "main", "training"]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Train, evaluate and apply image classifiers on Flux.jl."""
    if version:
        result(__version__)
        raise typer.Exit(DONE)


def main() -> None:
    """Run the command line."""
    # What a file or a library would be given instead of a stream that is closed.
    open_closed_descriptors()
    try:
        app(args=sys.argv[1:])
    except (PhotoFluxError, OSError) as error:  # of help and version, on a full disk
        say(f"Error: {error}")
        sys.exit(ERROR)
    finally:
        release()
