"""A job over a pile with everything in it: each item once, where it belongs, and nothing is written to the pile."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from odd_calls import deadly_page
from photoflux.data.images.decoding import decode_file
from photoflux.data.images.formats import RefusedError
from photoflux.data.shape import Shape
from photoflux.errors import DataError, RunError, SettingError
from photoflux.filtering import job
from photoflux.filtering.ledger import Ledger
from photoflux.filtering.status import status_of
from piles import DARK, LIGHT, files_below, make_pile, make_run, picture, run_job


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def by_name(out: Path) -> dict[tuple[str, str, int], dict[str, str]]:
    found = {}
    for row in rows_of(out):
        key = Path(row["path"]).name, row["member"], int(row["page"])
        found.setdefault(key, row)
    return found


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    return make_pile(tmp_path / "pile")


def test_a_page_that_ends_whoever_writes_it_costs_itself(tmp_path: Path, pile: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(job, "write_page", deadly_page)
    found = run_job(run, [pile / "pages.pdf"], tmp_path / "out")
    rows = by_name(tmp_path / "out")
    assert rows["pages.pdf", "", 4]["error"] == (
        "its picture could not be written: the decoder ended while it read this file"
    )
    assert rows["pages.pdf", "", 2]["decision"] == "light"
    assert found.complete
    assert len([path for path in (tmp_path / "out" / "photos").rglob("*") if path.is_file()]) == 1
    monkeypatch.undo()
    run_job(run, [pile / "pages.pdf"], tmp_path / "out")
    assert len([path for path in (tmp_path / "out" / "photos").rglob("*") if path.is_file()]) == 2


def test_everything_in_a_pile(tmp_path: Path, pile: Path):
    before = files_below(pile)
    times = {path: path.stat().st_mtime_ns for path in pile.rglob("*")}
    found = run_job(make_run(tmp_path / "run"), pile, tmp_path / "out")
    rows = by_name(tmp_path / "out")
    assert list(rows_of(tmp_path / "out")[0]) == [
        "path", "member", "page", "sha256", "width", "height", "score", "decision", "error",
    ]  # fmt: skip
    light = rows["000.png", "", 0]
    assert light["sha256"] == hashlib.sha256((pile / "box 0" / "000.png").read_bytes()).hexdigest()
    assert (light["width"], light["height"], light["error"]) == ("12", "10", "")
    pixels = decode_file(pile / "box 0" / "000.png", Shape(3, 8, 8)).images[0].pixels
    # The logistic function of the brightness; a score is a float32.
    expected = 1 / (1 + 2.718281828459045 ** -(float(pixels.mean()) / 10 - 10))
    assert float(light["score"]) == pytest.approx(expected, rel=1e-6)
    assert {rows["pages.tif", "", page]["decision"] for page in (1, 3, 5)} == {"dark"}
    assert {rows["pages.pdf", "", page]["decision"] for page in (2, 4)} == {"light"}
    assert rows["old.zip", "a/one.png", 0]["decision"] == "light"
    assert rows["old.zip", "pages.pdf", 2]["decision"] == "light"
    assert [row["decision"] for row in rows_of(tmp_path / "out") if row["member"] == "same.png"] == ["light"] * 3
    assert {
        rows[archive, f"deep/{n}.png", 0]["sha256"] for archive in ("plain.tar", "packed.tar.gz") for n in (3,)
    } == {hashlib.sha256(picture(LIGHT, 323)).hexdigest()}
    errors = {name: row["error"] for (name, member, _), row in rows.items() if row["error"] and not member}
    assert errors["empty.png"] == "an empty file (0 bytes)"
    assert errors["words.txt"] == "a text file: not an image"
    assert errors["broken.png"].startswith("broken PNG")
    assert errors["no.zip"].startswith("broken zip archive: ")
    assert errors["cut.tar.gz"].startswith("broken tar archive: ")
    assert set(errors) == {"empty.png", "words.txt", "broken.png", "no.zip", "cut.tar.gz"}
    assert found.complete
    assert found.counts["failed"] == len(errors) + 1, "and one member of an archive"
    assert any("1 file" in note or "2 files" in note for note in found.notes), found.notes
    assert files_below(pile) == before
    assert {path: path.stat().st_mtime_ns for path in pile.rglob("*")} == times


def test_pictures_are_links_members_and_pages(tmp_path: Path, pile: Path):
    run_job(make_run(tmp_path / "run"), pile, tmp_path / "out")
    photos = tmp_path / "out" / "photos"
    rows = [row for row in rows_of(tmp_path / "out") if row["decision"] == "light"]
    assert len([path for path in photos.rglob("*") if path.is_file()]) == len(rows), "each has one picture"
    placed = photos / "pile" / "box 0" / "000.png"
    assert placed.stat().st_ino == (pile / "box 0" / "000.png").stat().st_ino
    assert (photos / "pile" / "old.zip" / "a" / "one.png").read_bytes() == picture(LIGHT, 301)
    assert len(list((photos / "pile" / "twice.zip").iterdir())) == 3
    assert not list(tmp_path.rglob("evil.png")), "nothing leads out of an archive"
    evil = [path for path in photos.rglob("evil*.png")]
    assert [path.read_bytes() for path in evil] == [picture(LIGHT, 303)]
    with Image.open(photos / "pile" / "pages.tif-page-0002.png") as page:
        assert page.size == (12, 10)
    names = [path.name for path in photos.rglob("*")]
    assert any(name.startswith("latin-\\xe9~") for name in names)
    assert any(name.startswith("line\\nbreak~") for name in names)
    assert "naïve Ünï 写真.png" in names
    assert max(len(name.encode()) for name in names) <= 255


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb\tc", b"s3:x", "N\u0303 \u2028".encode()])
def test_a_job_whose_folder_and_pile_have_odd_names(tmp_path: Path, pile: Path, name: bytes):
    odd = tmp_path / os.fsdecode(name)
    odd.mkdir()
    run, moved = make_run(odd / "run"), pile.rename(odd / "pile")
    found = run_job(run, moved, odd / "out", how="list")
    assert found.counts["light"] > 0
    assert (odd / "out" / "results.csv").is_file()
    if importlib.util.find_spec("pyarrow"):
        assert (odd / "out" / "results.parquet").is_file()
    assert status_of(odd / "out").counts["light"] == found.counts["light"]


def test_copies_and_lists(tmp_path: Path, pile: Path):
    run = make_run(tmp_path / "run")
    run_job(run, pile, tmp_path / "links")
    run_job(run, pile, tmp_path / "copies", how="copy")
    found = run_job(run, pile, tmp_path / "list", how="list")
    assert files_below(tmp_path / "copies" / "photos") == files_below(tmp_path / "links" / "photos")
    copy = tmp_path / "copies" / "photos" / "pile" / "box 0" / "000.png"
    assert copy.stat().st_ino != (pile / "box 0" / "000.png").stat().st_ino
    assert not (tmp_path / "list" / "photos").exists()
    results = {(tmp_path / how / "results.csv").read_bytes() for how in ("links", "copies", "list")}
    assert len(results) == 1
    assert found.counts == status_of(tmp_path / "links").counts | {"failed": found.counts["failed"]}


def test_the_parquet_file_has_the_same(tmp_path: Path, pile: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run_job(make_run(tmp_path / "run"), pile, tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    plain = rows_of(tmp_path / "out")
    assert [row["sha256"] for row in table] == [row["sha256"] for row in plain]
    assert [row["score"] for row in table if row["score"] is not None] == [
        float(row["score"]) for row in plain if row["score"]
    ]
    assert list(table[0]) == list(plain[0])


def test_a_second_start_does_nothing_and_a_change_does_what_changed(tmp_path: Path, pile: Path):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    run_job(run, pile, out)
    results = (out / "results.csv").read_bytes()
    attempts = list(Ledger(out).rows("SELECT attempts, count(*) FROM items GROUP BY attempts"))
    run_job(run, pile, out)
    assert (out / "results.csv").read_bytes() == results
    assert list(Ledger(out).rows("SELECT attempts, count(*) FROM items GROUP BY attempts")) == attempts
    changed = pile / "box 0" / "000.png"
    changed.write_bytes(picture(DARK, 999))
    (pile / "box 9").mkdir()
    (pile / "box 9" / "new.png").write_bytes(picture(LIGHT, 998))
    assert not (out / "photos" / "pile" / "box 9").exists()
    run_job(run, pile, out)
    rows = by_name(out)
    assert rows["000.png", "", 0]["decision"] == "dark"
    assert not (out / "photos" / "pile" / "box 0" / "000.png").exists()
    assert (out / "photos" / "pile" / "box 9" / "new.png").is_file()
    run_job(run, pile, tmp_path / "anew")
    assert (out / "results.csv").read_bytes() == (tmp_path / "anew" / "results.csv").read_bytes()
    assert files_below(out / "photos") == files_below(tmp_path / "anew" / "photos")


def test_another_model_makes_all_stale_and_another_threshold_decides_again(tmp_path: Path, pile: Path):
    out = tmp_path / "out"
    run_job(make_run(tmp_path / "run"), pile, out)
    (pile / "box 0" / "000.png").unlink()
    run_job(make_run(tmp_path / "other", seed=3), pile, out)
    assert by_name(out)["000.png", "", 0]["error"].startswith("stale: ")
    assert Ledger(out).counts()["stale"] == 1
    models = list(Ledger(out).rows("SELECT DISTINCT model FROM items WHERE state = 'done'"))
    assert len(models) == 1
    score = float(by_name(out)["001.png", "", 0]["score"])
    run_job(make_run(tmp_path / "other", seed=3), pile, out, threshold=1.0)
    assert "light" not in Ledger(out).counts()
    assert list(files_below(out / "photos")) == ["pile/box 0/000.png"], "of the stale one it is not known"
    run_job(make_run(tmp_path / "other", seed=3), pile, out, threshold=score)
    assert by_name(out)["001.png", "", 0]["decision"] == "light", "a score that equals the threshold is taken"


def test_what_may_pass_is_tried_again_and_the_rest_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pile, run, out = tmp_path / "pile", make_run(tmp_path / "run"), tmp_path / "out"
    pile.mkdir()
    (pile / "bad.png").write_bytes(b"")
    (pile / "good.png").write_bytes(picture(LIGHT))
    with monkeypatch.context() as patched:
        patched.setattr(job, "put", lambda *_: (_ for _ in ()).throw(RefusedError("the file has gone")))
        run_job(run, pile, out)
    assert {row["error"] for row in rows_of(out)} == {
        "an empty file (0 bytes)",
        "its picture could not be written: the file has gone",
    }
    run_job(run, pile, out)
    assert {row["error"] for row in rows_of(out)} == {"an empty file (0 bytes)", ""}
    assert list(Ledger(out).rows("SELECT state, attempts FROM items ORDER BY state")) == [("done", 2), ("failed", 1)]


def test_two_folders_of_one_name_and_a_file_by_itself(tmp_path: Path):
    for side in ("left", "right"):
        (tmp_path / side / "scans").mkdir(parents=True)
        (tmp_path / side / "scans" / "a.png").write_bytes(picture(LIGHT, len(side)))
    (tmp_path / "single.png").write_bytes(picture(LIGHT, 77))
    pile = [tmp_path / "left" / "scans", tmp_path / "right" / "scans", tmp_path / "single.png"]
    run_job(make_run(tmp_path / "run"), [*pile, pile[0]], tmp_path / "out")
    photos = files_below(tmp_path / "out" / "photos")
    assert sorted(photos.values()) == sorted(
        path.read_bytes() for path in (pile[0] / "a.png", pile[1] / "a.png", pile[2])
    )
    assert "single.png" in photos


def test_names_that_only_some_systems_tell_apart(tmp_path: Path):
    pile = tmp_path / "pile"
    pile.mkdir()
    (pile / "a.png").write_bytes(picture(LIGHT, 1))
    (pile / "A.png").write_bytes(picture(LIGHT, 2))
    if len(list(pile.iterdir())) < 2:
        pytest.skip("this file system does not tell them apart")
    run_job(make_run(tmp_path / "run"), pile, tmp_path / "out")
    names = [path.name.casefold() for path in (tmp_path / "out" / "photos" / "pile").iterdir()]
    assert len(set(names)) == 2


def test_the_job_in_the_pile_is_not_part_of_it(tmp_path: Path):
    pile = tmp_path / "pile"
    pile.mkdir()
    (pile / "a.png").write_bytes(picture(LIGHT, 1))
    run = make_run(tmp_path / "run")
    for _ in range(2):
        found = run_job(run, pile, pile / "out")
        assert found.counts == {"light": 1}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="mounts a file system")
def test_another_disk_has_copies(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        pile = make_pile(tmp_path / "pile")
        run = make_run(tmp_path / "run")
        found = run_job(run, pile, disk / "out")
        assert any("were copied" in note for note in found.notes)
        run_job(run, pile, tmp_path / "out")
        assert files_below(disk / "out" / "photos") == files_below(tmp_path / "out" / "photos")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.fault(
    "a full disk in `photoflux filter`", costs="nothing: an error says so, and with room the same command goes on"
)
@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_is_named_and_the_job_goes_on(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        pile, run = make_pile(tmp_path / "pile"), make_run(tmp_path / "run")
        for number in range(20):
            data = picture(LIGHT, number, "BMP")
            (pile / f"large{number:02}.bmp").write_bytes(data + bytes(100_000))
        with pytest.raises((DataError, RunError), match=r"space.* start (the job|it) again"):
            run_job(run, pile, disk / "out", how="copy")
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        run_job(run, pile, disk / "out", how="copy")
        run_job(run, pile, tmp_path / "out", how="copy")
        assert (disk / "out" / "results.csv").read_bytes() == (tmp_path / "out" / "results.csv").read_bytes()
        assert files_below(disk / "out" / "photos") == files_below(tmp_path / "out" / "photos")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"threshold": 2}, SettingError, "`threshold` must be a score, 0 to 1; received: 2"),
        ({"threshold": 0.5, "recall": 0.9}, SettingError, "Give one of `recall` and `threshold`"),
        ({"recall": 1.5}, SettingError, "`recall` must be above 0 and below 1"),
        ({"recall": 0.9}, DataError, "does not say where its prepared dataset is"),
        ({"workers": 0}, SettingError, "`workers` must be an integer, 1 or more"),
        ({"how": "move"}, SettingError, "`how`"),
    ],
)
def test_what_is_refused(tmp_path: Path, given: dict[str, object], kind: type[Exception], words: str):
    (tmp_path / "pile").mkdir()
    with pytest.raises(kind, match=words.replace("(", r"\(")):
        run_job(make_run(tmp_path / "run"), tmp_path / "pile", tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_refused(tmp_path: Path):
    run, pile = make_run(tmp_path / "run"), tmp_path / "pile"
    pile.mkdir()
    with pytest.raises(DataError, match="There is no file or folder"):
        run_job(run, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(RunError, match="must be a new folder or that of an earlier"):
        run_job(run, pile, tmp_path / "run")
    with pytest.raises(DataError, match="must be another folder than the pile"):
        run_job(run, pile, pile)
    with pytest.raises(DataError, match="it is not the folder of a `photoflux filter`"):
        status_of(pile)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match="cannot be used: file is not a database"):
        run_job(run, pile, tmp_path / "out")
    assert run_job(run, pile, tmp_path / "empty").counts == {}


def test_an_archive_with_a_member_and_a_folder_of_one_name(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("a", picture(LIGHT, 1))
        archive.writestr("a/b.png", picture(LIGHT, 2))
        archive.writestr("c/d.png", picture(LIGHT, 3))
        archive.writestr("c", picture(LIGHT, 4))
    run_job(make_run(tmp_path / "run"), tmp_path / "odd.zip", tmp_path / "out")
    photos = files_below(tmp_path / "out" / "photos")
    assert sorted(photos.values()) == sorted(picture(LIGHT, number) for number in (1, 2, 3, 4))
    run_job(make_run(tmp_path / "run"), tmp_path / "odd.zip", tmp_path / "out", how="copy")
    assert files_below(tmp_path / "out" / "photos") == photos
