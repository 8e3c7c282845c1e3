"""Sources that are named, packed, or under the home folder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import photoflux
from photoflux.data.preparation import homonym, kind_of
from photoflux.data.sources.demo import write_demo_folder
from photoflux.errors import DataError, RunError


def test_a_folder_that_is_called_as_a_named_source_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.chdir(tmp_path)
    assert homonym("demo") is homonym("cifar10") is homonym(Path("demo")) is None
    write_demo_folder(tmp_path / "demo", images_per_class=10)
    (tmp_path / "cifar10").mkdir()
    assert homonym("cifar10") == (
        "cifar10 means the CIFAR-10 that is downloaded; for your folder of that name write ./cifar10."
    )
    assert len(photoflux.prepare("demo", tmp_path / "set", image_size=8)) > 50
    said = "Note: demo means the generated demo images; for your folder of that name write ./demo."
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [said]
    caplog.clear()
    assert len(photoflux.prepare("./demo", tmp_path / "set", image_size=8)) == 50
    assert caplog.records == []


def pack(path: Path, *names: str) -> Path:
    mode = "w:gz" if path.name.endswith(("gz", "GZ")) else "w"
    with tarfile.open(path, mode) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["scans.tar.gz", "scans.tgz", "scans.tar", "SCANS.TAR.GZ", "cifar-10-python.tar.gz"])
def test_an_archive_of_something_else_is_refused_with_what_is_expected(tmp_path: Path, name: str):
    path = pack(tmp_path / name, "Photo/a.jpg", "Photo/b.jpg", "Text/a\n.jpg", "Text/d.jpg")
    with pytest.raises(DataError, match=r"CIFAR-10: it holds Photo/a.jpg, Photo/b.jpg, Text/a\\n.jpg, …. Expect"):
        kind_of(path)
    assert kind_of(pack(tmp_path / name, "readme.html", "cifar-10-batches-py/data_batch_3")) == "cifar10"


@pytest.mark.parametrize("name", ["scans.zip", "scans.7z", "scans.tar.xz", "scans.RAR"])
def test_other_archives_are_to_be_unpacked(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"is an archive. Expected a folder .*: unpack it"):
        kind_of(tmp_path / name)
    (tmp_path / "folder.zip").mkdir()
    assert kind_of(tmp_path / "folder.zip") == "folder"


def test_the_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_demo_folder("~/scans", images_per_class=10)
    rows = [f"{path.relative_to(tmp_path / 'scans').as_posix()},{path.name}" for path in tmp_path.glob("scans/*/*")]
    (tmp_path / "groups.csv").write_text("\n".join(["path,group", *rows]))
    first = photoflux.prepare("~/scans", "~/out/set", image_size=8, groups="~/groups.csv", progress=False)
    assert first.path == tmp_path / "out" / "set"
    assert photoflux.prepare("~/out/set", progress=False).fingerprint == first.fingerprint
    assert photoflux.prepare("~/out/set", "~/out/set", progress=False).fingerprint == first.fingerprint
    monkeypatch.setenv("PHOTOFLUX_CACHE", "~/cache")
    assert photoflux.prepare("~/scans", image_size=8, progress=False).path.is_relative_to(tmp_path / "cache")
    with pytest.raises(RunError, match=str(tmp_path / "none")):
        photoflux.load_run("~/none")
    assert not (Path.cwd() / "~").exists()


def test_a_run_under_the_home_folder(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`run` is a run with drawn logits."""
    monkeypatch.setenv("HOME", str(run.path.parent))
    monkeypatch.chdir(tmp_path)
    assert photoflux.load_run(f"~/{run.path.name}").path == run.path
    assert photoflux.report(f"~/{run.path.name}", "~/page.html") == run.path.parent / "page.html"
    assert list(tmp_path.iterdir()) == []


HOSTILE = (b"caf\xe9", b"a\tb\nc", b"-rf", b"\"'$HOME%s", b"\x1b[31mred", "\N{LINE SEPARATOR}é".encode())


@pytest.mark.parametrize("name", HOSTILE)
def test_sources_of_any_name_are_prepared_by_the_command(tmp_path: Path, name: bytes):
    write_demo_folder(tmp_path / "scans", images_per_class=5)
    for place, inner in ((tmp_path / "scans" / "Photo" / "00000.png", name + b".png"), (tmp_path / "scans", name)):
        os.rename(os.fsencode(place), os.path.join(os.fsencode(place.parent), inner))  # noqa: PTH104, PTH118
    source = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    with open(os.path.join(source, b"Text", name), "wb") as file:  # noqa: PTH118, PTH123
        file.write(b"no image")
    dest = os.path.join(os.fsencode(tmp_path), b"set " + name)  # noqa: PTH118
    done = subprocess.run(
        [sys.executable, "-m", "photoflux", "prepare", "--json", "--image-size", "8", source, dest],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    values = json.loads(done.stdout.decode("utf-8"))
    assert os.fsencode(values["path"]) == dest and values["images"] == 25
    assert b"Traceback" not in done.stderr and b"\x1b" not in done.stderr
    done.stderr.decode("utf-8")
    prepared = photoflux.prepare(os.fsdecode(dest), progress=False)
    assert b"Photo/" + name + b".png" in {os.fsencode(row["path"]) for row in prepared.files()}
    assert os.fsencode(prepared.meta["made_from"]["path"]) == source
