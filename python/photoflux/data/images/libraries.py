"""Finds the libraries that some formats need, when a file of such a format is met; which ones is decided here."""

from __future__ import annotations

import importlib
from typing import Any

import PIL
from PIL import features

from photoflux.data.images.formats import RefusedError

# Kind of file: what it is, the module, and the package that has it; all are in the extra "formats".
_PACKAGES = {
    "HEIF": ("a HEIC or HEIF image", "pillow_heif", "pillow-heif"),
    "PDF": ("a PDF document", "pypdfium2", "pypdfium2"),
}
# Kind of file: what it is, Pillow's name of the feature, and the Pillow whose wheels have it.
_BUILT_IN = {
    "AVIF": ("an AVIF image", "avif", "11.3"),
    "JPEG2000": ("a JPEG 2000 image", "jpg_2000", "10.1"),
}


def library_for(kind: str) -> Any:
    """Return the module that reads a kind of file, None where Pillow does.

    Raises
    ------
    RefusedError
        If it is not installed, or not a part of this Pillow, with what to install.
    """
    if kind in _BUILT_IN:
        what, feature, version = _BUILT_IN[kind]
        if not features.check(feature):
            raise RefusedError(
                f"{what}, which this Pillow ({PIL.__version__}) was built without: "
                f"install one that has it, pip install --upgrade 'pillow>={version}'"
            )
    if kind not in _PACKAGES:
        return None
    what, module, package = _PACKAGES[kind]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RefusedError(
            f"{what}, which needs the package {package}: install it, pip install 'photoflux[formats]'"
        ) from error
