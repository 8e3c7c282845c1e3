"""Paths for Julia, whose text must be valid Unicode."""

from __future__ import annotations

import os
from pathlib import Path

from photoflux.engines.flux.plain_paths import plain_paths

HOSTILE = b"r\xe9un\t\n \"$x$' %s"


def hostile(parent: Path, name: bytes = HOSTILE) -> Path:
    return parent / os.fsdecode(name)


def test_paths_that_are_no_text_lead_to_the_same_files(tmp_path: Path):
    folder = hostile(tmp_path)
    folder.mkdir()
    (hostile(folder) / "in").mkdir(parents=True)
    (hostile(folder, b"\xff.bin")).write_text("own name")
    plain = tmp_path / "plain ü"
    with plain_paths(plain, folder, folder / "new.bin", hostile(folder, b"\xff.bin"), hostile(folder) / "in") as given:
        for path in given:
            path.encode("utf-8")
        assert given[0] == str(plain)
        assert os.path.samefile(given[1], folder)  # noqa: PTH121
        Path(given[2]).write_text("new")
        assert Path(given[3]).read_text() == "own name"
        assert os.path.samefile(given[4], hostile(folder) / "in")  # noqa: PTH121
        scratch = Path(given[1]).parent
    assert (folder / "new.bin").read_text() == "new"
    assert not scratch.exists() and folder.is_dir()
    with plain_paths(plain) as given:
        assert given == [str(plain)]
