"""What every command does: errors become one message, results go to stdout, exit codes are set; and the app."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import typer

from photoflux.errors import PhotoFluxError, SettingError
from photoflux.system import names
from photoflux.system.log import on_stderr
from photoflux.system.signals import Ended, unwinding
from photoflux.system.terminal import result, say

DONE, ERROR, USAGE, REJECTED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="photoflux",
    help="Train, evaluate and apply image classifiers on Flux.jl.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

P = ParamSpec("P")


def command(name: str, *aliases: str) -> Callable[[Callable[P, int]], Callable[P, None]]:
    """Register a function as a command, with hidden aliases; it returns the exit code, its errors are one message."""

    def register(function: Callable[P, int]) -> Callable[P, None]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                with on_stderr(), unwinding():
                    code = function(*args, **kwargs)
            except Exception as error:
                if kwargs.get("debug"):
                    traceback.print_exc()
                known = isinstance(error, PhotoFluxError | OSError)
                hint = "" if known else "\nThis is a bug in PhotoFlux; `--debug` shows where."
                say(f"Error: {error if known else f'{type(error).__name__}: {error}'}{hint}")
                code = USAGE if isinstance(error, SettingError) else ERROR
            except KeyboardInterrupt:
                say("Interrupted.")
                code = INTERRUPTED
            except Ended as ended:
                say(f"Ended by {ended.signal}.")
                code = ended.number
            raise typer.Exit(code)

        app.command(name)(run)
        for alias in aliases:
            app.command(alias, hidden=True)(run)
        return run

    return register


def emit(as_json: bool, values: Any, text: str) -> None:
    """Print the result on stdout, as one JSON object or as text."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if as_json:
        result(names.as_json(values, only_ascii=encoding.lower().replace("-", "") != "utf8"))
    else:  # a terminal of few letters shows the others as escapes
        result(names.shown(text).encode(encoding, "backslashreplace").decode(encoding))
