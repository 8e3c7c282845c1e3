"""Comparisons from end to end: what is kept, what is refused, what is said."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import sys

import numpy as np
import pytest

import photoflux
from kills import left_by_kills
from photoflux import DataError, RunError, SettingError
from photoflux.comparison import fits
from photoflux.comparison.compare import _command, _compared, _seeds
from photoflux.data.sources.demo import write_demo_folder
from photoflux.reporting.i18n import translator
from photoflux.reporting.sentences import text_of

pytestmark = pytest.mark.usefixtures("one_worker")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Arrays of a class that is bright and one that is dark, not quite apart."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.integers(0, 156, (80, 8, 8, 3)) + (70 * y)[:, None, None, None]
    return photoflux.prepare((x.astype(np.uint8), y), tmp_path_factory.mktemp("data") / "d", progress=False).path


def compared(data, out, **options):
    settings = {"seeds": 2, "epochs": 2, "batch_size": 8, "engine": "auto", "progress": False} | options
    return photoflux.compare(data, settings.pop("variants", "baseline,l2"), out=out, **settings)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Images that no fit sees."""
    rng = np.random.default_rng(8)
    y = np.arange(60) % 2
    x = rng.integers(0, 156, (60, 8, 8, 3)) + (70 * y)[:, None, None, None]
    return photoflux.prepare((x.astype(np.uint8), y), tmp_path_factory.mktemp("second") / "d", progress=False).path


@pytest.fixture(scope="module")
def found(folder, second, keras, tmp_path_factory):
    return compared(folder, tmp_path_factory.mktemp("comparison") / "c", holdout=second)


def test_every_variant_has_every_seed(found, second):
    assert sorted(path.name for path in (found.path / "runs").iterdir()) == [
        f"{name}-seed{seed}" for name in ("baseline", "l2") for seed in (1, 2)
    ]
    for name in ("baseline", "l2"):
        runs = [photoflux.load_run(found.path / "runs" / f"{name}-seed{seed}") for seed in (1, 2)]
        result = next(row for row in found.results if row.variant.name == name)
        for part in ("validation", "test"):
            for measure in ("loss", "accuracy", "balanced_accuracy"):
                mean = np.mean([getattr(getattr(run.metrics, part), measure) for run in runs])
                # Two sums of the same Float32 logits in another order, both in float64.
                assert result.parts[part][measure].mean == pytest.approx(mean, rel=1e-9)
        assert result.numbers["seconds"].mean == pytest.approx(np.mean([run.seconds for run in runs]))
        assert found.histories[name] == [[row.validation_total for row in run.history] for run in runs]
        mean = np.mean([photoflux.evaluate(run, second, part="all", progress=False).accuracy for run in runs])
        assert result.parts["holdout"]["accuracy"].mean == pytest.approx(mean, rel=1e-9)


def test_the_training_gap_is_with_dropout_off(folder, keras, tmp_path):
    found = compared(folder, tmp_path / "c", variants="baseline,dropout", seeds=1, epochs=1)
    run = photoflux.load_run(tmp_path / "c" / "runs" / "dropout-seed1")
    train, validation = (
        photoflux.evaluate(run, part=part, progress=False).accuracy for part in ("train", "validation")
    )
    assert found.results[1].numbers["gap"].mean == pytest.approx(train - validation, abs=1e-12)


def test_it_is_written_and_shown(found):
    values = json.loads((found.path / "comparison.json").read_text())
    assert values["chosen"] == found.chosen
    assert values["standings"][0]["parts"]["test"]["loss"]["mean"] == found.results[0].parts["test"]["loss"].mean
    text = str(found)
    for piece in ("baseline", "l2", "reference", f"Chosen: {found.chosen}.", "On the second folder", str(found.run)):
        assert piece in text
    html = found._repr_html_()
    assert html.count("<tr>") == 3 and found.chosen in html
    assert found.run.name.startswith(found.chosen)
    assert "--seeds 2" in found.command and "--holdout" in found.command


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_the_report_is_one_page_in_either_language(found, tmp_path, Page, lang):
    words = translator(lang)
    path = found.path / "report.html" if lang == "en" else photoflux.report(found.path, tmp_path / "r", lang="fr")
    read = Page(path.read_text(encoding="utf-8"))
    assert read.of("html") == [{"lang": lang}]
    links = [attrs["href"] for attrs in read.of("a")]
    assert links and all(link.startswith("#") for link in links)
    assert read.of("script") == read.of("link") == read.of("img") == []
    text = " ".join(read.text)
    assert " ".join(text_of(sentence, words) for sentence in found.sentences) in text
    chosen = found.results[found.decision.chosen]
    for part in ("validation", "test", "holdout"):
        assert words.percent(chosen.parts[part]["balanced_accuracy"].mean) in text
    assert found.command in read.code
    # One of the intervals, one of the losses by epoch.
    assert len(read.of("svg")) == 2
    assert ("Chosen" in text) == (lang == "en")


def test_it_is_read_as_it_was_written(found):
    assert repr(photoflux.load_comparison(found.path)) == repr(found)
    with pytest.raises(RunError, match="not a comparison"):
        photoflux.load_comparison(found.path / "runs")


def test_what_was_left_out_is_said(keras, tmp_path, caplog):
    source = write_demo_folder(tmp_path / "scans", images_per_class=12)
    (source / "Photo" / "broken.jpg").write_bytes(b"no image")
    options = {"variants": "dense_l2,dense_dropout", "seeds": 1, "epochs": 1, "image_size": 8, "progress": True}
    found = compared(source, tmp_path / "c", **options)
    assert "broken.jpg" in caplog.text
    assert found.data["rejected"] == 1


def test_finished_fits_are_kept_and_more_are_added(folder, keras, tmp_path, monkeypatch):
    fitted = []
    real = fits.fit_and_save
    monkeypatch.setattr(fits, "fit_and_save", lambda *a, **k: (fitted.append(a[4].name), real(*a, **k))[1])
    first = compared(folder, tmp_path / "c", seeds=1, epochs=1)
    assert fitted == ["baseline-seed1", "l2-seed1"]
    shutil.rmtree(tmp_path / "c" / "runs" / "l2-seed1")
    again = compared(folder, tmp_path / "c", seeds=1, epochs=1)
    assert fitted[2:] == ["l2-seed1"]
    # One engine on one machine gives the same fit again; NaN bounds of a single seed are not equal to themselves.
    assert repr(again.results[1].parts) == repr(first.results[1].parts)
    compared(folder, tmp_path / "c", seeds=2, epochs=1, variants="baseline,l2,l1")
    assert sorted(fitted[3:]) == ["baseline-seed2", "l1-seed1", "l1-seed2", "l2-seed2"]
    with pytest.raises(RunError, match="another epochs: found 1, now 2"):
        compared(folder, tmp_path / "c", seeds=1, epochs=2)


def test_an_interrupted_fit_is_not_kept(folder, keras, tmp_path, monkeypatch):
    real = fits.fit_and_save

    def interrupted(*args, **options):
        trained = real(*args, **options)
        if trained.run.variant.name == "l2":
            object.__setattr__(trained.run, "ended", "interrupted")
        return trained

    monkeypatch.setattr(fits, "fit_and_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(folder, tmp_path / "c", seeds=1, epochs=1)
    assert [path.name for path in (tmp_path / "c" / "runs").iterdir()] == ["baseline-seed1"]
    assert not (tmp_path / "c" / "comparison.json").exists()
    monkeypatch.undo()
    assert len(compared(folder, tmp_path / "c", seeds=1, epochs=1).results) == 2


def test_a_source_is_split_anew_for_each_seed(keras, tmp_path):
    x = np.random.default_rng(1).integers(0, 255, (60, 8, 8, 1), dtype=np.uint8)
    found = compared((x, np.arange(60) % 3), tmp_path / "c", variants="dense_l2,dense_dropout", epochs=1)
    assert len(set(found.data["fingerprints"])) == 2
    assert "recall_at_precision" not in found.results[0].parts["test"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"variants": "baseline"}, SettingError, "2 or more different"),
        ({"variants": "l2,l2"}, SettingError, "2 or more different"),
        ({"variants": "l2,l3"}, SettingError, "Did you mean l2"),
        ({"seeds": 0}, SettingError, "`seeds`"),
        ({"seeds": [1, 1]}, SettingError, "`seeds`"),
        ({"epochs": 0}, SettingError, "`epochs`"),
        ({"holdout": "nowhere"}, DataError, "No such folder"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_trained(folder, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        compared(folder, tmp_path / "c", **options)
    assert not list((tmp_path / "c").glob("runs/*"))


def test_a_folder_of_other_things_is_left_alone(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="something else"):
        compared(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_all_is_the_seven_of_the_photo_cnn():
    assert len(_compared("all")) == 7
    assert _seeds(3) == [1, 2, 3] and _seeds([7, 9]) == [7, 9]
    assert _seeds(np.int64(2)) == [1, 2] and _seeds([2**64]) == _seeds((2**64,)) == [2**64]
    assert [type(seed) for seed in _seeds(np.array([1, 2**63], np.uint64))] == [int, int]
    for given in (2**64, 0, -1, True, 2.5, [1.5], [True], [-1], []):
        with pytest.raises(SettingError, match=r"`seeds?` must be"):
            _seeds(given)


@pytest.mark.parametrize(("seeds", "words"), [([7], "7,"), ([1], "1"), ([1, 2], "2"), ([2, 1], "2,1")])
def test_the_command_repeats_the_seeds(seeds, words):
    assert shlex.split(_command("scans", "l2", seeds, {}))[-2:] == ["--seeds", words]


def test_every_fit_has_the_schedule(folder, flux, tmp_path):
    found = compared(folder, tmp_path / "c", seeds=1, epochs=1, engine="flux", schedule="cosine")
    runs = [photoflux.load_run(tmp_path / "c" / "runs" / f"{name}-seed1") for name in ("baseline", "l2")]
    assert [run.settings.schedule for run in runs] == ["cosine", "cosine"]
    assert photoflux.load_comparison(found.path).settings["schedule"] == "cosine"
    assert "--schedule cosine" in found.command and "learning-rate schedule" in (found.path / "report.html").read_text()
    with pytest.raises(SettingError, match="`schedule` must be one of"):
        compared(folder, tmp_path / "d", schedule="linear")


# The second of the fits is ended in its second epoch; it goes on from there, and the first is kept.
@pytest.mark.fault("SIGKILL in `photoflux compare`")
def test_a_comparison_goes_on_within_a_fit(keras, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    y = np.arange(60) % 2
    x = rng.integers(0, 100, (60, 12, 10, 3), np.uint8)
    x[y == 0, :, :5] += 120
    options = {"engine": "keras", "seeds": [1], "epochs": 3, "batch_size": 8, "balance": "augment", "progress": False}
    prepared = photoflux.prepare((x, y), tmp_path / "prepared", progress=False)

    def weights_in(name):
        photoflux.compare(prepared, "dropout,early_stopping", out=tmp_path / name, **options)
        return {
            path.parent.name: path.read_bytes() for path in (tmp_path / name / "runs").glob("*/weights.safetensors")
        }

    class Ended(Exception):
        pass

    def batch(self, progress):
        places.append((progress.epoch, progress.batch))
        if places.count((2, 3)) == 2:
            raise Ended

    places = []
    expected = weights_in("whole")
    with monkeypatch.context() as patch:
        patch.setattr(fits.FitDisplay, "batch", batch)
        with pytest.raises(Ended):
            weights_in("ended")
    kept = tmp_path / "ended" / "runs" / "early_stopping-seed1" / "checkpoints"
    assert (2, 3) in places and any(kept.glob("epoch-000002-batch-*.safetensors"))
    assert weights_in("ended") == expected
    assert not kept.exists()


KILLED = """
import functools, json, sys, time, photoflux
from photoflux.comparison import fits
fits.fit_and_save = functools.partial(fits.fit_and_save, checkpoint_minutes=0)
fits.FitDisplay.batch = lambda self, progress: time.sleep(0.01)
photoflux.compare(**json.loads(sys.argv[1]), out=sys.argv[2] + "/c")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stops a process and sees that it has stopped, as Linux says it")
@pytest.mark.fault("SIGKILL in `photoflux compare`", costs="as in a fit; the fits before are kept")
def test_twenty_kills_at_random_moments(flux, folder, tmp_path, monkeypatch):
    options = {"variants": "dense_l2,dense_dropout", "seeds": [1], "epochs": 2, "batch_size": 8, "engine": "flux"}
    options |= {"data": str(folder), "progress": False}
    # Figures and pages take most of the time here, and are made from what is compared.
    for name in ("comparison.compare.write_comparison", "reporting.finishing.report"):
        monkeypatch.setattr(f"photoflux.{name}", lambda *_: None)
    for name in ("plot_curves", "plot_confusion"):
        monkeypatch.setattr(f"photoflux.reporting.plots.{name}", lambda *_: None)

    def made(place):
        found = photoflux.compare(**options, out=place / "c")
        weights = {path.parent.name: path.read_bytes() for path in (place / "c").glob("runs/*/weights.safetensors")}
        scores = {path.name: path.read_bytes() for path in (place / "c").glob("scores/*")}
        return weights, scores, found.chosen, [repr(result.parts) for result in found.results]

    (tmp_path / "whole").mkdir()
    whole = made(tmp_path / "whole")
    left = left_by_kills(
        KILLED,
        [json.dumps(options)],
        tmp_path / "killed",
        chance=random.Random(9),
        pause=0.3,
        begun=lambda place: (place / "c" / "runs").is_dir(),
    )
    for place in left:
        assert made(place) == whole
        assert {path.name for path in place.iterdir()} == {"c"}
        assert {path.name for path in (place / "c" / "runs").iterdir()} == set(whole[0])
