"""Reads pickles without executing code from them: CIFAR-10's batches, and what others admit by name."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from photoflux.errors import DataError

_reconstruct = np.empty(0).__reduce__()[0]


def _dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype[Any]:
    # The batches say align=0, which NumPy 2.4 warns about; and object arrays are none of a batch's business.
    dtype: np.dtype[Any] = np.dtype(code, bool(align), bool(copy))
    if dtype.hasobject:
        raise pickle.UnpicklingError("an array of objects")
    return dtype


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return text.encode("latin1")


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


def _check_places(file: BinaryIO) -> None:
    """Refuse a pickle that keeps an object at a place far beyond those before it; the file stays where it was.

    Python makes room for all places up to it: a pickle of ten bytes can ask for more memory than there is.
    """
    start, kept = file.tell(), 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if argument is None or argument > 2 * kept + 1024:
                raise pickle.UnpicklingError(f"it keeps its object number {kept + 1} at the place {argument}")
            kept += 1
        elif opcode.name == "MEMOIZE":
            kept += 1
    file.seek(start)


class AdmittingUnpickler(pickle.Unpickler):
    """Admits plain containers, numbers, text and the few names given; every other name in the pickle is refused.

    Parameters
    ----------
    file : binary file
        The pickle.
    admitted : mapping of (str, str) to object
        What stands for a name, by module and name. A pickle calls it with what it likes and sets its state.
    encoding : str
        Of the text of Python 2, as in `pickle.Unpickler`.

    Raises
    ------
    pickle.UnpicklingError, ValueError, OverflowError
        If it is damaged, or would have Python make room for more than it holds.
    """

    def __init__(
        self, file: BinaryIO, admitted: Mapping[tuple[str, str], Any] = _ADMITTED, encoding: str = "ASCII"
    ) -> None:
        _check_places(file)
        super().__init__(file, encoding=encoding)
        self._admitted = admitted

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few admitted names."""
        try:
            return self._admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_batch(data: bytes, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels, uint8 (N, 3072), and labels, int32 (N,), of a pickled batch.

    Parameters
    ----------
    data : bytes
        The pickle.
    file : str
        What the error message calls it.

    Raises
    ------
    DataError
        If it holds anything but numbers, text and arrays, or is no batch.
    """
    try:
        batch = AdmittingUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"]).astype(np.int32)
    # A damaged pickle raises almost anything.
    except Exception as error:
        raise DataError(f"{file} is not a CIFAR-10 batch: {error or type(error).__name__}. It was not run.") from error
    if pixels.dtype != np.uint8:
        raise DataError(f"{file} must hold uint8 pixels; found {pixels.dtype}.")
    return pixels, labels
