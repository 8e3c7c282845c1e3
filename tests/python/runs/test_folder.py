"""Run folders: whole or not there, and nobody else's."""

from __future__ import annotations

import errno

import pytest

from exchanged import a_run
from photoflux import RunError, load_run, variant
from photoflux.runs.folder import writing


def test_an_earlier_run_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    a_run(tmp_path / "r", variant("dense_l2"), 2)
    before = (tmp_path / "r" / "run.json").read_text()
    with (
        pytest.raises(RunError, match=r"No space left on device.*unchanged"),
        writing(tmp_path / "r") as temporary,
    ):
        (temporary / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "r"):
        raise KeyboardInterrupt
    assert (tmp_path / "r" / "run.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    a_run(tmp_path / "r", variant("dense_l2"), 2)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_run_is_refused(tmp_path, kind):
    place = tmp_path / "thesis"
    if kind == "file":
        place.write_text("words")
    else:
        place.mkdir()
        (place / "chapter.tex").write_text("words")
    with pytest.raises(RunError, match="must be a new folder or an earlier run"):
        a_run(place, variant("dense_l2"), 2)
    assert (place if kind == "file" else place / "chapter.tex").read_text() == "words"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "r").mkdir()
    a_run(tmp_path / "r", variant("dense_l2"), 2)
    assert load_run(tmp_path / "r").classes == ["c0", "c1"]
