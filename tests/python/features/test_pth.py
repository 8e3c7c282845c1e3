"""The reader of torch's files: views of storages in both forms; what is damaged or hostile is refused, and not run."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

import tiny_backbone as torchlike
from photoflux.errors import BackboneError
from photoflux.features.pth import read_pth

BOTH = pytest.mark.parametrize("zipped", [False, True], ids=["pickles", "zip"])


def read(tmp_path, data: bytes):
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    return read_pth(path)


@BOTH
def test_types_shapes_and_values_come_back(tmp_path, zipped):
    arrays = {
        "a": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "scalar": np.array(5),
        "half": np.array([1.5, -2], np.float16),
        "none": np.empty((0, 3)),
    }
    for channels_last in (False, True):
        found = read(tmp_path, torchlike.pth_of(arrays, zipped, channels_last))
        assert list(found) == list(arrays)
        for name, value in arrays.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            assert np.array_equal(found[name], value) and found[name].flags.c_contiguous


@BOTH
def test_tensors_may_share_a_storage_begin_within_it_and_repeat_a_number(tmp_path, zipped):
    storage = np.arange(10, dtype=np.float32)
    views = {
        "column": (1, (3,), (3,), storage[1:10:3]),
        "transposed": (2, (2, 3), (1, 2), storage[2:8].reshape(3, 2).T),
        "repeated": (4, (2, 2), (0, 1), np.stack([storage[4:6]] * 2)),
    }
    entries = {
        name: torchlike.tensor("7", "FloatStorage", 10, offset, shape, strides, zipped)
        for name, (offset, shape, strides, _) in views.items()
    }
    found = read(tmp_path, torchlike.pth(torchlike.dictionary(entries), {"7": storage}, zipped))
    for name, (_, _, _, expected) in views.items():
        assert np.array_equal(found[name], expected), name


@BOTH
def test_a_file_that_ends_early_is_refused_wherever_it_ends(tmp_path, zipped):
    data = torchlike.pth_of({"a": np.ones((4, 4), np.float32), "b": np.ones(3)}, zipped)
    assert len(read(tmp_path, data)) == 2
    for end in range(0, len(data), 7):
        with pytest.raises(BackboneError, match=r"file\.pth cannot be read .* Take another copy"):
            read(tmp_path, data[:end])


@BOTH
@pytest.mark.parametrize(
    ("view", "said"),
    [
        ((0, (5,), (1,)), "in a storage of 4"),
        ((3, (2,), (1,)), "in a storage of 4"),
        ((0, (2, 2), (3, 1)), "in a storage of 4"),
        ((-1, (2,), (1,)), "whole numbers"),
        ((0, (2,), (-1,)), "whole numbers"),
        ((0, (2,), (1, 1)), "with the strides"),
        ((0, (1 << 40, 1 << 40), (0, 0)), "in a storage of 4"),
    ],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, zipped, view, said):
    entry = torchlike.tensor("0", "FloatStorage", 4, *view, zipped)
    with pytest.raises(BackboneError, match=said):
        read(tmp_path, torchlike.pth(torchlike.dictionary({"a": entry}), {"0": np.ones(4, np.float32)}, zipped))


GOOD = torchlike.tensor("0", "FloatStorage", 4, 0, (4,), (1,))
OFFSET = b"N}" + torchlike._text("offset") + torchlike._whole(1 << 40) + b"s\x86b"  # BUILD with (None, {"offset": …})
HOSTILE = {
    "a call of the system": torchlike.named("os", "system") + b"(" + torchlike._text("true") + b"tR",
    "a module of torch": torchlike.named("torch.serialization", "load") + b"(" + torchlike._text("x") + b"tR",
    "a tensor changed after its check": GOOD + OFFSET,
    "a name changed for later files": torchlike.named("torch._utils", "_rebuild_tensor_v2") + OFFSET,
    "a storage type changed": torchlike.named("torch", "FloatStorage") + OFFSET,
    "a tensor of no storage": torchlike.named("torch._utils", "_rebuild_tensor_v2") + b"(K\x01K\x00))tR",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_what_is_hostile_is_refused_and_does_nothing(tmp_path, body):
    data = torchlike.pth(torchlike.dictionary({"a": body}), {"0": np.ones(4, np.float32)})
    with pytest.raises(BackboneError, match="nothing in it was executed"):
        read(tmp_path, data)
    assert read(tmp_path, torchlike.pth_of({"a": np.ones(4)}))["a"].shape == (4,)


def test_a_storage_of_another_length_than_said_is_refused(tmp_path):
    body = torchlike.dictionary({"a": torchlike.tensor("0", "FloatStorage", 4, 0, (4,), (1,))})
    data = torchlike.pth(body, {"0": np.ones(4, np.float32)})
    length = data.rindex((4).to_bytes(8, "little"))
    with pytest.raises(BackboneError, match="the storage 0 has 1099511627776 numbers, not 4"):
        read(tmp_path, data[:length] + (1 << 40).to_bytes(8, "little") + data[length + 8 :])
    zipped = torchlike.dictionary({"a": torchlike.tensor("0", "FloatStorage", 4, 0, (4,), (1,), True)})
    with pytest.raises(BackboneError, match="12 bytes where 4 numbers"):
        read(tmp_path, torchlike.pth(zipped, {"0": np.ones(3, np.float32)}, True))


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**6)
    with pytest.raises(BackboneError, match="it is compressed"):
        read(tmp_path, file.getvalue())


def test_other_files_are_refused(tmp_path):
    for data in (b"", b"no pickle", torchlike.pth(b"]", {})):
        with pytest.raises(BackboneError, match="cannot be read as a file of torch tensors"):
            read(tmp_path, data)
    with pytest.raises(BackboneError, match="No such file"):
        read_pth(tmp_path / "none.pth")


@BOTH
def test_a_small_file_cannot_ask_for_much_memory(tmp_path, zipped):
    storage = {"0": np.ones(1000, np.float32)}
    view = torchlike.tensor("0", "FloatStorage", 1000, 0, (1000,), (1,), zipped)
    assert len(read(tmp_path, torchlike.pth(torchlike.dictionary({"a": view, "b": view}), storage, zipped))) == 2
    # The tensors of one storage, over and over.
    big = {"0": np.ones(100_000, np.float32)}
    view = torchlike.tensor("0", "FloatStorage", 100_000, 0, (100_000,), (1,), zipped)
    many = torchlike.dictionary({f"{number:03}": view for number in range(200)})
    with pytest.raises(BackboneError, match="more than 8 times as large as the file"):
        read(tmp_path, torchlike.pth(many, big, zipped))
    # A shape of many axes, whose product takes long.
    axes = (1,) * 65
    view = torchlike.tensor("0", "FloatStorage", 1000, 0, axes, axes, zipped)
    with pytest.raises(BackboneError, match="a tensor of shape"):
        read(tmp_path, torchlike.pth(torchlike.dictionary({"a": view}), storage, zipped))
    # LONG_BINPUT: Python would make room for 2**31 objects, 16 GB.
    with pytest.raises(BackboneError, match=r"keeps its object number 1 at the place 1073741824"):
        read(tmp_path, torchlike.pth(b"]r\x00\x00\x00\x40", storage, zipped))


def test_members_that_lie_over_one_another_are_refused(tmp_path):
    """A zip archive whose members are one and the same bytes: a small file with many large storages."""
    entries = {
        str(key): torchlike.tensor(str(key), "FloatStorage", 50_000, 0, (50_000,), (1,), True) for key in range(20)
    }
    values = {str(key): np.ones(50_000 if key == 0 else 1, np.float32) for key in range(20)}
    with pytest.raises(BackboneError, match="its storages are larger than the file"):
        read(tmp_path, torchlike.pth(torchlike.dictionary(entries), values, True))
