"""What happens at start, each in a fresh process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from photoflux.engines.flux import bridge
from photoflux.model.variants import julia_package

SILENT = """
import sys
import photoflux
heavy = {"juliacall", "juliapkg", "keras", "tensorflow", "matplotlib", "sklearn", "scipy"}
print(sorted(heavy & set(sys.modules)), end="")
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_starts_nothing():
    done = python(SILENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]", "")


BRIDGE = """
import os
os.environ.pop("PYTHON_JULIACALL_HANDLE_SIGNALS", None)
os.environ["PYTHON_JULIACALL_THREADS"] = "1"
from photoflux.engines.flux import bridge
lines = []
module = bridge.start(lines.append)
assert bridge.start(lines.append) is module
assert len(lines) == 1 and lines[0].startswith("Starting Julia"), lines
assert os.environ["PYTHON_JULIACALL_HANDLE_SIGNALS"] == "yes"
assert os.environ["PYTHON_JULIACALL_THREADS"] == "1"
assert module.Threads.nthreads() == 1
import juliacall
assert not juliacall.Main.seval("isdefined(Main, :PhotoFlux)")
print(module.seval("string(pathof(PhotoFlux))"), end="")
"""


def test_the_bridge_keeps_the_users_settings_and_main_clean(flux):
    done = python(BRIDGE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(julia_package()))


def test_tensorflow_first_is_warned_of(flux):
    code = """
import sys, types, warnings
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from photoflux.engines.flux import bridge
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    bridge.start(print)
print([str(w.message) for w in caught if "tensorflow was imported before Julia" in str(w.message)] != [], end="")
"""
    done = python(code)
    assert done.stdout.endswith("True"), done.stdout + done.stderr


STREAMS = """
import os, sys
REPLACED
from photoflux.engines import get_engine
file = open(sys.argv[1], "w")  # it is given the number of a stream that is closed
lines = []
engine = get_engine("auto", lines.append)
assert engine.name == "flux", lines
engine.julia.seval('println("said by Julia"); println(stderr, "warned by Julia")')
assert engine.stopping([3.0, 2.0, 4.0, 5.0], 2) == (4, 2)
file.write("a result")
file.close()
"""
STREAM_CASES = [
    # What Python has not got rid of, it tries to write again with whatever comes next.
    ("import contextlib\nwith contextlib.suppress(OSError): print('lost', file=sys.stderr)", "2>/dev/full"),
    ("", "<&- >&- 2>&-"),
    ("", ">&-"),
    ("", "2>&-"),
    ("import io; sys.stdout = io.StringIO(); sys.stderr = None", ""),
]


@pytest.mark.parametrize(("replaced", "closed"), STREAM_CASES)
def test_julia_starts_whatever_has_become_of_the_streams(flux, replaced, closed, tmp_path):
    code, file = STREAMS.replace("REPLACED", replaced), tmp_path / "file"
    command = ["/bin/sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # What Python itself ends with, without us, where it cannot empty a stream: 120, or 0 if it is not buffered.
    alone = subprocess.run([*command[:5], f"import os, sys\n{replaced}"], capture_output=True, check=False)
    assert done.returncode == alone.returncode, done.stderr
    assert file.read_text() == "a result"
    assert done.stdout == ""


THEIRS = """
import os, warnings
import juliacall
from photoflux.engines import get_engine
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    engine = get_engine("flux", print)
    assert engine.stopping([3.0, 2.0, 4.0, 5.0], 2) == (4, 2)
    get_engine("flux", print).versions()
print([str(w.message) for w in caught])
"""
OPTIONS = [("1", "yes", "with one thread"), ("2", "yes", "")]


@pytest.mark.parametrize(("threads", "signals", "words"), OPTIONS)
def test_a_julia_that_was_started_before_with_other_options_is_warned_of_and_works(flux, threads, signals, words):
    done = python(THEIRS, PYTHON_JULIACALL_THREADS=threads, PYTHON_JULIACALL_HANDLE_SIGNALS=signals)
    assert done.returncode == 0, done.stderr
    assert "Starting Julia" not in done.stdout
    if threads != "1" or os.cpu_count() != 1:
        assert done.stdout.count("Julia was started before PhotoFlux") == bool(words)
        assert words in done.stdout


# Not on a real Julia, which can crash or hang in this state: that is what is warned of.
def test_threads_without_julias_handling_of_signals_are_warned_of():
    julia = SimpleNamespace(Threads=SimpleNamespace(nthreads=lambda: 2), seval=lambda code: False)
    with pytest.warns(RuntimeWarning, match="with several threads and without its handling of signals"):
        bridge._warn_of_options(julia)


BROKEN = """
import sys
from pathlib import Path
from photoflux.engines import get_engine
from photoflux.engines.flux import bridge
from photoflux.errors import FluxError
bridge.julia_package = lambda: Path(sys.argv[1])
try:
    get_engine("auto", print)
except FluxError as error:
    print(error.kind, "|", error)
"""


def test_a_package_that_fails_to_load_is_an_error_with_its_cause(flux, tmp_path):
    package = tmp_path / "PhotoFlux.jl"
    for name in ("src", "julia"):
        shutil.copytree(julia_package() / name, package / name)
    shutil.copy(julia_package() / "Project.toml", package)
    module = package / "src" / "PhotoFlux.jl"
    module.write_text(module.read_text().replace("module PhotoFlux\n", "module PhotoFlux\nnot_defined_anywhere + 1\n"))
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(package)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"JULIA_LOAD_PATH": os.pathsep.join(("@", str(package), "@stdlib"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "package | Julia started, but its package PhotoFlux could not be loaded: UndefVarError" in done.stdout
    assert "not_defined_anywhere" in done.stdout
    assert "PhotoFlux.jl:" in done.stdout  # the file and line
    assert "Stacktrace" not in done.stdout + done.stderr
