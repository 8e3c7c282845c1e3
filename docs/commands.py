"""Writes the reference of the command line from the functions that are the commands.

`python docs/commands.py` writes docs/reference/commands.md; a test asks whether it is as the commands are today.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "commands.md"
sys.path.insert(0, str(ROOT / "python"))

from photoflux.cli import app  # noqa: E402

HEAD = """# Command line

<!-- made by docs/commands.py -->

`photoflux COMMAND --help` says the same. Results go to stdout, with `--json` as one object, and progress to stderr;
[data.md](../data.md#exit-codes-and-messages) has the exit codes.
"""


def page() -> str:
    """Return the page: for each command what it does, how it is called, and a table of its arguments and options."""
    shown = {info.name: info.callback for info in app.registered_commands if info.name and not info.hidden}
    table = ["| Command | |", "|---|---|"]
    table += [f"| [`{name}`](#photoflux-{name}) | {_first(function)} |" for name, function in shown.items()]
    return "\n".join([HEAD, *table, *(_section(name, function) for name, function in shown.items())]) + "\n"


def _section(name: str, function: Any) -> str:
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    usage, rows = ["photoflux", name], ["| | | Default |", "|---|---|---|"]
    for param in inspect.signature(function).parameters.values():
        kind, info = get_args(hints[param.name])[:2]
        if info.hidden:
            continue
        required = param.default is param.empty
        if isinstance(info, ArgumentInfo):
            spelled = (info.metavar or param.name.upper()).strip("[]") + ("…" if "list" in str(kind) else "")
            usage.append(spelled if required else f"[{spelled}]")
            spelled = f"`{spelled}`"
        else:
            # Within Annotated the first name of an option is where typer keeps a default.
            names = [word for word in (info.default, *(info.param_decls or ())) if str(word).startswith("-")]
            names = names or [_option(param.name, kind)]
            spelled = ", ".join(f"`{word}`" for word in names)
            spelled += "" if kind is bool else f" {info.metavar or _value(kind)}"
        rows.append(f"| {spelled} | {_line(info.help)} | {_default(param.default)} |")
    return "\n".join(
        [
            f"\n## photoflux {name}\n",
            _line(inspect.getdoc(function)),
            "",
            "```text",
            " ".join([*usage, "[OPTIONS]"]),
            "```",
            "",
            *rows,
        ]
    )


def _option(name: str, kind: Any) -> str:
    spelled = name.replace("_", "-")
    return f"--{spelled}/--no-{spelled}" if kind is bool else f"--{spelled}"


def _value(kind: Any) -> str:
    numbers = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
    return next((word for one, word in numbers.items() if one in (kind, *get_args(kind))), "TEXT")


def _default(value: Any) -> str:
    return "" if value in (inspect.Parameter.empty, None, False, ()) or value == [] else f"`{value}`"


def _first(function: Callable[..., Any] | None) -> str:
    return _line((inspect.getdoc(function) or "").split("\n\n")[0])


def _line(words: str | None) -> str:
    return " ".join((words or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
