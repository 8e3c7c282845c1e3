"""Recognises file formats by content; the list of formats that are read, and of hints for others, is here."""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import BinaryIO

from photoflux.data.images.tiffs import camera_raw

FORMATS = "JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, AVIF, HEIC or PDF"
_CONVERT = "convert it to PNG or TIFF"
_DEVELOP = "develop it and export it as TIFF, PNG or JPEG"
_PAGES = "export its pages as PNG or TIFF"
_UNPACK = "unpack it into the folder"
_NOT_AN_IMAGE = "not an image"

_READ = (
    ("JPEG", re.compile(rb"\xff\xd8\xff(?!\xf7)")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\x00|MM\x00[*+]")),
    ("BMP", re.compile(rb"BM")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("JPEG2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n(?!....ftyp(jpm |mjp2))|\xff\x4f\xff\x51", re.DOTALL)),
    # The brands of the file stand behind the first and its version.
    ("AVIF", re.compile(rb"....ftyp(avi[fs]|.{8}(....){0,15}?avi[fs])", re.DOTALL)),
    ("HEIF", re.compile(rb"....ftyp(he|mif|msf1)", re.DOTALL)),
    # Not the first member of an archive.
    ("PDF", re.compile(rb"(?!PK\x03\x04|.{257}ustar).{0,1000}?%PDF-", re.DOTALL)),
)
# Names of Pillow that are not the format's.
_WORDS = {"JPEG2000": "JPEG 2000", "HEIF": "HEIC"}
HEAD = 4096
# Pattern, what it is, what would help. The first that fits counts.
_OTHERS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE if pattern.startswith(b"(?#i)") else re.DOTALL), what, advice)
    for pattern, what, advice in (
        (rb"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file of layers or frames (JPM or MJ2)", _CONVERT),
        (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "a JPEG XL image", _CONVERT),
        (rb"\xff\xd8\xff\xf7", "a JPEG-LS image", _CONVERT),
        (rb"II\xbc", "a JPEG XR image", _CONVERT),
        (rb"....ftypcrx ", "a camera raw file (Canon CR3)", _DEVELOP),
        (rb"....ftyp(M4A|M4B)", "a sound file", _NOT_AN_IMAGE),
        (rb"....(ftyp|moov|mdat|wide|free|skip)", "a video (MP4 or MOV)", _NOT_AN_IMAGE),
        (rb"(II|MM).{4}HEAPCCDR", "a camera raw file (Canon CRW)", _DEVELOP),
        (rb"FUJIFILMCCD-RAW", "a camera raw file (Fujifilm RAF)", _DEVELOP),
        (rb"IIRO|IIRS|MMOR", "a camera raw file (Olympus ORF)", _DEVELOP),
        (rb"IIU\0", "a camera raw file (Panasonic RW2)", _DEVELOP),
        (rb"FOVb", "a camera raw file (Sigma X3F)", _DEVELOP),
        (rb"\0MRM", "a camera raw file (Minolta MRW)", _DEVELOP),
        (rb"%!PS|\xc5\xd0\xd3\xc6|\x04%!PS", "a PostScript or EPS drawing", _CONVERT),
        (rb"AT&TFORM", "a DjVu document", _PAGES),
        (rb"8BPS", "a Photoshop document (PSD)", _CONVERT),
        (rb"gimp xcf", "a GIMP document (XCF)", _CONVERT),
        (rb"v/1\x01", "an OpenEXR image", _CONVERT),
        (rb"#\?RADIANCE|#\?RGBE", "a Radiance HDR image", _CONVERT),
        (rb"P[1-7][ \t\r\n#]", "a PNM image (PBM, PGM, PPM or PAM)", _CONVERT),
        (rb"P[Ff]\n", "a PFM image", _CONVERT),
        (rb"\0\0\x01\0[\x01-\xff]\0", "a Windows icon (ICO)", _CONVERT),
        (rb"\0\0\x02\0[\x01-\xff]\0", "a Windows cursor (CUR)", _CONVERT),
        (rb"icns", "an icon of macOS (ICNS)", _CONVERT),
        (rb".{128}DICM", "a DICOM image", _CONVERT),
        (rb"SIMPLE  =", "a FITS image", _CONVERT),
        (rb"DDS ", "a DirectDraw texture (DDS)", _CONVERT),
        (rb"qoif", "a QOI image", _CONVERT),
        (rb"BPG\xfb", "a BPG image", _CONVERT),
        (rb"FLIF", "a FLIF image", _CONVERT),
        (rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "a PCX image", _CONVERT),
        (rb"\x59\xa6\x6a\x95", "a Sun raster image", _CONVERT),
        (rb"\x01\xda[\0\x01][\x01\x02]", "an SGI image", _CONVERT),
        (rb"/\* XPM \*/", "an XPM image", _CONVERT),
        (rb"#define \S+_width ", "an XBM image", _CONVERT),
        (rb"\x8aMNG|\x8bJNG", "an MNG or JNG image", _CONVERT),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile", _CONVERT),
        (rb"RIFF....CDR", "a CorelDRAW drawing", _CONVERT),
        (rb"AC10\d\d", "an AutoCAD drawing (DWG)", _CONVERT),
        (rb"RIFF....AVI |\x1aE\xdf\xa3|FLV\x01|\0\0\x01[\xba\xb3]|0&\xb2u", "a video", _NOT_AN_IMAGE),
        (rb"RIFF....WAVE|ID3|OggS|fLaC", "a sound file", _NOT_AN_IMAGE),
        (rb"PK\x03\x04.{0,4000}(word/|xl/|ppt/|mimetypeapplication/vnd\.oasis|visio/)", "an Office document", _PAGES),
        (rb"PK\x03\x04.{0,100}mimetypeapplication/epub", "an EPUB book", _PAGES),
        (
            rb"PK\x03\x04.{0,100}mimetype(application/x-krita|image/openraster)",
            "a layered image (Krita, ORA)",
            _CONVERT,
        ),
        (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive", _UNPACK),
        (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
        (rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|\x1f\x9d", "a compressed file (gzip or the like)", _UNPACK),
        (rb".{257}ustar", "a tar archive", _UNPACK),
        (
            rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "a Microsoft compound file (an old Office document, or Thumbs.db of Windows)",
            "if it is a document, " + _PAGES,
        ),
        (rb"\{\\rtf", "a text document (RTF)", _PAGES),
        (rb"\0\x05\x16[\x07\0]", "a resource fork of macOS beside the file itself", "it can be deleted"),
        (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` there"),
        (rb"/annex/objects/|\.\./?.{0,200}/annex/objects/", "a git-annex pointer", "run `git annex get` there"),
        (
            rb"\x4c\0\0\0\x01\x14\x02\0|\[InternetShortcut",
            "a link of Windows, not the file itself",
            "copy the file itself",
        ),
        (rb"MZ|\x7fELF|\xcf\xfa\xed\xfe", "a program", _NOT_AN_IMAGE),
        (rb"SQLite format 3", "a database", _NOT_AN_IMAGE),
        (rb"\x93NUMPY", "a NumPy array", "save it as an image, or give arrays to `photoflux.prepare_arrays`"),
        (rb"\x89HDF\r\n", "an HDF5 file", _CONVERT),
        (rb"bplist00", "a property list of macOS", _NOT_AN_IMAGE),
        (
            rb"(?#i)(\xef\xbb\xbf)?\s*(<!--.{0,1500}-->\s*|<\?xml[^>]{0,200}>\s*)?<(!doctype\s+html|html|head|body)\b",
            "an HTML page, perhaps the message of a failed download",
            "download the file again",
        ),
        (
            rb"(?#i)(\xef\xbb\xbf)?\s*(<\?xml.{0,1500}|<!--.{0,1500}|<!doctype\s+svg.{0,1500})?<svg\b",
            "an SVG drawing",
            _CONVERT,
        ),
        (rb"(\xef\xbb\xbf)?\s*<(\?xml|\?xpacket|x:xmpmeta)", "an XML file", _NOT_AN_IMAGE),
        (rb"-----BEGIN |data:image/", "text that encodes a file", "decode it"),
    )
)


class RefusedError(Exception):
    """Carries the reason why a file or page is left out."""


def in_words(kind: str) -> str:
    """Return a format's name as people write it, given Pillow's."""
    return _WORDS.get(kind, kind)


def known_format(head: bytes) -> str | None:
    """Return which of the formats that are read a file begins as, by Pillow's name for it."""
    return next((name for name, signature in _READ if signature.match(head)), None)


def recognise(file: BinaryIO) -> str:
    """Return which of the formats that are read a file is, by Pillow's name for it.

    Raises
    ------
    RefusedError
        For anything else, with what it is and what would help.
    """
    file.seek(0)
    head = file.read(HEAD)
    name = known_format(head)
    if name == "TIFF":
        raw = camera_raw(file)
        if raw is not None:
            raise RefusedError(f"{raw}, which is not read: {_DEVELOP}")
    if name is not None:
        return name
    for pattern, what, advice in _OTHERS:
        if pattern.match(head):
            raise RefusedError(
                f"{what}: {advice}" if advice == _NOT_AN_IMAGE else f"{what}, which is not read: {advice}"
            )
    file.seek(0)
    blocks = iter(lambda: file.read(1 << 20), b"")
    if not head.strip(b"\0") and not any(block.strip(b"\0") for block in blocks):
        raise RefusedError("holds nothing but zeros, as after a failed copy or a full disk: copy it again")
    if _is_targa(file, head):
        raise RefusedError(f"a TGA image, which is not read: {_CONVERT}")
    if _is_text(head):
        raise RefusedError("a text file: not an image")
    raise RefusedError(f"not a {FORMATS} file, and nothing else that is known")


def _is_targa(file: BinaryIO, head: bytes) -> bool:
    file.seek(0, 2)
    file.seek(max(0, file.tell() - 18))
    if file.read(16) == b"TRUEVISION-XFILE":
        return True
    # Of version 1: an image type that exists, no or a plain palette, and a depth that exists.
    return len(head) > 18 and head[1] in (0, 1) and head[2] in (1, 2, 3, 9, 10, 11) and head[16] in (8, 16, 24, 32)


def _is_text(head: bytes) -> bool:
    for encoding in ("utf-16",) if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8", "latin-1"):
        with contextlib.suppress(UnicodeDecodeError):
            # Where there is more of the file, a character may be cut off at the end.
            whole = encoding == "utf-8" and len(head) < HEAD
            text = codecs.getincrementaldecoder(encoding)().decode(head, final=whole)
            if all(character.isprintable() or character in "\t\r\n\f\x85\xa0\xad\ufeff" for character in text):
                return True
    return False
