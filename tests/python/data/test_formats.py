"""What a file is, by its content; and metadata that costs no pixels."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from photoflux.data.images import formats
from photoflux.data.images.decoding import decode_file
from photoflux.data.images.png import DAMAGED_TRANSPARENCY
from photoflux.data.shape import Shape

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def archive(kind: str, *names: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("a"))
    else:
        with zipfile.ZipFile(buffer, "w") as file:
            for name in names or ("a.txt",):
                file.writestr(name, "text")
    return buffer.getvalue()


def saved(kind: str, image: Image.Image = PICTURE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FTYP = b"\0\0\0\x1cftyp"
REFUSED = {
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjpm \0\0\0\0jpm ", "convert it to PNG or TIFF"),
    "MJ2": (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypmjp2\0\0\0\0mjp2", "convert it to PNG or TIFF"),
    "JPEG XL": (b"\xff\x0a\xfa\x1f", "convert it"),
    "JPEG-LS": (b"\xff\xd8\xff\xf7\x00\x0b", "convert it"),
    "Canon CR3": (FTYP + b"crx \0\0\0\x01crx isom", "develop it"),
    "Canon CRW": (b"II\x1a\0\0\0HEAPCCDR\2\0\1\0", "develop it"),
    "Fujifilm RAF": (b"FUJIFILMCCD-RAW 0201FF", "develop it"),
    "Panasonic RW2": (b"IIU\0\x18\0\0\0", "develop it"),
    "Olympus ORF": (b"IIRO\x08\0\0\0", "develop it"),
    "Sigma X3F": (b"FOVb\0\0\2\0", "develop it"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "convert it"),
    "an SVG": (b"<?xml version='1.0'?>\n<!DOCTYPE svg PUBLIC '-//W3C'>\n<svg width='1'>", "convert it"),
    "Photoshop": (b"8BPS\0\1", "convert it"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0", "convert it"),
    "EPS": (b"\xc5\xd0\xd3\xc6\x1e\0\0\0", "convert it"),
    "DjVu": (b"AT&TFORM\0\0\0\0DJVU", "export its pages"),
    "OpenEXR": (b"v/1\x01\2\0\0\0", "convert it"),
    "PNM": (saved("PPM"), "convert it"),
    "PBM": (b"P4\n# by hand\n8 8\n" + b"\0" * 8, "convert it"),
    "ICO": (saved("ICO"), "convert it"),
    "TGA": (saved("TGA"), "convert it"),
    "PCX": (saved("PCX"), "convert it"),
    "SGI": (saved("SGI"), "convert it"),
    "DDS": (saved("DDS"), "convert it"),
    "DICOM": (b"\0" * 128 + b"DICM", "convert it"),
    "ZIP": (archive("zip"), "unpack it into the folder"),
    "Office document": (archive("zip", "[Content_Types].xml", "word/document.xml"), "export its pages"),
    "RAR": (b"Rar!\x1a\x07\1\0", "unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "unpack it"),
    "gzip": (gzip.compress(b"text"), "unpack it"),
    "tar": (archive("tar"), "unpack it"),
    "old Office document": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 30, "export its pages"),
    "HTML page": (b"\n<!DOCTYPE html><html><svg/></html>", "download the file again"),
    "an HTML page": (b"<html><head><title>403 Forbidden", "download the file again"),
    "XML": (b"<?xml version='1.0'?><x:xmpmeta/>", "not an image"),
    "video": (FTYP + b"isom\0\0\2\0isomiso2mp41", "not an image"),
    "MOV": (FTYP + b"qt  \0\0\0\0qt  ", "not an image"),
    "a video": (b"RIFF\0\0\0\0AVI LIST", "not an image"),
    "video of Matroska": (b"\x1a\x45\xdf\xa3\1\0", "not an image"),
    "sound": (b"ID3\3\0", "not an image"),
    "a text file": (b"Hello, Gr\xc3\xbc\xc3\x9fe\n", "not an image"),
    "text file": ("Grüße aus Köln".encode("utf-16"), "not an image"),
    "text in latin-1": (b"Gr\xfc\xdfe", "not an image"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 12345\n", "git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s1--ab.jpg\n", "git annex get"),
    "resource fork": (b"\0\5\x16\7\0\2\0\0Mac OS X", "it can be deleted"),
    "nothing but zeros": (b"\0" * 70_000, "copy it again"),
    "an empty file": (b"", "(0 bytes)"),
    "nothing else that is known": (b"\x07\x01\x02" * 500, "not a JPEG, PNG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_file_is_named(tmp_path: Path, name: str):
    data, advice = REFUSED[name]
    # Its own name says nothing.
    (tmp_path / "a.jpg").write_bytes(data)
    decoded = decode_file(tmp_path / "a.jpg", Shape(3, 8, 8))
    assert decoded.images == []
    ((page, reason),) = decoded.rejected
    assert page == 0
    kind = {"EPS": "PostScript", "PBM": "PNM", "MOV": "video", "video of Matroska": "video", "text in latin-1": "text"}
    assert kind.get(name, name) in reason
    assert advice in reason
    assert "\n" not in reason


def test_long_texts_that_end_within_a_character(tmp_path: Path):
    for shift in range(4):
        (tmp_path / "a").write_text("x" * shift + "😀" * formats.HEAD, encoding="utf-8")
        assert decode_file(tmp_path / "a", Shape(3, 8, 8)).rejected == [(0, "a text file: not an image")]


def ifd(place: int, entries: dict[int, tuple[int, int, int]]) -> bytes:
    """A directory of (type, count, value) at a place; it is the last."""
    del place
    rows = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return struct.pack("<H", len(entries)) + rows + b"\0\0\0\0"


def with_sub_ifd(first: dict[int, tuple[int, int, int]], sub: dict[int, tuple[int, int, int]]) -> bytes:
    """A TIFF of 4 × 4 grey pixels whose SubIFD is another image."""
    pixels = bytes(range(0, 160, 10))
    common = {258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8), 277: (3, 1, 1)}
    size = {256: (4, 1, 4), 257: (4, 1, 4), 278: (4, 1, 4), 279: (4, 1, 16)}
    entries = common | size | first
    start = 8 + len(pixels)
    length = 2 + 12 * (len(entries) + 1) + 4
    entries[330] = (4, 1, start + length)
    return struct.pack("<2sHI", b"II", 42, start) + pixels + ifd(start, entries) + ifd(0, common | size | sub)


RAW = {
    "DNG": ({50706: (1, 4, 0x0401)}, {}),
    "a preview before a colour filter array": ({254: (4, 1, 1)}, {254: (4, 1, 0), 262: (3, 1, 32803)}),
    "linear raw values": ({254: (4, 1, 1)}, {262: (3, 1, 34892)}),
    "Nikon's compression": ({}, {259: (3, 1, 34713)}),
    "Sony's compression": ({}, {259: (3, 1, 32767)}),
    "a preview before a larger image": ({}, {256: (4, 1, 4000), 257: (4, 1, 3000)}),
    "a reduced image before a whole one": ({254: (4, 1, 1)}, {254: (4, 1, 0)}),
    "a colour filter array": ({262: (3, 1, 32803)}, {}),
    # As Nikon's NEF with a JPEG of full size in front; Samsung's SRW, Hasselblad's 3FR and Epson's ERF.
    "a preview as large as the photograph": ({}, {254: (4, 1, 0), 262: (3, 1, 32803)}),
    "Kodak's compression, DCR": ({254: (4, 1, 0)}, {254: (4, 1, 1), 259: (3, 1, 65000)}),
    "Kodak's older compression": ({}, {259: (3, 1, 262)}),
    "Samsung's compression, SRW": ({}, {259: (3, 1, 32772)}),
    "packed values": ({}, {259: (3, 1, 32769)}),
    "the pattern of the sensor": ({}, {33422: (1, 4, 0x02010100)}),
    "Leaf's own data, MOS": ({34310: (1, 4, 0)}, {}),
    "Sony's own data, SR2": ({50740: (1, 4, 0)}, {}),
}


@pytest.mark.parametrize("name", RAW)
def test_camera_raw_files_are_refused_never_their_preview_taken(tmp_path: Path, name: str):
    (tmp_path / "a.tif").write_bytes(with_sub_ifd(*RAW[name]))
    decoded = decode_file(tmp_path / "a.tif", Shape(3, 4, 4))
    assert decoded.images == []
    assert "camera raw file" in decoded.rejected[0][1]
    assert decoded.rejected[0][1].endswith("develop it and export it as TIFF, PNG or JPEG")


def test_ordinary_tiffs_with_other_images_in_them_are_read(tmp_path: Path):
    """Pyramids have reduced copies in SubIFDs; a SubIFD may be damaged, or lead to itself."""
    for first, sub in (
        ({}, {254: (4, 1, 1), 256: (4, 1, 2), 257: (4, 1, 2)}),
        ({}, {254: (4, 1, 1)}),
        ({254: (4, 1, 0)}, {256: (4, 1, 2)}),
    ):
        (tmp_path / "a.tif").write_bytes(with_sub_ifd(first, sub))
        decoded = decode_file(tmp_path / "a.tif", Shape(3, 4, 4))
        assert decoded.rejected == []
        assert decoded.images[0].pixels[0].ravel().tolist() == list(range(0, 160, 10))
    data = with_sub_ifd({}, {})
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 100])
    assert decode_file(tmp_path / "cut.tif", Shape(3, 4, 4)).images
    (tmp_path / "ordinary.tif").write_bytes(saved("TIFF", exif=Image.Exif(), tiffinfo={271: "Canon", 272: "EOS"}))
    assert decode_file(tmp_path / "ordinary.tif", Shape(3, 4, 4)).images


@pytest.mark.parametrize("start", [b"II*\0\x10\0\0\0CR\2\0", b"II*\0\x10\0\0\0IIII", b"MM\0*\0\0\0\x10MMMM"])
def test_raw_files_that_say_so_behind_their_header(tmp_path: Path, start: bytes):
    (tmp_path / "a.tif").write_bytes(start + b"\0" * 40)
    assert "camera raw file" in decode_file(tmp_path / "a.tif", Shape(3, 4, 4)).rejected[0][1]


def test_raw_values_on_a_later_page(tmp_path: Path):
    """As in some KDC and PEF files: the page is in the chain of directories, behind a preview that could be read."""
    grey = Image.new("L", (4, 4), 9)
    for place, seen in ((1, True), (8, True), (9, False)):
        pages = [grey.copy() for _ in range(10)]
        pages[place].encoderinfo = {"tiffinfo": {33422: b"\0\1\1\2"}}
        grey.save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
        decoded = decode_file(tmp_path / "a.tif", Shape(3, 4, 4))
        # What is behind the first pages of a document is not looked into.
        assert ("camera raw file" in decoded.rejected[0][1] if decoded.rejected else False) == seen, place
    (tmp_path / "b.tif").write_bytes(with_sub_ifd({}, {}))
    assert decode_file(tmp_path / "b.tif", Shape(3, 4, 4)).images


def chunk(name: bytes, data: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(name + data) ^ damaged
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def with_chunks(*chunks: bytes, image: Image.Image = PICTURE, at_end: bool = False, **options: Any) -> bytes:
    data = saved("PNG", image, **options)
    place = len(data) - 12 if at_end else 33
    return data[:place] + b"".join(chunks) + data[place:]


TWO_MEGABYTES = zlib.compress(bytes(2 << 20))
METADATA = {
    "a large colour profile": chunk(b"iCCP", b"icc\0\0" + TWO_MEGABYTES),
    "a damaged colour profile": chunk(b"iCCP", b"icc\0\0no zlib"),
    "a compressed text": chunk(b"zTXt", b"Comment\0\0" + TWO_MEGABYTES),
    "an international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + TWO_MEGABYTES),
    "a packet that grows": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TWO_MEGABYTES),
    "EXIF in a text that grows": chunk(b"zTXt", b"Raw profile type exif\0\0" + TWO_MEGABYTES),
    "a long text": chunk(b"tEXt", b"Comment\0" + b"x" * (3 << 20)),
    "many texts": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 19))) * 300,
    "a wrong checksum": chunk(b"tEXt", b"Comment\0text", damaged=True),
    "a wrong checksum of the resolution": chunk(b"pHYs", b"\0" * 9, damaged=True),
    "short chunks": chunk(b"gAMA", b"\0") + chunk(b"pHYs", b"") + chunk(b"cHRM", b"\1") + chunk(b"sRGB", b""),
    "damaged EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "EXIF with a wrong checksum": chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0", damaged=True),
    "a private chunk": chunk(b"prVt", bytes(100_000)),
    "an animation of one": chunk(b"acTL", b"\0\0\0\1\0\0\0\0"),
    "a damaged sBIT": chunk(b"sBIT", b"\1\1\1", damaged=True),
}


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", METADATA)
def test_metadata_costs_no_pixels(tmp_path: Path, name: str, at_end: bool):
    (tmp_path / "a.png").write_bytes(with_chunks(METADATA[name], at_end=at_end))
    decoded = decode_file(tmp_path / "a.png", Shape(3, 12, 16))
    assert decoded.rejected == decoded.notes == []
    assert np.array_equal(decoded.images[0].pixels.transpose(1, 2, 0), np.asarray(PICTURE))


def test_a_bomb_in_a_text_is_never_inflated(tmp_path: Path):
    bomb = zlib.compress(bytes(200 << 20))
    for name in (b"Comment", b"XML:com.adobe.xmp", b"Raw profile type exif"):
        data = with_chunks(chunk(b"zTXt", name + b"\0\0" + bomb), chunk(b"iTXt", name + b"\0\1\0\0\0" + bomb))
        (tmp_path / "a.png").write_bytes(with_chunks(chunk(b"iCCP", b"icc\0\0" + bomb), image=PICTURE) + data)
        tracemalloc.start()
        assert decode_file(tmp_path / "a.png", Shape(3, 8, 8)).images
        (tmp_path / "b.png").write_bytes(data)
        assert decode_file(tmp_path / "b.png", Shape(3, 8, 8)).images
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
        tracemalloc.stop()


def test_a_png_without_its_end_and_one_without_pixels(tmp_path: Path):
    data = saved("PNG")
    for cut in (4, 8, 12):
        (tmp_path / "a.png").write_bytes(data[:-cut])
        decoded = decode_file(tmp_path / "a.png", Shape(3, 12, 16))
        assert np.array_equal(decoded.images[0].pixels.transpose(1, 2, 0), np.asarray(PICTURE)), cut
    for cut in range(30, len(data) - 50, 40):
        (tmp_path / "a.png").write_bytes(data[:-cut])
        assert decode_file(tmp_path / "a.png", Shape(3, 12, 16)).images == [], cut


# Bits and type of the colours, columns, and the bytes of a row.
@pytest.mark.parametrize(
    ("bits", "colours", "width", "row"), [(8, 2, 7, 21), (1, 0, 9, 2), (4, 3, 5, 3), (16, 6, 3, 24)]
)
@pytest.mark.parametrize("dark", [False, True])
def test_a_png_whose_data_ends_before_its_last_row(tmp_path: Path, bits: int, colours: int, width: int, row: int,
                                                   dark: bool):  # fmt: skip
    header = struct.pack(">IIBBBBB", width, 6, bits, colours, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(48))) if colours == 3 else b""
    rows = (b"\0" + bytes([0 if dark else 0x51]) * row) * 6

    def read(data: bytes, more: int) -> bool:
        packed = zlib.compress(data)
        # In several chunks, as large files have it.
        chunks = b"".join(chunk(b"IDAT", packed[at : at + 5]) for at in range(0, len(packed), 5))
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunks + chunk(b"IEND", b"")
        )
        decoded = decode_file(tmp_path / "a.png", Shape(3, 8, 8))
        assert bool(decoded.images) is not bool(decoded.rejected), more
        return bool(decoded.images)

    assert read(rows, 0)
    assert read(rows * 2, 1)
    for missing in range(1, 6):
        assert not read(rows[: -missing * (row + 1)], -missing), missing


def test_an_interlaced_png_whose_data_ends_between_two_passes(tmp_path: Path):
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    for width, height in ((1, 1), (3, 2), (16, 12), (9, 17)):
        pixels = np.random.default_rng(1).integers(1, 256, (height, width, 3), dtype=np.uint8)
        data = [
            b"".join(b"\0" + line.tobytes() for line in pixels[y::down, x::across] if line.size)
            for x, y, across, down in passes
        ]
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
        for number in range(1, 8):
            packed = zlib.compress(b"".join(data[:number]))
            (tmp_path / "a.png").write_bytes(
                b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
            )
            decoded = decode_file(tmp_path / "a.png", Shape(3, height, width))
            if any(data[number:]):
                assert decoded.images == []
            else:
                assert np.array_equal(decoded.images[0].pixels.transpose(1, 2, 0), pixels)


def test_transparency_is_kept_and_noted_where_it_is_damaged(tmp_path: Path):
    image = Image.new("RGB", (16, 12), (9, 8, 7))
    values = struct.pack(">HHH", 9, 8, 7)
    for damaged, expected, notes in ((False, 255, []), (True, 9, [(0, DAMAGED_TRANSPARENCY)])):
        (tmp_path / "a.png").write_bytes(with_chunks(chunk(b"tRNS", values, damaged=damaged), image=image))
        decoded = decode_file(tmp_path / "a.png", Shape(3, 8, 8))
        assert decoded.images[0].pixels[0, 0, 0] == expected
        assert decoded.notes == notes


@pytest.mark.parametrize("how", ["eXIf", "text", "packet"])
def test_the_orientation_of_a_png_counts(tmp_path: Path, how: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    if how == "text":
        raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    elif how == "packet":
        info.add_itxt("XML:com.adobe.xmp", '<x><rdf:Description tiff:Orientation="6"/></x>')
    data = saved("PNG", exif=exif) if how == "eXIf" else saved("PNG", pnginfo=info)
    (tmp_path / "a.png").write_bytes(data)
    image = decode_file(tmp_path / "a.png", Shape(3, 12, 16)).images[0]
    assert (image.width, image.height) == (12, 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_large_files_are_read_piece_by_piece(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    from photoflux.data.images import opening

    options = {"save_all": True, "append_images": [PICTURE.copy()]} if kind == "TIFF" else {}
    (tmp_path / "a").write_bytes(saved(kind, **options))
    small = decode_file(tmp_path / "a", Shape(3, 8, 8))
    monkeypatch.setattr(opening, "_IN_MEMORY", 10)
    large = decode_file(tmp_path / "a", Shape(3, 8, 8))
    assert [image.sha256 for image in large.images] == [image.sha256 for image in small.images]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(large.images, small.images, strict=True))


@pytest.mark.parametrize("how", ["plain", "cut", "too long", "garbage"])
@pytest.mark.parametrize("metadata", ["exif", "xmp", "icc_profile"])
@pytest.mark.parametrize("alpha", [False, True])
def test_damaged_metadata_of_a_webp_costs_no_pixels(tmp_path: Path, metadata: str, how: str, alpha: bool):
    image = PICTURE.convert("RGBA") if alpha else PICTURE
    if alpha:
        image.putalpha(255)
        image.putpixel((0, 0), (1, 2, 3, 0))
    data = bytearray(saved("WEBP", image, lossless=True, **{metadata: b"II*\0\xff\xff\xff\xffgarbage"}))
    place = data.find({"exif": b"EXIF", "xmp": b"XMP ", "icc_profile": b"ICCP"}[metadata])
    assert place > 0
    if metadata != "icc_profile" or how != "too long":
        # The profile is before the pixels: where its length is wrong nobody knows where they are.
        if how == "cut" and metadata != "icc_profile":
            del data[-6:]
        elif how == "too long":
            data[place + 4 : place + 8] = b"\xff\xff\xff\x7f"
        elif how == "garbage":
            data += b"garbage"
    (tmp_path / "a.webp").write_bytes(data)
    decoded = decode_file(tmp_path / "a.webp", Shape(3, 12, 16))
    assert decoded.rejected == []
    expected = np.asarray(PICTURE).copy()
    if alpha:
        expected[0, 0] = 255
    assert np.array_equal(decoded.images[0].pixels.transpose(1, 2, 0), expected)
