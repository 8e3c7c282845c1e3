"""The wheel, built, installed into a clean environment, and used from another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = ["train", "l2", "demo", "--epochs", "1", "--image-size", "16", "--json"]
WHERE = "from photoflux.engines.bridge import start; print(start(lambda _: None).seval('pathof(PhotoFlux)'))"


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


def test_it_trains_from_a_clean_environment(wheel, flux, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True, capture_output=True)
    # Compiled apart: where the two share a Julia project, this Julia package would replace the checkout's compiled one,
    # which other tests have loaded, and Julia can crash at the next exception when the file of its code is replaced.
    depots = os.pathsep.join([str(tmp_path / "depot"), *map(str, flux.julia.seval("DEPOT_PATH"))])
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {"JULIA_DEPOT_PATH": depots}
    done = subprocess.run(
        [str(environment / "bin" / "photoflux"), *TRAIN],
        cwd=tmp_path, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["engine"] == "flux"
    assert (tmp_path / values["run"] / "weights.safetensors").is_file()
    where = subprocess.run(
        [str(python), "-c", WHERE],
        cwd=tmp_path, env=clean, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(environment))
    assert list((tmp_path / "depot" / "compiled").glob("*/PhotoFlux"))
