"""The pages of a PDF: drawn upright on white at the size that is needed, and a reason where one cannot be."""

from __future__ import annotations

import logging
import math
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import photoflux
from photoflux.data.images import decoding, document, opening
from photoflux.data.images.decoding import TooLargeError, decode_file, decode_parts
from photoflux.data.images.formats import RefusedError
from photoflux.data.images.members import Member
from photoflux.data.images.pages import read_page
from photoflux.data.images.parallel import decode_files
from photoflux.data.shape import Shape

pytest.importorskip("pypdfium2", reason="needs the extra 'formats'")

SHAPE = Shape(3, 32, 48)
# Top left red, top right green, bottom left blue, bottom right grey, on a page of 72 × 48 units.
QUARTERS = b"1 0 0 rg 0 24 36 24 re f 0 1 0 rg 36 24 36 24 re f 0 0 1 rg 0 0 36 24 re f .2 .2 .2 rg 36 0 36 24 re f"
BROKEN = "broken PDF: it cannot be opened, or has no pages"
COLOURS = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [51, 51, 51]]


def pdf(*pages: tuple[str, bytes], objects: dict[int, bytes] | None = None, trailer: str = "") -> bytes:
    """A PDF by hand: of each page what its dictionary has besides the usual, and its content; further objects."""
    numbers = [10 + 2 * number for number in range(len(pages))]
    kids = " ".join(f"{number} 0 R" for number in numbers)
    all_objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
    }
    for number, (entries, content) in zip(numbers, pages, strict=True):
        box = "" if "/MediaBox" in entries else "/MediaBox [0 0 72 48]"
        all_objects[number] = f"<< /Type /Page /Parent 2 0 R {box} {entries} /Contents {number + 1} 0 R >>".encode()
        all_objects[number + 1] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
    all_objects |= objects or {}
    data, places = b"%PDF-1.7\n", {}
    for number, body in all_objects.items():
        places[number] = len(data)
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n0 1\n0000000000 65535 f \n"
    table += b"".join(b"%d 1\n%010d 00000 n \n" % (number, place) for number, place in places.items())
    size = max(all_objects) + 1
    return data + table + f"trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{len(data)}\n%%EOF".encode()


def image_object(data: bytes, filter_name: str, side: int = 8) -> bytes:
    head = f"<< /Type /XObject /Subtype /Image /Width {side} /Height {side} /ColorSpace /DeviceRGB"
    return f"{head} /BitsPerComponent 8 /Filter /{filter_name} /Length {len(data)} >>\nstream\n".encode() + (
        data + b"\nendstream"
    )


SCAN = ("/Resources << /XObject << /I 5 0 R >> >>", b"q 72 0 0 48 0 0 cm /I Do Q")


def corners(pixels: np.ndarray) -> list[list[int]]:
    """The colours in the middle of the four quarters."""
    _, height, width = pixels.shape
    places = [(row, column) for row in (height // 4, height * 3 // 4) for column in (width // 4, width * 3 // 4)]
    return [pixels[:, row, column].tolist() for row, column in places]


def decode(path: Path, data: bytes, shape: Shape = SHAPE) -> decoding.DecodedFile:
    path.write_bytes(data)
    return decode_file(path, shape)


def reason(path: Path, data: bytes) -> str:
    decoded = decode(path, data)
    assert decoded.images == []
    ((page, text),) = decoded.rejected
    assert page == 0
    assert "\n" not in text
    return text


def test_a_single_page(tmp_path: Path):
    decoded = decode(tmp_path / "a", pdf(("", QUARTERS)))
    assert decoded.rejected == decoded.notes == []
    (image,) = decoded.images
    assert corners(image.pixels) == COLOURS
    # 1 × 2/3 inch at 200 dots: 48 · 200 / 72 = 133.3.
    assert (image.page, image.width, image.height) == (0, 200, 134)


def test_what_is_not_drawn_on_is_white(tmp_path: Path):
    (image,) = decode(tmp_path / "a", pdf(("", b"0 0 0 rg 0 0 36 24 re f"))).images
    assert corners(image.pixels) == [[255] * 3, [255] * 3, [0] * 3, [255] * 3]
    (image,) = decode(tmp_path / "b", pdf(("", b""))).images
    assert image.pixels.min() == 255


def test_pages_count_from_1(tmp_path: Path):
    colours = [b"1 0 0 rg", b"0 1 0 rg", b"0 0 1 rg"]
    decoded = decode(tmp_path / "a", pdf(*(("", colour + b" 0 0 72 48 re f") for colour in colours)))
    assert decoded.rejected == []
    assert [image.page for image in decoded.images] == [1, 2, 3]
    assert [image.pixels[:, 5, 5].tolist() for image in decoded.images] == COLOURS[:3]
    assert len({image.sha256 for image in decoded.images}) == 3
    assert np.asarray(read_page(tmp_path / "a", 2))[0, 0].tolist() == [0, 255, 0]
    with pytest.raises(RefusedError, match="has 3 pages, and none with the number 4"):
        read_page(tmp_path / "a", 4)


@pytest.mark.parametrize(("turn", "order"), [(90, [2, 0, 3, 1]), (180, [3, 2, 1, 0]), (270, [1, 3, 0, 2])])
def test_a_page_is_turned(tmp_path: Path, turn: int, order: list[int]):
    """/Rotate turns clockwise: of 90 degrees the bottom left comes to the top left."""
    (image,) = decode(tmp_path / "a", pdf((f"/Rotate {turn}", QUARTERS))).images
    assert corners(image.pixels) == [COLOURS[place] for place in order]
    assert (image.width, image.height) == ((134, 200) if turn != 180 else (200, 134))


def test_a_page_is_cropped(tmp_path: Path):
    (image,) = decode(tmp_path / "a", pdf(("/CropBox [36 24 72 48]", QUARTERS))).images
    assert (image.pixels == np.array([0, 255, 0])[:, None, None]).all()
    assert (image.width, image.height) == (100, 67)


def test_the_whole_page_at_any_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(pdf(("", QUARTERS)))
    for dpi, size in ((72, (72, 48)), (200, (200, 134)), (720, (720, 480))):
        image = read_page(tmp_path / "a", 0, dpi=dpi)
        assert (image.mode, image.size) == ("RGB", size)
        assert corners(np.asarray(image).transpose(2, 0, 1)) == COLOURS
    monkeypatch.setattr(document, "MAX_PIXELS", 10_000)
    image = read_page(tmp_path / "a", 0, dpi=7200)
    # The greatest with sides as 3 : 2: 122.4 × 81.6.
    assert 9_500 < image.width * image.height <= 10_000
    assert math.isclose(image.width / image.height, 1.5, rel_tol=0.02)


def test_a_page_is_drawn_at_the_size_that_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its shorter side has at least twice the result's longer one: of 48 pixels 96, and 144 on the other."""
    (tmp_path / "a").write_bytes(pdf(("/MediaBox [0 0 14400 9600]", b"1 0 0 rg 0 0 14400 9600 re f")))
    monkeypatch.setattr(decoding, "LARGE", 144 * 96)
    (part,) = decode_parts(tmp_path / "a", SHAPE, large=False)
    # 200 × 133 inches at 200 dots are 40,000 × 26,667: as large as they may be.
    image = part.images[0]
    assert 199_000_000 < image.width * image.height <= 200_000_000
    monkeypatch.setattr(decoding, "LARGE", 144 * 96 - 1)
    with pytest.raises(TooLargeError):
        list(decode_parts(tmp_path / "a", SHAPE, large=False))


def test_a_scan_is_averaged(tmp_path: Path):
    """Stripes of one pixel, black and white: what leaves out pixels would show them.

    600 are drawn on 144: the mean of 25/6 is of two pairs and 1/6 pixel, which is off by 1/6 · 127.5 / (25/6) = 5.1.
    """
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    data = pdf(SCAN, objects={5: image_object(zlib.compress(stripes.tobytes()), "FlateDecode", 600)})
    (image,) = decode(tmp_path / "a", data).images
    assert np.abs(image.pixels[:, :, 1:-1].astype(float) - 127.5).max() <= 5.5


def test_annotations_and_forms_are_drawn(tmp_path: Path):
    drawing = b"1 0 0 rg 0 0 36 24 re f"
    appearance = b"<< /Type /XObject /Subtype /Form /BBox [0 0 36 24] /Length 23 >>\nstream\n" + drawing
    appearance += b"\nendstream"
    stamp = b"<< /Type /Annot /Subtype /Stamp /Rect [0 24 36 48] /F 4 /AP << /N 6 0 R >> >>"
    field = b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /Rect [36 24 72 48] /F 4 /AP << /N 6 0 R >> /P 10 0 R >>"
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [8 0 R] >> >>", 6: appearance, 7: stamp, 8: field
    }  # fmt: skip
    (image,) = decode(tmp_path / "a", pdf(("/Annots [7 0 R 8 0 R]", b""), objects=objects)).images
    red, white = [255, 0, 0], [255] * 3
    assert corners(image.pixels)[0] == red
    assert corners(image.pixels)[2:] == [white, white]
    # pdfium lays its own colour over fields, to show that they can be filled.
    assert corners(image.pixels)[1] != white


def test_a_damaged_page_costs_only_itself(tmp_path: Path):
    data = pdf(("", QUARTERS), ("", QUARTERS), ("", QUARTERS), objects={12: b"<< /Type /Nothing >>"})
    decoded = decode(tmp_path / "a", data)
    assert [image.page for image in decoded.images] == [1, 3]
    assert decoded.rejected == [(2, "broken PDF: the page cannot be read")]


def test_a_scan_that_cannot_be_decoded_is_no_white_page(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    good = image_object(zlib.compress(noise.tobytes()), "FlateDecode")
    (image,) = decode(tmp_path / "a", pdf(SCAN, objects={5: good})).images
    assert image.pixels.std() > 10
    bad = image_object(b"\xff\xd8\xff no JPEG", "DCTDecode")
    assert reason(tmp_path / "b", pdf(SCAN, objects={5: bad})) == ("broken PDF: an image on the page cannot be decoded")
    white = image_object(zlib.compress(b"\xff" * 192), "FlateDecode")
    assert decode(tmp_path / "c", pdf(SCAN, objects={5: white})).images[0].pixels.min() == 255


def test_what_cannot_be_opened_has_a_reason(tmp_path: Path):
    assert reason(tmp_path / "a", pdf()) == BROKEN
    assert reason(tmp_path / "b", b"%PDF-1.7\n") == BROKEN
    assert reason(tmp_path / "c", b"\xef\xbb\xbf\r\n%PDF-1.4\nwords") == BROKEN
    filler = "<" + "00" * 32 + ">"
    locked = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {filler} /U {filler} /P -44 >> /ID [<00> <00>]"
    assert reason(tmp_path / "d", pdf(("", QUARTERS), trailer=locked)).startswith(
        "a PDF document that is locked with a password"
    )
    unknown = locked.replace("/Standard", "/Unknown")
    assert reason(tmp_path / "e", pdf(("", QUARTERS), trailer=unknown)).startswith("a PDF document that is encrypted")


def test_any_damage_gives_an_image_or_a_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = pdf(SCAN, ("/Rotate 90", QUARTERS), objects={5: image_object(zlib.compress(noise.tobytes()), "FlateDecode")})
    rng = np.random.default_rng(1)
    for number in range(150):
        damaged = bytearray(data)
        if number < 50:
            del damaged[int(rng.integers(10, len(data))) :]
        else:
            for place in rng.integers(0, len(data), 5).tolist():
                damaged[place] = int(rng.integers(0, 256))
        decoded = decode(tmp_path / "a", bytes(damaged))
        assert decoded.images or decoded.rejected
    assert capfd.readouterr() == ("", "")


def test_sizes_without_sense(tmp_path: Path):
    for box in ("[0 0 0 0]", "[0 0 1e30 1e30]", "[0 0 1 14400]", "[0 0 0.001 14400]", "[72 48 0 0]", "[0 0]"):
        decoded = decode(tmp_path / "a", pdf((f"/MediaBox {box}", QUARTERS)))
        assert decoded.images or decoded.rejected, box


def test_a_large_file_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = decode(tmp_path / "a", pdf(("", QUARTERS)))
    monkeypatch.setattr(opening, "_IN_MEMORY", 10)
    large = decode(tmp_path / "a", pdf(("", QUARTERS)))
    assert large.images[0].sha256 == small.images[0].sha256
    assert np.array_equal(large.images[0].pixels, small.images[0].pixels)


def test_pages_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "MAX_PAGES", 3)
    decoded = decode(tmp_path / "a", pdf(*[("", b"")] * 4))
    assert [image.page for image in decoded.images] == [1, 2, 3]
    assert decoded.rejected == [(0, "has 4 pages, those after page 3 were left out")]


def test_one_page_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pypdfium2 import PdfDocument, PdfPage

    held, most = set(), 0
    get, close = PdfDocument.get_page, PdfPage.close

    def getting(self: PdfDocument, number: int) -> PdfPage:
        nonlocal most
        page = get(self, number)
        held.add(id(page))
        most = max(most, len(held))
        return page

    def closing(self: PdfPage, *args: object, **options: object) -> None:
        held.discard(id(self))
        close(self, *args, **options)

    monkeypatch.setattr(PdfDocument, "get_page", getting)
    monkeypatch.setattr(PdfPage, "close", closing)
    assert len(decode(tmp_path / "a", pdf(*[("", QUARTERS)] * 5)).images) == 5
    assert (most, held) == (1, set())


def test_a_pdf_in_an_archive_is_the_archives(tmp_path: Path):
    (tmp_path / "a.pdf").write_bytes(pdf(("", QUARTERS)))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.pdf", "a.pdf")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.pdf", "a.pdf")
    assert decode_file(tmp_path / "a.tar", SHAPE).rejected[0][1].startswith("a tar archive")
    assert decode_file(tmp_path / "a.zip", SHAPE).rejected[0][1].startswith("a ZIP archive")
    data = (tmp_path / "a.pdf").read_bytes()
    place = (tmp_path / "a.tar").read_bytes().index(data)
    member = Member(tmp_path / "a.tar", "a.pdf", tmp_path / "a.tar", place, len(data), len(data))
    assert read_page(member, 0, dpi=72).size == (72, 48)


INSTALL = "a PDF document, which needs the package pypdfium2: install it, pip install 'photoflux[formats]'"


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    assert reason(tmp_path / "a", pdf(("", QUARTERS))) == INSTALL
    with pytest.raises(RefusedError, match="pypdfium2"):
        read_page(tmp_path / "a", 0)


def test_a_missing_library_is_named_by_the_processes_that_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pypdfium2.py").write_text("raise ImportError('hidden')")
    monkeypatch.syspath_prepend(tmp_path / "hidden")
    (tmp_path / "a").write_bytes(pdf(("", QUARTERS)))
    ((_, decoded),) = list(decode_files([tmp_path / "a"], SHAPE, processes=2))
    assert decoded.rejected == [(0, INSTALL)]


def test_pages_are_prepared_by_number(tmp_path: Path):
    for name, colour in (("Photo", b"1 0 0 rg"), ("Text", b"0 0 1 rg")):
        (tmp_path / "scans" / name).mkdir(parents=True)
        pages = [("", colour + b" %d 0 40 48 re f 0 g %d 0 2 48 re f" % (3 * k, 70 - 5 * k)) for k in range(12)]
        (tmp_path / "scans" / name / "book.pdf").write_bytes(pdf(*pages))
    photoflux.prepare(tmp_path / "scans", tmp_path / "set", image_size=16, progress=False)
    files = (tmp_path / "set" / "files.csv").read_text()
    assert all(f"Photo/book.pdf#{page}," in files for page in range(1, 13))


def test_what_it_says_of_forms_stays_inside(tmp_path: Path):
    decode(tmp_path / "a", pdf(("", QUARTERS)))
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("pypdfium2").handlers)
