"""Structures that hypothesis makes up, in place of what files say: a value, or an error of PhotoFlux, nothing else.

A few of each; ``tests/fuzz/readers.py`` reads many more by hand.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis, of the extra test")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from photoflux.comparison.comparison import NAME as COMPARISON  # noqa: E402
from photoflux.comparison.comparison import load_comparison  # noqa: E402
from photoflux.data.preparation import prepare_again  # noqa: E402
from photoflux.data.prepared import open_prepared  # noqa: E402
from photoflux.data.tables import read_table  # noqa: E402
from photoflux.errors import PhotoFluxError  # noqa: E402
from photoflux.features import backbone_from  # noqa: E402
from photoflux.features.pth import read_pth  # noqa: E402
from photoflux.model.variant import Variant  # noqa: E402
from photoflux.model.variants import variants  # noqa: E402
from photoflux.model.weights import FORMAT, read_arrays, read_weights  # noqa: E402
from photoflux.runs.run import load_run  # noqa: E402
from piles import make_run  # noqa: E402
from small import prepare  # noqa: E402

FEW = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["", "../../x", "<script>", "\x1b[31m", 1 << 70, -(1 << 70), [], {}])
)  # fmt: skip
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@st.composite
def altered(draw: Any, values: Any) -> Any:
    """Values of which some are others, are missing, or have others beside them."""
    if draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    if isinstance(values, dict):
        found = {key: draw(altered(value)) for key, value in values.items() if draw(st.integers(0, 12))}
        return found | (draw(st.dictionaries(st.text(max_size=8), JSON, max_size=2)) if draw(st.booleans()) else {})
    if isinstance(values, list):
        return [draw(altered(value)) for value in values]
    return values


def ours() -> Any:
    """Nothing but errors of PhotoFlux, in words of a length that can be read."""

    class Ours(contextlib.AbstractContextManager):
        def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
            if isinstance(error, PhotoFluxError):
                assert 10 < len(str(error)) < 10_000
            return isinstance(error, PhotoFluxError)

    return Ours()


def written(folder: Path, name: str, values: Any) -> None:
    (folder / name).write_text(json.dumps(values))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "r").path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data") / "d", 2).path


@FEW
@given(data=st.data())
def test_run_json(run: Path, data: Any):
    original = (run / "run.json").read_text()
    try:
        written(run, "run.json", data.draw(altered(json.loads(original))))
        with ours():
            assert str(load_run(run))
    finally:
        (run / "run.json").write_text(original)


@FEW
@given(text=st.binary(max_size=300) | st.text("epoch,train_los1.5e\n\r\"'\x00", max_size=300).map(str.encode))
def test_history_csv(run: Path, text: bytes):
    original = (run / "history.csv").read_bytes()
    try:
        for data in (text, original + text):
            (run / "history.csv").write_bytes(data)
            with ours():
                load_run(run)
    finally:
        (run / "history.csv").write_bytes(original)


@FEW
@given(data=st.data())
def test_meta_json(dataset: Path, data: Any):
    original = (dataset / "meta.json").read_text()
    try:
        written(dataset, "meta.json", data.draw(altered(json.loads(original))))
        with ours():
            prepared = open_prepared(dataset)
            json.dumps([prepared.counts(), prepared.warnings, prepared.name, prepared.fingerprint])
    finally:
        (dataset / "meta.json").write_text(original)


@FEW
@given(
    values=JSON | altered({"format": 1, "data": {}, "settings": {}, "standings": [], "decision": {}, "sentences": []})
)
def test_comparison_json(tmp_path: Path, values: Any):
    written(tmp_path, COMPARISON, values)
    with ours():
        load_comparison(tmp_path)


@FEW
@given(data=st.data())
def test_a_variant(data: Any):
    """As run.json has it, and as a row of a table is read: either way by its fields."""
    chosen = data.draw(st.sampled_from(list(variants().values())))
    with ours():
        assert Variant.from_dict(data.draw(altered(chosen.as_dict()))).as_dict()


@FEW
@given(
    values=altered({"kind": "folder", "path": "/none", "groups": None, "positive": None, "seed": 1, "image_size": 8})
)
def test_what_a_dataset_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: Any):
    if not isinstance(values, dict):
        return
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    values.setdefault("path", "/none")
    if values.get("path") is None:  # the demo images, and CIFAR-10
        values["path"] = "/none"
    with ours():
        prepare_again(values)


@FEW
@given(values=altered({"name": "efficientnet-lite0", "fingerprint": "", "networks": [{"name": "efficientnet-lite0"}],
                       "image_size": 224, "precision": "float32", "file": "backbone.safetensors"}))  # fmt: skip
def test_a_backbone(tmp_path: Path, values: Any):
    if isinstance(values, dict):
        with ours():
            backbone_from(values, tmp_path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@FEW
@given(
    header=altered({"__metadata__": {"format": "photoflux-weights-1"}, "a": ENTRY}),
    length=st.none() | st.integers(0, 1 << 63),
)
def test_the_header_of_safetensors(tmp_path: Path, header: Any, length: int | None):
    text = json.dumps(header).encode()
    path = tmp_path / "file.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(8))
    with ours():
        found, _ = read_weights(path)
        assert sum(value.nbytes for value in found.values()) <= 8
    with ours():
        read_arrays(path, FORMAT)


@FEW
@given(rows=st.lists(st.lists(st.text(max_size=12), max_size=4), max_size=6), raw=st.binary(max_size=120))
def test_tables_of_people(tmp_path: Path, rows: list[list[str]], raw: bytes):
    text = io.StringIO()
    csv.writer(text).writerows([["path", "group"], *rows])
    written_out = text.getvalue().encode("utf-8", "surrogateescape")
    for data in (written_out, raw, written_out[:11] + raw, b"\xff\xfe" + raw):
        with ours():
            for row in read_table(data, tmp_path / "groups.csv", ("path", "group")):
                assert len(row.cells) == 2


@FEW
@given(data=st.binary(max_size=200))
def test_torch_files(tmp_path: Path, data: bytes):
    path = tmp_path / "file.pth"
    for body in (data, b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"." + data):
        path.write_bytes(body)
        with ours():
            read_pth(path)
