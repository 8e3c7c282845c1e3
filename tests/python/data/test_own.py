from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import photoflux
from photoflux.data.preparation import homonym, kind_of, prepare, prepare_again
from photoflux.data.prepared import open_prepared
from photoflux.data.shape import Shape
from photoflux.data.sources import own
from photoflux.data.sources.unsplit import prepare_unsplit
from photoflux.errors import DataError, SettingError

X = np.random.default_rng(0).integers(0, 256, (40, 9, 11, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache and a registry for each test."""
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own, "_registered", {})
    monkeypatch.setattr(own, "_installed", dict)


def animals(argument: str, writer: photoflux.PreparedWriter) -> None:
    for number, image in enumerate(X[: int(argument or 40)]):
        writer.add(image, ("cat", "dog")[number % 2])


def test_a_registered_source_is_prepared(tmp_path: Path):
    assert photoflux.register_source("animals")(animals) is animals
    assert kind_of("animals:30") == kind_of("animals") == "own"
    dataset = photoflux.prepare("animals:30", tmp_path / "set", seed=3, progress=False)
    assert len(dataset) == 30 and dataset.classes == ["cat", "dog"] and dataset.name == "animals-30"
    assert dataset.meta["made_from"] == {
        "kind": "own", "path": "animals:30", "positive": "auto", "image_size": None, "seed": 3,
    }  # fmt: skip
    assert len(prepare("animals")) == 40
    resized = prepare("animals", image_size=16, positive="cat")
    assert resized.shape == (3, 16, 16) and resized.classes == ["not cat", "cat"]


def test_it_is_read_again_when_its_state_is_another():
    calls, version = [], ["1"]

    @photoflux.register_source("counted", state=lambda argument: f"{argument} {version[0]}")
    def counted(argument: str, writer: photoflux.PreparedWriter) -> None:
        calls.append(argument)
        animals("", writer)

    first = prepare("counted:a")
    assert prepare("counted:a").path == first.path and calls == ["a"]
    prepare("counted:b")
    version[0] = "2"
    assert prepare("counted:a").path != first.path and calls == ["a", "b", "a"]


def test_without_a_state_it_is_read_each_time():
    count = [40]
    photoflux.register_source("growing")(lambda argument, writer: animals(str(count[0]), writer))
    first = prepare("growing")
    count[0] = 30
    second = prepare("growing")
    assert (len(first), len(second)) == (40, 30) and first.path == second.path


def failing(argument: str, writer: photoflux.PreparedWriter) -> None:
    animals("20", writer)
    raise ConnectionError("the server does not answer")


def test_a_source_that_fails_leaves_nothing_behind(tmp_path: Path):
    photoflux.register_source("failing")(failing)
    with pytest.raises(DataError, match=r"The source 'failing:x' failed: ConnectionError: the server .* Nothing was"):
        prepare("failing:x", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    with pytest.raises(DataError, match="The source 'failing' failed"):
        prepare("failing")
    assert not any((tmp_path / "cache" / "prepared").glob("failing*/meta.json"))
    photoflux.register_source("empty")(lambda argument, writer: None)
    with pytest.raises(DataError, match="No image was added"):
        prepare("empty")


@pytest.mark.parametrize("name", ["demo", "cifar10", "c", "Cats", "a:b", "", None, "../x", "9x"])
def test_a_name_that_cannot_be_used_is_refused(name: str):
    with pytest.raises(SettingError, match="`name` must be two or more small letters"):
        photoflux.register_source(name)


def test_what_is_of_a_folder_only_is_refused(tmp_path: Path):
    photoflux.register_source("animals")(animals)
    with pytest.raises(SettingError, match=r"`groups` needs a folder .*a source of your own"):
        prepare("animals", groups=tmp_path / "groups.csv")
    with pytest.raises(SettingError, match="`resplit` needs a folder"):
        prepare("animals", resplit=True)


def test_an_unknown_source_names_those_that_there_are():
    with pytest.raises(DataError, match=r"Expected a folder of images, 'demo' or 'cifar10'\.$"):
        prepare("nowhere:x")
    photoflux.register_source("animals")(animals)
    with pytest.raises(DataError, match=r"'cifar10'. Registered sources: animals. Did you mean animals\?"):
        prepare("anmals:x")


def test_a_folder_of_its_name_is_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "animals").mkdir()
    assert homonym("animals") is None
    photoflux.register_source("animals")(animals)
    assert homonym("animals") == (
        "animals means the source that is registered under that name; for your folder of that name write ./animals."
    )


def test_all_of_it_is_scored_for_a_run_of_other_data():
    photoflux.register_source("animals")(animals)
    dataset = prepare_unsplit("animals", classes=["dog", "cat", "cow"], positive=None, shape=Shape(3, 9, 11))
    assert dataset.classes == ["dog", "cat", "cow"] and dataset.labels.tolist() == [1, 0] * 20
    assert np.all(dataset.split == 2) and np.array_equal(dataset.images, X.transpose(0, 3, 1, 2))
    dataset = prepare_unsplit("animals", classes=["not cat", "cat"], positive="cat", shape=Shape(1, 16, 12))
    assert dataset.labels.tolist() == [1, 0] * 20 and dataset.shape == (1, 16, 12)
    with pytest.raises(DataError, match="has folders that are no class of the run: 'dog'"):
        prepare_unsplit("animals", classes=["cat", "cow"], positive=None, shape=Shape(3, 9, 11))


def test_a_file_that_names_a_source_does_not_read_it(tmp_path: Path):
    photoflux.register_source("animals")(animals)
    made_from = prepare("animals:30", tmp_path / "set").meta["made_from"]
    photoflux.register_source("animals")(lambda argument, writer: pytest.fail("it was read"))
    with pytest.raises(DataError, match="is not read because a file names it: give 'animals:30' as the data"):
        prepare_again(made_from)


def installed(folder: Path, text: str, value: str = "zoo:animals") -> dict[str, str]:
    """An environment in which a package names a source for the command line."""
    (folder / "zoo.py").write_text(text)
    info = folder / "zoo-0.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[photoflux.sources]\nanimals = {value}\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PHOTOFLUX_CACHE": str(folder / "cache")}


def run(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "photoflux", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


ZOO = """
import numpy as np

def animals(argument, writer):
    random = np.random.default_rng(0)
    for number in range(int(argument)):
        writer.add(random.integers(0, 256, (8, 8), dtype=np.uint8), ("cat", "dog")[number % 2])
"""


def test_the_command_line_reads_what_a_package_names(tmp_path: Path):
    done = run(tmp_path, installed(tmp_path, ZOO), "prepare", "animals:40", "set")
    assert done.returncode == 0, done.stderr
    assert "40 images of 8×8" in done.stdout
    assert open_prepared(tmp_path / "set").classes == ["cat", "dog"]


def test_a_package_that_does_not_load_is_said_without_a_traceback(tmp_path: Path):
    for value, cause in (("zoo:absent", "AttributeError"), ("zoo:__name__", "is no function")):
        done = run(tmp_path, installed(tmp_path, ZOO, value), "prepare", "animals:40", "set")
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"Error: The source animals cannot be loaded from {value}: " in done.stderr and cause in done.stderr
    done = run(tmp_path, installed(tmp_path, "1 / 0"), "prepare", "scans", "set")
    assert "No such" in done.stderr or "there is no" in done.stderr.lower()  # other sources do not need it
