"""A prepared dataset from somebody else: whatever stands in its files, it is refused in words or it works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hostile import NOT_JSON, ODD, changed, places
from photoflux.data.preparation import prepare_again
from photoflux.data.prepared import open_prepared
from photoflux.errors import PhotoFluxError
from photoflux.runs.description import RunData
from small import prepare, prepare_features


def use(folder: Path) -> bool:
    """Do with a dataset what needs no engine; whether it was refused."""
    try:
        data = open_prepared(folder)
        data.files()
        json.dumps([data.rejected, data.counts(), data.folder_counts(), data.warnings, RunData.of(data).as_dict()])
        assert data.looks is None or len(data.looks) == len(data)
        assert data.name is not None
        assert int(data.images[0].sum()) >= 0
    except PhotoFluxError as error:
        assert len(str(error)) < 5000
        return True
    return False


@pytest.mark.parametrize("make", [prepare, prepare_features])
def test_whatever_a_value_of_meta_json_is(tmp_path: Path, make):
    folder = make(tmp_path / "data", 2).path
    values = json.loads((folder / "meta.json").read_text())
    assert not use(folder)
    refused = set()
    for place in places(values):
        for new in ODD:
            (folder / "meta.json").write_text(json.dumps(changed(values, place, new)))
            if use(folder):
                refused.add(place)
    # Nothing depends on what wrote it, nor on what a backbone is called before it is asked for.
    assert set(places(values)) - refused <= {("photoflux",), ("features", "backbone", "name")}


@pytest.mark.parametrize("text", NOT_JSON)
def test_meta_json_that_is_none(tmp_path: Path, text: str):
    folder = prepare(tmp_path / "data", 2).path
    (folder / "meta.json").write_text(text)
    assert use(folder)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "split.npy"])
def test_arrays_with_any_byte_of_the_header_changed(tmp_path: Path, name: str):
    """Refused, or read as the array that it is: its size is that of the file."""
    folder = prepare(tmp_path / "data", 2).path
    data = bytearray((folder / name).read_bytes())
    rng, refused = np.random.default_rng(0), 0
    for at in range(128):
        before = data[at]
        data[at] = rng.integers(256)
        (folder / name).write_bytes(data)
        refused += use(folder)
        data[at] = before
    assert refused > 40


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (40,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1 << 60,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-40,), }",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (40,), }",
        "__import__('os').system('false')",
        "{'descr': '<i4'" + " " * 60_000,
    ],
)
def test_arrays_with_a_header_that_lies(tmp_path: Path, header: str):
    folder = prepare(tmp_path / "data", 2).path
    text = header.encode().ljust(118) + b"\n"
    (folder / "labels.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(160))
    assert use(folder)


@pytest.mark.parametrize("name", ["files.csv", "rejected.csv"])
@pytest.mark.parametrize("text", ["", "a,b\n", "\x00", '"', "path\n" * 1000, "\xff\xfe"])
def test_tables_that_are_none(tmp_path: Path, name: str, text: str):
    folder = prepare(tmp_path / "data", 2).path
    (folder / name).write_bytes(text.encode("latin-1"))
    assert use(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"dest": "there"}, {"on_progress": "x"}, {"source": "x"}, {"kind": "prepared"}, {"kind": "none"},
        {"path": None}, {"kind": None}, {"seed": None}, {"image_size": 1 << 40}, {"groups": "no/such/file"},
        {"resplit": "yes"}, {"positive": 3},
    ],
)  # fmt: skip
def test_what_a_file_says_of_its_source_cannot_choose_where_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict
):
    """`made_from` of a run or dataset becomes arguments of `prepare`, which takes a destination too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        for number in range(4):
            (tmp_path / "scans" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "scans" / name / f"{number}.png")
    said = {"kind": "folder", "path": str(tmp_path / "scans"), "groups": None, "positive": None, "image_size": 8}
    said |= {"seed": 1, "resplit": False}
    assert len(prepare_again(said)) == 8
    with pytest.raises(PhotoFluxError):
        prepare_again(said | changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "scans"]


def test_the_cache_of_features_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A dataset says its own fingerprint, which was a folder's name; here its own folder cannot be written."""
    pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")
    pytest.importorskip("onnx", reason="the extra transfer is not installed")
    from onnx_backbone import SIZE, write_backbone
    from photoflux.features import dataset as module
    from photoflux.features import features_dataset, open_backbone

    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "one" / "two" / "cache"))
    monkeypatch.setattr(module, "writable", lambda folder: False)
    folder = prepare(tmp_path / "data", 2, size=SIZE).path
    values = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(values | {"fingerprint": "../../../../../outside"}))
    backbone = open_backbone(write_backbone(tmp_path / "tiny.onnx"), mean=1, scale=1)
    made = features_dataset(open_prepared(folder), backbone)
    assert made.path.resolve().is_relative_to(tmp_path / "one" / "two" / "cache" / "features" / "datasets")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one", "tiny.onnx"]
