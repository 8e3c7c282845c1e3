"""Decides which Julia and which project juliacall starts, and why there is none."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any

from photoflux.data.cache import cache_folder, writable
from photoflux.engines.flux.causes import kind_of, root_cause
from photoflux.engines.flux.julia_found import LEAST, number_of, option, version_of
from photoflux.engines.flux.problems import not_installed, problem
from photoflux.errors import DataError
from photoflux.model.variants import julia_package
from photoflux.system import atomic
from photoflux.system.names import user_path

KEPT_LINES = 500

# Where the library is, which juliacall would ask in the same way; what the project has of what is needed.
LOOK = """
import Libdl
find(name, uuid) = Base.locate_package(Base.PkgId(Base.UUID(uuid), name))
table = Base.parsed_toml(ARGS[1])
missing_ones = sort([name for (name, uuid) in table["deps"] if find(name, uuid) === nothing])
pythoncall = find("PythonCall", "6099a3de-0909-46bc-b1f4-468b9a2dfc0d")
version = pythoncall === nothing ? "" :
    Base.parsed_toml(joinpath(dirname(dirname(pythoncall)), "Project.toml"))["version"]
print(join([abspath(Libdl.dlpath("libjulia")), Sys.BINDIR, version, join(missing_ones, ", ")], '\\0'))
"""


def settle(say: Callable[[str], None]) -> dict[str, str]:
    """Find, download or install what juliacall needs.

    Parameters
    ----------
    say : callable
        Takes the lines of an installation as they come.

    Returns
    -------
    dict of str to str
        Environment variables that juliacall is to be imported with; empty: what juliapkg has settled is right.

    Raises
    ------
    FluxError
        If that fails; its kind says why.
    """
    depot = _depot()
    exe, project = option("exe"), option("project")
    with environment(depot):
        if exe is None and project is None:
            return depot | _by_juliapkg(say)
        if exe is None or project is None:
            given, other = ("EXE", "PROJECT") if project is None else ("PROJECT", "EXE")
            raise problem(
                "settings",
                f"PYTHON_JULIACALL_{given} is set and PYTHON_JULIACALL_{other} is not: juliacall takes both or "
                "neither.",
            )
        return depot | _as_named(exe, project)


def _depot() -> dict[str, str]:
    """Put a depot of ours in front where Julia's first one, into which it compiles, cannot be written."""
    given = os.environ.get("JULIA_DEPOT_PATH", "")
    try:
        # After a last separator Julia puts what it brings itself.
        path = given or f"{Path.home() / '.julia'}{os.pathsep}"
        first = path.split(os.pathsep)[0]
        ours = cache_folder().absolute() / "julia" / "depot"
    except (RuntimeError, DataError):  # no home: Julia asks the system itself
        return {}
    if not first or writable(user_path(first)) or not writable(ours):
        return {}
    return {"JULIA_DEPOT_PATH": f"{ours}{os.pathsep}{path}"}


def _as_named(exe: str, project: str) -> dict[str, str]:
    program = shutil.which(exe)
    if program is None:
        raise problem("settings", f"PYTHON_JULIACALL_EXE names no program: {exe}.")
    if not Path(project).is_dir():
        raise problem("settings", f"PYTHON_JULIACALL_PROJECT names no folder: {project}.")
    version = version_of(program)
    if version is None:
        raise problem("settings", f"PYTHON_JULIACALL_EXE names a program that is no Julia, or does not run: {program}.")
    if number_of(version) < LEAST:
        raise problem("julia_version", f"PYTHON_JULIACALL_EXE names Julia {version} ({program}), which is too old.")
    again = "Or unset PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT, so that a project is made."
    library, bindir = _look(program, project, again)
    told = {"PYTHON_JULIACALL_LIB": library, "PYTHON_JULIACALL_BINDIR": bindir}
    return {name: value for name, value in told.items() if name not in os.environ}


def _look(program: str, project: str, again: str) -> tuple[str, str]:
    """Return Julia's library and its folder of programs, if a project that nobody resolves has what is needed."""
    command = [program, "--startup-file=no", "-O0", "--compile=min", f"--project={project}", "-e", LOOK]
    done = subprocess.run(
        [*command, str(julia_package() / "Project.toml")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0 or done.stdout.count("\0") != 3:
        cause = root_cause(done.stderr or done.stdout)
        raise problem("julia_version", f"The Julia {program} does not run: {cause}")
    library, bindir, pythoncall, missing = done.stdout.split("\0")
    juliacall = metadata.version("juliacall")
    if pythoncall != juliacall:
        wanted = f'name="PythonCall", version="{juliacall}"'
        there = f"has PythonCall {pythoncall}" if pythoncall else "has no PythonCall"
        raise problem(
            "juliacall",
            f"The Julia project {project} {there}, and Python has juliacall {juliacall}: both have to be there, of the "
            "same version.",
            f"Run: {add_command(project, wanted)} {again}",
        )
    if missing:
        names = ", ".join(f'"{name}"' for name in missing.split(", "))
        message = f"The Julia project {project} lacks packages that PhotoFlux needs: {missing}."
        raise problem("package", message, f"Run: {add_command(project, f'[{names}]')} {again}")
    return library, bindir


def add_command(project: str, what: str) -> str:
    """Return the shell command that adds packages, as Julia writes them, to a project."""
    return f"julia --project={shlex.quote(project)} -e 'import Pkg; Pkg.add({what})'"


def _by_juliapkg(say: Callable[[str], None]) -> dict[str, str]:
    try:
        from juliapkg.state import STATE, reset_state
    except ImportError as error:
        name = (error.name or "juliapkg").partition(".")[0]
        raise problem("juliacall", f"Python's package {name} is not installed.") from error
    except Exception as error:  # a setting that it does not understand
        raise problem("settings", f"juliapkg refuses a setting: {error}") from error
    project = Path(STATE["project"])
    chosen = {}
    if not writable(project):
        settled = _settled_before()
        if settled:
            return settled
        if STATE["project_is_shared"]:
            raise not_installed("not_writable", f"{project}, which PYTHON_JULIAPKG_PROJECT names, cannot be written")
        chosen = {"PYTHON_JULIAPKG_PROJECT": str(_project_in_the_cache(project))}
        with environment(chosen):
            reset_state()
    if not _holds():
        _install(say, chosen)
    if STATE["offline"] and _holds():
        _look(STATE["executable"], STATE["project"], "Or unset PYTHON_JULIAPKG_OFFLINE, so that it is done for you.")
    return {}


def _holds() -> bool:
    """Say whether what juliapkg has settled before still holds; it then takes it."""
    import juliapkg
    from juliapkg.state import STATE

    with redirect_stdout(sys.stderr):
        try:
            return bool(juliapkg.resolve(dry_run=True))
        except ValueError:  # its note was cut short
            Path(STATE["meta"]).unlink(missing_ok=True)
            return False


def _project_in_the_cache(refused: Path) -> Path:
    # One for each Python environment: each can have another version of juliacall.
    name = hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:12]
    try:
        folder = cache_folder() / "julia" / name
    except DataError as error:  # no home
        raise not_installed("not_writable", f"{refused} cannot be written, and {error}") from error
    if not writable(folder):
        raise not_installed("not_writable", f"neither {refused} nor {folder} can be written")
    return folder.absolute()


def _settled_before() -> dict[str, str]:
    """Return what an installation, in a project that cannot be written now, has settled, if it still holds."""
    from juliapkg.deps import can_skip_resolve
    from juliapkg.state import STATE

    try:
        meta: Any = can_skip_resolve()
    except Exception:
        return {}
    if not meta:
        return {}
    return {
        "PYTHON_JULIACALL_EXE": meta["executable"],
        "PYTHON_JULIACALL_PROJECT": STATE["project"],
        "PYTHON_JULIACALL_LIB": meta["libjulia"],
        "PYTHON_JULIACALL_BINDIR": meta["bindir"],
    }


def _install(say: Callable[[str], None], chosen: Mapping[str, str]) -> None:
    from juliapkg.state import STATE

    named = option("exe", "juliapkg")
    if named is not None and version_of(named) is None:
        raise problem("settings", f"PYTHON_JULIAPKG_EXE names a program that is no Julia, or does not run: {named}.")
    # What the resolving process is to share with juliacall, so that nothing is compiled twice, and with this one.
    bounds = option("check-bounds")
    options = [f"-X{name}={value}" for name, value in sys._xoptions.items() if name.startswith("juliapkg-")]
    offline = {"PYTHON_JULIAPKG_OFFLINE": "yes"} if STATE["offline"] else {}
    # Our own path in our own order, in which juliapkg looks for requirements.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    with atomic.scratch("julia") as folder:
        answer = folder / "answer.json"
        command = [sys.executable, *options, "-u", "-P", "-m", "photoflux.engines.flux.julia_install", str(answer)]
        with subprocess.Popen(
            command + ([f"--check-bounds={bounds}"] if bounds else []),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace",
            env={**os.environ, **chosen, **offline, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            failing = False
            for line in process.stdout:
                tail.append(line)
                # Its stack trace is of no use to a user; the error will say the cause.
                failing = failing or re.match(r"ERROR: |Stacktrace:", line) is not None
                if not failing:
                    say(line.rstrip())
        if process.returncode == 130 or process.returncode == -2:
            raise KeyboardInterrupt
        failure = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
    if failure == {}:
        return
    output = "".join(tail)
    if failure is None or failure["kind"] == "julia":
        error = not_installed(kind_of(output), root_cause(output))
    else:
        forbidden = " (PYTHON_JULIAPKG_OFFLINE forbids a download)" if STATE["offline"] else ""
        error = not_installed(failure["kind"], failure["text"] + forbidden)
    error.add_note(output)  # for `--debug`
    raise error


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
