"""The command line as a person and a script meet it: in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from photoflux.cli import app
from photoflux.data.sources.demo import write_demo_folder


def photoflux(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "photoflux", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


# With the environment that is given and nothing that a site's own start-up code has added.
EXACTLY = """
import json, os
given = json.loads(os.environ["GIVEN"])
os.environ.clear()
os.environ.update(given)
from photoflux.cli import main
main()
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_demo_folder(folder, images_per_class=10)
    return folder


def test_the_whole_way_with_keras(keras, scans, tmp_path):
    (scans / "Text" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    prepared = photoflux("prepare", scans, tmp_path / "prepared", "--image-size", 16, "--json")
    assert prepared.returncode == 3, prepared.stderr
    values = json.loads(prepared.stdout)
    assert values["classes"] == ["not Photo", "Photo"]
    assert (values["images"], values["rejected"]) == (50, 1)
    assert "broken.png" in prepared.stderr
    (scans / "Text" / "broken.png").unlink()

    trained = photoflux(
        "train", "l2", tmp_path / "prepared", "--engine", "keras", "--epochs", 2, "--batch-size", 8, "--seed", 3,
        "--balance", "augment", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert trained.returncode == 3, trained.stderr
    values = json.loads(trained.stdout)
    assert len(trained.stdout.splitlines()) == 1
    assert {"engine", "variant", "data", "run", "epochs", "seconds", "train", "validation", "test"} <= set(values)
    assert (values["engine"], values["variant"], values["epochs"]) == ("keras", "l2", 2)
    for part in ("train", "validation", "test"):
        scores = values[part]
        assert {"loss", "penalty", "total", "accuracy"} <= set(scores)
        assert scores["total"] == pytest.approx(scores["loss"] + scores["penalty"])
    assert "epoch 2/2" in trained.stderr

    scored = photoflux("evaluate", tmp_path / "run", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["accuracy"] == values["test"]["accuracy"]
    text = photoflux("evaluate", tmp_path / "run", "--part", "validation")
    assert "of folder Sketch" in text.stdout

    (tmp_path / "notes.txt").write_text("no image")
    predicted = photoflux("predict", tmp_path / "run", scans / "Photo", tmp_path / "notes.txt", "--json")
    assert predicted.returncode == 3, predicted.stderr
    rows = json.loads(predicted.stdout)["predictions"]
    assert len(rows) == 11
    assert [row["path"] for row in rows if row["rejected"]] == [str(tmp_path / "notes.txt")]


def test_flux_trains_the_demo(flux, tmp_path):
    done = photoflux("train", "l2", "demo", "--epochs", 1, "--image-size", 16, "--out", tmp_path / "r", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == "flux"
    assert "engine flux" in done.stderr
    assert "Starting Julia" in done.stderr


@pytest.fixture
def without_julia(tmp_path):
    """Return what runs a command with no julia on PATH, no settings that name one, and no way to the network."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON_JULIA", "JULIA_"))}
    settings |= {
        "PATH": "/nonexistent",
        "PYTHON_JULIAPKG_OFFLINE": "yes",
        "PYTHON_JULIAPKG_PROJECT": str(tmp_path / "juliapkg"),
        "JULIA_DEPOT_PATH": str(tmp_path / "depot"),
        "HOME": str(tmp_path),
    }

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", EXACTLY, *map(str, arguments)]
        environment = settings | {"GIVEN": json.dumps(settings)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_without_julia_keras_trains_and_it_is_said(keras, without_julia, tmp_path):
    done = without_julia("train", "l2", "demo", "--epochs", 1, "--image-size", 16, "--out", tmp_path / "r", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == "keras"
    assert "Flux is not available, so Keras trains instead" in done.stderr


def test_without_julia_flux_is_an_error_that_tells_how_to_get_it(without_julia):
    done = without_julia("train", "l2", "demo", "--epochs", 1, "--engine", "flux")
    assert done.returncode == 1
    assert "julialang.org/downloads" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_doctor(keras, without_julia):
    done = without_julia("doctor", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["engine"] == "keras"
    assert report["flux"]["kind"] == "no_julia"
    assert "julialang.org/downloads" in report["flux"]["missing"]
    assert "keras" in report["keras"]["versions"]


def test_doctor_sees_flux(flux):
    done = photoflux("doctor")
    assert done.returncode == 0, done.stderr
    assert "flux        ready (julia 1." in done.stdout
    assert "auto takes flux" in done.stdout


ERRORS = [
    (("train", "l3", "demo"), 2, "Did you mean l2 or l1?"),
    (("train", "l2", "demo", "--engine", "torch"), 2, "`engine` must be one of"),
    (("train", "l2", "demo", "--epochs", "0"), 2, "`epochs` must be a whole number, 1 or more"),
    (("train", "l2", "demo", "--batch-size", "0"), 2, "`batch_size`"),
    (("train", "l2", "demo", "--balance", "yes"), 2, "`balance` must be one of"),
    (("train", "l2", "demo", "--epochs", "many"), 2, "--epochs"),
    (("train", "l2", "no/such/folder"), 1, "No such folder: no/such/folder"),
    (("prepare", "demo"), 2, "DEST"),
    (("evaluate", "no/such/run"), 1, "is not a run"),
    (("predict", "no/such/run", "x.jpg"), 1, "is not a run"),
    (("frobnicate",), 2, "frobnicate"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), ERRORS, ids=lambda value: str(value)[:40])
def test_an_error_is_one_message_and_a_code(arguments, code, message):
    done = photoflux(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


BAD_SOURCES = {
    "empty": "",
    "one_class": "Photo",
    "no_images": "Photo Text",
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_bad_source_is_one_message(kind, tmp_path):
    for name in BAD_SOURCES[kind].split():
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "letter.txt").write_text("Dear Sir")
    (tmp_path / "s").mkdir(exist_ok=True)
    done = photoflux("train", "l2", tmp_path / "s", "--epochs", 1, "--out", tmp_path / "r")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_debug_shows_the_traceback():
    assert "Traceback" in photoflux("evaluate", "no/such/run", "--debug").stderr


def test_variants_and_version():
    rows = json.loads(photoflux("variants", "--json").stdout)
    assert rows["l1"]["penalty"]["conv"] == {"l1": 0.01}
    assert len(photoflux("variants").stdout.splitlines()) == len(rows) == 14
    assert photoflux("--version").stdout.strip() == "0.1.0"
    usage = photoflux()
    assert usage.returncode == 2 or "Usage" in usage.stdout + usage.stderr


def test_a_keras_model_is_imported_by_any_of_three_names(tmp_path):
    for name in ("import_keras", "import-keras", "adopt"):
        done = CliRunner().invoke(app, [name, str(tmp_path / "none.keras"), "l2"])
        assert done.exit_code == 1
        assert "none.keras is no such file" in done.stderr
    listed = CliRunner().invoke(app, ["--help"]).stdout
    assert "import_keras" in listed
    assert "adopt" not in listed and "import-keras" not in listed
