"""`photoflux.PreparedWriter`: a user's images become a prepared dataset; what is taken and refused is set here."""

from __future__ import annotations

import hashlib
import operator
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from photoflux.data.checks import SMALLEST, check_image_size, check_seed
from photoflux.data.conflicts import conflicts_in_words, find_conflicts
from photoflux.data.duplicates import group_duplicates
from photoflux.data.finishing import finish_classes
from photoflux.data.given_split import absent_classes, complete_split, twins_across
from photoflux.data.images.colours import to_grey
from photoflux.data.images.decoding import perceptual_hash, resized, upright_rgb
from photoflux.data.images.document import Picture
from photoflux.data.images.in_memory import UndecodableError, is_grey, picture_of
from photoflux.data.labels import AUTO, resolve_positive
from photoflux.data.prepared import SPLITS, PreparedDataset
from photoflux.data.shape import Shape
from photoflux.data.splitting import missing_parts, split_groups
from photoflux.data.writer import FilesWriter, ImageRecord, check_destination
from photoflux.errors import DataError, SettingError, unknown_name
from photoflux.system.names import class_name, first_few, printable, quoted, user_path

_APART = "Without a given split such images are kept on one side."


class Collected(NamedTuple):
    """The images of a dataset that is being written, in their order: record (group 0), hash, label, given part."""

    records: list[ImageRecord]
    hashes: list[int]
    labels: list[int | str]
    parts: list[str]
    rejected: list[tuple[str, str]]
    notes: Counter[str]


class PreparedWriter:
    """Writes a prepared dataset of images that are added one by one, from wherever they come.

    Use it in a ``with`` block, `add` the images and `finish`. They are never all in memory. Equal and nearly equal
    images stay on one side of the split, which is 70 / 10 / 20 unless one is given. Everything is written under a
    temporary name and renamed by `finish`: however the block is left before, nothing is left behind, and a dataset that
    was at the destination stays.

    Parameters
    ----------
    dest : str or Path
        The folder to make. A prepared dataset there is replaced, any other folder that holds something is refused.
    classes : sequence of str, optional
        The names of the classes, in the order of the labels. None: labels are the names themselves, and the classes
        are in alphabetical order; or they are integers from 0, whose names are "0", "1", ….
    positive : str or None
        As in `prepare`: the class that gets label 1 while all others are "not …"; ``"auto"``: Photo or Photos if there
        is one; None: all classes as they are.
    image_size : int, optional
        Height and width in pixels to which images are resized, 8 to 4096. None: the size of the first image, which all
        others must have.
    channels : int, optional
        1 (grey) or 3 (RGB). None: as the first image is; grey images are taken among coloured ones, and not the other
        way round.
    seed : int
        Fixes the split.
    name : str, optional
        What the dataset is called; None: as its folder.

    Raises
    ------
    SettingError
        If an argument cannot be used.
    DataError
        If the destination cannot be used, or the block ends without `finish`.

    Examples
    --------
    >>> with PreparedWriter(folder, ["dark", "light"]) as writer:
    ...     for number in range(20):
    ...         writer.add(np.full((8, 8), 12 * number, np.uint8), number // 10)
    ...     writer.finish().counts()["train"]
    {'dark': 7, 'light': 7}
    """

    def __init__(
        self,
        dest: str | Path,
        classes: Sequence[str] | None = None,
        *,
        positive: str | None = AUTO,
        image_size: int | None = None,
        channels: int | None = None,
        seed: int = 42,
        name: str | None = None,
    ) -> None:
        if image_size is not None:
            check_image_size(image_size)
        if channels not in (None, 1, 3) or isinstance(channels, bool):
            raise SettingError(f"`channels` must be 1 (grey), 3 (RGB) or None; received: {channels!r}.")
        self._dest = user_path(dest).resolve()
        self._classes = None if classes is None else _checked(classes)
        if self._classes is not None:
            resolve_positive(positive, self._classes)
        self._positive, self._size, self._channels = positive, image_size, channels
        self._seed, self._name = check_seed(seed), name or self._dest.name
        self._shape: Shape | None = None
        self._made_from: dict[str, Any] | None = None
        self._source = "own"
        self._found = Collected([], [], [], [], [], Counter())
        self._first_note: dict[str, str] = {}
        self._asked = 0
        self._files: FilesWriter | None = None
        self._finished: PreparedDataset | None = None
        self._stack: ExitStack | None = None

    def __enter__(self) -> Self:
        check_destination(self._dest)
        self._stack = ExitStack()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        assert self._stack is not None
        self._stack.close()
        self._stack = None
        if kind is None and self._finished is None:
            raise DataError(
                f"Nothing was written to {printable(self._dest)}: the block of its `PreparedWriter` ended without "
                "`finish`. Call `writer.finish()` at its end."
            )

    def add(self, image: Any, label: int | str, *, name: str | None = None, split: str | None = None) -> None:
        """Add an image; one that Pillow cannot decode is listed among the rejected.

        Parameters
        ----------
        image : PIL.Image.Image or array
            A Pillow image of any mode: it is turned upright as its EXIF data says, transparency is laid on white, and
            more than 8 bits are scaled to 8, as of a folder's files. Or uint8, (H, W), (H, W, 1) or (H, W, 3).
        label : int or str
            The position of its class in the classes, from 0, or the name of its class.
        name : str, optional
            What ``files.csv`` and reports call it, such as a path or an address; None: "image#1", "image#2", ….
        split : str, optional
            ``"train"``, ``"validation"`` or ``"test"``, where the images come with a split: it is given for all then.
            A split without validation part gets a tenth of the training part; without test part, the validation part
            is that. None: the images are split by `finish`.

        Raises
        ------
        DataError
            If it is no such image, its size or colour is not that of those before, or it has no such label.
        SettingError
            If there is no such part.
        """
        self._asked += 1
        name = f"image#{self._asked}" if name is None else str(name)
        if self._stack is None or self._finished is not None:
            raise DataError(f"{quoted(name)} cannot be added: images are added in a `with` block, before `finish`.")
        if split is not None and split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        if self._found.labels and (split is None) == bool(self._found.parts):
            raise DataError(
                f"{quoted(name)} has {'no `split`' if split is None else 'a `split`'}, and those before it have "
                f"{'one' if split is None else 'none'}. Give it for all images, or for none."
            )
        label = self._label_of(label, name)
        try:
            picture = picture_of(image, name)
        except UndecodableError as error:
            self.reject(name, str(error))
            return
        self._write(picture, label, name)
        if split is not None:
            self._found.parts.append(split)

    def reject(self, name: str, reason: str) -> None:
        """List an image that is left out, so that nothing is skipped silently: ``rejected`` of the dataset has it.

        Parameters
        ----------
        name : str
            What it is called.
        reason : str
            Why it cannot be used.
        """
        self._found.rejected.append((str(name), str(reason)))

    def finish(self) -> PreparedDataset:
        """Split the images, write the rest, and give the folder its name.

        Returns
        -------
        PreparedDataset

        Raises
        ------
        DataError
            If there are no images, one class only, too few images of a class, or the disk is full.
        """
        if self._finished is not None:
            return self._finished
        found = self._found
        if self._files is None:
            left = found.rejected
            why = f" {len(left)} were rejected, the first is {printable(left[0][0])}: {left[0][1]}." if left else ""
            raise DataError(f"No image was added to {printable(self._dest)}.{why}")
        self._finished = self._written(self._files)
        return self._finished

    def _written(self, files: FilesWriter) -> PreparedDataset:
        """Write the dataset of the images that were appended."""
        names, codes = self._codes()
        found = self._found
        positive = resolve_positive(self._positive, names)
        conflicts = find_conflicts([(record.path, record.folder, record.sha256) for record in found.records])
        notes = [*self._notes(), *conflicts_in_words(conflicts)]
        groups = self._groups(codes)
        if found.parts:
            split, others = self._given_split(names, codes, groups)
        else:
            split = split_groups(codes, groups, self._seed)
            others = missing_parts(codes, split, names)
        return finish_classes(
            files,
            name=self._name,
            source=self._source,
            names=names,
            codes=codes,
            split=split,
            positive=positive,
            files=self._grouped(groups),
            rejected=found.rejected,
            seed=self._seed,
            warnings=[*notes, *others],
            given=bool(found.parts),
            conflicts=conflicts,
            made_from=self._made_from,
            looks=found.hashes,
        )

    def _label_of(self, label: Any, name: str) -> int | str:
        """Return a label as its position among the classes; as a name, or an integer, where no classes are given."""
        known = self._classes
        if isinstance(label, str):
            label = class_name(label)
            if known is None and label:
                return self._of_one_kind(label, name)
            if known is not None and label in known:
                return known.index(label)
        else:
            try:
                number = operator.index(label)
            except TypeError:
                number = -1
            if known is None and number >= 0:
                return self._of_one_kind(number, name)
            if known is not None and 0 <= number < len(known):
                return number
        expected = (
            "the name of its class, or an integer from 0"
            if known is None
            else f"an integer from 0 to {len(known) - 1}, or one of {first_few(known, 10)}"
        )
        raise DataError(f"The label of {quoted(name)} must be {expected}; received: {label!r}.")

    def _of_one_kind(self, label: int | str, name: str) -> int | str:
        others = self._found.labels
        if others and type(others[0]) is not type(label):
            raise DataError(
                f"The label of {quoted(name)} is {label!r}, and of the first image {others[0]!r}. Give integers or "
                "names, or the `classes` with which both are understood."
            )
        return label

    def _write(self, picture: Picture, label: int | str, name: str) -> None:
        shape, files = self._opened(picture, name)
        if self._size is None and self._shape is None and (picture.height, picture.width) != shape[1:]:
            raise DataError(
                f"{quoted(name)} has {picture.width} × {picture.height} pixels, and the first image "
                f"{shape.width} × {shape.height}. Give `image_size`, to which all are resized."
            )
        if shape.channels == 1 and self._channels is None and not is_grey(picture.image):
            raise DataError(f"{quoted(name)} is coloured, and the first image is grey. Give `channels`: 1 or 3.")
        colour = upright_rgb(picture, shape)
        own = np.asarray(to_grey(colour))[None] if shape.channels == 1 else np.asarray(colour).transpose(2, 0, 1)
        look = perceptual_hash(colour)
        files.append(resized(colour, shape)[None])
        found = self._found
        # Of the pixels as they were given: `evaluate` knows an array of them again.
        digest = hashlib.sha256(np.ascontiguousarray(own).data).hexdigest()
        folder = self._classes[label] if isinstance(label, int) and self._classes is not None else str(label)
        found.records.append(ImageRecord(name, folder, digest, 0, picture.width, picture.height))
        found.hashes.append(look)
        found.labels.append(label)
        for note in picture.notes:
            found.notes[note] += 1
            self._first_note.setdefault(note, name)

    def _opened(self, picture: Picture, name: str) -> tuple[Shape, FilesWriter]:
        """Return the shape of all images and what writes them, opened with the first."""
        if self._files is None:
            height, width = (picture.height, picture.width) if self._size is None else (self._size, self._size)
            channels = self._channels or (1 if is_grey(picture.image) else 3)
            shape = self._shape or Shape(channels, int(height), int(width))
            if min(shape.height, shape.width) < SMALLEST:
                raise DataError(
                    f"{quoted(name)} has {shape.width} × {shape.height} pixels, expected {SMALLEST} or more a side. "
                    "Give `image_size`, to which all are resized."
                )
            assert self._stack is not None
            self._files = self._stack.enter_context(FilesWriter(self._dest, shape))
        return self._files.shape, self._files

    def _codes(self) -> tuple[list[str], np.ndarray]:
        """Return the names of the classes, and for each image the position of its class among them."""
        labels = self._found.labels
        if self._classes is not None:
            return self._classes, np.array(labels, dtype=np.int32)
        if isinstance(labels[0], str):
            names, found = np.unique(np.array(labels, dtype=object), return_inverse=True)
            listed = [str(name) for name in names]
        else:
            found = np.array(labels)
            if found.max() >= len(found):
                raise DataError(
                    f"Labels must be integers from 0 without gaps; received {found.max()} among {len(found)} images."
                )
            listed = [str(number) for number in range(int(found.max()) + 1)]
        if len(listed) < 2:
            raise DataError(
                f"All {len(found)} images are of one class, {quoted(listed[0])}, expected two or more: there is "
                "nothing to distinguish."
            )
        return listed, found.astype(np.int32)

    def _given_split(self, names: list[str], codes: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
        parts = set(self._found.parts)
        if SPLITS[0] not in parts or len(parts) < 2:
            raise DataError(
                f"`split` says {' and '.join(sorted(parts))} for all images, expected train and one more at least. Add "
                "images of the others, or leave `split` out."
            )
        split = complete_split(self._found.parts, parts, codes, groups, self._seed, self._name)
        paths = [record.path for record in self._found.records]
        return split, [*absent_classes(codes, split, names), *twins_across(split, groups, paths, _APART)]

    def _groups(self, codes: np.ndarray) -> np.ndarray:
        digests = [record.sha256 for record in self._found.records]
        return group_duplicates(digests, np.array(self._found.hashes, dtype=np.uint64), codes)

    def _grouped(self, groups: np.ndarray) -> list[ImageRecord]:
        return [
            record._replace(group=group) for record, group in zip(self._found.records, groups.tolist(), strict=True)
        ]

    def _notes(self) -> list[str]:
        return [
            f"{count} image{'' if count == 1 else 's'}, the first is {quoted(self._first_note[note])}: {note}."
            for note, count in self._found.notes.items()
        ]


def _checked(classes: Sequence[str]) -> list[str]:
    listed = [classes] if isinstance(classes, str) else list(classes)
    names = [class_name(name) if isinstance(name, str) else "" for name in listed]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise SettingError(f"`classes` must be two or more different names; received: {listed!r}.")
    return names
