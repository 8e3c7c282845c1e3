"""Writes and reads the checkpoints of a Keras fit, in the format of Flux's. Worker process only."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Checkpoints
from photoflux.errors import EngineError, RunError
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.weights import fingerprint_of, write_arrays

FORMAT = "photoflux-checkpoint-1"
KEPT = 2  # if the newest is damaged, the one before serves
SHARE = 0.02  # how much of a fit's time they may take
EXPECTED_COST, EXPECTED_RATE = 0.005, 1.5e8  # seconds, and bytes a second, until one was measured
BLOCK = 2**20  # bytes that are hashed as one
_NAME = re.compile(r"epoch-(\d{6,9})-batch-(\d{6,9})\.safetensors")
_NOT_COMPARED = ("epochs", "batch_size", "learning_rate", "balance", "made_for", "image_size")

Arrays = dict[str, np.ndarray]


def to_bits(value: float) -> str:
    """Return a float exactly, as 16 hexadecimal digits."""
    return struct.pack(">d", value).hex()


def from_bits(text: str) -> float:
    """Return the float of `to_bits`."""
    return float(struct.unpack(">d", bytes.fromhex(text))[0])


def description_of(
    variant: Variant, settings: Settings, prepared: PreparedDataset, initial: Mapping[str, np.ndarray] | None
) -> dict[str, str]:
    """Return what must be the same for a fit to go on from a checkpoint, as a table of texts."""
    described = {
        f"variant {name}": _text(value) for name, value in variant.as_dict().items() if name not in _NOT_COMPARED
    }
    # There is no schedule with Keras.
    compared = {name: value for name, value in asdict(settings).items() if name != "schedule"}
    described |= {name.replace("_", " "): _text(value) for name, value in compared.items()}
    return described | {
        "engine": "keras",
        "images": str(len(prepared)),
        "classes": ", ".join(prepared.classes),
        "dataset": prepared.fingerprint,
        "initial weights": "drawn from the seed" if initial is None else fingerprint_of(initial),
    }


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(sorted(f"{name} {_text(x)}" for name, x in value.items())) or "none"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read: its file, state and arrays, and what is wrong with newer ones."""

    path: Path
    state: dict[str, Any]
    arrays: Arrays
    damaged: list[str]


class Keeper:
    """Writes the checkpoints of one fit, as often as `photoflux.engines.base.Checkpoints` says; None: never."""

    def __init__(self, asked: Checkpoints | None, fit: dict[str, str], on_note: Callable[[str], None]) -> None:
        self._asked, self._fit, self._on_note = asked, fit, on_note
        self._last, self._cost, self._failed = time.monotonic(), 0.0, False
        # If the folder has gone since, as a share does, it is not made elsewhere.
        self._made = asked is not None and asked.folder.is_dir()

    @property
    def wanted(self) -> bool:
        """Whether there is a place for them."""
        return self._asked is not None

    def is_due(self, size: int, epoch_is_over: bool) -> bool:
        """Say whether one is to be written now; `size`: the bytes of the weights."""
        if self._asked is None or self._asked.minutes == 0:
            return self._asked is not None
        elapsed = time.monotonic() - self._last
        cost = self._cost or EXPECTED_COST + 5 * size / EXPECTED_RATE
        return (epoch_is_over or elapsed >= 60 * self._asked.minutes) and elapsed * SHARE >= cost

    def write(self, state: dict[str, Any], arrays: Arrays, *, only: bool = False) -> None:
        """Write one; where that fails the fit goes on, and a note says so once."""
        assert self._asked is not None
        began, folder = time.monotonic(), self._asked.folder
        path = folder / f"epoch-{state['epoch']:06}-batch-{state['batch']:06}.safetensors"
        texts = {"fit": json.dumps(self._fit), "state": json.dumps(state)}
        digest = _digest(texts["fit"], texts["state"], arrays)
        try:
            if not self._made:
                folder.mkdir(parents=True, exist_ok=True)
            self._made = True
            write_arrays(path, arrays, {"format": FORMAT, "engine": "keras", **texts, "sha256": digest})
            kept = [path] if only else files_in(folder)[:KEPT]
            for file in set(files_in(folder)) - set(kept):
                file.unlink()
            self._failed = False
        except (OSError, RunError) as error:
            if not self._failed:
                self._on_note(f"A checkpoint could not be written, and the fit went on without: {error}")
            self._failed = True
        self._last = time.monotonic()
        self._cost = self._last - began

    def found(self) -> Found | None:
        """Return the newest checkpoint that can be read; None if the fit is not to resume.

        Raises
        ------
        EngineError
            If there is none, or it is of another fit, of which a table shows the difference; or there are some and the
            fit is not to resume.
        """
        if self._asked is None:
            return None
        folder = self._asked.folder
        files = files_in(folder)
        if not self._asked.resume:
            if files:
                raise EngineError(f"{folder} has the checkpoints of an unfinished fit, which is not to be resumed.")
            return None
        if not files:
            raise EngineError(f"There is nothing to resume: {folder} has no checkpoint.")
        damaged: list[str] = []
        for path in files:
            try:
                state, arrays, fit = _read(path)
            except (ValueError, KeyError, TypeError, OSError, RecursionError, safetensors.SafetensorError) as error:
                damaged.append(f"{path.name} is damaged ({error})")
                continue
            _check_same(path, fit, self._fit)
            return Found(path, state, arrays, damaged)
        raise EngineError(
            f"No checkpoint in {folder} can be read: {'; '.join(damaged)}. Remove the folder to begin again."
        )


def files_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, newest first."""
    names = [_NAME.fullmatch(file.name) for file in folder.iterdir()] if folder.is_dir() else []
    places = [(int(match[1]), int(match[2]), match[0]) for match in names if match is not None]
    return [folder / name for _, _, name in sorted(places, reverse=True)]


def _digest(fit: str, state: str, arrays: Arrays) -> str:
    """Return the sha256 of the two texts and, in their order, the name of each array and the sha256 of its blocks."""
    digest = hashlib.sha256(fit.encode() + state.encode())
    for name in sorted(arrays):
        data = np.ascontiguousarray(arrays[name], "<f4").tobytes()
        digest.update(name.encode())
        for start in range(0, len(data), BLOCK):
            digest.update(hashlib.sha256(data[start : start + BLOCK]).digest())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], Arrays, dict[str, str]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if metadata.get("format") != FORMAT:
        raise ValueError("it is not a checkpoint that this PhotoFlux reads")
    if _digest(metadata["fit"], metadata["state"], arrays) != metadata["sha256"]:
        raise ValueError("its content does not have the sha256 that it says")
    return json.loads(metadata["state"]), arrays, json.loads(metadata["fit"])


def _check_same(path: Path, found: Mapping[str, str], given: Mapping[str, str]) -> None:
    names = sorted(found.keys() | given.keys())
    rows = [(name, found.get(name, "–"), given.get(name, "–")) for name in names if found.get(name) != given.get(name)]
    if not rows:
        return
    table = [("setting", "checkpoint", "given"), *rows]
    first, second = (max(len(row[i]) for row in table) for i in range(2))
    lines = [f"  {row[0]:<{first}}   {row[1]:<{second}}   {row[2]}".rstrip() for row in table]
    raise EngineError(
        f"{path} is of a fit with other settings:\n"
        + "\n".join(lines)
        + "\nGive those of the checkpoint, or remove the folder to begin again."
    )
