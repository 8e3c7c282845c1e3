"""The Julia suite: on every Julia that PHOTOFLUX_JULIAS lists, or on the one that serves this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from julias import LISTED, ROOT, UnusableJulia, julia_of, julia_of_engine, listed

SUITE = ROOT / "tests" / "julia" / "runtests.jl"
# What it prints of itself as a Julia does, and finds packages, all but `lacking`.
STAND_IN = """#!{python}
import sys
arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
if sys.argv[1:2] == ["+broken"]:
    sys.exit("ERROR: a broken Julia")
code, packages = arguments[1], arguments[2:]
if packages:
    places = {{"PhotoFlux": "{photoflux}"}}
    print("\\n".join("" if name in {lacking} else places.get(name, "/somewhere/" + name) for name in packages))
else:
    print("1.11.1", sys.argv[0], "/projects/default/Project.toml", "/depot/one", "/depot/two", sep="\\n")
"""


@pytest.mark.fault("SIGKILL, a crash or a power cut in a fit", shown_by="checkpoints.jl")
@pytest.mark.fault("SIGKILL while a checkpoint is written", shown_by="checkpoints.jl")
@pytest.mark.fault("the newest checkpoint is cut off or changed", shown_by="checkpoints.jl")
@pytest.mark.fault(
    "both checkpoints are damaged", costs="the fit: an error says so, nothing is removed", shown_by="checkpoints.jl"
)
@pytest.mark.fault(
    "a checkpoint of another version",
    costs="nothing: an error names both formats, nothing is removed",
    shown_by="checkpoints.jl",
)
@pytest.mark.fault("a checkpoint cannot be written", costs="that one; a note says so", shown_by="checkpoints.jl")
@pytest.mark.fault("a loss that is not finite", shown_by="checkpoints.jl")
@pytest.mark.fault("other settings than the checkpoint's", shown_by="checkpoints.jl")
@pytest.mark.parametrize("entry", listed() or [None], ids=lambda entry: entry or "engine's")
def test_julia_suite(entry, request, record_property):
    if entry is None:
        julia = julia_of_engine(request.getfixturevalue("flux").julia)
    else:
        try:
            julia = julia_of(entry)
        except UnusableJulia as error:
            record_property("julia", entry)
            raise pytest.fail.Exception(str(error), pytrace=False) from None
    record_property("julia", julia.version)
    # The package is compiled as for its users; what the suite compiles beside it, most of its time, with less effort.
    # Julia takes a package that was compiled at a higher level than it is asked for.
    for words in (["-e", "using PhotoFlux"], ["--optimize=1", str(SUITE)]):
        command = [*julia.command, *words]
        done = subprocess.run(command, env=julia.environment, capture_output=True, text=True, check=False)
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-6_000:]
    assert "PhotoFlux" in done.stdout and "training" in done.stdout


def stand_in(folder: Path, lacking: tuple[str, ...] = (), photoflux: Path = ROOT / "src" / "PhotoFlux.jl") -> Path:
    path = folder / "julia-stand-in"
    path.write_text(STAND_IN.format(python=sys.executable, lacking=lacking, photoflux=photoflux))
    path.chmod(0o755)
    return path


def test_what_the_variable_lists(monkeypatch):
    monkeypatch.delenv(LISTED, raising=False)
    assert listed() == []
    monkeypatch.setenv(LISTED, f" julia +1.10, julia-1.11@/envs/a{os.pathsep}/opt/julia@@v1.12,\n, julia +1.10")
    assert listed() == ["julia +1.10", "julia-1.11@/envs/a", "/opt/julia@@v1.12"]


def test_a_listed_julia_keeps_its_own_project_and_depots(monkeypatch, tmp_path):
    monkeypatch.setenv("JULIA_PROJECT", "/of/another/julia")
    monkeypatch.setenv("JULIA_DEPOT_PATH", os.pathsep.join(("/ours", "/depot/two", "")))
    executable = str(stand_in(tmp_path))
    julia = julia_of(executable)
    assert (julia.version, julia.executable, julia.project) == ("1.11.1", executable, "/projects/default")
    assert julia.depots == ["/ours", "/depot/two", "/depot/one"]
    assert "JULIA_PROJECT" not in julia.environment
    assert julia.environment["JULIA_LOAD_PATH"].split(os.pathsep) == ["@", str(ROOT), "@stdlib"]


def test_a_listed_julia_that_cannot_run_the_suite_says_why(tmp_path):
    with pytest.raises(UnusableJulia, match=r"lists /no/julia@/envs/a, which cannot be started: .*No such file"):
        julia_of("/no/julia@/envs/a")
    lacking = stand_in(tmp_path, ("Flux", "JSON"))
    with pytest.raises(UnusableJulia, match=r"Julia 1\.11\.1, whose project /projects/default has no Flux, JSON\. Add"):
        julia_of(str(lacking))
    with pytest.raises(UnusableJulia, match=r"does not run \(exit code 1\): ERROR: a broken Julia"):
        julia_of(f"{lacking} +broken")
    with pytest.raises(
        UnusableJulia, match=r"project /projects/default has another PhotoFlux, /elsewhere/PhotoFlux\.jl"
    ):
        julia_of(str(stand_in(tmp_path, photoflux=Path("/elsewhere/PhotoFlux.jl"))))


OTHER_CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
from julias import line_of_julias

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(line_of_julias(terminalreporter.stats) or "no Julia suite")
"""
OTHER_SUITE = """
import pytest

@pytest.mark.parametrize("version", ["1.12.5", "1.9.0", "1.10.8"])
def test_julia_suite(version, record_property):
    record_property("julia", version)
    assert version != "1.9.0"

def test_other():
    pass
"""


@pytest.mark.parametrize(
    ("chosen", "line"),
    [("suite or other", "Julia suite: ran on 1.9.0 (failed), 1.10.8, 1.12.5"), ("other", "no Julia suite")],
)
def test_the_last_lines_say_on_which_julias_it_ran(tmp_path, chosen, line):
    (tmp_path / "conftest.py").write_text(OTHER_CONFTEST.format(tests=str(ROOT / "tests")))
    (tmp_path / "test_it.py").write_text(OTHER_SUITE)
    # In two processes, from which the reports come to the one that writes the lines.
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", "-k", chosen, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert line in done.stdout.splitlines(), done.stdout + done.stderr
