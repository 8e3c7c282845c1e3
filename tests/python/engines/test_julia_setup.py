"""Why Flux is not there, told apart: each in a fresh process that has a made-up PATH, home and Julia."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from photoflux.engines.flux import bridge
from photoflux.engines.flux.problems import ADVICE
from photoflux.errors import FLUX_PROBLEMS, FluxError

# Answers as Julia does when juliapkg asks for its version and its library; else prints FAKE_OUTPUT and ends.
JULIA = """#!/bin/sh
case "$1" in --version) echo "$FAKE_VERSION"; exit 0;; esac
case "$*" in
  *missing_ones*) printf "$FAKE_LOOK"; exit 0;;
  *Libdl*) printf '/lib/libjulia.so\\0/bin'; exit 0;;
esac
printf '%b' "$FAKE_OUTPUT" >&2
exit ${FAKE_CODE:-0}
"""
# As far as the bridge knows it.
JULIACALL = """
import os
__version__ = "0"
CONFIG = {name: os.environ.get("PYTHON_JULIACALL_" + name) for name in ("EXE", "PROJECT", "LIB", "THREADS")}
CONFIG["depot"] = os.environ.get("JULIA_DEPOT_PATH")
%s
"""
# Whatever a site's own start-up code has put into the environment is not part of the machine.
EXACT = """
import json, os
given = json.loads(os.environ["GIVEN"])
os.environ.clear()
os.environ.update(given)
"""
START = """
import sys
BEFORE
from photoflux.engines.flux import bridge
from photoflux.errors import FluxError
lines = []
try:
    bridge._import_juliacall(lines.append)
except FluxError as error:
    found = {"kind": error.kind, "text": str(error), "notes": error.__notes__ if hasattr(error, "__notes__") else []}
else:
    from juliapkg.state import STATE
    found = {"kind": None, "config": sys.modules["juliacall"].CONFIG, "project": STATE["project"]}
print(json.dumps(found | {"lines": lines}))
"""


class Machine:
    """A machine with an empty home and no network; Julia is on its PATH once it is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "home").mkdir()
        self.environment = {
            "PATH": f"{folder / 'bin'}",
            "HOME": str(folder / "home"),
            "PYTHON_JULIAPKG_PROJECT": str(folder / "project"),
            "PYTHONPATH": str(Path(__file__).parents[3] / "python"),
            # Nothing answers there, on any machine.
            "https_proxy": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        }

    def put_julia(self, version: str, output: str = "", code: int = 0) -> Path:
        program = self.folder / "bin" / "julia"
        program.write_text(JULIA)
        program.chmod(0o755)
        self.environment |= {"FAKE_VERSION": version, "FAKE_OUTPUT": output, "FAKE_CODE": str(code)}
        return program

    def put_juliacall(self, code: str = "") -> None:
        (self.folder / "modules" / "juliacall").mkdir(parents=True)
        (self.folder / "modules" / "juliacall" / "__init__.py").write_text(JULIACALL % code)
        self.environment["PYTHONPATH"] = f"{self.folder / 'modules'}:{self.environment['PYTHONPATH']}"

    def run(self, code: str, *options: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | changes
        command = [sys.executable, *options, "-c", EXACT + code]
        given = {"GIVEN": json.dumps(environment)}
        return subprocess.run(command, env=environment | given, capture_output=True, text=True, check=False)

    def start(self, *options: str, before: str = "", **changes: str) -> dict:
        done = self.run(START.replace("BEFORE", before), *options, **changes)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_every_kind_has_advice():
    assert set(ADVICE) == set(FLUX_PROBLEMS)
    for kind, advice in ADVICE.items():
        error = FluxError("It is so.", kind, advice)
        assert (error.kind, str(error)) == (kind, f"It is so. {advice}")


@pytest.mark.parametrize("settings", [{}, {"PYTHON_JULIAPKG_OFFLINE": "yes"}], ids=["no network", "offline"])
def test_no_julia(machine, settings):
    found = machine.start(**settings)
    assert found["kind"] == "no_julia"
    assert "There is no Julia on this machine" in found["text"]
    assert "julialang.org/downloads" in found["text"]
    assert ("forbids a download" in found["text"]) == bool(settings)


@pytest.mark.parametrize("version", ["1.9.0", "1.6.7", "2.0.0", "1.99.0-rc1"])
def test_a_julia_that_does_not_fit_is_named_with_what_fits(machine, version):
    program = machine.put_julia(f"julia version {version}")
    found = machine.start()
    assert found["kind"] == "julia_version"
    assert f"Julia {version} ({program}, on PATH)" in found["text"]
    assert "needed 1.10" in found["text"]


@pytest.mark.parametrize("said", ["", "command not found", "Julia!", "julia version x"])
def test_a_julia_that_does_not_run_is_no_reason_to_take_keras(machine, said):
    machine.put_julia(said)
    found = machine.start()
    assert found["kind"] == "julia_version"
    assert "does not say its version" in found["text"]


FAILURES = {
    "network": "ERROR: RequestError: Could not resolve host: pkg.julialang.org while requesting https://x/registries",
    "not_writable": 'ERROR: IOError: mkdir("/home/a/.julia/registries"; mode=0o777): permission denied (EACCES)',
    "package": "ERROR: Unsatisfiable requirements detected for package Flux [587475ba]:",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_an_installation_that_fails_says_why_and_shows_no_stack_trace(machine, kind):
    trace = "".join(f" [{number}] f(x::Int)\\n   @ Pkg ./a.jl:{number}\\n" for number in range(1, 40))
    machine.put_julia("julia version 1.11.1", f"  Updating registry\\n{FAILURES[kind]}\\nStacktrace:\\n{trace}", 1)
    found = machine.start()
    assert found["kind"] == kind
    assert FAILURES[kind].removeprefix("ERROR: ") in found["text"]
    assert "Julia 1.11.1" in found["text"]
    assert len(found["text"].splitlines()) < 5
    assert "  Updating registry" in found["lines"]
    assert not any("a.jl" in line or "ERROR" in line for line in found["lines"])
    assert "a.jl:39" in found["notes"][0]


SETTINGS = [
    ({"PYTHON_JULIACALL_EXE": "/no/julia", "PYTHON_JULIACALL_PROJECT": "/"}, "PYTHON_JULIACALL_EXE names no program"),
    ({"PYTHON_JULIACALL_EXE": "julia", "PYTHON_JULIACALL_PROJECT": "/no"}, "PYTHON_JULIACALL_PROJECT names no folder"),
    ({"PYTHON_JULIACALL_EXE": "julia"}, "PYTHON_JULIACALL_EXE is set and PYTHON_JULIACALL_PROJECT is not"),
    ({"PYTHON_JULIACALL_PROJECT": "/"}, "PYTHON_JULIACALL_PROJECT is set and PYTHON_JULIACALL_EXE is not"),
    ({"PYTHON_JULIAPKG_EXE": "/no/julia"}, "PYTHON_JULIAPKG_EXE names a program that is no Julia"),
    ({"PYTHON_JULIAPKG_PROJECT": "relative"}, "must be an absolute path"),
    ({"PYTHON_JULIAPKG_OFFLINE": "maybe"}, "PYTHON_JULIAPKG_OFFLINE must be one of"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=lambda value: str(value)[:50])
def test_a_setting_that_names_nothing_is_an_error_of_its_own(machine, settings, message):
    machine.put_julia("julia version 1.11.1")
    found = machine.start(**settings)
    assert found["kind"] == "settings"
    assert message in found["text"]


@pytest.fixture
def threads(monkeypatch):
    """Return what settles the threads under given settings: what juliacall is then told."""

    def settled(settings):
        for name in ("PYTHON_JULIACALL_THREADS", "JULIA_NUM_THREADS"):
            monkeypatch.setenv(name, settings.get(name, ""))
            if name not in settings:
                monkeypatch.delenv(name)
        bridge._settle_threads()
        return os.environ.get("PYTHON_JULIACALL_THREADS")

    return settled


@pytest.mark.parametrize("name", ["JULIA_NUM_THREADS", "PYTHON_JULIACALL_THREADS"])
@pytest.mark.parametrize("given", ["many", "0", "-1", "2,x"])
def test_a_number_of_threads_that_julia_would_die_of(threads, name, given):
    with pytest.raises(FluxError, match=f"{name} must be auto or a number of threads; it is '{given}'") as caught:
        threads({name: given})
    assert caught.value.kind == "settings"


KEPT = [
    ({}, "auto"),
    ({"JULIA_NUM_THREADS": ""}, "auto"),
    ({"JULIA_NUM_THREADS": "3"}, None),
    ({"PYTHON_JULIACALL_THREADS": "2", "JULIA_NUM_THREADS": "3"}, "2"),
    ({"JULIA_NUM_THREADS": "2,1"}, None),
]


@pytest.mark.parametrize(("settings", "told"), KEPT)
def test_the_users_number_of_threads_is_kept(threads, settings, told):
    assert threads(settings) == told


def test_a_named_julia_that_is_too_old(machine):
    program = machine.put_julia("julia version 1.9.4")
    found = machine.start(PYTHON_JULIACALL_EXE="julia", PYTHON_JULIACALL_PROJECT=str(machine.folder))
    assert found["kind"] == "julia_version"
    assert f"Julia 1.9.4 ({program})" in found["text"]


JULIACALL_VERSION = metadata.version("juliacall")
PROJECTS = [
    ("", "", "juliacall", "has no PythonCall"),
    ("0.1.2", "", "juliacall", "has PythonCall 0.1.2, and Python has juliacall"),
    (JULIACALL_VERSION, "Flux, NNlib", "package", "lacks packages that PhotoFlux needs: Flux, NNlib"),
]


@pytest.mark.parametrize(("pythoncall", "missing", "kind", "message"), PROJECTS, ids=["none", "other", "no Flux"])
@pytest.mark.parametrize("way", ["named", "offline"])
def test_a_project_that_lacks_something(machine, pythoncall, missing, kind, message, way):
    machine.put_julia("julia version 1.11.1")
    machine.put_juliacall()
    project = machine.folder / "mine"
    named = {"PYTHON_JULIACALL_EXE": "julia", "PYTHON_JULIACALL_PROJECT": str(project)}
    offline = {"PYTHON_JULIAPKG_OFFLINE": "yes", "PYTHON_JULIAPKG_PROJECT": str(project)}
    project.mkdir()
    look = f"/lib/libjulia.so\\000/bin\\000{pythoncall}\\000{missing}"
    found = machine.start(**(named if way == "named" else offline), FAKE_LOOK=look)
    assert found["kind"] == kind
    assert message in found["text"]
    assert f"julia --project={project}" in found["text"]
    good = f"/lib/libjulia.so\\000/bin\\000{JULIACALL_VERSION}\\000"
    found = machine.start(**(named if way == "named" else offline), FAKE_LOOK=good)
    assert found["kind"] is None
    # juliacall is spared its own start of Julia.
    assert found["config"]["LIB"] == ("/lib/libjulia.so" if way == "named" else None)


def test_juliacall_or_juliapkg_missing(machine):
    machine.put_julia("julia version 1.11.1")
    for name in ("juliacall", "juliapkg"):
        found = machine.start(before=f"sys.modules[{name!r}] = None" if name == "juliapkg" else HIDE)
        assert found["kind"] == "juliacall"
        assert f"Python's package {name} is not installed" in found["text"]


HIDE = """
class Hidden:
    def find_spec(self, name, *rest):
        if name == "juliacall":
            raise ModuleNotFoundError("No module named 'juliacall'", name="juliacall")
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("raise Exception('PythonCall.jl did not start properly')", "juliacall", "did not start properly"),
        ("raise SystemExit('no')", "juliacall", "could not be started in this process: no"),
        ("assert not CONFIG", "juliacall", "AssertionError, assert not CONFIG"),
        ("raise ValueError('PYTHON_JULIACALL_COMPILE=x: expecting one of')", "settings", "PYTHON_JULIACALL_COMPILE"),
        ("import nothing_of_this_name", "juliacall", "nothing_of_this_name is not installed"),
    ],
)
def test_juliacall_that_fails(machine, code, kind, message):
    machine.put_julia("julia version 1.11.1")
    machine.put_juliacall(code)
    found = machine.start()
    assert found["kind"] == kind
    assert message in found["text"]


READ_ONLY = 'sys.prefix = "/proc/nothing"'  # juliapkg's project would be in it


def test_a_read_only_environment_has_its_project_in_the_cache(machine):
    machine.put_julia("julia version 1.11.1")
    machine.put_juliacall()
    cache = machine.folder / "cache"
    del machine.environment["PYTHON_JULIAPKG_PROJECT"]
    found = machine.start(before=READ_ONLY, PHOTOFLUX_CACHE=str(cache))
    assert found["kind"] is None
    assert Path(found["project"]).parent == cache / "julia"
    assert (Path(found["project"]) / "Project.toml").is_file()
    # The second start finds it made, and installs nothing.
    again = machine.start(before=READ_ONLY, PHOTOFLUX_CACHE=str(cache), FAKE_CODE="1")
    assert (again["kind"], again["project"], again["lines"]) == (None, found["project"], [])


@pytest.mark.parametrize("there", [True, False], ids=["Julia", "no Julia"])
def test_nothing_can_be_written(machine, there):
    if there:
        machine.put_julia("julia version 1.11.1")
    del machine.environment["PYTHON_JULIAPKG_PROJECT"]
    found = machine.start(before=READ_ONLY, HOME="/proc/nothing")
    assert found["kind"] == ("not_writable" if there else "no_julia")
    assert "/proc/nothing/julia_env" in found["text"]
    assert "can be written" in found["text"]
    if there:
        assert "PHOTOFLUX_CACHE" in found["text"]
        assert "JULIA_DEPOT_PATH" in found["text"]


DEPOTS = [
    ({"JULIA_DEPOT_PATH": "/proc/nothing:/second"}, "{ours}:/proc/nothing:/second"),
    ({"HOME": "/proc/nothing"}, "{ours}:/proc/nothing/.julia:"),
    ({"JULIA_DEPOT_PATH": "{folder}/depot:/second"}, "{folder}/depot:/second"),
    ({}, None),
    ({"JULIA_DEPOT_PATH": "/proc/nothing", "PHOTOFLUX_CACHE": "/proc/nothing"}, "/proc/nothing"),
]


@pytest.mark.parametrize(("settings", "told"), DEPOTS)
def test_a_depot_that_cannot_be_written_has_ours_in_front(machine, settings, told):
    machine.put_julia("julia version 1.11.1")
    machine.put_juliacall()
    places = {"folder": machine.folder, "ours": machine.folder / "cache" / "julia" / "depot"}
    given = {"PHOTOFLUX_CACHE": "{folder}/cache"} | settings
    found = machine.start(**{name: value.format(**places) for name, value in given.items()})
    assert found["kind"] is None, found
    assert found["config"]["depot"] == (told and told.format(**places))


def test_no_home_at_all(machine):
    machine.put_julia("julia version 1.11.1")
    del machine.environment["PYTHON_JULIAPKG_PROJECT"], machine.environment["HOME"]
    found = machine.start(before=READ_ONLY, PHOTOFLUX_CACHE="~nobody-of-this-name/cache")
    assert found["kind"] == "not_writable"
    assert "PHOTOFLUX_CACHE" in found["text"]


def test_a_project_that_cannot_be_written_is_used_as_it_was_settled(machine):
    machine.put_julia("julia version 1.11.1")
    machine.put_juliacall()
    assert machine.start()["kind"] is None
    refuse = "from photoflux.engines.flux import julia_setup\njulia_setup.writable = lambda folder: False"
    found = machine.start(before=refuse)
    assert found["kind"] is None
    assert found["config"]["EXE"] == str(machine.folder / "bin" / "julia")
    assert found["config"]["PROJECT"] == str(machine.folder / "project")
    assert found["lines"] == []


def test_a_note_of_juliapkg_that_was_cut_short_is_made_again(machine):
    machine.put_julia("julia version 1.11.1")
    machine.put_juliacall()
    assert machine.start()["kind"] is None
    (machine.folder / "project" / "pyjuliapkg" / "meta.json").write_text('{"meta_version')
    found = machine.start()
    assert (found["kind"], found["lines"] == []) == (None, False)


AUTO = """
import sys
from photoflux.engines import get_engine
from photoflux.errors import FluxError
try:
    print(get_engine("auto", print).name)
except FluxError as error:
    print("error", error.kind)
"""


def test_auto_takes_keras_only_where_there_is_no_julia(machine):
    assert machine.run(AUTO).stdout.splitlines()[-1] == "keras"
    machine.put_julia("julia version 1.9.0")
    assert machine.run(AUTO).stdout.splitlines()[-1] == "error julia_version"
    machine.put_julia("julia version 1.11.1", FAILURES["network"], 1)
    assert machine.run(AUTO).stdout.splitlines()[-1] == "error network"
