"""A comparison's folder from somebody else: whatever comparison.json says, it is refused in words or shown as text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostile import NOT_JSON, ODD, changed, places
from photoflux.comparison.comparison import NAME, Comparison, load_comparison
from photoflux.comparison.decision import decide, sentences
from photoflux.comparison.fits import Fit, _scores
from photoflux.comparison.intervals import Interval
from photoflux.comparison.measures import OF_IMAGES, OF_SEEDS, VariantResult
from photoflux.comparison.report import page_of_comparison
from photoflux.errors import PhotoFluxError, RunError
from photoflux.model.settings import settings_of
from photoflux.model.variants import variant
from photoflux.reporting.i18n import translator
from photoflux.reporting.sentences import checked_sentence, text_of
from small import prepare

MARKUP = "<img src=x onerror=alert(1)>[/b]"


def made(folder: Path, name: str = "scans") -> Comparison:
    """A comparison of two variants, without the fits."""
    interval = Interval(0.8, 0.7, 0.9)
    part = dict.fromkeys((*OF_IMAGES, "recall_at_precision"), interval)
    results = [
        VariantResult(
            variant(chosen), {"validation": part, "test": part},
            {} if chosen == "baseline" else {"validation": part, "test": part},
            dict.fromkeys(OF_SEEDS, interval), {"validation": [0.8, 0.81], "test": [0.8, 0.8]},
        )
        for chosen in ("baseline", "l2")
    ]  # fmt: skip
    decision = decide(results, [5, 5], 0)
    data = {
        "name": name, "classes": [name, "b"], "positive": name, "image": [3, 8, 8],
        "images": {"train": 20, "validation": 4, "test": 8}, "fingerprints": [name, name], "holdout": None,
        "holdout_left_out": 0, "rejected": 0,
    }  # fmt: skip
    settings = {"seeds": [1, 2], "epochs": 2, "batch_size": None, "learning_rate": None, "balance": "none"}
    comparison = Comparison(
        path=folder,
        data=data,
        settings={**settings, "engine": name},
        results=results,
        decision=decision,
        sentences=sentences(decision, results, [5, 5], 2, 0.001, 0.5, [0.1, 0.2]),
        run=folder / "runs" / "l2-seed1",
        histories={"baseline": [[1.0, 0.5], [1.0, 0.4]], "l2": [[1.0, 0.5], [1.0, 0.4]]},
        versions={name: name},
        command=name,
    )
    folder.mkdir(exist_ok=True)
    comparison.write()
    return comparison


def use(folder: Path, page: bool = False) -> bool:
    """Show a comparison, in a page too if so asked; whether it was refused."""
    try:
        found = load_comparison(folder)
        json.dumps(found.as_dict())
        assert str(found) and found.reasons and found.chosen
        if page:
            assert page_of_comparison(found, translator("fr"))
    except PhotoFluxError as error:
        assert len(str(error)) < 5000
        return True
    return False


def test_whatever_a_value_of_comparison_json_is(tmp_path: Path):
    made(tmp_path / "c")
    file = tmp_path / "c" / NAME
    values = json.loads(file.read_text())
    assert not use(tmp_path / "c", page=True)
    refused, rng = 0, np.random.default_rng(0)
    every = [(place, new) for place in places(values) for new in ODD]
    accepted = []
    for at in rng.permutation(len(every))[:1500].tolist():
        place, new = every[at]
        file.write_text(json.dumps(changed(values, place, new)))
        if use(tmp_path / "c"):
            refused += 1
        else:
            accepted.append(every[at])
    assert refused > 600
    # A page takes longer; of what is accepted some are drawn.
    for place, new in accepted[:: len(accepted) // 2]:
        file.write_text(json.dumps(changed(values, place, new)))
        assert not use(tmp_path / "c", page=True), (place, new)


@pytest.mark.parametrize("text", NOT_JSON)
def test_comparison_json_that_is_none(tmp_path: Path, text: str):
    (tmp_path / NAME).write_text(text)
    assert use(tmp_path)


def test_names_cannot_become_tags(tmp_path: Path):
    """Neither in a page, nor in the text, in which rich would take [b] for its own and fail at [/b]."""
    made(tmp_path / "c", MARKUP)
    found = load_comparison(tmp_path / "c")
    assert f"on {MARKUP}: images of" in str(found)
    page = page_of_comparison(found, translator("en"))
    assert "<img" not in page.replace("&lt;img", "") and "&lt;img src=x onerror=alert(1)&gt;[/b]" in page
    assert "<img" not in found._repr_html_()


@pytest.mark.parametrize(
    "sentence",
    [
        ["{a.__class__.__mro__}", {"a": "x"}],
        ["{a.__init__.__globals__}", {"a": "x"}],
        ["{a[0]}", {"a": "xyz"}],
        ["{0}", {"a": "x"}],
        ["{}", {"a": "x"}],
        ["{b}", {"a": "x"}],
        ["{a!r}", {"a": "x"}],
        ["{a:999999999}", {"a": 1}],
        ["{a:.999999999f}", {"a": 1.0}],
        ["{a:{b}}", {"a": 1, "b": 99999999}],
        ["{a:.3f}", {"a": "x"}],
        ["{a", {"a": "x"}],
        ["{a}", {"a": {}}],
        ["{a}", {"a": None}],
        ["{a}", [["a", 1]]],
        [1, {}],
        ["a"],
        ["{a}", {"a": [["{b.real}", {"b": 1}]]}],
    ],
)
def test_a_sentence_can_show_its_own_values_only(sentence: Any):
    """The templates stand in the file, and are filled by `str.format`, which can reach into objects and fill memory."""
    with pytest.raises((TypeError, ValueError)):
        checked_sentence(sentence)


def test_our_own_sentences_are_as_they_were(tmp_path: Path):
    comparison = made(tmp_path / "c")
    for sentence in comparison.sentences:
        template, values = checked_sentence(json.loads(json.dumps(sentence)))
        for lang in ("en", "fr"):
            assert text_of((template, values), translator(lang)) == text_of(sentence, translator(lang))


def test_scores_that_are_not_those_of_the_fit(tmp_path: Path):
    from safetensors.numpy import save_file

    data = prepare(tmp_path / "data", 2)
    chosen = variant("baseline")
    fit = Fit(chosen, settings_of(chosen, None, None, None, 1, None), data, None)  # type: ignore[arg-type]
    path = tmp_path / "scores" / "baseline-seed1.safetensors"
    path.parent.mkdir()
    images = len(data.indices("train"))
    save_file({"train": np.zeros((images, 1), np.float32)}, path)
    assert _scores(fit, tmp_path)["train"].shape == (images, 1)
    for wrong in (np.zeros((images, 2), np.float32), np.zeros((3, 1), np.float32), np.zeros((images, 1), np.int32)):
        save_file({"train": wrong}, path)
        with pytest.raises(RunError, match=r"must have train of float32, .* Remove it; it is made again"):
            _scores(fit, tmp_path)
    save_file({"other": np.zeros(1)}, path)
    with pytest.raises(RunError, match="found none"):
        _scores(fit, tmp_path)
    path.write_bytes(b"x" * 20)
    with pytest.raises(RunError, match="cannot be read"):
        _scores(fit, tmp_path)
    shutil.rmtree(path.parent)
    with pytest.raises(RunError, match="cannot be read"):
        _scores(fit, tmp_path)
