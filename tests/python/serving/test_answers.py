"""What the service answers, to good input and bad, over HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux.model.weights import fingerprint_of, read_weights_of
from photoflux.runs.run import Run
from services import HELD, Server, image

BOUNDARY = "----words"


def part(text: str, data: bytes, boundary: str = BOUNDARY) -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; {text}\r\n\r\n".encode() + data + b"\r\n"


def form(*parts: bytes, end: str = f"--{BOUNDARY}--\r\n") -> dict[str, object]:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return {"content": b"".join(parts) + end.encode(), "headers": headers}


def bomb(width: int, height: int, rows: int = 1000) -> bytes:
    """A PNG that says it has so many black pixels, packed very small; so many rows of them are there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows * (width // 8 + 1))))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def tiff(pages: int) -> bytes:
    stream = io.BytesIO()
    images = [Image.new("L", (9, 9), 40 * number) for number in range(pages)]
    images[0].save(stream, "TIFF", save_all=True, append_images=images[1:])
    return stream.getvalue()


@pytest.fixture(scope="module")
def server(served: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose limits are small, and which no test may end."""
    command = [HELD, "serve", served.path, "--max-bytes", 100_000, "--max-images", 5, "--workers", 1]
    started = Server(tmp_path_factory.mktemp("server"), command, {})
    yield started
    assert started.end() == 0, started.errors.read_text()
    assert started.errors.read_text() == ""


def logistic(value: float) -> float:
    return 1 / (1 + np.exp(-(value - 100)))


def test_an_answer_says_score_decision_and_threshold(server: Server, served: Run):
    files = [image(99), image(98, "JPEG", quality=100, subsampling=0), tiff(2), b"words"]
    answer = server.predict(*files)
    assert answer.status_code == 200
    values = answer.json()
    assert {key: values[key] for key in ("run", "positive", "threshold")} == {
        "run": "run", "positive": "class1", "threshold": 0.25,
    }  # fmt: skip
    rows = values["images"]
    assert [(row["name"], row["page"]) for row in rows] == [
        ("0.png", 0), ("1.png", 0), ("2.png", 1), ("2.png", 2), ("3.png", 0),
    ]  # fmt: skip
    # The logit is the grey value less 100; the threshold is 0.25, of a logit of -1.1. float32: 2^-24 of a number.
    for row, value in zip(rows[:4], (99, 98, 0, 40), strict=True):
        assert row["score"] == pytest.approx(logistic(value), rel=1e-6, abs=1e-30)
        assert row["decision"] == ("class1" if value == 99 else "class0")
        assert row["probabilities"]["class1"] == row["score"]
        assert row["probabilities"]["class0"] == pytest.approx(1 - logistic(value), rel=1e-6)
        assert (row["width"], row["height"], row["error"]) == (9, 9, None)
    assert rows[0]["sha256"] == hashlib.sha256(files[0]).hexdigest()
    assert rows[2]["sha256"] == hashlib.sha256(files[2] + b"#1").hexdigest()
    assert rows[4]["error"] == "a text file: not an image"
    assert {rows[4][key] for key in ("score", "decision", "probabilities", "sha256", "width", "height")} == {None}


def test_health_names_the_model(server: Server, served: Run):
    answer = server.client.get("/health")
    fingerprint = fingerprint_of(read_weights_of(served.weights, served.variant, served.input_shape, 2))
    expected = {"status": "ok", "run": "run", "model": fingerprint, "version": photoflux.__version__}
    assert (answer.status_code, answer.json()) == (200, expected)


FILE = part('name="image"; filename="a.png"', image())
BAD = {
    "no body": ({}, 415, "multipart/form-data"),
    "JSON": ({"json": {"image": "a"}}, 415, "multipart/form-data"),
    "a form of another kind": ({"data": {"image": "a"}}, 415, "multipart/form-data"),
    "no boundary": (
        {"content": FILE, "headers": {"Content-Type": "multipart/form-data"}}, 400, "no boundary",
    ),
    "an empty form": (form(), 400, "no file"),
    "a body that is no form": (form(b"words"), 400, "no multipart form"),
    "no file": (form(part('name="image"', image())), 400, "no file"),
    "no file chosen": (form(part('name="image"; filename=""', b"")), 400, "no file"),
    "cut in a file": (form(FILE[:-40], end=""), 400, "ends before its last part"),
    "10,000 fields": (form(*[part(f'name="{n}"', b"") for n in range(10_000)], FILE), 413, "bytes"),
    "many fields": (form(*[part(f'name="{n}"', b"") for n in range(100)], FILE), 413, "more than 21 parts"),
    "many files": (form(*[FILE] * 6), 413, "more than 5 files"),
    "many pages": (form(part('name="a"; filename="a.tif"', tiff(6))), 413, "more than 5 images"),
    "too large": (form(part('name="image"; filename="a.png"', bytes(200_000))), 413, "larger than 100000 bytes"),
    "an endless header": (form(part(f'name="{"a" * 50_000}"', b""), FILE), 400, "no multipart form"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_in_words(server: Server, name: str):
    options, status, words = BAD[name]
    answer = server.client.post("/predict", **options)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert words in answer.json()["error"]
    assert server.predict(image()).status_code == 200
    assert server.numbers()["photoflux_queue_images"] == 0


def test_a_body_that_does_not_say_how_long_it_is_is_measured(server: Server):
    whole = form(part('name="image"; filename="a.png"', bytes(200_000)))
    content = whole["content"]

    def stream() -> Iterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    answer = server.client.post("/predict", content=stream(), headers=whole["headers"])
    assert answer.status_code == 413, answer.text


def test_a_large_image_is_decoded_in_a_process_of_its_own(server: Server):
    found = server.predict(bomb(8_000, 8_000, rows=8_000), image()).json()["images"]
    assert [(row["width"], row["decision"], row["error"]) for row in found] == [
        (8_000, "class0", None), (9, "class1", None),
    ]  # fmt: skip
    assert server.predict(image()).status_code == 200


BROKEN = {
    "a JPEG that is cut off": (image(150, "JPEG")[:300], "broken"),
    "a bomb": (bomb(30_000, 30_000), "30000 × 30000 pixels, the limit is 200 million"),
    "packed zeros, cut off": (bomb(5_000, 5_000)[:-100], "broken"),
    "words": (b"words", "a text file"),
    "an empty file": (b"", "an empty file (0 bytes)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_has_its_reason(server: Server, name: str):
    data, words = BROKEN[name]
    alone = server.predict(data)
    assert alone.status_code == 422
    (row,) = alone.json()["images"]
    assert words in row["error"], row
    both = server.predict(data, image())
    assert both.status_code == 200
    assert [other["error"] for other in both.json()["images"]] == [row["error"], None]


def test_another_address_or_method_is_named(server: Server):
    answers = [server.client.get("/"), server.client.get("/predict"), server.client.post("/health")]
    assert [answer.status_code for answer in answers] == [404, 405, 405]
    assert all(list(answer.json()) == ["error"] for answer in answers)


def test_a_name_is_echoed_as_text(server: Server):
    bad = '<b>é\\".png' + "x" * 1000
    answer = server.client.post("/predict", files=[("image", (bad, image()))])
    assert answer.json()["images"][0]["name"].startswith("<b>é")
    assert len(answer.json()["images"][0]["name"]) == 255
    assert answer.headers["content-type"] == "application/json"


def test_metrics_are_prometheus_text(server: Server):
    from prometheus_client.parser import text_string_to_metric_families

    before = server.numbers()
    assert server.predict(image(), b"words").status_code == 200
    text = server.client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.text)
        for sample in family.samples
        if not sample.labels
    }
    for name in ("photoflux_images_total", "photoflux_rejected_images_total", "photoflux_batch_images_sum"):
        assert found[name] - before.get(name, 0) == 1, name
    assert found["photoflux_decode_seconds_count"] - before["photoflux_decode_seconds_count"] == 2
    if sys.platform == "linux":
        assert found["process_resident_memory_bytes"] > 1e6


@pytest.mark.parametrize("engine", ["flux", "keras"])
def test_answers_equal_those_of_predict(engine: str, request: pytest.FixtureRequest, served: Run, tmp_path: Path):
    request.getfixturevalue(engine)
    rng = np.random.default_rng(3)
    for number in range(5):
        picture = Image.fromarray(rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8))
        picture.save(tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}")
    (tmp_path / "5.tif").write_bytes(tiff(3))
    (tmp_path / "6.png").write_bytes(b"words")
    paths = sorted(tmp_path.iterdir())
    expected = photoflux.predict(served, paths, engine=engine, progress=False)
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", ["-m", "photoflux", "serve", served.path, "--engine", engine], {})
    try:
        files = [("image", (path.name, path.read_bytes())) for path in paths]
        rows = server.client.post("/predict", files=files).json()["images"]
    finally:
        code = server.end()
    assert code == 0, server.errors.read_text()
    assert [row["decision"] for row in rows] == [found.label for found in expected]
    assert [row["error"] for row in rows] == [found.rejected for found in expected]
    for row, found in zip(rows, expected, strict=True):
        # A batch of another size may be summed in another order: 192 and 128 products of float32, 2^-24 each.
        assert (row["probabilities"] or {}) == pytest.approx(dict(found.probabilities), rel=(192 + 128) * 2**-24)
    assert json.dumps(rows)
