"""The command `photoflux review`: likely label errors of a run, its end, and where there is nothing to show."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

import photoflux
from photoflux.cli import app
from photoflux.data.labelled import LABELS, read_labels
from photoflux.data.sources.demo import write_demo_folder
from photoflux.filtering.ledger import Ledger
from photoflux.reviewing import reviewed
from photoflux.reviewing.items import Sitting, of_run
from photoflux.reviewing.likely_errors import open_labels
from photoflux.reviewing.pictures import jpeg_of
from photoflux.runs.evaluation import image_losses
from photoflux.runs.folder import writing
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from piles import make_run


@pytest.fixture
def run(tmp_path: Path, write_run: Any) -> Run:
    """A run of two classes on a folder, whose logits are drawn, many of them on the wrong side."""
    write_demo_folder(tmp_path / "source", images_per_class=20)
    prepared = photoflux.prepare(tmp_path / "source", tmp_path / "prepared", image_size=24, progress=False)
    return write_run(tmp_path / "run", prepared, wrong=0.6, seed=2)


def sitting_of(run: Run, everything: bool = False) -> Sitting:
    with Display(False) as display:
        return Sitting(run.path, open_labels(run, display), of_run(run.classes, everything))


def test_likely_label_errors_are_those_with_the_largest_loss(run: Run):
    prepared = photoflux.prepare(run.data.path, progress=False)
    expected = []
    for part in ("validation", "test"):
        chosen = prepared.indices(part)
        labels, logits = prepared.labels[chosen], run.logits(part)
        losses = image_losses(run.variant.loss, logits, labels)
        for position, loss, label, logit in zip(chosen.tolist(), losses, labels, logits[:, 0], strict=True):
            if (logit >= 0) != label:
                expected.append((-loss, prepared.files()[position]["path"], run.classes[label]))
    expected.sort()
    sitting = sitting_of(run)
    shown = sitting.items()
    folder = Path(prepared.meta["made_from"]["path"])
    assert len(shown) > 3
    assert [(item["place"], item["before"]) for item in shown] == [(str(folder / p), name) for _, p, name in expected]
    assert sitting.counts() == (len(shown), 0)
    everything = sitting_of(run, everything=True)
    assert everything.counts()[0] == len(prepared.indices("validation")) + len(prepared.indices("test"))
    for each in (sitting, everything):
        each._ledger.close()


def test_labels_of_a_run_stay_and_outlive_it(run: Run, tmp_path: Path):
    sitting = sitting_of(run)
    first, second, *_ = sitting.items()
    assert sitting.label(first["source"], first["page"], run.classes[1])
    sitting._ledger.close()
    with closing(sitting_of(run)._ledger) as ledger:
        again = Sitting(run.path, ledger, of_run(run.classes, False))
        assert [item["label"] for item in again.items()[:2]] == [run.classes[1], None]
        assert again.items()[1] == second
    assert not list(run.path.glob("*-wal")), "all is in the one file"
    (label,) = read_labels([run.path])
    assert label.name == first["place"]
    with writing(run.path) as temporary:
        for name in ("run.json", "history.csv", "logits.safetensors"):
            shutil.copyfile(run.path / name, temporary / name)
    assert read_labels([run.path]) == [label]


def test_where_the_originals_are_gone_the_prepared_pixels_are_shown(run: Run, tmp_path: Path):
    shutil.rmtree(tmp_path / "source")
    sitting = sitting_of(run)
    item = sitting.items()[0]
    origin = sitting.origin(item["source"], item["page"])
    assert origin is not None and Path(origin.path) == tmp_path / "prepared"
    images = np.load(tmp_path / "prepared" / "images.npy")
    found = np.asarray(Image.open(io.BytesIO(jpeg_of(origin, 320))).convert("RGB"), np.float64)
    expected = images[origin.nth].transpose(1, 2, 0).astype(np.float64)
    # JPEG halves the colours' resolution: the mean of an image is nearly kept.
    assert np.abs(found.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 3
    assert item["name"] == Path(origin.member).name
    sitting._ledger.close()


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["review", *map(str, arguments)])


def said(result: Any) -> str:
    assert "Traceback" not in result.output + result.stderr
    return result.stderr


def test_nothing_to_label_is_said(job: Path):
    ledger = Ledger(job, writes=True)
    ledger.change("UPDATE items SET decision = 'dark' WHERE decision = 'uncertain'")
    ledger.close()
    result = command(job)
    assert result.exit_code == 0, said(result)
    assert result.stdout == f"{job}: there are no such images to label.\n"
    as_json = command(job, "--json")
    assert json.loads(as_json.stdout) == {"path": str(job), "found": 0, "labelled": 0, "labels": {}}


def test_what_cannot_be_reviewed_is_said(job: Path, run: Run, tmp_path: Path, write_run: Any, monkeypatch: Any):
    (tmp_path / "folder").mkdir()
    for arguments, code, words in (
        ([tmp_path / "nowhere"], 1, "there is no such folder. Give the folder of a `photoflux filter`, or of a run."),
        ([tmp_path / "folder"], 1, "it has neither ledger.sqlite nor run.json"),
        ([job, "--all", "--decision", "dark"], 2, "Give one of `decision` and `everything`"),
        ([job, "--decision", "drak"], 2, "must be one of light, dark, uncertain; received: 'drak'. Did you mean dark?"),
        ([run.path, "--decision", "dark"], 2, "`decision` is of filter jobs"),
        ([job, "--port", 70000], 2, "`port` must be a number from 0 to 65535"),
        ([make_run(tmp_path / "bare").path], 1, "does not say where its prepared dataset is"),
    ):
        result = command(*arguments)
        assert (result.exit_code, words in said(result)) == (code, True), (arguments, result.stderr)
    three = photoflux.prepare(tmp_path / "source", tmp_path / "three", image_size=24, positive=None, progress=False)
    result = command(write_run(tmp_path / "run of five", three).path)
    assert result.exit_code == 2 and "Labels are reviewed of two classes" in said(result)
    monkeypatch.setattr(reviewed.importlib.util, "find_spec", lambda name: None)
    result = command(job)
    assert result.exit_code == 1
    assert "A review needs starlette, uvicorn, not installed here. Install with: pip install 'photoflux[review]'" in (
        said(result)
    )


def test_a_run_whose_logits_are_anothers_is_refused(run: Run):
    save_file({part: np.zeros((1, 1), np.float32) for part in ("validation", "test")}, run.path / "logits.safetensors")
    result = command(run.path)
    assert result.exit_code == 1 and "are not those of this run" in said(result)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_says_what_there_is(job: Path, number: int):
    process = subprocess.Popen(
        [sys.executable, "-m", "photoflux", "review", str(job)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    address = line.split()[1]
    host, _, rest = address.removeprefix("http://").partition(":")
    port, _, token = rest.rstrip("/").partition("/")
    assert host == "127.0.0.1" and len(token) >= 32
    with httpx.Client(base_url=address) as client:
        items = client.get("items").json()["items"]
        values = {"source": items[0]["source"], "page": items[0]["page"], "label": "light"}
        assert client.post("label", json=values).status_code == 200
        assert client.get(f"picture/{items[0]['source']}/0/small").status_code == 200
        assert client.get(f"http://127.0.0.1:{port}/items").status_code == 404
        # Nobody listens at another address of this machine.
        with pytest.raises(OSError), closing(socket.create_connection(("127.0.0.2", int(port)), timeout=5)):
            pass
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    counted = f"{job}: 1 of 7 images are labelled; in all 1 × light."
    assert output == f"{counted} `photoflux train … --add-labels {job}` uses the labels.\n"
    with closing(Ledger(job)) as ledger:
        assert list(ledger.rows("SELECT label FROM labels")) == [("light",)]
    assert not (job / LABELS).exists()
