"""What is listed of archives that are damaged in ways which their libraries do not tell."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from photoflux.data.archives import members


def zipped(names: list[str]) -> bytes:
    with io.BytesIO() as data:
        with zipfile.ZipFile(data, "w") as archive:
            for name in names:
                archive.writestr(name, name)
        # zipfile takes a name as far as its first zero; of an empty one `is_dir` of Python 3.11 raises an IndexError.
        return data.getvalue().replace(b"?.png", b"\0.png")


def tarred(names: list[str], mode: str) -> bytes:
    with io.BytesIO() as data:
        with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
            for name in names:
                info = tarfile.TarInfo("" if name.startswith("?") else name)
                info.size = len(name)
                archive.addfile(info, io.BytesIO(name.encode()))
        return data.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_member_without_a_name_is_told_after_the_others(tmp_path: Path, kind: str):
    names = ["a.png", "?.png", "b.png"]
    data = zipped(names) if kind == "zip" else tarred(names, "w:gz" if kind == "tar.gz" else "w:")
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    found = list(members(path, tmp_path, lambda name, nth: True))
    assert [(each.name, each.member is not None) for each in found] == [("a.png", True), ("b.png", True), ("", False)]
    assert found[-1].reason == f"broken {kind[:3]} archive: a member has no name"
