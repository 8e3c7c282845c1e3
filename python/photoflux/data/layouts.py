"""Decides what the folders of a source are: classes, or the parts of an existing split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from photoflux.data.part_names import TEST, TRAIN, VALIDATION, parts_of
from photoflux.errors import DataError
from photoflux.system.names import class_name, first_few, printable, quoted

BESIDE = "beside the class folders, expected inside one"
_POOL = "`--resplit` (`resplit=True`) to"
_SHOWN = 4
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}


class Layout(NamedTuple):
    """How the files of a folder are to be read.

    Attributes
    ----------
    classes : dict of str to str
        The class of each file that has one, by its path.
    parts : dict of str to str
        The part of each of these, where the folder is split already; else empty.
    notes : list of str
        The split in words.
    folders : set of str
        The names of the class folders, as they are on the disk.
    """

    classes: dict[str, str]
    parts: dict[str, str]
    notes: list[str]
    folders: set[str]


class _Tree:
    """The two upper levels of folders that have files."""

    def __init__(self, files: Iterable[str]) -> None:
        self.paths = [(path, tuple(path.split("/"))) for path in files]
        self.below: dict[str, set[str]] = {}
        self.direct: set[str] = set()  # upper folders that images lie in directly
        self.images: set[str] = set()  # upper folders that have images at all, by their names
        for path, levels in self.paths:
            if len(levels) < 2:
                continue
            inner = self.below.setdefault(levels[0], set())
            image = PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
            if len(levels) > 2:
                inner.add(levels[1])
            elif image:
                self.direct.add(levels[0])
            if image:
                self.images.add(levels[0])


def arrange(source: Path, files: Sequence[str], resplit: bool = False) -> Layout:
    """Find out which folders are the classes, and whether the folder is split already.

    Parameters
    ----------
    source : Path
        The folder, for messages.
    files : sequence of str
        The paths of its files, relative to it.
    resplit : bool
        Whether parts, and equal folders in every class folder, are pooled.

    Raises
    ------
    DataError
        If the parts do not have the same classes, or the folders can be read in two ways.
    """
    tree = _Tree(files)
    upper = parts_of(tree.below)
    if upper:
        return _parts_first(source, tree, upper, resplit)
    inner = {folder: parts_of(names) for folder, names in tree.below.items()}
    split = [folder for folder, parts in inner.items() if parts and set(parts) == tree.below[folder]]
    if split and not resplit:
        _check_inner(source, tree, inner, split)
        classes = {path: class_name(levels[0]) for path, levels in tree.paths if len(levels) > 2}
        parts = {path: inner[levels[0]][levels[1]] for path, levels in tree.paths if len(levels) > 2}
        return Layout(classes, parts, [_in_words(parts.values(), sorted(inner[split[0]]))], set(tree.below))
    if not resplit:
        _ask_about_equal_folders(source, tree)
    return Layout(
        {path: class_name(levels[0]) for path, levels in tree.paths if len(levels) > 1}, {}, [], set(tree.below)
    )


def _parts_first(source: Path, tree: _Tree, upper: Mapping[str, str], resplit: bool) -> Layout:
    names = _listed(upper)
    if not any(tree.below[folder] for folder in upper):
        raise DataError(
            f"The folders {names} in {printable(source)} look like the parts of a split, and hold images without class "
            f"folders. Expected one folder per class in each, such as {printable(source / min(upper) / 'Photo')}."
        )
    others = sorted(folder for folder in tree.images if folder not in upper)
    if others:
        raise DataError(
            f"{printable(source)} is split already ({names}), and has images in {_listed(others)} too, which is no "
            "part. Move it elsewhere, or into one of the parts."
        )
    labelled = {folder: part for folder, part in upper.items() if tree.below[folder]}
    classes: dict[str, str] = {}
    parts: dict[str, str] = {}
    for path, levels in tree.paths:
        if len(levels) > 2 and levels[0] in labelled:
            classes[path], parts[path] = class_name(levels[1]), labelled[levels[0]]
    notes = [
        f"The images in {quoted(folder)} are in no class folder, so they have no class and are left out."
        for folder in sorted(set(upper) - set(labelled))
    ]
    folders: set[str] = set().union(*(tree.below[folder] for folder in labelled))
    if resplit or set(labelled.values()) == {TRAIN}:
        return Layout(classes, {}, notes, folders)
    if TRAIN not in labelled.values():
        raise DataError(f"{printable(source)} is split already ({names}), and has no class folders to train on.")
    of_part = {
        part: {class_name(name) for folder in labelled if labelled[folder] == part for name in tree.below[folder]}
        for part in set(labelled.values())
    }
    every: set[str] = set().union(*of_part.values())
    for part in sorted(of_part):
        missing = sorted(every - of_part[part])
        if missing:
            lacking = _listed(folder for folder in labelled if labelled[folder] == part)
            raise DataError(
                f"{printable(source)} is split already ({names}), and its parts must have the same classes; {lacking} "
                f"lacks {_listed(missing)}. Add what is missing, rename what is named differently, or remove it from "
                f"the other parts. Use {_POOL} pool all images and split them again."
            )
    return Layout(classes, parts, [*notes, _in_words(parts.values(), sorted(labelled))], folders)


def _check_inner(source: Path, tree: _Tree, inner: Mapping[str, Mapping[str, str]], split: Sequence[str]) -> None:
    """Refuse class folders of which some are split and others are not, or differently."""
    kinds = {folder: frozenset(inner[folder].values()) for folder in split}
    odd = sorted(
        folder
        for folder in tree.images
        if folder not in split or folder in tree.direct or kinds[folder] != kinds[split[0]]
    )
    if odd:
        raise DataError(
            f"The class folder {quoted(split[0])} in {printable(source)} is split already "
            f"({_listed(inner[split[0]])}), and {_listed(odd)} is not, or differently. Give every class folder the "
            f"same parts and no images beside them. Use {_POOL} pool all images of each class folder and split them "
            "again."
        )


def _ask_about_equal_folders(source: Path, tree: _Tree) -> None:
    folders = sorted(tree.images)
    if len(folders) < 2 or tree.direct:
        return
    below = [{class_name(name) for name in tree.below[folder]} for folder in folders]
    if len(below[0]) < 2 or any(names != below[0] for names in below):
        return
    raise DataError(
        f"Which folders are the classes? Each of {_listed(folders)} in {printable(source)} holds the same folders, "
        f"{_listed(below[0])}. If {_listed(folders)} are the classes: use {_POOL} pool what is in each. If "
        f"{_listed(below[0])} are, put all images of one into one folder, and give a table with `--groups` if those of "
        f"{quoted(folders[0])} are to stay together."
    )


def _in_words(parts: Iterable[str], folders: Sequence[str]) -> str:
    present = set(parts)
    text = f"The folder is split already, and this split is used: {_listed(folders)}."
    if present == {TRAIN, TEST}:
        text += " A tenth of the training images is the validation part."
    elif present == {TRAIN, VALIDATION}:
        text += (
            " It has no test part: its validation images are the test part, and a tenth of the training images is the "
            "validation part."
        )
    return text + " `--resplit` pools all images and splits them again."


def _listed(names: Iterable[str]) -> str:
    return first_few(map(quoted, sorted(names)), _SHOWN)
