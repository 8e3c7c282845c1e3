"""The Julias on which the tests run: that of the Flux engine, or those that `PHOTOFLUX_JULIAS` lists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LISTED = "PHOTOFLUX_JULIAS"
# What a Julia says of itself, and then, with our settings, where it finds packages.
ABOUT = """println(VERSION); println(joinpath(Sys.BINDIR, Base.julia_exename()))
println(something(Base.active_project(), "")); foreach(println, DEPOT_PATH)"""
FOUND = 'foreach(name -> println(something(Base.find_package(name), "")), ARGS)'


class UnusableJulia(Exception):
    """A listed Julia that cannot run the tests; the message says why."""


@dataclass(frozen=True)
class Julia:
    """One Julia with a project that has PhotoFlux' dependencies, behind which this checkout's package is found.

    Attributes
    ----------
    version : str
    words : list of str
        What starts it: a program, which may be a wrapper, and arguments.
    executable : str
        Julia's own program.
    project : str
        The project's folder.
    depots : list of str
        What has been compiled is kept in the first.
    """

    version: str
    words: list[str]
    executable: str
    project: str
    depots: list[str]

    @property
    def command(self) -> list[str]:
        """The command, to which a file or `-e` and code are added."""
        return [*self.words, "--startup-file=no", "--threads=auto", f"--project={self.project}"]

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the command runs."""
        load_path = os.pathsep.join(("@", str(ROOT), "@stdlib"))
        return _without_settings() | {"JULIA_LOAD_PATH": load_path, "JULIA_DEPOT_PATH": os.pathsep.join(self.depots)}


def listed() -> list[str]:
    """Return the entries of `PHOTOFLUX_JULIAS`: `COMMAND` or `COMMAND@PROJECT`, separated by commas or as paths are."""
    entries = re.split(f"[,\n{re.escape(os.pathsep)}]", os.environ.get(LISTED, ""))
    return list(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))


def julia_of(entry: str) -> Julia:
    """Return the Julia of an entry.

    Without a project, it is the one that this Julia takes by itself. The variables of this process belong to another
    Julia and are kept from it, but for the depots: what was compiled for several versions lies side by side in one.

    Raises
    ------
    UnusableJulia
        If it does not start, its project lacks packages (they are named), or has another PhotoFlux.
    """
    command, _, project = entry.partition("@")
    words = [str(Path(word).expanduser()) for word in shlex.split(command)]
    project = str(Path(project).expanduser()) if project else ""
    options = ["--startup-file=no", *([f"--project={project}"] if project else [])]
    version, executable, active, *depots = _ask([*words, *options, "-e", ABOUT], _without_settings(), entry)
    own = [depot for depot in os.environ.get("JULIA_DEPOT_PATH", "").split(os.pathsep) if depot]
    julia = Julia(version, words, executable, str(Path(active).parent), list(dict.fromkeys([*own, *depots])))
    ours, *_ = check(julia, ["PhotoFlux", *tomllib.loads((ROOT / "Project.toml").read_text())["deps"]], entry)
    if Path(ours).resolve() != ROOT / "src" / "PhotoFlux.jl":
        raise UnusableJulia(f"{LISTED} lists {entry}, whose project {julia.project} has another PhotoFlux, {ours}.")
    return julia


def check(julia: Julia, packages: list[str], entry: str) -> list[str]:
    """Return where a Julia finds packages; raise UnusableJulia where some are lacking."""
    places = _ask([*julia.command, "-e", FOUND, *packages], julia.environment, entry)
    missing = [name for name, place in zip(packages, places, strict=True) if not place]
    if missing:
        raise UnusableJulia(
            f"{LISTED} lists {entry}, Julia {julia.version}, whose project {julia.project} has no "
            f"{', '.join(missing)}. Add what is missing there, or list it as COMMAND@PROJECT with one that has it."
        )
    return places


def julia_of_engine(julia: Any) -> Julia:
    """Return the Julia that serves this process, given the module that the Flux engine has."""
    executable = str(julia.seval("joinpath(Sys.BINDIR, Base.julia_exename())"))
    project = str(julia.seval("dirname(Base.active_project())"))
    return Julia(
        str(julia.VERSION), [executable], executable, project, [str(depot) for depot in julia.seval("DEPOT_PATH")]
    )


def line_of_julias(stats: dict[str, list[Any]]) -> str | None:
    """Return the line that says on which Julias their suite ran, lowest version first; None if it did not run.

    Parameters
    ----------
    stats : dict
        The terminal reporter's reports, by outcome. The suite's have the property `julia`.
    """
    ran = {
        str(value): outcome
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
        for name, value in report.user_properties
        if name == "julia"
    }
    if not ran:
        return None
    versions = sorted(ran, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
    return "Julia suite: ran on " + ", ".join(v if ran[v] == "passed" else f"{v} (failed)" for v in versions)


def _without_settings() -> dict[str, str]:
    foreign = ("JULIA_PROJECT", "JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "JULIA_BINDIR")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _ask(command: list[str], environment: dict[str, str], entry: str) -> list[str]:
    """Return the lines that a Julia prints."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnusableJulia(f"{LISTED} lists {entry}, which cannot be started: {error}.") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise UnusableJulia(f"{LISTED} lists {entry}, which does not run (exit code {done.returncode}): {said}")
    return done.stdout.splitlines()
