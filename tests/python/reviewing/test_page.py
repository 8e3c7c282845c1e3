"""What the page of a review is answered: the images in order, small pictures, labels, and nothing to anybody else."""

from __future__ import annotations

import asyncio
import io
import math
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from photoflux.data.images.formats import RefusedError
from photoflux.filtering.ledger import DONE, Item, Ledger, SourceKey
from photoflux.reviewing import items as items_module
from photoflux.reviewing import pictures as pictures_module
from piles import make_run, run_job
from reviews import GREYS, HOSTILE, PORT, TOKEN

ORDER = ["even.png", "pages.tif, page 2", "big.png", "above.jpg", "below.png", "one.png", HOSTILE]


def test_uncertain_images_the_nearest_to_the_threshold_first(job, open_page):
    answer = open_page(job).get("items").json()
    assert {name: answer[name] for name in ("heading", "negative", "positive", "found", "labelled")} == {
        "heading": "Uncertain images", "negative": "dark", "positive": "light", "found": 7, "labelled": 0,
    }  # fmt: skip
    shown = {item["name"]: item for item in answer["items"]}
    assert list(shown) == ORDER
    for name in ("even.png", "below.png", HOSTILE):
        assert shown[name]["score"] == pytest.approx(1 / (1 + math.exp(10 - GREYS[name] / 10)), rel=1e-6)
    assert shown["big.png"]["size"] == "2400 × 1800"
    assert shown["one.png"]["place"].endswith("box.zip › in/one.png")
    assert {item["label"] for item in answer["items"]} == {item["before"] for item in answer["items"]} == {None}


def test_other_decisions_and_all(job, open_page):
    assert list(open_page(job, "light").items()) == ["light.png"]
    assert set(open_page(job, everything=True).items()) == {*ORDER, "light.png", "dark.png", "pages.tif, page 1"}


def test_a_label_is_kept_at_once_and_taken_away(job, open_page):
    page = open_page(job)
    shown = page.items()
    assert page.label(shown["even.png"], "light").json() == {"label": "light"}
    assert page.label(shown[HOSTILE], "dark").status_code == 200
    assert page.labels() == {"even.png": "light", HOSTILE: "dark"}
    assert page.items()["even.png"]["label"] == "light"
    assert page.sitting.counts() == (7, 2)
    page.label(shown["even.png"], "dark")
    page.label(shown[HOSTILE], None)
    assert page.labels() == {"even.png": "dark"}
    assert page.sitting.labels() == {"dark": 1}
    ((sha256, seen),) = page.ledger.rows("SELECT l.sha256, i.sha256 FROM labels l JOIN items i USING (source, page)")
    assert sha256 == seen


def test_of_too_many_those_without_a_label_are_shown(job, open_page, monkeypatch):
    monkeypatch.setattr(items_module, "MOST", 3)
    page = open_page(job)
    assert list(page.items()) == ORDER[:3]
    page.label(page.items()["even.png"], "light")
    assert list(page.items()) == ORDER[1:4]
    assert (page.get("items").json()["found"], page.get("items").json()["labelled"]) == (7, 1)


def test_a_label_is_of_what_was_seen(job, open_page):
    page = open_page(job)
    item = page.items()["even.png"]
    page.label(item, "light")
    with page.ledger.transaction():
        page.ledger.record(item["source"], [Item(0, DONE, "f" * 64, 12, 10, 0.5, "uncertain", "", None)], "m")
    assert page.items()["even.png"]["label"] is None, "the file has changed since"
    assert page.sitting.labels() == {}


@pytest.mark.parametrize(
    ("body", "type_", "status"),
    [
        (b'{"source": 1, "page": 0, "label": "light"}', "text/plain", 415),
        (b'{"source": 1, "page": 0, "label": "light"}', "application/x-www-form-urlencoded", 415),
        (b"no JSON", "application/json", 400),
        (b"[" * 1000, "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"source": 1, "page": 0, "label": "other"}', "application/json", 400),
        (b'{"source": 1, "page": 0, "label": ["light"]}', "application/json", 400),
        (b'{"source": "1", "page": 0, "label": "light"}', "application/json", 400),
        (b'{"source": true, "page": 0, "label": "light"}', "application/json", 400),
        (b'{"source": 1e99, "page": 0, "label": "light"}', "application/json", 400),
        (b'{"source": 99999999999999999999999, "page": 0, "label": "light"}', "application/json", 400),
        (b'{"source": 9999, "page": 0, "label": "light"}', "application/json", 404),
        (b'{"source": 9999, "page": 0, "label": null}', "application/json", 404),
        (b" " * 2000, "application/json", 413),
    ],
)
def test_a_bad_label_is_refused(job, open_page, body: bytes, type_: str, status: int):
    page = open_page(job)
    answer = page.client.post(f"/{TOKEN}/label", content=body, headers={"Content-Type": type_})
    assert answer.status_code == status
    assert answer.json()["error"]
    assert page.labels() == {}


def test_only_who_knows_the_token_at_this_host_is_answered(job, open_page):
    page = open_page(job)
    inside = ["", "items", "page.js", "page.css", "picture/1/0/small"]
    assert {page.get(address).status_code for address in inside} == {200}
    for before in ("", "/", "/tokeN/", "/toke/", "/tokens/", "/%00/", "//token/", "/\u00e9/"):
        for address in [*inside, "label", "favicon.ico"]:
            answer = page.client.get(f"{before or '/'}{address}")
            assert (answer.status_code, answer.text) == (404, "There is nothing here."), (before, address)
    for host in ("evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "", f"[::1]:{PORT}"):
        assert page.client.get(f"/{TOKEN}/items", headers={"Host": host}).status_code == 404, host
    assert page.client.get(f"/{TOKEN}/items", headers={"Host": f"localhost:{PORT}"}).status_code == 200
    assert page.client.get(f"/{TOKEN}").status_code == 404


def test_browsers_are_told_to_load_nothing_else(job, open_page):
    page = open_page(job)
    for address in ("", "items", "nothing", "picture/1/0/small"):
        headers = page.get(address).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert page.get("").headers["content-type"] == "text/html; charset=utf-8"
    for name in ("", "page.js", "page.css"):
        assert "://" not in page.get(name).text, "no asset from outside"


def ask(app: Any, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask an application for a path as it stands: a client would tidy it up."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
        "query_string": b"", "headers": [(b"host", f"127.0.0.1:{PORT}".encode())], "http_version": "1.1",
        "server": ("127.0.0.1", PORT), "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    "path",
    [
        "../app.py", "../../etc/passwd", "./page.js", "page.js/", "page.js/../app.py", "page.html", "/page.js",
        "..%2fapp.py", "%2e%2e/app.py", "page/page.js", "C:\\windows", "\\..\\app.py", "page.js\0", "~root",
        "picture/../../small", "picture/1/0/../small", "picture/1/0/small/..", "picture/1/0/1600", "picture/1/0/",
        "picture/-1/0/small", "picture/1/0x0/small", "picture/1/0/full", "picture//etc/passwd", "picture/1;/0/small",
        "picture/99999999999999999999999/0/small", "picture/1/7/small", "picture/999/0/small",
        "picture/١/٢٢/small", "ledger.sqlite", "items/..", "items/1",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file(job, open_page, path: str):
    page = open_page(job)
    status, body = ask(page.client.app, f"/{TOKEN}/{path}")
    assert status == 404, body
    assert len(body) < 100


def picture_of(page: Any, name: str, size: str = "small") -> Image.Image:
    item = page.items()[name]
    answer = page.get(f"picture/{item['source']}/{item['page']}/{size}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("how", ["link", "list"])
def test_pictures_are_small_and_of_their_item(make_job, open_page, how: str):
    page = open_page(make_job(how=how))
    assert picture_of(page, "big.png").size == (320, 240)
    assert picture_of(page, "big.png", "large").size == (1600, 1200)
    greys = {"even.png": 100, "pages.tif, page 2": 99, "big.png": 102, "one.png": 95, HOSTILE: 106}
    for name, grey in greys.items():
        image = picture_of(page, name).convert("RGB")
        # A JPEG of one grey has it but for rounding.
        assert max(abs(value - grey) for value in image.getpixel((1, 1))) <= 1, name
    assert picture_of(page, "even.png").size == (12, 10)


def test_what_is_not_shown_has_no_picture(job, open_page):
    dark = open_page(job, "dark").items()["dark.png"]
    assert open_page(job).get(f"picture/{dark['source']}/0/small").status_code == 404


def test_a_picture_that_cannot_be_made_says_why(make_job, open_page, tmp_path: Path):
    page = open_page(make_job(how="list"))
    (tmp_path / "scans" / "even.png").unlink()
    (tmp_path / "scans" / "below.png").write_bytes(b"words")
    (tmp_path / "scans" / "box.zip").write_bytes(b"PK\3\4")
    for name, words in (("even.png", "the file has gone"), ("below.png", "not an image"), ("one.png", "broken zip")):
        item = page.items()[name]
        answer = page.get(f"picture/{item['source']}/0/small")
        assert answer.status_code == 422
        assert words in answer.json()["error"]


def test_a_process_that_is_ended_by_a_file_is_replaced(job, open_page, monkeypatch):
    page = open_page(job)
    big = page.items()["big.png"]
    origin = page.sitting.origin(big["source"], 0)
    assert page.pictures.picture(origin, 100)
    (process,) = page.pictures._processes
    process._process.kill()
    process._process.join()
    with pytest.raises(RefusedError, match="the decoder ended"):
        page.pictures.picture(origin, 101)
    assert page.pictures.picture(origin, 101)
    monkeypatch.setattr(process, "_seconds", 0.0)
    with pytest.raises(RefusedError, match="takes longer than 0 s"):
        page.pictures.picture(origin, 102)
    monkeypatch.undo()
    assert page.pictures.picture(origin, 102)


def test_the_cache_is_bounded(job, open_page, monkeypatch):
    page = open_page(job)
    origins = [page.sitting.origin(item["source"], item["page"]) for item in page.items().values()]
    size = len(page.pictures.picture(origins[0], 320))
    monkeypatch.setattr(pictures_module, "_CACHED", 3 * size)
    for origin in origins:
        page.pictures.picture(origin, 320)
    held = sum(map(len, page.pictures._cache.values()))
    assert held == page.pictures._held <= 3 * size
    assert origins[-1] in {origin for origin, _ in page.pictures._cache}


def test_labels_wait_for_the_job_and_the_job_for_labels(job, open_page):
    page = open_page(job)
    shown = page.items()
    with closing(Ledger(job, writes=True)) as work:
        with work.transaction():
            work.source(SourceKey("/new.png"), 1, 1)
            answers: list[Any] = []
            thread = threading.Thread(
                target=lambda: answers.append(page.sitting.label(shown["even.png"]["source"], 0, "dark"))
            )
            thread.start()
            assert page.ledger is not work
            other = sqlite3.connect(job / "ledger.sqlite")
            assert list(other.execute("SELECT * FROM labels")) == []
            other.close()
        thread.join(30)
        assert answers == [True]
        page.label(shown["big.png"], "light")
        with work.transaction():
            work.record(shown["even.png"]["source"], [Item(0, DONE, "e" * 64, 1, 1, 0.5, "uncertain", "", None)], "m")
    assert page.labels() == {"even.png": "dark", "big.png": "light"}


def test_a_label_that_cannot_be_written_says_why(job, open_page):
    page = open_page(job)
    item = page.items()["even.png"]
    with closing(Ledger(job, writes=True)) as work, work.transaction():
        page.ledger._base.execute("PRAGMA busy_timeout=1")
        answer = page.label(item, "dark")
        assert answer.status_code == 500
        assert "cannot be used: database is locked. Another process has been writing it" in answer.json()["error"]
    page.ledger._base.execute("PRAGMA query_only=ON")
    answer = page.label(item, "dark")
    assert answer.status_code == 500
    assert "See to the permissions of the file and its folder." in answer.json()["error"]
    page.ledger._base.execute("PRAGMA query_only=OFF")
    assert page.labels() == {}


def test_what_the_job_does_later_leaves_labels(make_job, open_page, tmp_path: Path):
    folder = make_job()
    page = open_page(folder, everything=True)
    page.label(page.items()["even.png"], "dark")
    (tmp_path / "scans" / "new.png").write_bytes((tmp_path / "scans" / "light.png").read_bytes())
    run_job(make_run(tmp_path / "other", seed=4), tmp_path / "scans", folder)
    assert page.items()["even.png"]["label"] == "dark", "it was scored again, and is the same image"
