"""The table of variants, files of your own like it, and what a name of a variant stands for."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from photoflux.errors import SettingError, unknown_name
from photoflux.model.architectures import NETWORK
from photoflux.model.networks import network_file
from photoflux.model.variant import Variant
from photoflux.system.names import printable, reason, user_path

# Bytes of a file of variants.
_MOST = 1 << 20


def julia_package() -> Path:
    """Return the folder of the Julia package: inside the installed wheel, or the root of the repository."""
    here = Path(__file__).parents[1]
    shipped = here / "PhotoFlux.jl"
    return shipped if shipped.is_dir() else here.parents[1]


def variants(path: str | Path | None = None) -> Mapping[str, Variant]:
    """Return the table of variants, or those of a file of your own: a mapping of name to `Variant`, in its order.

    Parameters
    ----------
    path : str or Path, optional
        A TOML file whose rows are like those of ``julia/variants.toml``: ``[name]`` and below it ``architecture``,
        ``hidden``, and whatever else is not as in `Variant`.

    Returns
    -------
    mapping of str to Variant
        It cannot be changed.

    Raises
    ------
    SettingError
        If the file cannot be read, or a row cannot be used.

    Examples
    --------
    >>> variants()["l2"].penalty["conv"]
    {'l2': 0.01}
    """
    return _table() if path is None else own_variants(user_path(path))


@cache
def _table() -> Mapping[str, Variant]:
    with (julia_package() / "julia" / "variants.toml").open("rb") as file:
        rows = tomllib.load(file)
    for row in rows.values():
        row |= row.pop("early_stopping", {})
    return MappingProxyType({name: Variant.from_dict({"name": name, **row}) for name, row in rows.items()})


def own_variants(path: Path) -> Mapping[str, Variant]:
    """Return the variants of a file; see `variants`."""
    shown = printable(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MOST + 1)
        if len(text) > _MOST:
            raise SettingError(f"{shown} has more than {_MOST} bytes: it is no file of variants.")
        rows = tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise SettingError(f"{shown} cannot be read: {error.strerror}. Name a TOML file with variants.") from error
    except (ValueError, RecursionError) as error:  # of UTF-8, and of TOML
        raise SettingError(f"{shown} is not TOML: {reason(error)}") from error
    found = {}
    for name, row in rows.items():
        try:
            found[name] = _own_variant(name, row)
        except SettingError as error:
            raise SettingError(f"{shown}, [{printable(name)}]: {error}") from error
    if not found:
        raise SettingError(f"{shown} has no variant. Begin one with [its-name], `architecture` and `hidden`.")
    return MappingProxyType(found)


def _own_variant(name: str, row: object) -> Variant:
    known = [field.name for field in dataclasses.fields(Variant) if field.name not in ("name", "patience", "chain")]
    if not isinstance(row, dict):
        raise SettingError(f"`{name}` must be a table [name] of {', '.join(known)}; received: {row!r}.")
    fields = dict(row)
    stopping = fields.pop("early_stopping", {})
    if not isinstance(stopping, dict) or (stopping and list(stopping) != ["patience"]):
        raise SettingError(f"`early_stopping` must be a table of `patience`; received: {stopping!r}.")
    for given in fields:
        if given not in known:
            raise unknown_name("field", given, [*known, "early_stopping"], " of a variant")
    missing = [given for given in ("architecture", "hidden") if given not in fields]
    if missing:
        raise SettingError(f"A variant must say its {' and '.join(missing)}; received: {', '.join(row) or 'nothing'}.")
    made = Variant(name, **fields, **stopping)
    if _table().get(name, made) != made:
        raise SettingError(f"The name {name} is that of another variant of the table. Take a name of your own.")
    return made


def variant(name: str | Path | Variant) -> Variant:
    """Return the variant of that name; a `Variant` is returned as it is.

    Parameters
    ----------
    name : str, Path or Variant
        A name of the table; ``"my.toml"``, a file with one variant; ``"my.toml:name"``, one of several; or
        ``"my_model.jl:build"``, a function of a Julia file that makes a network of your own: it is called with (width,
        height, channels) and the number of classes, and the file is run when there are images to train on.

    Returns
    -------
    Variant

    Raises
    ------
    SettingError
        If there is none; the message proposes the nearest.
    """
    if isinstance(name, Variant):
        return name
    network = network_file(name)
    if network is not None:
        return Variant(network.function, NETWORK, (), chain=network.as_chain())
    file, row = _file_and_row(name)
    if file is None:
        if name not in variants():
            raise unknown_name("variant", name, variants())
        return variants()[str(name)]
    rows = variants(file)
    if row is None and len(rows) > 1:
        known = ", ".join(rows)
        raise SettingError(f"{printable(file)} has {known}: say which, as in {printable(file)}:{next(iter(rows))}.")
    if row is not None and row not in rows:
        raise unknown_name("variant", row, rows, f" of {printable(file)}")
    return rows[row] if row is not None else next(iter(rows.values()))


def several_variants(names: str | Path | Variant | Iterable[str | Path | Variant]) -> list[Variant]:
    """Return the variants of names, see `variant`, or of names with commas; a file alone stands for all that it has."""
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    elif isinstance(names, Path | Variant):
        names = [names]
    found: list[Variant] = []
    for name in names:
        file, row = (None, None) if isinstance(name, Variant) else _file_and_row(name)
        found += [variant(name)] if file is None or row is not None else variants(file).values()
    return found


def _file_and_row(name: str | Path) -> tuple[Path | None, str | None]:
    """Take ``my.toml:name`` apart; the file is None of what names no file."""
    parts = re.fullmatch(r"(.*\.toml)(?::([^/\\]*))?", os.fspath(name), re.DOTALL | re.IGNORECASE)
    return (None, None) if parts is None else (Path(parts[1]), parts[2])
