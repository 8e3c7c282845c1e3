"""Reads the tensors of a torch file, ``.pth``, without torch and without executing anything in it.

Both forms are read: the pickles in a row of torch before 1.6, and the zip archive since. What a pickle may name is
listed here and nowhere else.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from photoflux.data.sources.pickles import AdmittingUnpickler
from photoflux.errors import BackboneError
from photoflux.system.names import printable

_MAGIC = 0x1950A86A20F9469CFC6C  # torch's own, the first pickle of its older form
_PROTOCOL = 1001
_MOST_AXES = 64  # NumPy's
# Tensors that share their numbers are copied; more than so many copies of the whole file are none of torch's.
_MOST_COPIES = 8
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class _Fault(pickle.UnpicklingError):
    """What is wrong with a file, in words."""


class _Fixed:
    """What a pickle gets to see and cannot change: after a check it could set what was checked."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise _Fault("it sets the state of what is no container")


class _Kind(_Fixed):
    """Stands for a torch storage type."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


class _Storage(_Fixed):
    """Numbers in a row that tensors are views of; they are filled in when the tensors are built."""

    __slots__ = ("count", "dtype", "values")

    def __init__(self, dtype: np.dtype[Any], count: int) -> None:
        self.dtype, self.count = dtype, count
        self.values: np.ndarray | None = None

    def fill(self, data: bytes | memoryview) -> None:
        if len(data) != self.count * self.dtype.itemsize:
            raise _Fault(f"{len(data)} bytes where {self.count} numbers of {self.dtype} were to be")
        self.values = np.frombuffer(data, self.dtype)


class _Tensor(_Fixed):
    """Where a tensor's numbers are in a storage."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise _Fault("a tensor of something else than a storage and whole numbers")
        if len(shape) != len(strides) or len(shape) > _MOST_AXES:
            raise _Fault(f"a tensor of shape {shape} with the strides {strides}")
        count, last = 1, offset
        for length, stride in zip(shape, strides, strict=True):
            count *= length
            last += (length - 1) * stride
        if count > storage.count or (count and last >= storage.count):
            raise _Fault(f"a tensor of shape {shape} with the strides {strides} in a storage of {storage.count}")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    @property
    def bytes(self) -> int:
        """How large it is as an array."""
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def array(self) -> np.ndarray:
        """Return the numbers, in C order."""
        values = self.storage.values
        if values is None:
            raise _Fault("a tensor whose numbers are not in the file")
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        steps = tuple(stride * values.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)
        return np.array(view, order="C")


class _Dict(dict[Any, Any]):
    """In the place of an OrderedDict; the attributes that torch sets on it are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Name(_Fixed):
    """What an admitted name stands for."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Name(lambda: _Dict()),
    ("torch._utils", "_rebuild_tensor_v2"): _Name(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Name(_parameter),
    **{("torch", name): _Kind(code) for name, code in _DTYPES.items()},
}


class _Unpickler(AdmittingUnpickler):
    """Builds tensors and plain containers; a storage that it meets is kept by its key."""

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]) -> None:
        super().__init__(file, _ADMITTED)
        self._storages = storages

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage of a key."""
        word, kind, key, _, count, *view = pid
        if word != "storage" or not isinstance(kind, _Kind) or type(count) is not int or count < 0:
            raise _Fault(f"it asks for {pid!r}")
        if view not in ([], [None]):
            raise _Fault("a storage within a storage")
        storage = self._storages.setdefault(str(key), _Storage(kind.dtype, count))
        if (storage.dtype, storage.count) != (kind.dtype, count):
            raise _Fault(f"the storage {key} in two sizes")
        return storage


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a torch file that holds a dictionary of them, by name.

    Strides, offsets and storages that several tensors share are respected; the arrays are copies in C order.

    Parameters
    ----------
    path : Path
        The file, in either of torch's forms.

    Raises
    ------
    BackboneError
        If it cannot be read, is truncated, or holds anything but tensors and plain values. Nothing in it is executed.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_pickles
            file.seek(0)
            values = read(file)
        if not isinstance(values, Mapping):
            raise _Fault(f"a {type(values).__name__} where a dictionary of tensors was to be")
        tensors = {str(name): value for name, value in values.items() if isinstance(value, _Tensor)}
        if sum(tensor.bytes for tensor in tensors.values()) > _MOST_COPIES * path.stat().st_size:
            raise _Fault(f"its tensors are more than {_MOST_COPIES} times as large as the file")
        return {name: tensor.array() for name, tensor in tensors.items()}
    # A damaged pickle raises almost anything.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BackboneError(
            f"{printable(path)} cannot be read as a file of torch tensors: {reason}. It is truncated, or no such file; "
            "nothing in it was executed. Take another copy of it."
        ) from error


def _read_pickles(file: BinaryIO) -> Any:
    storages: dict[str, _Storage] = {}

    def load() -> Any:
        return _Unpickler(file, storages).load()

    if load() != _MAGIC:
        raise _Fault("it does not begin as torch's files do")
    if load() != _PROTOCOL:
        raise _Fault("it is of another version of the format")
    if load().get("little_endian") is not True:
        raise _Fault("its numbers are not in little-endian order")
    values = load()
    for key in load():
        storage = storages.get(str(key))
        if storage is None:
            raise _Fault(f"it has a storage {key} of no tensor")
        count = int.from_bytes(_exactly(file, 8), "little")
        if count != storage.count:
            raise _Fault(f"the storage {key} has {count} numbers, not {storage.count}")
        storage.fill(_exactly(file, count * storage.dtype.itemsize))
    return values


def _size_of(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size


def _exactly(file: BinaryIO, count: int) -> bytes:
    """Return so many bytes; one read of a length that a hostile file names would ask for that much memory."""
    left = _size_of(file) - file.tell()
    if left < count:
        raise _Fault(f"it ends {count - left} bytes too early")
    return file.read(count)


def _read_zip(file: BinaryIO) -> Any:
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(file) as archive:
        # torch compresses nothing: a member that is larger than its file is none of torch's.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Fault("it is compressed, which torch's files are not")
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise _Fault("it is an archive without torch's data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise _Fault("its numbers are not in little-endian order")
        values = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        # Members may lie over one another, so that a small file holds many large ones.
        if sum(storage.count * storage.dtype.itemsize for storage in storages.values()) > _size_of(file):
            raise _Fault("its storages are larger than the file")
        for key, storage in storages.items():
            storage.fill(archive.read(f"{root}data/{key}"))
    return values
