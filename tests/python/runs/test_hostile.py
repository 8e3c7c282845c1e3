"""A run's folder from somebody else: whatever stands in its files, it is refused in words or it works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import photoflux
from hostile import NOT_JSON, ODD, changed, places
from photoflux.errors import PhotoFluxError
from photoflux.model.weights import read_weights_of, write_arrays
from photoflux.reporting.i18n import ENGLISH, translator
from photoflux.reporting.notebook import run_html
from photoflux.reporting.run_page import page_of
from photoflux.runs.checkpoints import begun_fit
from photoflux.runs.run import LOGITS, load_run
from photoflux.runs.seen import NAME as SEEN
from photoflux.runs.seen import read_seen
from piles import make_run

METRICS = {
    "loss": 0.1, "penalty": 0.0, "total": 0.1, "accuracy": 0.9, "balanced_accuracy": 0.9, "images": 10,
    "confusion": [[4, 1], [0, 5]], "precision": [1.0, 0.83], "recall": [0.8, 1.0], "part": "test", "left_out": 0,
    "folders": {"dark": {"images": 5, "accuracy": 0.8}}, "notes": ["a note"], "rejected": 0,
}  # fmt: skip
ROW = "1,0.5,0.7,0.0,0.7,0.5,0.6,0.0,0.6,0.75\n"
NO_ROWS = ["", "1\n", "x" + ROW, ROW.replace("0.7", "<b>"), "1,2,3\n" * 5, ROW[:-1] + ",9,9\n", "\x00\n", "1" * 200_000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with something in every place."""
    run = make_run(tmp_path / "run")
    file = run.path / "run.json"
    values = json.loads(file.read_text())
    values |= {
        "metrics": {"train": {"loss": 0.1, "penalty": 0.0, "total": 0.1, "accuracy": 0.9}, "test": METRICS},
        "initial": {"path": "/runs/first", "fingerprint": "0" * 64},
        "threshold": {"score": 0.6, "promise": "recall", "value": 0.99},
        "temperature": 1.5,
        "notes": ["a note"],
        "versions": {"keras": "3"},
        "kept_epoch": 1,
    }
    values["data"] |= {
        "seed": 1, "images": 10, "made_from": {"kind": "folder", "path": "/scans"}, "split": "made", "notes": ["a"],
    }  # fmt: skip
    file.write_text(json.dumps(values))
    history = run.path / "history.csv"
    history.write_text(history.read_text().splitlines()[0] + "\n" + ROW)
    return run.path


def use(folder: Path) -> bool:
    """Do with a run what needs no engine; whether it was refused."""
    try:
        run = load_run(folder)
        assert str(run)
        assert str(photoflux.summary(run.variant, image_size=run.shape.width, classes=len(run.classes)))
        json.dumps(run.as_dict())
        read_weights_of(run.weights, run.variant, run.input_shape, len(run.classes))
    except PhotoFluxError as error:
        assert "Traceback" not in str(error)
        assert len(str(error)) < 5000
        return True
    return False


def test_whatever_a_value_of_run_json_is(folder: Path):
    values = json.loads((folder / "run.json").read_text())
    assert not use(folder)
    refused, tried = set(), 0
    for place in places(values):
        for new in ODD:
            (folder / "run.json").write_text(json.dumps(changed(values, place, new)))
            tried += 1
            if use(folder):
                refused.add(place)
    assert tried > 1500
    # A note may be any text; what else there is has values that it cannot have.
    assert {place for place in places(values)} - refused <= {("notes", 0)} | {
        ("data", "notes", 0), ("metrics", "test", "notes", 0), ("versions", "keras"), ("data", "made_from", "kind"),
        ("data", "made_from", "path"), ("metrics", "train"),
    }  # fmt: skip


@pytest.mark.parametrize("text", NOT_JSON)
def test_run_json_that_is_no_run(folder: Path, text: str):
    (folder / "run.json").write_text(text)
    assert use(folder)


@pytest.mark.parametrize("row", NO_ROWS)
def test_history_that_is_none(folder: Path, row: str):
    history = folder / "history.csv"
    history.write_text(history.read_text().splitlines()[0] + "\n" + row)
    assert use(folder)


def test_a_run_with_a_link_or_folder_in_place_of_a_file(folder: Path):
    for name in ("run.json", "history.csv", "weights.safetensors"):
        kept = folder.with_name("kept")
        (folder / name).rename(kept)
        for make in (Path.mkdir, lambda path: path.symlink_to(path), lambda path: path.write_bytes(b"\xff" * 9)):
            make(folder / name)
            assert use(folder)
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
        kept.rename(folder / name)
    assert not use(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(folder: Path, bad: float):
    run = load_run(folder)
    weights = read_weights_of(run.weights, run.variant, run.shape, 2)
    name = list(weights)[-2]
    weights[name].flat[0] = bad
    import safetensors

    with safetensors.safe_open(run.weights, framework="numpy") as file:
        metadata = file.metadata()
    write_arrays(run.weights, weights, metadata)
    with pytest.raises(photoflux.RunError, match=rf"{name} .* not finite"):
        read_weights_of(run.weights, run.variant, run.shape, 2)


def test_weights_with_any_byte_of_the_header_changed(folder: Path):
    """Refused, or the numbers are the same: a header says nothing else that matters."""
    run = load_run(folder)
    data = bytearray(run.weights.read_bytes())
    length = int.from_bytes(data[:8], "little")
    expected = read_weights_of(run.weights, run.variant, run.shape, 2)
    rng = np.random.default_rng(0)
    refused = 0
    for at in range(8 + length):
        before = data[at]
        data[at] = rng.integers(256)
        run.weights.write_bytes(data)
        try:
            found = read_weights_of(run.weights, run.variant, run.shape, 2)
            assert found.keys() == expected.keys()
        except PhotoFluxError:
            refused += 1
        data[at] = before
    assert refused > length // 2


def test_a_threshold_of_an_earlier_photoflux_is_shown(folder: Path):
    """It said less; and Julia's runs may be given one by hand."""
    page = page_of(load_run(folder), ENGLISH)
    assert "An image with a score of 0.6 or more is predicted as “light”" in page
    assert "with confidence 0.95, a recall of 0.99 or more" in page


def test_names_and_notes_cannot_become_tags(folder: Path):
    markup = "<img src=x onerror=alert(1)>[/b]"
    values = json.loads((folder / "run.json").read_text())
    values["notes"] = values["data"]["notes"] = values["metrics"]["test"]["notes"] = [markup]
    values["data"] |= {"name": markup, "classes": [f"not {markup}", markup], "positive": markup, "path": f"/{markup}"}
    values["data"]["made_from"]["path"] = values["initial"]["path"] = markup
    values["metrics"]["test"]["folders"] = {markup: {"images": 5, "accuracy": 0.8}}
    values["versions"] = {markup: markup}
    values["created"] = values["initial"]["fingerprint"] = values["data"]["fingerprint"] = markup
    (folder / "run.json").write_text(json.dumps(values))
    run = load_run(folder)
    for page in (page_of(run, ENGLISH), page_of(run, translator("fr")), run_html(run)):
        assert "<img" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;[/b]" in page
    assert f"note        {markup}" in str(run)


@pytest.mark.parametrize("wrong", [np.zeros((4, 2), np.float32), np.zeros(4, np.float32), np.zeros((4, 1), np.int32)])
def test_logits_that_are_none(folder: Path, wrong: np.ndarray):
    run = load_run(folder)
    write_arrays(folder / LOGITS, {"test": np.zeros((4, 1), np.float32)})
    assert run.logits("test").shape == (4, 1)
    write_arrays(folder / LOGITS, {"test": wrong})
    with pytest.raises(photoflux.RunError, match="has no logits of its test part"):
        run.logits("test")


@pytest.mark.parametrize(
    "changes", [{"train": np.zeros(3)}, {"train": np.zeros((2, 2), np.uint64)}, {"left_out.test": np.zeros(2)}]
)
def test_a_list_of_seen_images_that_is_none(folder: Path, changes: dict):
    good = {
        "train": np.zeros(3, np.uint64),
        "validation": np.zeros(1, np.uint64),
        "left_out.test": np.zeros(2, np.int64),
    }
    write_arrays(folder / SEEN, good, {"format": "photoflux-seen-1"})
    assert read_seen(folder) is not None
    write_arrays(folder / SEEN, good | changes, {"format": "photoflux-seen-1"})
    with pytest.raises(photoflux.RunError, match="cannot be read"):
        read_seen(folder)


def test_a_fit_that_is_none(folder: Path):
    place = folder / "checkpoints" / "fit.json"
    place.parent.mkdir()
    place.write_text('{"variant": "l2", "dataset": "d", "engine": "flux"}')
    assert begun_fit(folder) == {"variant": "l2", "dataset": "d", "engine": "flux"}
    for text in NOT_JSON:
        place.write_text(text)
        assert begun_fit(folder) is None
