"""`photoflux.prepare`: finds the kind of source and prepares it; a new kind of source is added here."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.cache import digest_of, place_of
from photoflux.data.checks import OnProgress, check_image_size, check_seed
from photoflux.data.labels import AUTO, NONE
from photoflux.data.prepared import MADE_FROM, PreparedDataset, is_prepared, open_prepared
from photoflux.data.sources.own import own_names, own_source
from photoflux.data.walking import absence, is_folder
from photoflux.errors import DataError, SettingError
from photoflux.system.kinds import check_table
from photoflux.system.names import class_name, printable, quoted, user_path

NAMES = ("demo", "cifar10")
_WHAT = {
    "prepared": "a prepared dataset, whose split is made",
    "arrays": "arrays",
    "demo": "the demo images",
    "cifar10": "CIFAR-10",
    "idx": "idx files",
    "folder": "a folder of class folders",
    "own": "a source of your own",
}
_ARCHIVES = (".zip", ".rar", ".7z", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz")
Source = str | Path | PreparedDataset | tuple[Any, Any]


def prepare(
    source: Source,
    dest: str | Path | None = None,
    *,
    positive: str | None = AUTO,
    image_size: int | None = None,
    seed: int = 42,
    groups: str | Path | None = None,
    resplit: bool = False,
    on_progress: OnProgress | None = None,
) -> PreparedDataset:
    """Return the prepared dataset of a source, made now or taken from the cache.

    Parameters
    ----------
    source : str, Path, PreparedDataset or tuple
        A folder of class folders; a folder or archive of CIFAR-10; a folder of MNIST-format idx files; a prepared
        dataset; ``"demo"`` (generated); ``"cifar10"`` (downloaded); ``"name:argument"`` of a source that was registered
        with `register_source`; or arrays ``(x, y)``. A folder called demo or cifar10 is written ``./demo``.
    dest : str or Path, optional
        The folder to make; by default one in the user's cache, reused as long as the source does not change.
    positive : str or None
        The class that counts as positive; ``"auto"``: Photo or Photos if there is one; None or ``"none"``: all classes
        as they are.
    image_size : int, optional
        Height and width; by default 180 for a folder, and what the images have for the others.
    seed : int
        Fixes the split.
    groups : str or Path, optional
        For a folder: a CSV file with the columns path and group, see `photoflux.data.grouping.read_groups`. Images of a
        group stay on one side of the split.
    resplit : bool
        For a folder: whether a split that it has already (train, validation and test folders) is not used, and all
        images are pooled and split again; see `photoflux.data.layouts.arrange`.
    on_progress : callable, optional
        Called with (done, in all, what is being done).

    Raises
    ------
    DataError
        If the source or the destination cannot be used.
    SettingError
        If an argument cannot be used.
    """
    seed = check_seed(seed)
    if image_size is not None:
        check_image_size(image_size)
    if positive is not None and not isinstance(positive, str):
        raise SettingError(f"`positive` must be 'auto', None or the name of a class; received: {positive!r}.")
    kind = kind_of(source)
    if groups is not None and kind != "folder":
        raise SettingError(
            f"`groups` needs a folder of class folders as its source; received: {_WHAT[kind]}. "
            + ("Give `groups` when you prepare the folder." if kind == "prepared" else "Leave `groups` out.")
        )
    if not isinstance(resplit, bool):
        raise SettingError(f"`resplit` must be True or False; received: {resplit!r}.")
    if resplit and kind != "folder":
        raise SettingError(f"`resplit` needs a folder of class folders as its source; received: {_WHAT[kind]}.")
    if kind == "prepared":
        return _as_prepared(source, dest, image_size, positive)
    size = None if image_size is None else int(image_size)
    settings: dict[str, Any] = {"positive": positive, "image_size": size, "seed": seed}
    if kind == "arrays":
        return _from_arrays(source, dest, settings, on_progress)
    if kind == "own":
        return _from_own(str(source), dest, settings)
    if kind == "folder":
        return _from_folder(user_path(str(source)), dest, {**settings, "resplit": resplit}, groups, on_progress)
    return _from_files(kind, source, dest, settings, on_progress)


def homonym(source: Source) -> str | None:
    """Return a note for a named source beside which there is a folder of that name, which may have been meant."""
    used = {"demo": "the generated demo images", "cifar10": "the CIFAR-10 that is downloaded"}
    if isinstance(source, str) and is_folder(source) and (source in NAMES or own_source(source) is not None):
        meant = used.get(source, "the source that is registered under that name")
        return f"{source} means {meant}; for your folder of that name write ./{source}."
    return None


def kind_of(source: Source) -> str:
    """Return what a source is: prepared, arrays, demo, cifar10, idx, folder or own, which is a registered one.

    Raises
    ------
    DataError
        If it is none of them.
    """
    if isinstance(source, PreparedDataset):
        return "prepared"
    if isinstance(source, tuple | list):
        if len(source) != 2:
            raise DataError(f"A source of arrays must be (x, y); received {len(source)} entries.")
        return "arrays"
    if not isinstance(source, str | Path):
        raise DataError(
            "A source must be a path, 'demo', 'cifar10', a prepared dataset or arrays (x, y); "
            f"received: {type(source).__name__}."
        )
    if source in NAMES:
        return str(source)
    if own_source(source) is not None:
        return "own"
    if not str(source).strip():
        raise DataError("The source is empty, expected a folder of class folders, 'demo' or 'cifar10'.")
    return _kind_of_path(user_path(source))


def _kind_of_path(path: Path) -> str:
    from photoflux.data.sources.cifar10 import check_archive, find_cifar10
    from photoflux.data.sources.idx import find_idx

    absent = absence(path)
    if absent is not None:
        own = own_names()
        near = difflib.get_close_matches(str(path).partition(":")[0], (*NAMES, *own), n=1, cutoff=0.7)
        hint = f" Did you mean {near[0]}?" if near else ""
        registered = f" Registered sources: {', '.join(own)}." if own else ""
        raise DataError(f"{absent}. Expected a folder of images, 'demo' or 'cifar10'.{registered}{hint}")
    if is_folder(path) and is_prepared(path):
        return "prepared"
    if find_cifar10(path) is not None:
        if not is_folder(path):
            check_archive(path)
        return "cifar10"
    if not is_folder(path) and path.name.lower().endswith(_ARCHIVES):
        raise DataError(
            f"{printable(path)} is an archive. Expected a folder that holds one folder of images per class: unpack it "
            "and give the folder that comes out."
        )
    if not is_folder(path):
        raise DataError(f"{printable(path)} is a file, expected a folder that holds one folder of images per class.")
    if find_idx(path):
        return "idx"
    return "folder"


def _as_prepared(
    source: Source, dest: str | Path | None, image_size: int | None, positive: str | None
) -> PreparedDataset:
    prepared = source if isinstance(source, PreparedDataset) else open_prepared(str(source))
    if prepared.meta.get("unsplit") is True:
        raise DataError(
            f"{prepared.path} was prepared for evaluation and has no training part. Prepare it from its source."
        )
    if dest is not None and user_path(dest).resolve() != prepared.path.resolve():
        raise DataError(f"{prepared.path} is a prepared dataset already; copy the folder, or prepare from its source.")
    if image_size is not None and (prepared.height, prepared.width) != (image_size, image_size):
        raise DataError(
            f"{prepared.path} holds images of {prepared.width} × {prepared.height}, `image_size` says {image_size}. "
            "Leave `image_size` out, or prepare from its source."
        )
    if positive not in (AUTO, NONE, None) and class_name(positive) != prepared.positive:
        raise DataError(
            f"{prepared.path} has the classes {', '.join(prepared.classes)}, `positive` says {positive!r}. "
            "Leave `positive` out, or prepare from its source."
        )
    return prepared


def _made_from(
    kind: str, path: Path | None, settings: dict[str, Any], groups: str | Path | None = None
) -> dict[str, Any]:
    """Return what ``meta.json`` says of a source, so that `prepare_again` can repeat it; absolute paths."""
    given = {"path": path, "groups": groups}
    places = {name: place and str(user_path(place).absolute()) for name, place in given.items()}
    return {"kind": kind, **places, **settings}


def prepare_again(made_from: Mapping[str, Any], on_progress: OnProgress | None = None) -> PreparedDataset:
    """Prepare a source as it was prepared before; the result is in the user's cache.

    Parameters
    ----------
    made_from : mapping
        The entry of that name in a dataset's ``meta.json``.
    on_progress : callable, optional
        As in `prepare`.

    Raises
    ------
    DataError
        If it says something else than `prepare` writes, the source was arrays, is no longer there, or is another kind
        of source now.
    """
    from photoflux.data.additions import with_labels_again

    settings = dict(made_from)
    try:
        check_table(settings, MADE_FROM, "made_from")
    except TypeError as error:
        raise DataError(f"What it says of its source is not what PhotoFlux writes: {error}.") from error
    # A file may have come from somebody else: `dest`, say, is not for it to choose.
    strange = [*(settings.keys() - MADE_FROM.keys()), *({"kind", "path", "seed"} - settings.keys())]
    kind, path = settings.pop("kind", None), settings.pop("path", None)
    if strange or kind not in _WHAT or ((path is None) != (kind in ("arrays", *NAMES)) and kind != "cifar10"):
        raise DataError(
            f"What it says of its source is not what PhotoFlux writes: {quoted(str(dict(made_from))[:300])}. Prepare "
            "it yourself, from a source that you know."
        )
    settings.pop("labels", None)
    if kind == "arrays":
        raise DataError("It was made from arrays in memory, which only the caller has.")
    if kind == "own":
        # The text comes from a file, and a user's own code may do anything with it.
        raise DataError(f"A source of your own is not read because a file names it: give {quoted(path)} as the data.")
    source = kind if path is None else path
    found = kind_of(source)
    if found != kind:
        raise DataError(f"{source} was {_WHAT[kind]}, now it is {_WHAT[found]}.")
    return with_labels_again(prepare(source, **settings, on_progress=on_progress), made_from, on_progress)


def _from_folder(
    source: Path,
    dest: str | Path | None,
    settings: dict[str, Any],
    groups: str | Path | None,
    on_progress: OnProgress | None,
) -> PreparedDataset:
    from photoflux.data.grouping import read_groups
    from photoflux.data.scanning import scan_folder
    from photoflux.data.sources.folder import IMAGE_SIZE, prepare_folder

    settings = {**settings, "image_size": IMAGE_SIZE if settings["image_size"] is None else settings["image_size"]}
    scan = scan_folder(source, settings["resplit"])
    table = None if groups is None else read_groups(groups)
    origin = _made_from("folder", source, settings, groups)

    def key() -> list[Any]:
        digest = digest_of([*scan.files, *scan.rejected])
        return ["folder", str(source.resolve()), digest, settings, *([] if table is None else [table.sha256])]

    with place_of(dest, source.resolve().name, key) as (path, there):
        if there is not None:
            return there
        return prepare_folder(
            source, path, scan=scan, groups=table, on_progress=on_progress, made_from=origin, **settings
        )


def _from_own(source: str, dest: str | Path | None, settings: dict[str, Any]) -> PreparedDataset:
    from photoflux.data.sources.own_reading import prepare_own

    own = own_source(source)
    assert own is not None
    # Its path is the source as it was given: `prepare_again` does not use it.
    return prepare_own(own, dest, {"kind": "own", "path": source, **settings}, settings)


def _from_files(
    kind: str, source: Source, dest: str | Path | None, settings: dict[str, Any], on_progress: OnProgress | None
) -> PreparedDataset:
    """Prepare one of the named datasets, or local files of one."""
    from photoflux.data.sources.cifar10 import cifar10_files, find_cifar10, prepare_cifar10
    from photoflux.data.sources.demo import prepare_demo
    from photoflux.data.sources.idx import find_idx, prepare_idx

    local = None if source in NAMES else user_path(str(source))
    origin = _made_from(kind, local, settings)

    def key() -> list[Any]:
        if local is None:
            return [kind, settings]
        place = find_cifar10(local) if kind == "cifar10" else None
        files = sorted(find_idx(local).values()) if place is None else cifar10_files(place)
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return [kind, states, settings]

    with place_of(dest, kind, key) as (path, there):
        if there is not None:
            return there
        if kind == "demo":
            return prepare_demo(path, on_progress=on_progress, made_from=origin, **settings)
        if kind == "cifar10":
            return prepare_cifar10(local, path, on_progress=on_progress, made_from=origin, **settings)
        assert local is not None
        return prepare_idx(local, path, on_progress=on_progress, made_from=origin, **settings)


def _from_arrays(
    source: Any, dest: str | Path | None, settings: dict[str, Any], on_progress: OnProgress | None
) -> PreparedDataset:
    from photoflux.data.sources.arrays import as_array, prepare_arrays

    x, y = as_array("x", source[0]), as_array("y", source[1])

    origin = _made_from("arrays", None, settings)

    def key() -> list[Any]:
        digest = hashlib.sha256()
        for array in (x, y):
            digest.update(f"{array.dtype} {array.shape}".encode())
            if not array.dtype.hasobject:
                digest.update(np.ascontiguousarray(array).data)
        return ["arrays", digest.hexdigest(), settings]

    with place_of(dest, "arrays", key) as (path, there):
        if there is not None:
            return there
        return prepare_arrays(x, y, path, on_progress=on_progress, made_from=origin, **settings)
