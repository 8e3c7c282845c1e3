"""Finds the Julia programs of this machine and the version that juliapkg wants."""

from __future__ import annotations

import io
import os
import re
import shutil
import ssl
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEAST = (1, 10)
LEAST_TEXT = "1.10 to 1.12"


@dataclass(frozen=True)
class Found:
    """A Julia program.

    Attributes
    ----------
    path : str
        Where it is.
    where : str
        How it was found, in words: ``"on PATH"``.
    version : str or None
        What it says; None: it does not run, or is no Julia.
    """

    path: str
    where: str
    version: str | None

    def __str__(self) -> str:
        what = f"Julia {self.version}" if self.version else "a program julia that does not say its version"
        return f"{what} ({self.path}, {self.where})"


def option(name: str, program: str = "juliacall") -> str | None:
    """Return an option of juliacall or juliapkg, ``-X juliacall-NAME=…`` or ``PYTHON_JULIACALL_NAME``, or None."""
    variable = f"PYTHON_{program}_{name.replace('-', '_')}".upper()
    value = sys._xoptions.get(f"{program}-{name}", os.environ.get(variable))
    return value if isinstance(value, str) and value else None


def version_of(program: str) -> str | None:
    """Return what ``julia --version`` says, such as ``"1.11.1"``, or None if the program does not say it."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    said = re.match(r"julia version (\d+\.\d+\S*)", done.stdout.strip(), re.IGNORECASE)
    return said[1] if said else None


def number_of(version: str) -> tuple[int, int]:
    """Return major and minor number of a version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def programs() -> list[Found]:
    """Return the Julia programs that can be found, in the order in which they would be taken."""
    places = [
        (option("exe"), "named by PYTHON_JULIACALL_EXE"),
        (option("exe", "juliapkg"), "named by PYTHON_JULIAPKG_EXE"),
    ]
    named = [(shutil.which(place), where) for place, where in places if place]
    others = [(_downloaded(), "downloaded before"), (_of_juliaup(), "of juliaup"), (shutil.which("julia"), "on PATH")]
    found: dict[str, Found] = {}
    for path, where in named + others:
        if path is not None and path not in found:
            found[path] = Found(path, where, version_of(path))
    return list(found.values())


def _downloaded() -> str | None:
    try:
        from juliapkg.state import STATE
    except Exception:
        return None
    return shutil.which(str(Path(STATE["install"], "bin", "julia.exe" if os.name == "nt" else "julia")))


def _of_juliaup() -> str | None:
    try:
        from juliapkg.find_julia import ju_find_julia_noinstall

        found = ju_find_julia_noinstall()
    except Exception:
        return None
    return None if found is None else str(found[0])


def wanted() -> str:
    """Return which versions of Julia juliapkg accepts here, in words."""
    try:
        return str(_compat()) + _because_of_openssl()
    except Exception:
        return LEAST_TEXT


def fits(version: str) -> bool:
    """Say whether juliapkg accepts a version."""
    try:
        from juliapkg.compat import Version

        return Version.parse(version) in _compat()
    except Exception:
        return number_of(version) >= LEAST


def _compat() -> Any:
    from juliapkg.deps import find_requirements

    with redirect_stdout(io.StringIO()):
        compat, _ = find_requirements()
    return compat


def _because_of_openssl() -> str:
    # What Julia 1.12 has of OpenSSL cannot share a process with an older one.
    if ssl.OPENSSL_VERSION_INFO >= (3, 5):
        return ""
    major, minor = ssl.OPENSSL_VERSION_INFO[:2]
    return f" (a newer one does not go with the OpenSSL {major}.{minor} of this Python)"
