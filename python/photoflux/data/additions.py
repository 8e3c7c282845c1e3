"""Adds labelled images to the training part of a prepared dataset; what is left out, and why, is decided here."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.archives import members
from photoflux.data.cache import place_of
from photoflux.data.checks import OnProgress
from photoflux.data.conflicts import NAME as CONFLICTS
from photoflux.data.conflicts import find_conflicts
from photoflux.data.duplicates import distinct_looks, looks_like
from photoflux.data.images.decoding import Decoded
from photoflux.data.images.helpers import Source
from photoflux.data.images.members import Member
from photoflux.data.images.parallel import FEW, Decoders, cores
from photoflux.data.labelled import Labelled, read_labels
from photoflux.data.prepared import PreparedDataset
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.errors import DataError
from photoflux.system.atomic import scratch
from photoflux.system.names import first_few, printable, quoted

_BLOCK = 256  # images that are in memory at once
_CHANGED = "has changed since it was labelled"
_ABSENT = "is not in its archive any more"
_PIXELS = "only its pixels in another prepared dataset are known"
_LIKE = "is nearly equal to an image of the validation or test part"


@dataclass
class _Plan:
    """What becomes of the labels: positions in the dataset with their new label, images to be added, and counts."""

    changed: dict[int, int] = field(default_factory=dict)
    added: list[Labelled] = field(default_factory=list)
    same: int = 0
    elsewhere: int = 0
    contradictory: int = 0


def with_labels(
    prepared: PreparedDataset, folders: Sequence[Path], on_progress: OnProgress | None = None
) -> PreparedDataset:
    """Return a dataset with the images that a person has labelled, made in the user's cache or taken from it.

    They come to the training part alone: a model has chosen them, so that scores on them would not be of images as they
    come. One that is in the training part already has its label replaced; one of the validation or test part, or nearly
    equal to one, stays as it is. A file that is gone, or has changed since it was labelled, is left out. The dataset is
    the same whenever labels and files are.

    Parameters
    ----------
    prepared : PreparedDataset
        A dataset of images of two classes.
    folders : sequence of Path
        Of filter jobs and runs whose images were labelled with `photoflux review`.
    on_progress : callable, optional
        Called with (done, in all, what is being done).

    Returns
    -------
    PreparedDataset
        The images of `prepared`, in their order, and after them the new ones. Its ``rejected`` names those that were
        left out, and its ``warnings`` say what became of the labels.

    Raises
    ------
    DataError
        If there are no labels, they are of other classes, or the cache cannot be written.
    """
    labels = read_labels(folders)
    _check_classes(prepared, labels)
    rows = prepared.files()
    plan = _planned(prepared, rows, labels)

    def key() -> list[Any]:
        states = [[*label, *_state(label.path)] for label in labels]
        return ["labels", prepared.fingerprint, str(prepared.path.resolve()), states]

    with place_of(None, f"{prepared.name}-labelled", key) as (path, there):
        if there is not None:
            return there
        return _Additions(prepared, rows, plan, folders).write(Path(path), on_progress)


def with_labels_again(
    prepared: PreparedDataset, made_from: Mapping[str, Any], on_progress: OnProgress | None = None
) -> PreparedDataset:
    """Return a dataset with the labels that were added to it before; `made_from` is that of its ``meta.json``."""
    for folders in made_from.get("labels", []):
        prepared = with_labels(prepared, [Path(folder) for folder in folders], on_progress)
    return prepared


def _check_classes(prepared: PreparedDataset, labels: list[Labelled]) -> None:
    known = {label.label for label in labels}
    if len(prepared.classes) != 2 or not known <= set(prepared.classes):
        raise DataError(
            f"The labels say {', '.join(map(quoted, sorted(known)))}; the dataset {printable(prepared.name)} has the "
            f"classes {', '.join(map(quoted, prepared.classes))}. Labels fit a dataset of the two classes of the run "
            "that chose the images: give the `positive` that it was trained with."
        )


def _state(path: str) -> list[int]:
    """Return what tells that a file has changed, without reading it."""
    try:
        status = os.stat(path)  # noqa: PTH116 (of many files)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def _planned(prepared: PreparedDataset, rows: list[dict[str, str]], labels: list[Labelled]) -> _Plan:
    plan = _Plan()
    positions: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        positions.setdefault(row["sha256"], []).append(position)
    said: dict[str, set[str]] = {}
    for label in labels:
        said.setdefault(label.sha256, set()).add(label.label)
    plan.contradictory = sum(len(classes) > 1 for classes in said.values())
    train = set(prepared.indices("train").tolist())
    for sha256, classes in said.items():
        if len(classes) > 1 or sha256 not in positions:
            continue
        (name,) = classes
        code, found = prepared.classes.index(name), positions[sha256]
        if not train.issuperset(found):
            plan.elsewhere += 1
        elif all(prepared.labels[position] == code for position in found):
            plan.same += 1
        else:
            plan.changed |= dict.fromkeys(found, code)
    plan.added = [label for label in labels if label.sha256 not in positions and len(said[label.sha256]) == 1]
    return plan


class _Additions:
    """Writes a dataset with additions."""

    def __init__(
        self, prepared: PreparedDataset, rows: list[dict[str, str]], plan: _Plan, folders: Sequence[Path]
    ) -> None:
        self._prepared, self._plan, self._folders = prepared, plan, folders
        self._labels = np.array(prepared.labels)
        self._records = [
            ImageRecord(row["path"], row["folder"], row["sha256"], *(int(row[n]) for n in ("group", "width", "height")))
            for row in rows
        ]
        for position, code in plan.changed.items():
            self._labels[position] = code
            self._records[position] = self._records[position]._replace(folder=prepared.classes[code])
        looks = prepared.looks
        self._looks = None if looks is None else looks.tolist()
        not_train = prepared.split != 0
        # By both an image is known that must not come to the training part.
        self._known_looks = None if looks is None else distinct_looks(looks[not_train])
        self._known_pixels: set[bytes] = set()
        self._not_train = not_train.tolist()
        self._codes: list[int] = []
        self._rejected: list[tuple[str, str]] = []
        self._waiting: list[tuple[Labelled, Decoded]] = []
        self._there: set[str] = set()
        self._next_group = 1 + max((record.group for record in self._records), default=-1)

    def write(self, path: Path, on_progress: OnProgress | None) -> PreparedDataset:
        prepared = self._prepared
        with FilesWriter(path, prepared.shape) as writer:
            self._copy(writer)
            total = len({label[:3] for label in self._plan.added})
            with closing(self._decoded()) as found:
                for done, ready in enumerate(found, start=1):
                    self._waiting += ready
                    if len(self._waiting) >= _BLOCK:
                        self._append(writer)
                    if on_progress is not None:
                        on_progress(min(done, total), total, "Adding labelled images")
            self._append(writer)
            meta = prepared.meta
            made_from = meta.get("made_from")
            if made_from is not None:
                folders = [str(folder.absolute()) for folder in self._folders]
                made_from = {**made_from, "labels": [*made_from.get("labels", []), folders]}
            conflicts = []
            if (prepared.path / CONFLICTS).is_file():
                conflicts = find_conflicts([(r.path, r.folder, r.sha256) for r in self._records])
            return writer.finish(
                name=prepared.name,
                source=meta["source"],
                classes=prepared.classes,
                positive=prepared.positive,
                labels=np.concatenate([self._labels, np.array(self._codes, self._labels.dtype)]),
                split=np.concatenate([prepared.split, np.zeros(len(self._codes), np.uint8)]),
                files=self._records,
                rejected=[*prepared.rejected, *sorted(self._rejected)],
                seed=meta["seed"],
                warnings=[*prepared.warnings, *self._notes()],
                groups=meta.get("groups"),
                ignored=meta.get("ignored"),
                given=meta.get("split") == "given",
                conflicts=conflicts,
                made_from=made_from,
                looks=self._looks,
            )

    def _copy(self, writer: FilesWriter) -> None:
        for start in range(0, len(self._prepared), _BLOCK):
            block = np.array(self._prepared.images[start : start + _BLOCK])
            writer.append(block)
            for image, kept_apart in zip(block, self._not_train[start : start + _BLOCK], strict=True):
                if kept_apart:
                    self._known_pixels.add(hashlib.sha256(image.data).digest())

    def _decoded(self) -> Generator[list[tuple[Labelled, Decoded]], None, None]:
        """Yield of each source, in order, the images that are as they were when they were labelled."""
        given: list[list[Labelled]] = []
        count = len({label[:3] for label in self._plan.added})
        processes = 0 if count < FEW else min(cores(), count // (FEW // 2))
        with scratch("labels") as folder, Decoders(self._prepared.shape, processes) as decoders:
            ready: list[tuple[Labelled, Decoded]] = []
            missing: dict[int, Labelled] = {}
            number = -1
            with closing(decoders.decode(self._sources(given, folder))) as found:
                for decoded in found:
                    if decoded.number != number:
                        number, ready = decoded.number, []
                        missing = {label.page: label for label in given[number]}
                    for image in decoded.part.images:
                        label = missing.get(image.page)
                        if label is not None and label.sha256 == image.sha256:
                            ready.append((missing.pop(image.page), image))
                    for page, reason in decoded.part.rejected:
                        # Page 0 is the whole file.
                        for each in [page] if page else list(missing):
                            if each in missing:
                                self._rejected.append((missing.pop(each).name, reason))
                    if decoded.last:
                        self._rejected += [(label.name, _CHANGED) for label in missing.values()]
                        source = decoded.source
                        if isinstance(source, Member) and source.file != source.archive:
                            source.file.unlink(missing_ok=True)
                        yield ready

    def _sources(self, given: list[list[Labelled]], folder: Path) -> Iterator[Source]:
        """Yield the files and members of the labels, and note for each its labels; archives are read once."""
        for path, of_file in groupby(self._plan.added, key=lambda label: label.path):
            labels = list(of_file)
            if Path(path).is_dir():
                self._rejected += [(label.name, _PIXELS) for label in labels]
                continue
            plain = [label for label in labels if not label.member]
            if plain:
                given.append(plain)
                yield Path(path)
            inner = [label for label in labels if label.member]
            if inner:
                yield from self._members(Path(path), inner, given, folder)

    def _members(
        self, archive: Path, labels: list[Labelled], given: list[list[Labelled]], folder: Path
    ) -> Iterator[Source]:
        wanted: dict[tuple[str, int], list[Labelled]] = {}
        for label in labels:
            wanted.setdefault((label.member, label.nth), []).append(label)
        reason = _ABSENT
        for listed in members(archive, folder, lambda name, nth: (name, nth) in wanted):
            if not listed.name:
                reason = listed.reason or reason
            elif listed.member is not None and (listed.name, listed.nth) in wanted:
                given.append(wanted.pop((listed.name, listed.nth)))
                yield listed.member
        self._rejected += [(label.name, reason) for left in wanted.values() for label in left]

    def _append(self, writer: FilesWriter) -> None:
        """Append what waits, but equal images once, and none that is nearly one of the validation or test part."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        alike = np.zeros(len(waiting), dtype=bool)
        if self._known_looks is not None and len(self._known_looks):
            hashes = np.array([image.phash for _, image in waiting], dtype=np.uint64)
            alike = looks_like(hashes, self._known_looks)
        for (label, image), like in zip(waiting, alike.tolist(), strict=True):
            if image.sha256 in self._there:
                continue
            if like or hashlib.sha256(image.pixels.data).digest() in self._known_pixels:
                self._rejected.append((label.name, _LIKE))
                continue
            self._there.add(image.sha256)
            writer.append(image.pixels[None])
            group = self._next_group + len(self._codes)
            self._records.append(ImageRecord(label.name, label.label, image.sha256, group, image.width, image.height))
            self._codes.append(self._prepared.classes.index(label.label))
            if self._looks is not None:
                self._looks.append(image.phash)

    def _notes(self) -> list[str]:
        """Say what became of the labels."""
        plan = self._plan
        names = [self._prepared.classes[code] for code in self._codes]
        counts = ", ".join(f"{count} × {name}" for name, count in sorted(Counter(names).items()))
        notes = [
            f"{len(self._codes)} labelled images were added to the training part" + (f" ({counts})." if counts else ".")
        ]
        if plan.changed:
            notes.append(f"{len(plan.changed)} images of the training part have the label of a person now.")
        if plan.same:
            notes.append(f"{plan.same} labelled images are in the training part with that label already.")
        if plan.elsewhere:
            notes.append(
                f"{plan.elsewhere} labelled images are in the validation or test part, which stays as it is: a part "
                "whose labels are corrected where a model chose to look would flatter it."
            )
        if plan.contradictory:
            notes.append(f"{plan.contradictory} images have both labels, and are left out.")
        if self._rejected:
            reasons = Counter(reason for _, reason in self._rejected)
            shown = first_few((f"{count} × {reason}" for reason, count in reasons.most_common()), between="; ")
            notes.append(f"{len(self._rejected)} labelled images are left out, see rejected.csv: {shown}.")
        return notes
