"""The report of a run: whole, of one piece, in both languages, and made from the run's numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import photoflux
from photoflux import RunError, SettingError, cli
from photoflux.data.prepared import open_prepared
from photoflux.reporting.i18n import ENGLISH, translator
from photoflux.reporting.report_data import gather
from photoflux.runs.description import RunMetrics
from photoflux.runs.run import LOGITS
from photoflux.runs.run import summary_of_run as layers_of


@pytest.fixture(scope="module", params=["en", "fr"])
def page(request, run, tmp_path_factory, Page):
    path = photoflux.report(run, tmp_path_factory.mktemp("page") / "r.html", lang=request.param)
    return Page(path.read_text(encoding="utf-8")), translator(request.param)


def test_a_report_is_one_page_that_needs_nothing_else(page, run):
    read, tr = page
    assert read.of("html") == [{"lang": tr.lang}]
    assert [attrs.get("name") for attrs in read.of("meta")] == [None, "viewport", "color-scheme"]
    assert read.of("script") == read.of("link") == []
    links = [value for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)
    names = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(set(names)) == len(names)
    assert {link[1:] for link in links if link.startswith("#")} <= set(names)
    assert {"learning", "results", "folders", "errors", "correct", "settings", "data", "reproduce"} <= set(names)


def test_every_figure_is_there_and_described(page):
    read, _ = page
    # Accuracy, loss, confusion, ROC, precision and recall, two of calibration, architecture.
    assert len(read.of("svg")) == 8
    described = [attrs for attrs in read.of("div") if attrs.get("role") == "img"]
    assert len(described) == 8
    assert all(attrs["aria-label"] for attrs in described)
    assert all(attrs["alt"] for attrs in read.of("img"))


def test_the_numbers_are_the_runs(page, run):
    read, tr = page
    test, text = run.metrics.test, read.text
    for part, row in run.metrics.as_dict().items():
        place = text.index(tr(part), text.index(tr("part")))
        found = text[place + 1 : place + 6]
        losses = [tr.number(row[name], ".4f") for name in ("loss", "penalty", "total")]
        balanced = tr.percent(row["balanced_accuracy"]) if "balanced_accuracy" in row else "–"
        assert found == [*losses, tr.percent(row["accuracy"]), balanced]
    for name, counts, precision, recall in zip(run.classes, test.confusion, test.precision, test.recall, strict=True):
        place = text.index(tr.number(sum(counts), ","), text.index(tr("By class")))
        if text[place - 1] == name:
            assert text[place + 1 : place + 3] == [tr.percent(precision), tr.percent(recall)]
    places = [i for i, found in enumerate(text) if found == tr("share of the folder")]
    for name, row in test.folders.items():
        start = text.index(name, places[0])
        taken = row["accuracy"] if name == "Photo" else 1 - row["accuracy"]
        assert text[start + 1] == str(row["images"])
        assert text[start + 3] == tr.percent(taken)


def test_names_cannot_become_tags(run, page):
    read, _ = page
    assert any("<script>alert(1)<" in text for text in read.text)
    assert any("scans & <b>more" in text for text in read.words)
    assert not [attrs for attrs in read.of("img") if "onerror" in attrs]
    assert read.of("b") == []
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for attrs in read.of("img"))


def test_every_error_and_example_is_shown_with_its_name(scans, tmp_path, Page, write_run):
    everything_wrong = write_run(tmp_path / "r", scans, seed=1)
    scored = gather(everything_wrong, ENGLISH).scored["test"]
    flipped = {
        "validation": everything_wrong.logits("validation"),
        "test": (1 - 2 * scored.labels[:, None]) * np.float32(2),
    }
    save_file({name: values.astype(np.float32) for name, values in flipped.items()}, tmp_path / "r" / LOGITS)
    read = Page(photoflux.report(tmp_path / "r").read_text(encoding="utf-8"))
    files = scans.files()
    paths = {files[i]["path"].encode("utf-8", "backslashreplace").decode() for i in scans.indices("test")}
    assert {attrs["alt"] for attrs in read.of("img")} == paths
    assert "Every test image is classified correctly." not in read.text


def test_no_english_is_left_in_french(run, tmp_path, scans, Page):
    french = translator("fr")
    english = {text for text, found in french.entries.items() if text != found}
    common = re.compile(r"\b(the|of|and|with|from|was|were|is|are|which|by|it|not|no|images? of)\b", re.IGNORECASE)
    empty = dataclasses.replace(
        run,
        ended="adopted",
        history=[],
        metrics=RunMetrics(),
        data=dataclasses.replace(run.data, path=None, made_from=None),
        initial={"path": "m", "fingerprint": "f"},
    )
    for number, shown in enumerate((run, empty)):
        read = Page(photoflux.report(shown, tmp_path / f"{number}.html", lang="fr").read_text(encoding="utf-8"))
        layers = {layer.name for layer in layers_of(run).layers}
        files = {row["path"] for row in scans.files()}
        names = {str(scans.path), scans.name, *run.classes, *scans.folder_labels(), *files, *layers}
        said = [text for text in read.words if text not in names]
        assert english & set(said) == set()
        for name in sorted(names, key=len, reverse=True):
            said = [text.replace(name, "") for text in said]
        assert [text for text in said if common.search(text)] == []


def test_a_report_of_the_demo_is_small(run):
    assert photoflux.report(run) == run.path / "report.html"
    assert (run.path / "report.html").stat().st_size < 1_000_000


def test_a_threshold_is_reported(copied, Page):
    chosen = photoflux.threshold(copied, recall=0.5, confidence=0.6).run
    for lang in ("en", "fr"):
        tr = translator(lang)
        read = Page(photoflux.report(copied, lang=lang).read_text(encoding="utf-8"))
        place = read.text.index(tr("predicted positive"))
        for part in ("validation", "test"):
            found = chosen.threshold[part]
            start = read.text.index(part, place)
            assert read.text[start + 1 : start + 3] == [str(found["images"]), str(found["taken"])]
            assert read.text[start + 3].startswith(tr.percent(found["recall"]["value"]))
            assert read.text[start + 4].startswith(tr.percent(found["precision"]["value"]))
        named = tr.sentence("the run's threshold, {value:.3g}", value=chosen.threshold["score"])
        assert read.text.count(named) == 2  # in the legends of ROC, and of precision and recall
        place = read.text.index(tr("share at the threshold"))
        start = read.text.index("Photo", place)
        assert read.text[start + 5] == tr.percent(chosen.threshold["test"]["recall"]["value"])


@pytest.fixture
def copied(run, scans, tmp_path):
    """The run and its dataset, both to be broken."""
    shutil.copytree(run.path, tmp_path / "r")
    shutil.copytree(scans.path, tmp_path / "prepared")
    values = json.loads((tmp_path / "r" / "run.json").read_text())
    values["data"]["path"] = str(tmp_path / "prepared")
    (tmp_path / "r" / "run.json").write_text(json.dumps(values))
    return tmp_path / "r"


def made_from(folder, **changes):
    """Change what a run says of the source of its data."""
    values = json.loads((folder / "run.json").read_text())
    values["data"]["made_from"] |= changes
    (folder / "run.json").write_text(json.dumps(values))


def test_a_dataset_that_is_gone_is_prepared_again(copied, scans, Page, capsys):
    """A source that is still there and the same gives the same page."""
    before = Page(photoflux.report(copied).read_text(encoding="utf-8"))
    assert capsys.readouterr().err == ""
    shutil.rmtree(copied.parent / "prepared")
    after = Page(photoflux.report(copied).read_text(encoding="utf-8"))
    said = capsys.readouterr().err
    assert "not usable at" in said and f"prepared again from {scans.meta['made_from']['path']}" in said
    assert len(after.of("img")) == len(before.of("img")) > 0
    # But for the place of the list of rejected files.
    assert [a for a, b in zip(after.text, before.text, strict=True) if a != b and "rejected.csv" not in a] == []


def test_a_dataset_that_is_gone_is_said(copied, Page, capsys):
    shutil.rmtree(copied.parent / "prepared")
    made_from(copied, path=str(copied / "nowhere"))
    read = Page(photoflux.report(copied).read_text(encoding="utf-8"))
    assert any(text.startswith("There is no usable prepared dataset at") for text in read.text)
    assert read.of("img") == []
    assert len(read.of("svg")) == 4
    # The run itself knows the errors of each folder.
    assert "share of the folder" in read.text


def test_another_dataset_in_its_place_is_not_shown(copied, Page):
    meta = copied.parent / "prepared" / "meta.json"
    meta.write_text(meta.read_text().replace(open_prepared(meta.parent).fingerprint, "0" * 64))
    made_from(copied, seed=1)  # another split than the run's
    read = Page(photoflux.report(copied).read_text(encoding="utf-8"))
    assert any("no longer the one that the run was trained on" in text for text in read.text)
    assert read.of("img") == []


@pytest.mark.parametrize("kind", ["none", "of another run", "not finite"])
def test_a_run_without_logits_is_reported_without_what_needs_them(copied, Page, kind):
    logits = load_file(copied / LOGITS)
    (copied / LOGITS).unlink()
    if kind != "none":
        spoilt = {part: z[1:] if kind == "of another run" else z + np.float32(np.nan) for part, z in logits.items()}
        save_file(spoilt, copied / LOGITS)
    read = Page(photoflux.report(copied).read_text(encoding="utf-8"))
    assert any(text.startswith("The run holds no logits") for text in read.text)
    assert read.of("img") == []
    assert "Images in each part" in read.text


def test_what_julia_alone_wrote_is_reported(copied, Page):
    values = json.loads((copied / "run.json").read_text())
    for name in ("metrics", "created"):
        del values[name]
    del values["data"]["path"], values["data"]["positive"], values["data"]["made_from"]
    (copied / "run.json").write_text(json.dumps(values))
    (copied / LOGITS).unlink()
    read = Page(photoflux.report(copied).read_text(encoding="utf-8"))
    assert any(text.startswith("The run holds no scores of the validation and test parts") for text in read.text)
    assert any("does not say where its prepared dataset is" in text for text in read.text)
    assert len(read.of("svg")) == 3


def test_an_imported_run_is_reported(run, tmp_path, Page):
    origin = {"path": "/models/theirs.keras", "fingerprint": "abc"}
    adopted = dataclasses.replace(run, ended="adopted", history=[], kept_epoch=0, initial=origin)
    read = Page(photoflux.report(adopted, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "No command reproduces it: it was imported from /models/theirs.keras." in read.text
    assert len(read.of("svg")) == 6


def test_many_classes(scans, tmp_path, Page, write_run):
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (300, 12, 12), np.uint8), np.arange(300) % 6
    prepared = photoflux.prepare((x, y), tmp_path / "prepared", progress=False)
    run = write_run(tmp_path / "r", prepared, name="dense_l2", wrong=0.5)
    read = Page(photoflux.report(run).read_text(encoding="utf-8"))
    confusion = np.array(run.metrics.test.confusion)
    np.fill_diagonal(confusion, 0)
    place = read.text.index("share of the true class", read.text.index("Confused most often"))
    i, j = (int(text) for text in read.text[place + 1 : place + 3])
    assert confusion[i, j] == confusion.max() == int(read.text[place + 3])
    # Accuracy, loss, confusion, two of calibration and architecture; no threshold, no positive class.
    assert len(read.of("svg")) == 6
    assert "folders" not in [attrs.get("id") for attrs in read.of("section")]
    worst = int(np.argmin(run.metrics.test.recall))
    assert f"The class with the lowest recall is “{worst}”" in " ".join(read.text)


def test_the_command_line(run, tmp_path):
    done = CliRunner().invoke(
        cli.app, ["report", str(run.path), "--lang", "fr", "--out", str(tmp_path / "r.html"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"run": str(run.path), "report": str(tmp_path / "r.html"), "lang": "fr"}
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    for words, code in ((["report", "no/such/run"], 1), (["report", str(run.path), "--lang", "de"], 2)):
        assert CliRunner().invoke(cli.app, words).exit_code == code


def test_where_no_page_can_be_written(run, tmp_path):
    with pytest.raises(SettingError, match="`path` must be a file to write"):
        photoflux.report(run, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        photoflux.report(run, tmp_path / "file" / "r.html")
    with pytest.raises(RunError, match="is not a run"):
        photoflux.report(tmp_path)


def test_a_notebook_shows_parts_and_curves(run, Page):
    html = run._repr_html_()
    read = Page(html)
    assert "<html" not in html
    assert len(read.of("svg")) == 2
    assert ENGLISH.percent(run.metrics.test.accuracy) in read.text
    bare = dataclasses.replace(run, history=[], metrics=RunMetrics(), ended="adopted")
    assert Page(bare._repr_html_()).of("svg") == []
