"""The wheel, built, installed into a clean environment, and used from another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from juliapkg.compat import Compat, Version

from julias import ROOT, Julia, check, julia_of, julia_of_engine, listed

TRAIN = ["train", "l2", "demo", "--epochs", "1", "--image-size", "16", "--json"]
WHERE = "from photoflux.engines.flux.bridge import start; print(start(lambda _: None).seval('pathof(PhotoFlux)'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_julia_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        juliapkg = json.loads(archive.read("photoflux/juliapkg.json"))
    path = juliapkg["packages"]["PhotoFlux"]["path"]
    for file in ("Project.toml", "src/PhotoFlux.jl", "julia/training.jl", "julia/variants.toml"):
        assert f"photoflux/{path}/{file}" in names
    assert not [name for name in names if "__pycache__" in name or "wheel.json" in name]


def test_both_descriptions_name_one_package():
    development, shipped = (
        json.loads((ROOT / "python" / "photoflux" / name).read_text())
        for name in ("juliapkg.json", "juliapkg.wheel.json")
    )
    package = development["packages"]["PhotoFlux"]
    project = (ROOT / "Project.toml").read_text()
    assert package["uuid"] in project
    assert shipped == development | {"packages": {"PhotoFlux": package | {"path": "PhotoFlux.jl"}}}


def test_juliapkg_takes_the_julias_that_were_tried():
    compat = Compat.parse(json.loads((ROOT / "python" / "photoflux" / "juliapkg.json").read_text())["julia"])
    taken = [v for v in ("1.9.4", "1.10.0", "1.11.1", "1.12.9", "1.13.0") if Version.parse(v) in compat]
    assert taken == ["1.10.0", "1.11.1", "1.12.9"]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment into which the wheel was installed."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return environment


def test_it_trains_from_a_clean_environment(installed, flux, tmp_path):
    """On the Julia of this process and, where one is listed, on 1.11.

    Most users have that one: juliapkg installs it where Python is linked with OpenSSL 3.0.
    """
    train(installed, julia_of_engine(flux.julia), tmp_path / "served", {})
    for entry in listed():
        julia = julia_of(entry)
        if julia.version.startswith("1.11."):
            check(julia, ["PythonCall"], entry)
            named = {"PYTHON_JULIACALL_EXE": julia.executable, "PYTHON_JULIACALL_PROJECT": julia.project}
            assert train(installed, julia, tmp_path / "listed", named)["versions"]["julia"] == julia.version
            break


def train(installed: Path, julia: Julia, folder: Path, served: dict[str, str]) -> dict[str, Any]:
    """Train in a fresh environment, in a new folder; return what the run says of itself."""
    folder.mkdir()
    # Compiled apart: where the two share a Julia project, this Julia package would replace the checkout's compiled one,
    # which other tests have loaded, and Julia can crash at the next exception when the file of its code is replaced.
    depots = os.pathsep.join([str(folder / "depot"), *julia.depots])
    # And without the fits that the checkout's package is compiled for, which take minutes.
    settings = folder / "settings"
    settings.mkdir()
    identifier = tomllib.loads((ROOT / "Project.toml").read_text())["uuid"]
    (settings / "Project.toml").write_text(f'[extras]\nPhotoFlux = "{identifier}"\n')
    (settings / "LocalPreferences.toml").write_text("[PhotoFlux]\nprecompile_workload = false\n")
    load_path = os.pathsep.join(("@", str(settings), "@stdlib"))
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {"JULIA_DEPOT_PATH": depots, "JULIA_LOAD_PATH": load_path} | served
    done = subprocess.run(
        [str(installed / "bin" / "photoflux"), *TRAIN],
        cwd=folder, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["engine"] == "flux"
    run = folder / values["run"]
    assert (run / "weights.safetensors").is_file()
    where = subprocess.run(
        [str(installed / "bin" / "python"), "-c", WHERE],
        cwd=folder, env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
    assert list((folder / "depot" / "compiled").glob("*/PhotoFlux"))
    described: dict[str, Any] = json.loads((run / "run.json").read_text())
    return described
