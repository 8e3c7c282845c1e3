"""What `photoflux doctor` finds, says and ends with."""

from __future__ import annotations

import json

import pytest

from photoflux import cli, doctor
from photoflux.engines.flux.problems import problem
from photoflux.errors import FLUX_PROBLEMS, EngineError


@pytest.fixture
def diagnosed(monkeypatch, tmp_path, capsys):
    """Return what the command prints and its exit code, where Flux is as a function says and Keras is there or not."""

    def run(flux, *options, keras=True, cache=tmp_path / "cache"):
        monkeypatch.setattr(doctor, "_flux", flux)
        monkeypatch.setattr(doctor, "programs", list)
        monkeypatch.setattr(doctor, "why_unavailable", lambda: None if keras else "keras is not installed")
        monkeypatch.setenv("PHOTOFLUX_CACHE", str(cache))
        with pytest.raises(SystemExit) as ended:
            cli.app(["doctor", *options], standalone_mode=True)
        printed = capsys.readouterr()
        return printed.out, printed.err, ended.value.code

    return run


def ready(say):
    return {
        "versions": {"julia": "1.11.1", "flux": "0.16.0", "threads": "4"},
        "folders": {"flux": "/d/Flux"},
        "julia": "/j/bin/julia",
        "project": "/p/Project.toml",
        "depots": ["/d", "/e"],
        "trained": {"variant": "l2", "batches": 1, "seconds": 1.5},
    }


def test_what_is_ready(diagnosed):
    text, _, code = diagnosed(ready)
    assert code == 0
    for words in ("flux        ready (julia 1.11.1", "threads 4", "trained one batch of l2 in 1.5 s", "/j/bin/julia",
                  "/p/Project.toml", "/d, /e", "/d/Flux", "numpy", "pillow", "juliacall", "can be written",
                  "auto takes flux"):  # fmt: skip
        assert words in text, words
    report = json.loads(diagnosed(ready, "--json")[0])
    assert report["engine"] == "flux"
    assert report["cache"]["writable"] and report["cache"]["named"]
    assert set(report["packages"]["numpy"]) == {"version", "folder"}


@pytest.mark.parametrize("kind", FLUX_PROBLEMS)
@pytest.mark.parametrize("keras", [True, False])
def test_auto_takes_keras_only_without_julia(diagnosed, kind, keras):
    def fails(say):
        raise problem(kind, "It is so")

    text, _, code = diagnosed(fails, keras=keras)
    takes_keras = kind == "no_julia" and keras
    assert code == (0 if takes_keras else 1)
    assert ("auto takes keras" in text) == takes_keras
    assert f"{kind}: {FLUX_PROBLEMS[kind]}" in text
    assert "It is so." in text
    report = json.loads(diagnosed(fails, "--json", keras=keras)[0])
    assert report["flux"]["kind"] == kind and report["flux"]["advice"] in report["flux"]["missing"]
    assert report["engine"] == ("keras" if takes_keras else None)


def test_debug_shows_all_that_julia_said(diagnosed):
    def fails(say):
        error = problem("package", "It is so")
        error.add_note("Stacktrace of Julia")
        raise error

    assert "Stacktrace" not in diagnosed(fails)[1]
    assert "Stacktrace of Julia" in diagnosed(fails, "--debug")[1]


def test_a_batch_that_fails_is_no_readiness(diagnosed):
    def fails(say):
        raise EngineError("Julia failed: BoundsError")

    text, _, code = diagnosed(fails)
    assert code == 1
    assert "BoundsError" in text


def test_a_cache_that_cannot_be_written_is_named(diagnosed, tmp_path):
    (tmp_path / "file").touch()
    text, _, _ = diagnosed(ready, cache=tmp_path / "file" / "cache")
    assert f"{tmp_path / 'file' / 'cache'} cannot be written (PHOTOFLUX_CACHE names it)" in text


def test_without_a_home_folder_the_variable_is_named(diagnosed):
    text, _, code = diagnosed(ready, cache="~nobody-of-this-name/cache")
    assert code == 0
    assert "no such home folder. Set the environment variable PHOTOFLUX_CACHE" in text


def test_flux_is_loaded_and_trains_a_batch(flux):
    report = doctor.examine(print)
    found = report["flux"]
    assert report["engine"] == "flux", found
    assert found["trained"]["batches"] == 1
    assert {"julia", "flux", "nnlib", "pythoncall", "photoflux", "threads"} <= set(found["versions"])
    assert set(found["folders"]) == {"photoflux", "flux", "nnlib", "optimisers", "zygote", "pythoncall"}
    for name in ("julia", "project"):
        assert found[name].startswith("/")
    assert "flux        ready" in doctor.as_text(report)
