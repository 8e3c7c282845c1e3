"""What the tests of reports share: a page taken apart, bad names, and runs whose logits are drawn."""

from __future__ import annotations

import dataclasses
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from safetensors.numpy import save_file

import photoflux
import tiny_backbone
from photoflux import variant
from photoflux.data.sources.demo import write_demo_folder
from photoflux.model.history import EpochRow
from photoflux.model.settings import Settings
from photoflux.runs.description import RunData, RunMetrics, TrainMetrics
from photoflux.runs.evaluation import score
from photoflux.runs.folder import write_description, writing
from photoflux.runs.run import LOGITS, Run, load_run

HOSTILE = "<img src=x onerror=alert(1)>.png"
VOID = {"meta", "img", "br", "wbr", "link", "hr", "input"}


class ReadPage(HTMLParser):
    """Reads a page: every tag must be closed, and all that is seen or loaded is collected."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.code: list[str] = []
        self.quiet = 0
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "style" in self.open or not data.strip():
            return
        (self.code if "code" in self.open else self.text).append(re.sub("[ \n]+", " ", data).strip(" "))

    @property
    def words(self):
        """All that is read, by eye or by a screen reader."""
        named = [attrs[name] for _, attrs in self.tags for name in ("aria-label", "alt", "title") if attrs.get(name)]
        return [*self.text, *named]

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Five folders, the names of some files as bad as names can be."""
    source = tmp_path_factory.mktemp("source") / "scans & <b>more"
    write_demo_folder(source, images_per_class=15)
    for name, bad in (("Painting", os.fsencode(HOSTILE)), ("Text", b"caf\xe9.png")):
        min((source / name).iterdir()).rename(source / name / os.fsdecode(bad))
    (source / "Sketch").rename(source / "<script>alert(1)<")
    (source / "Photo" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return photoflux.prepare(source, source.parent / "prepared", image_size=24, progress=False)


def epoch_rows(*validation_losses):
    """Epochs whose training loss falls steadily."""
    return [
        EpochRow(i, 1.0, 1 / i, 0.125, 1 / i + 0.125, 0.5 + i / 20, loss, 0.125, loss + 0.125, 0.6)
        for i, loss in enumerate(validation_losses, 1)
    ]


def save_run(folder, prepared, *, name="l1", wrong=0.3, seed=0, **changes):
    """Write a run whose logits are drawn, a share of them on the wrong side."""
    rng = np.random.default_rng(seed)
    trained, classes = variant(name), len(prepared.classes)
    metrics, logits = {}, {}
    for part in ("validation", "test"):
        chosen = prepared.indices(part)
        labels = prepared.labels[chosen]
        taken = np.where(rng.random(len(chosen)) < wrong, rng.integers(0, classes, len(chosen)), labels)
        size = rng.exponential(2, (len(chosen), 1)).astype(np.float32)
        logits[part] = (
            size * (2 * taken[:, None] - 1) if classes == 2 else size * np.eye(classes, dtype=np.float32)[taken]
        )
        logits[part] = logits[part].astype(np.float32)
        folders = np.asarray(prepared.folder_labels())[chosen]
        metrics[part] = score(trained, logits[part], labels, classes, 0.125, folders.tolist())
    run = Run(
        path=folder,
        engine="keras",
        variant=trained,
        settings=Settings(30, 32, 0.001),
        data=RunData.of(prepared),
        history=epoch_rows(0.9, 0.5, 0.7, 0.8),
        kept_epoch=2,
        ended="early_stopping",
        seconds=61.0,
        metrics=RunMetrics(TrainMetrics(0.1, 0.125, 0.225, 0.7), **metrics),
        versions={"keras": "3.1", "photoflux": "0.1.0"},
    )
    run = dataclasses.replace(run, **changes)
    with writing(folder) as temporary:
        save_file(logits, temporary / LOGITS)
        write_description(temporary, run)
    return load_run(folder)


@pytest.fixture(scope="session")
def Page():
    """Return the reader of pages."""
    return ReadPage


@pytest.fixture(scope="session")
def rows():
    """Return epochs with given validation losses."""
    return epoch_rows


@pytest.fixture(scope="session")
def write_run():
    """Return what writes a run with drawn logits."""
    return save_run


@pytest.fixture(scope="session")
def run(scans, tmp_path_factory):
    """Return a run on bad names."""
    return save_run(tmp_path_factory.mktemp("runs") / "r", scans)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Put two tiny backbones into the table, with their packages and an empty cache."""
    folder = tmp_path / "packages"
    rows = {
        name: tiny_backbone.install(folder, name, seed, size)
        for name, seed, size in (("tiny", 0, 20), ("other", 1, 24))
    }
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    for module in ("photoflux.model.backbones", "photoflux.features.backbone"):
        monkeypatch.setattr(f"{module}.backbones", lambda: rows)
    return rows["tiny"]
