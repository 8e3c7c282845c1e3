"""What commands print where names are not fit to be printed."""

from __future__ import annotations

import io
import json
import os
import sys
from types import SimpleNamespace

import pytest

from photoflux import api, cli
from photoflux.data.shape import Shape
from photoflux.runs.prediction import Prediction

NAME = os.fsdecode(b"in/a\tb\nc\xff\x1b[31m.png")
SHOWN = "in/a\\tb\\nc\\xff\\x1b[31m.png"


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Prediction(NAME, "Té\\txt", {"Té\\txt": 0.75, "other": 0.25}),
        Prediction(NAME, None, {}, "broken PNG: odd\tchunk\n"),
    ]
    run = SimpleNamespace(threshold=None, path="run")
    monkeypatch.setattr(api, "load_run", lambda path: run)
    monkeypatch.setattr(api, "predict", lambda *args, **options: found)


def run_command(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str, code: int = 3) -> bytes:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["photoflux", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    stdout.flush()
    return stdout.buffer.getvalue()  # type: ignore[attr-defined]


def test_lines_of_predict_survive_tabs_and_line_breaks_in_names(predicted: None, monkeypatch: pytest.MonkeyPatch):
    lines = run_command(monkeypatch, "utf-8", "predict", "run", "in").decode("utf-8").split("\n")
    assert [line.split("\t") for line in lines] == [
        [SHOWN, "Té\\txt", "0.7500"],
        [SHOWN, "rejected", "broken PNG: odd\\tchunk\\n"],
        [""],
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_is_valid_and_gives_the_same_bytes_back(predicted: None, monkeypatch: pytest.MonkeyPatch, encoding: str):
    values = json.loads(run_command(monkeypatch, encoding, "predict", "run", "in", "--json").decode(encoding))
    first = values["predictions"][0]
    assert os.fsencode(first["path"]) == os.fsencode(NAME) and first["label"] == "Té\\txt"


def test_a_terminal_of_few_letters_shows_escapes(predicted: None, monkeypatch: pytest.MonkeyPatch):
    assert b"\tT\\xe9\\txt\t0.7500" in run_command(monkeypatch, "ascii", "predict", "run", "in")


def test_results_are_lines_whatever_a_folder_is_called(monkeypatch: pytest.MonkeyPatch):
    """Of commands whose result is a place; the name of the class folders is of each its own matter."""
    run = SimpleNamespace(shape=Shape(3, 8, 8), classes=["a", "b"])
    monkeypatch.setattr(api, "load_run", lambda path: run)
    monkeypatch.setattr(api, "export", lambda *args: NAME)
    monkeypatch.setattr(api, "report", lambda *args, **options: NAME)
    prepared = SimpleNamespace(path=NAME, width=8, height=8, meta={}, classes=["a"], positive=None, rejected=[])
    whole = type(
        "Prepared", (SimpleNamespace,), {"__len__": lambda self: 1, "counts": lambda self: {"train": {"a": 1}}}
    )
    monkeypatch.setattr(api, "prepare", lambda *args, **options: whole(**vars(prepared)))
    monkeypatch.setattr(api, "serve", lambda *args, on_ready, **options: on_ready("http://x"))
    for arguments, lines in (
        (
            ("export", "run", "m.onnx"),
            [f"{SHOWN}: takes N×8×8×3 images (H×W×C, 0 to 255), returns logits; classes: a, b"],
        ),
        (("report", "run"), [SHOWN]),
        (("prepare", "scans", "out"), [f"{SHOWN}: 1 images of 8×8", "  train       a 1"]),
        (("serve", NAME), [f"Serving {SHOWN} at http://x"]),
    ):
        printed = run_command(monkeypatch, "utf-8", *arguments, code=0).decode("utf-8")
        assert printed.splitlines() == lines
