import json
import sys
from types import SimpleNamespace

import pytest

import photoflux
from photoflux.engines import get_engine
from photoflux.engines.device import Device, device_of
from photoflux.engines.flux import julia_device
from photoflux.engines.flux.engine import FluxEngine
from photoflux.errors import EngineError, SettingError
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
