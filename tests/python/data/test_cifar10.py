from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.sources import cifar10
from photoflux.data.sources.cifar10 import BATCH, CLASSES, PYTHON_FILES, find_cifar10, prepare_cifar10
from photoflux.data.sources.pickles import load_batch
from photoflux.errors import DataError

ROOT = Path(__file__).parents[3]
ARCHIVE = next(
    (p for r in (ROOT, ROOT.parent) if (p := r / "shared/data/cifar10/cifar-10-python.tar.gz").is_file()), None
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 wrote it: protocol 2, byte strings, numpy.core, ``align=0``."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        + b"(K\x01" + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86cnumpy\ndtype\n" + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + pixels.nbytes.to_bytes(4, "little") + pixels.tobytes() + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


@pytest.fixture(scope="module")
def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Six small batches whose images all differ."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (40, 3072), dtype=np.uint8), rng.permutation(np.arange(40) % 10).astype(np.uint8))
        for name in PYTHON_FILES
    }


@pytest.fixture
def files(batches, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Both versions of the small batches, with 40 images to a batch in place of 10,000."""
    python = {name: python2_pickle(pixels, labels.tolist()) for name, (pixels, labels) in batches.items()}
    binary = {
        f"{name}.bin": np.concatenate([labels[:, None], pixels], axis=1).tobytes()
        for name, (pixels, labels) in batches.items()
    }
    monkeypatch.setattr(cifar10, "BATCH", 40)
    monkeypatch.setattr(cifar10, "PYTHON_MD5", {n: hashlib.md5(d).hexdigest() for n, d in python.items()})
    return python | binary


def write(folder: Path, files: dict[str, bytes], binary: bool = False) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        if name.endswith(".bin") == binary:
            (folder / name).write_bytes(data)
    return folder


def pack(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def python_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"cifar-10-batches-py/{n}": d for n, d in files.items() if not n.endswith(".bin")}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("form", ["batches", "parent", "archive in folder", "archive"])
def test_every_form_gives_the_same(tmp_path: Path, files, batches, binary: bool, form: str):
    inner = "cifar-10-batches-bin" if binary else "cifar-10-batches-py"
    if form.startswith("archive"):
        members = {f"{inner}/{n}": d for n, d in files.items() if n.endswith(".bin") == binary}
        name = "cifar-10-binary.tar.gz" if binary else "cifar-10-python.tar.gz"
        source = pack(tmp_path / "in" / name, members)
        source = source if form == "archive" else source.parent
    else:
        source = write(tmp_path / "in" / inner, files, binary)
        source = source if form == "batches" else source.parent
    dataset = prepare_cifar10(source, tmp_path / "set")
    assert np.array_equal(dataset.images.reshape(240, 3072), np.concatenate([p for p, _ in batches.values()]))
    assert dataset.labels.tolist() == np.concatenate([labels for _, labels in batches.values()]).tolist()
    assert dataset.classes == list(CLASSES)
    assert dataset.indices("test").tolist() == list(range(200, 240))
    assert set(dataset.counts()["validation"].values()) == {2}
    assert set(dataset.counts()["train"].values()) == {18}
    assert dataset.files()[40]["path"] == ("data_batch_2.bin#1" if binary else "data_batch_2#1")


def test_positive_and_size(tmp_path: Path, files):
    dataset = prepare_cifar10(write(tmp_path / "in", files), tmp_path / "set", positive="ship", image_size=8)
    assert dataset.classes == ["not ship", "ship"]
    assert dataset.images.shape == (240, 3, 8, 8)


def test_missing_batches(tmp_path: Path, files):
    source = write(tmp_path / "in", files)
    (source / "data_batch_3").unlink()
    (source / "test_batch").unlink()
    with pytest.raises(DataError, match="lacks data_batch_3, test_batch of CIFAR-10's batches"):
        prepare_cifar10(source, tmp_path / "set")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty does not hold CIFAR-10, expected data_batch_1"):
        prepare_cifar10(tmp_path / "empty", tmp_path / "set")
    assert find_cifar10(tmp_path / "empty") is None


def test_damaged_batches(tmp_path: Path, files):
    source = write(tmp_path / "python", files)
    (source / "data_batch_3").write_bytes(files["data_batch_3"][:-1] + b"!")
    with pytest.raises(DataError, match=r"data_batch_3 in .*python is damaged: its md5 must be .*; found .*https"):
        prepare_cifar10(source, tmp_path / "set")
    source = write(tmp_path / "binary", files, binary=True)
    (source / "test_batch.bin").write_bytes(files["test_batch.bin"][:-1])
    with pytest.raises(DataError, match=r"test_batch.bin in .* is damaged: it must have 122920 bytes; found 122919"):
        prepare_cifar10(source, tmp_path / "set")
    (source / "test_batch.bin").write_bytes(b"\x0a" + files["test_batch.bin"][1:])
    with pytest.raises(DataError, match=r"test_batch.bin in .* found labels from 0 to 10"):
        prepare_cifar10(source, tmp_path / "set")
    assert names(tmp_path) == ["binary", "python"]


@pytest.mark.parametrize("data", [b"", b"not a tar", None])
def test_damaged_archives(tmp_path: Path, files, data: bytes | None):
    path = pack(tmp_path / "cifar-10-python.tar.gz", python_of(files))
    path.write_bytes(path.read_bytes()[:-200_000] if data is None else data)
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz cannot be read: .*Get it again"):
        prepare_cifar10(path, tmp_path / "set")


def test_nothing_is_extracted_from_an_archive(tmp_path: Path, files):
    """Names that lead out of the folder, and links, write nothing anywhere."""
    members = python_of(files) | {"../evil": b"x", "/tmp/photoflux-evil": b"x", "a/../../evil2": b"x"}
    path = pack(tmp_path / "in" / "cifar-10-python.tar.gz", members)
    with tarfile.open(path, "r:gz") as archive:
        assert "../evil" in archive.getnames()
    prepare_cifar10(path, tmp_path / "set")
    assert names(tmp_path) == ["in", "set"]
    assert not Path("/tmp/photoflux-evil").exists()
    linked = tmp_path / "in" / "linked.tar.gz"
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(linked, "w:gz") as archive:
        for name in PYTHON_FILES:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
            archive.addfile(member)
    with pytest.raises(DataError, match=r"lacks .*data_batch_1"):
        prepare_cifar10(linked, tmp_path / "set2")


class Evil:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_runs_nothing(tmp_path: Path, protocol: int):
    ran = tmp_path / "ran"
    for evil in (Evil(os.system, f"touch {ran}"), Evil(eval, "1"), Evil(getattr, "x", "upper"), Evil(np.load, "x")):
        data = pickle.dumps({b"data": evil, b"labels": []}, protocol)
        with pytest.raises(DataError, match=r"data_batch_1 is not a CIFAR-10 batch: it asks for .*\. It was not run"):
            load_batch(data, "data_batch_1")
    objects = pickle.dumps({b"data": np.array([{}], dtype=object), b"labels": []}, protocol)
    with pytest.raises(DataError, match="is not a CIFAR-10 batch"):
        load_batch(objects, "data_batch_1")
    assert not ran.exists()


def test_a_pickle_of_few_bytes_cannot_ask_for_much_memory():
    # LONG_BINPUT and PUT: Python would make room for all places up to theirs.
    for put in (b"r\x00\x00\x00\x7f", b"p2130706432\n"):
        with pytest.raises(DataError, match=r"keeps its object number 1 at the place 2130706432\. It was not run"):
            load_batch(b"\x80\x02]" + put + b".", "x")
    # As protocols 0 to 4 write many objects, all are read.
    for protocol in range(5):
        values = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2, 3], b"names": [str(n) for n in range(5000)]}
        assert len(load_batch(pickle.dumps(values, protocol), "x")[1]) == 3


def test_what_is_admitted(batches):
    pixels, labels = batches["test_batch"]
    for data in (
        python2_pickle(pixels, labels.tolist()),
        pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, 2),
        pickle.dumps({b"data": pixels, b"labels": labels}, 4),
    ):
        found, numbers = load_batch(data, "x")
        assert np.array_equal(found, pixels)
        assert numbers.tolist() == labels.tolist()
        assert numbers.dtype == np.int32
    for other in (b"", b"junk", pickle.dumps([1]), pickle.dumps({b"data": pixels})):
        with pytest.raises(DataError, match="x is not a CIFAR-10 batch"):
            load_batch(other, "x")
    with pytest.raises(DataError, match="x must hold uint8 pixels; found float64"):
        load_batch(pickle.dumps({b"data": pixels / 2, b"labels": [1]}, 4), "x")


def test_download(tmp_path: Path, files, monkeypatch: pytest.MonkeyPatch):
    import functools
    import http.server
    import threading

    archive = pack(tmp_path / "www" / "c.tar.gz", python_of(files))
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/c.tar.gz"
        dataset = prepare_cifar10(None, tmp_path / "set", cache=tmp_path / "cache", url=url)
        server.shutdown()
        thread.join()
    assert len(dataset) == 240
    # The second time nobody has to answer.
    prepare_cifar10(None, tmp_path / "set", cache=tmp_path / "cache", url=url)
    with pytest.raises(DataError, match=r"could not be downloaded: .*Or get cifar-10-python.tar.gz by other means"):
        prepare_cifar10(None, tmp_path / "set", cache=tmp_path / "other", url=url)


@pytest.mark.skipif(ARCHIVE is None, reason="CIFAR-10 is not on this machine")
def test_the_real_archive(tmp_path: Path):
    assert ARCHIVE is not None
    assert BATCH == 10_000
    dataset = prepare_cifar10(ARCHIVE, tmp_path / "set")
    assert dataset.images.shape == (60_000, 3, 32, 32)
    assert dataset.counts() == {
        "train": dict.fromkeys(CLASSES, 4500),
        "validation": dict.fromkeys(CLASSES, 500),
        "test": dict.fromkeys(CLASSES, 1000),
    }
    # The first training image is the well-known frog, the first test image a cat.
    assert [dataset.classes[dataset.labels[n]] for n in (0, 1, 50_000)] == ["frog", "truck", "cat"]
    assert dataset.images[0, :, 0, 0].tolist() == [59, 62, 63]
