"""Prepares a folder of class folders; the order of decoding, grouping and splitting is set here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from photoflux.data.checks import OnProgress, check_image_size, check_seed
from photoflux.data.conflicts import conflicts_in_words, find_conflicts
from photoflux.data.duplicates import group_duplicates
from photoflux.data.given_split import absent_classes, complete_split, twins_across
from photoflux.data.grouping import GroupTable, join_groups, match_groups
from photoflux.data.images.formats import FORMATS
from photoflux.data.images.parallel import decode_files
from photoflux.data.labels import AUTO, check_trainable, resolve_positive, to_labels
from photoflux.data.prepared import PreparedDataset
from photoflux.data.reasons import explaining
from photoflux.data.scanning import Found, Scan, scan_folder
from photoflux.data.shape import Shape
from photoflux.data.splitting import missing_parts, split_groups, uneven_parts
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.errors import DataError
from photoflux.system.names import first_few, printable, quoted, user_path

IMAGE_SIZE = 180


def prepare_folder(
    source: str | Path,
    dest: str | Path,
    *,
    positive: str | None = AUTO,
    image_size: int = IMAGE_SIZE,
    seed: int = 42,
    on_progress: OnProgress | None = None,
    processes: int | None = None,
    scan: Scan | None = None,
    groups: GroupTable | None = None,
    resplit: bool = False,
    made_from: Mapping[str, Any] | None = None,
) -> PreparedDataset:
    """Decode, group, split and write the images of a folder that holds one folder per class.

    Parameters
    ----------
    source, dest : str or Path
        The folder of class folders, which is only read, and the prepared dataset to make.
    positive : str or None
        The positive class; ``"auto"``: Photo or Photos if there is one; None: all classes as they are.
    image_size : int
        Height and width of the prepared images.
    seed : int
        Fixes the split.
    on_progress : callable, optional
        Called with (files done, files in all, what is being done).
    processes : int, optional
        How many processes decode; the result is the same for any.
    scan : Scan, optional
        What `scan_folder` returned for the source, where the caller has it already.
    groups : GroupTable, optional
        What `read_groups` returned: images of a group stay on one side of the split, as near-duplicates do.
    resplit : bool
        Whether the images of a folder that is split already are pooled and split again; only without `scan`.
    made_from : mapping, optional
        As in `FilesWriter.finish`.

    Raises
    ------
    DataError
        If the folder cannot be read or its classes cannot be trained, an image has no group although there are groups,
        or the destination cannot be written.
    """
    check_image_size(image_size)
    seed = check_seed(seed)
    source = user_path(source)
    scan = scan or scan_folder(source, resplit)
    files, folders, rejected = scan.files, scan.folders, list(scan.rejected)
    with explaining(source, rejected):
        _check_folders(source, folders, files)
        resolve_positive(positive, folders)
    given, notes = ({}, []) if groups is None else match_groups(groups, source, [found.path for found in files])
    with (
        FilesWriter(dest, Shape(3, image_size, image_size)) as writer,
        explaining(source, rejected),
    ):
        read = decode_into(writer, source, files, on_progress, processes)
        records = read.records
        rejected += read.rejected
        if not records:
            raise nothing_readable(source, rejected)
        names, codes = to_labels([record.folder for record in records], None)
        _check_folders(source, names, files, "with readable images ")
        notes += _notes_in_words(read.notes)
        notes += [*scan.notes, *_unread_folders([*scan.unread, *(folder for folder in folders if folder not in names)])]
        positive = resolve_positive(positive, names)
        classes, labels = to_labels([record.folder for record in records], positive)
        together = read.groups(codes)
        if groups is not None:
            together, joined = join_groups(together, [given.get(file.path, "") for file in read.found])
            notes += joined
        conflicts = find_conflicts([(record.path, record.folder, record.sha256) for record in records])
        notes += conflicts_in_words(conflicts)
        parts = [file.part for file in read.found if file.part is not None]
        if parts:
            expected = {file.part for file in files if file.part is not None}
            split = complete_split(parts, expected, codes, together, seed, printable(source))
            notes += absent_classes(codes, split, names)
            notes += twins_across(split, together, [record.path for record in records])
        else:
            split = split_groups(codes, together, seed)
            notes += missing_parts(codes, split, names, "different images" if groups is None else "groups")
            if groups is not None:
                notes += uneven_parts(codes, split, names)
        check_trainable(classes, labels, split, str(source))
        return writer.finish(
            name=source.resolve().name,
            source="folder",
            classes=classes,
            positive=positive,
            labels=labels,
            split=split,
            files=read.grouped(together),
            rejected=sorted(rejected),
            seed=seed,
            warnings=notes,
            groups=None if groups is None else groups.sha256,
            ignored=scan.ignored,
            given=bool(parts),
            conflicts=conflicts,
            made_from=made_from,
            looks=read.hashes,
        )


class Read(NamedTuple):
    """What was read: for each image its record (group 0), file and perceptual hash; the rejected and the noted."""

    records: list[ImageRecord]
    found: list[Found]
    hashes: list[int]
    rejected: list[tuple[str, str]]
    notes: list[tuple[str, str]]

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Return the group of each image, equal and nearly equal images in one; labels are from 0, (N,)."""
        digests = [record.sha256 for record in self.records]
        return group_duplicates(digests, np.array(self.hashes, dtype=np.uint64), labels)

    def grouped(self, groups: np.ndarray) -> Iterator[ImageRecord]:
        """Return the records with the group of each."""
        return (record._replace(group=int(group)) for record, group in zip(self.records, groups, strict=True))


def decode_into(
    writer: FilesWriter,
    source: Path,
    files: list[Found],
    on_progress: OnProgress | None = None,
    processes: int | None = None,
) -> Read:
    """Decode files of a folder to the size of a prepared dataset, and append them to it, in their order."""
    paths = [source / found.path for found in files]
    read = Read([], [], [], [], [])
    # Closed here, not when the exception that ended the work is forgotten: it holds processes.
    with closing(decode_files(paths, writer.shape, processes=processes)) as results:
        for index, decoded in results:
            found = files[index]
            read.rejected.extend((_page_name(found, page), reason) for page, reason in decoded.rejected)
            read.notes.extend((_page_name(found, page), note) for page, note in decoded.notes)
            if decoded.images:
                writer.append(np.stack([image.pixels for image in decoded.images]))
            for image in decoded.images:
                name = _page_name(found, image.page)
                read.records.append(ImageRecord(name, found.folder, image.sha256, 0, image.width, image.height))
                read.found.append(found)
                read.hashes.append(image.phash)
            if on_progress is not None:
                on_progress(index + 1, len(files), "Decoding images")
    return read


def _notes_in_words(noted: list[tuple[str, str]]) -> list[str]:
    first = {note: name for name, note in reversed(noted)}
    return [
        f"{count} image{'' if count == 1 else 's'}, the first is {quoted(first[note])}: {note}."
        for note, count in Counter(note for _, note in noted).items()
    ]


def _page_name(found: Found, page: int) -> str:
    return f"{found.path}#{page}" if page else found.path


def _check_folders(source: Path, folders: list[str], files: list[Found], which: str = "") -> None:
    if not folders:
        raise DataError(
            f"{source} has no class folders with files in them. Expected one folder of images per class, "
            f"such as {source}/Photo and {source}/Text."
        )
    if len(folders) == 1:
        raise DataError(
            f"{source} has a single class folder {which}({folders[0]}), expected two or more: there is nothing to "
            "distinguish. Add a folder of images of another class." + _inner_classes(source, files)
        )


def _inner_classes(source: Path, files: list[Found]) -> str:
    """Say where the classes may be, if the single folder holds folders: archives are often unpacked into one."""
    below = {tuple(file.path.split("/")[:2]) for file in files if file.path.count("/") > 1}
    if len({top for top, _ in below}) != 1 or len(below) < 2:
        return ""
    names = first_few(quoted(name) for _, name in sorted(below))
    (top,) = {top for top, _ in below}
    return f" It holds the folders {names}: if those are the classes, give {printable(source / top)}."


def _unread_folders(folders: list[str]) -> list[str]:
    return [
        f"Nothing in the class folder {quoted(folder)} could be read, so there is no such class."
        for folder in sorted(folders)
    ]


def nothing_readable(source: Path, rejected: list[tuple[str, str]]) -> DataError:
    """Return the error for a folder of which no file could be read."""
    name, reason = rejected[0]
    return DataError(
        f"No image in {source} can be read; {len(rejected)} files were rejected, the first is {printable(name)}: "
        f"{reason}. Expected {FORMATS} files."
    )
