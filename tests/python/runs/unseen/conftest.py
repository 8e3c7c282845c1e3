"""The engine that is not started, and folders of images, for every test here."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from photoflux import api
from photoflux.comparison import compare as comparing
from photoflux.data.sources.demo import write_demo_folder
from photoflux.reporting import finishing
from still import Still


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    still = Still()
    for place in (api, comparing):
        monkeypatch.setattr(place, "get_engine", lambda *_: still)
    monkeypatch.setattr(api, "_engine_of", lambda *_: still)
    # Nothing here is about figures, which take longer than all the rest.
    monkeypatch.setattr(finishing, "_draw", lambda *_, **__: None)
    monkeypatch.setattr(finishing, "report", lambda *_: None)
    return still


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """15 images of each of five classes, PNG files."""
    folder = write_demo_folder(tmp_path_factory.mktemp("originals") / "scans", images_per_class=15)
    for path in folder.glob("*/*.jpg"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    return folder


@pytest.fixture
def scans(originals, tmp_path, monkeypatch):
    """A folder that a test may change, and a cache of its own."""
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(originals, tmp_path / "scans"))


@pytest.fixture
def others(tmp_path):
    """Images of other sources, nine of each class."""
    return write_demo_folder(tmp_path / "others", images_per_class=9, seed=5)
