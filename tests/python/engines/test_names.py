"""Runs, datasets and classes with names of every kind, in both engines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import photoflux
from photoflux.data.sources.demo import write_demo_folder

HOSTILE = b"r\xe9un\t\n \"$x$' %s"


def hostile(parent: Path, name: bytes = HOSTILE) -> Path:
    return parent / os.fsdecode(name)


@pytest.mark.parametrize("engine", ["flux", "keras"])
def test_every_command_takes_every_name(engine: str, request: pytest.FixtureRequest, tmp_path: Path, capsys):
    request.getfixturevalue(engine)
    source = write_demo_folder(hostile(tmp_path, b"s" + HOSTILE), images_per_class=10)
    (source / "Text").rename(hostile(source, b"T\xe9xt $\\frac"))
    (source / "Sketch").rename(source / "-dash\tb")
    (source / "Painting").rename(source / ("L" * 200))
    min((source / "Photo").iterdir()).rename(hostile(source / "Photo", HOSTILE + b".jpg"))
    (hostile(source / "Photo", b"no\ti\xffmage")).write_text("x")
    run = photoflux.train(
        "l2", source, engine=engine, epochs=1, image_size=16, positive=None, out=hostile(tmp_path), progress=False
    )
    assert run.classes == ["-dash\\tb", "L" * 200, "Photo", "Schematics", "T\\xe9xt $\\frac"]
    description = json.loads((run.path / "run.json").read_text("utf-8"))
    assert os.fsencode(description["data"]["made_from"]["path"]) == os.fsencode(source)
    assert {"curves.png", "confusion.png", "report.html"} <= {path.name for path in run.path.iterdir()}
    (run.path / "report.html").read_text("utf-8")
    print(run)  # as a terminal would
    again = photoflux.load_run(run.path)
    assert photoflux.evaluate(again, progress=False).images == 10
    predictions = photoflux.predict(again, source, progress=False)
    assert len(predictions) == 51
    assert [os.fsencode(p.path) for p in predictions if p.rejected] == [os.fsencode(source) + b"/Photo/no\ti\xffmage"]
    assert photoflux.report(again, hostile(tmp_path, b"p\xe9ge.html"), lang="fr").is_file()
    second = photoflux.train(
        "l2", run.data.path, engine=engine, epochs=1, initial=run, out=hostile(tmp_path, b"2\xe9"), progress=False
    )
    assert second.initial is not None and os.fsencode(second.initial["path"]) == os.fsencode(run.path)
    assert np.isfinite(second.metrics.test.loss)
    if engine == "keras":
        exported = photoflux.export(run, hostile(tmp_path, b"m\xe9\n.keras"))
        adopted = photoflux.import_keras(exported, "l2", hostile(tmp_path, b"a\xe9"), data=run.data.path)
        assert adopted.metrics.test.loss == pytest.approx(run.metrics.test.loss, rel=1e-4)
    capsys.readouterr().out.encode("utf-8")
