"""`photoflux train --add-labels`: from a job and its labels to a run that was trained on them, also on a backbone."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import photoflux
from onnx_backbone import SIZE, write_backbone
from photoflux import api
from photoflux.cli import app
from photoflux.filtering.ledger import Ledger
from photoflux.model.weights import fingerprint_of, read_weights
from photoflux.reporting.reproduce import prepare_command, train_command
from photoflux.reviewing.items import Sitting, of_job

GIVEN: dict[str, Any] = {"epochs": 2, "engine": "keras", "progress": False, "image_size": SIZE}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dark and light noise, as folders of the classes of the job."""
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, most in (("dark", 90), ("light", 255)):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(most - 90, most, (6, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((24, 24), Image.Resampling.NEAREST)
            image.save(tmp_path / "source" / name / f"{number}.png")
    return tmp_path / "source"


@pytest.fixture
def labelled(make_job: Any) -> Path:
    """A job of which five images are labelled."""
    folder = make_job()
    with closing(Ledger(folder, writes=True)) as ledger:
        sitting = Sitting(folder, ledger, of_job(ledger, "uncertain", False))
        for number, item in enumerate(sitting.items()[:5]):
            assert sitting.label(item["source"], item["page"], ("dark", "light")[number % 2])
    return folder


def test_a_run_is_trained_on_labelled_images(source: Path, labelled: Path, tmp_path: Path, keras: Any):
    pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")
    backbone = write_backbone(tmp_path / "tiny.onnx")
    options = {**GIVEN, "backbone": backbone, "backbone_mean": 127.0, "backbone_scale": 128.0}
    run = photoflux.train("transfer", source, add_labels=labelled, out=tmp_path / "one", **options)
    again = photoflux.train("transfer", source, add_labels=[labelled], out=tmp_path / "two", **options)
    plain = photoflux.train("transfer", source, out=tmp_path / "plain", **options)
    assert run.data.images == plain.data.images + 5
    assert run.data.made_from["labels"] == [[str(labelled)]]
    assert any("5 labelled images were added" in note for note in run.data.notes)
    weights = [fingerprint_of(read_weights(each.weights)[0]) for each in (run, again, plain)]
    assert weights[0] == weights[1] != weights[2]
    assert run.metrics.test.images == plain.metrics.test.images
    assert photoflux.evaluate(run, progress=False) == run.metrics.test
    command = train_command(run)
    assert str(run.data.path) in command, "the prepared dataset has the labelled images"
    assert prepare_command(photoflux.prepare(run.data.path, progress=False)) is None
    shutil.rmtree(tmp_path / "cache" / "prepared")
    assert photoflux.evaluate(run, progress=False) == run.metrics.test, "it is prepared again, labels and all"
    whole = photoflux.evaluate(run, source, progress=False)
    assert whole.images == run.metrics.test.images, "the source is known as that of the run"


def test_the_command_says_what_became_of_the_labels(
    source: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "scans" / "even.png").unlink()
    found: list[Any] = []

    def stop(engine: Any, variant: Any, prepared: Any, *others: Any, **options: Any) -> None:
        found.append(prepared)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "fit_and_save", stop)
    monkeypatch.setattr(api, "get_engine", lambda *_: type("Nobody", (), {"name": "nobody"})())
    arguments = ["train", "baseline", str(source), "--image-size", "16", "--out", str(tmp_path / "trained")]
    result = CliRunner().invoke(app, [*arguments, "--add-labels", str(labelled)])
    assert result.exit_code == 130
    assert "Note: 4 labelled images were added to the training part (2 × dark, 2 × light)." in result.stderr
    assert "1 labelled images are left out, see rejected.csv: 1 × the file has gone." in result.stderr
    (prepared,) = found
    assert [Path(name).name for name, _ in prepared.rejected] == ["even.png"]
    assert prepared.counts()["train"]["light"] >= 2
    result = CliRunner().invoke(app, [*arguments, "--add-labels", str(tmp_path)])
    assert result.exit_code == 1
    assert "has no labels: it has neither ledger.sqlite nor labels.sqlite" in result.stderr
    assert not (tmp_path / "trained").exists()
