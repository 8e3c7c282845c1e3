import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux.comparison import spreading
from photoflux.comparison.fits import Fit, kept_run
from photoflux.data.prepared import open_prepared
from photoflux.engines import get_engine
from photoflux.engines.device import Device, device_of
from photoflux.engines.flux import julia_device
from photoflux.engines.flux.engine import FluxEngine
from photoflux.errors import EngineError, RunError, SettingError
from photoflux.filtering import station
from photoflux.model.settings import Settings
from photoflux.model.variants import variant
from small import prepare


def test_the_names():
    assert device_of("cpu") is None
    assert device_of("cuda", True) == Device("cuda", True)
    with pytest.raises(SettingError, match=r"`device` must be one of .*received: 'cdua'.*cuda"):
        device_of("cdua")
    with pytest.raises(SettingError, match="`tf32` is of a GPU, and the device is the CPU"):
        device_of("cpu", True)
    with pytest.raises(SettingError, match="`device` is of the engine flux; received cuda with the engine keras"):
        get_engine("keras", print, Device("cuda"))
    with pytest.raises(SettingError, match="`unfreeze` trains a backbone on the CPU only"):
        photoflux.train("transfer", device="cuda", unfreeze=1)


def test_without_a_gpu_it_says_so(flux, tmp_path):
    prepared = prepare(tmp_path / "data", 2)
    engine, chosen = FluxEngine(print, Device("cuda")), variant("dense_l2")
    with pytest.raises(EngineError, match=r"`device` is \"cuda\".*(does not have it|no such device that works here)"):
        engine.fit(chosen, prepared, Settings(1, 8, 0.001), tmp_path / "weights.safetensors")
    flux.fit(chosen, prepared, Settings(1, 8, 0.001), tmp_path / "weights.safetensors")
    with pytest.raises(EngineError, match='`device` is "cuda"'):
        engine.load(chosen, tmp_path / "weights.safetensors", prepared.shape, len(prepared.classes))
    with pytest.raises(EngineError, match='`device` is "cuda"'):
        engine.versions()


# What is done with a run, or without one, on a device.
USES = {
    "evaluate": lambda run, place, device: photoflux.evaluate(run, device=device, progress=False),
    "predict": lambda run, place, device: photoflux.predict(run, place / "pile", device=device, progress=False),
    "filter": lambda run, place, device: photoflux.filter(
        run, place / "pile", place / "job", device=device, progress=False
    ),
    "serve": lambda run, place, device: photoflux.serve(run, port=0, device=device, progress=False),
    "compare": lambda run, place, device: photoflux.compare(
        place / "data", "dense_l2,dense_dropout", seeds=1, epochs=1, device=device, out=place / "c", progress=False
    ),
}


@pytest.fixture(scope="module")
def trained(flux, tmp_path_factory):
    place = tmp_path_factory.mktemp("device")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    prepared = photoflux.prepare((images, np.arange(40) % 2), place / "data", progress=False)
    (place / "pile").mkdir()
    Image.new("RGB", (16, 16)).save(place / "pile" / "black.png")
    return photoflux.train("dense_l2", prepared, engine="flux", epochs=1, out=place / "run", progress=False), place


@pytest.mark.parametrize("use", [name for name in USES if name not in ("evaluate", "predict")])
def test_an_unknown_device_is_refused_before_anything_is_read(use, tmp_path):
    if use == "serve":
        pytest.importorskip("starlette", reason="the extra serve is not installed")
    with pytest.raises(SettingError, match=r"`device` must be one of .*received: 'cdua'.*cuda"):
        USES[use](tmp_path / "no run", tmp_path, "cdua")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", USES)
def test_whatever_uses_a_run_says_that_there_is_no_such_device(use, trained):
    if use == "serve":
        pytest.importorskip("starlette", reason="the extra serve is not installed")
    run, place = trained
    with pytest.raises(EngineError, match=r"`device` is \"cuda\".*(does not have it|no such device that works here)"):
        USES[use](run, place, "cuda")


def test_the_workers_of_a_cluster_are_told_the_device(trained, monkeypatch):
    run, place = trained
    asked = []
    monkeypatch.setattr(spreading, "get_engine", lambda name, say, device: asked.append((name, device)))
    fit = Fit(run.variant, run.settings, open_prepared(place / "data"), FluxEngine(print, Device("cuda")))
    told = spreading.task_of(fit, "cuda")
    spreading._engine.__wrapped__(told.engine, told.device)
    here = get_engine
    monkeypatch.setattr(
        station, "get_engine", lambda name, say, device: asked.append((name, device)) or here(name, say)
    )
    station.loaded(run, None, "cuda")
    assert asked == [("flux", Device("cuda")), ("auto", Device("cuda"))]


def test_a_fit_of_another_device_is_not_taken_for_one_of_this(trained):
    run, place = trained
    fit = Fit(run.variant, run.settings, open_prepared(place / "data"), FluxEngine(print))
    assert kept_run(fit, run.path).path == run.path

    class OnGpu(FluxEngine):
        def versions(self):
            return {"device": "cuda (a card)"}

    with pytest.raises(RunError, match="is of a comparison with another device: found cpu, now cuda"):
        kept_run(dataclasses.replace(fit, engine=OnGpu(print)), run.path)


def stand_in(monkeypatch):
    required, settled = [], []
    juliapkg = SimpleNamespace(add=lambda name, uuid, **more: required.append((name, uuid, more)))
    monkeypatch.setitem(sys.modules, "juliapkg", juliapkg)
    monkeypatch.setattr(julia_device, "settle", settled.append)
    return required, settled


def test_the_packages_of_a_gpu_are_required_and_installed(monkeypatch):
    required, settled = stand_in(monkeypatch)
    monkeypatch.setattr(julia_device, "option", lambda name: None)
    said = []
    julia_device.add_device("cuda", said.append)
    project = (photoflux.model.variants.julia_package() / "Project.toml").read_text()
    assert [name for name, *_ in required] == ["CUDA", "cuDNN"]
    for name, uuid, more in required:
        # As the extension of the Julia package names them.
        assert f'{name} = "{uuid}"' in project and f'{name} = "{more["version"]}"' in project
    assert len(settled) == 1 and len(said) == 2


def test_a_project_of_somebody_elses_is_not_changed(monkeypatch):
    required, settled = stand_in(monkeypatch)
    monkeypatch.setattr(julia_device, "option", lambda name: "/their project")
    with pytest.raises(SettingError, match=r"--project='/their project' .*Pkg.add\(\[\"CUDA\", \"cuDNN\"\]\)"):
        julia_device.add_device("cuda", print)
    with pytest.raises(SettingError, match=r"`add` must be one of .*cuda"):
        julia_device.add_device("cdua", print)
    assert required == settled == []


def test_a_run_of_a_gpu_says_so_and_is_read(monkeypatch):
    engine = FluxEngine(print, Device("cuda", True))
    assert engine._settings == {"device": "cuda", "tf32": True} and engine._placed == ("cuda",)
    assert json.dumps(FluxEngine(print)._settings) == "{}" and FluxEngine(print)._placed == ()
