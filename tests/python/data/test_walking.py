"""One walk for every command: no entry can raise, and predict finds what prepare finds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from photoflux.data.litter import ignored_in_words
from photoflux.data.scanning import scan_folder
from photoflux.data.walking import FILE, IGNORED, REJECTED, absence, walk
from photoflux.errors import DataError
from photoflux.runs.prediction import expand


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def of_kind(root: Path, kind: str) -> dict[str, str]:
    return {found.path: found.detail for found in walk(root) if found.kind == kind}


def test_every_kind_of_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = touch(tmp_path, "in/a/x.png", "in/a/deep/er/y.png", "out/z.png") / "in"
    os.mkfifo(root / "a" / "pipe.png")
    # A socket's path may have 108 bytes only.
    monkeypatch.chdir(root / "a")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        (root / "a" / "self.png").symlink_to("self.png")
        (root / "a" / "one").symlink_to("two")
        (root / "a" / "two").symlink_to("one")
        (root / "a" / "gone").symlink_to("nowhere")
        (root / "a" / "through").symlink_to("x.png/below")
        (root / "a" / "null.png").symlink_to(os.devnull)
        (root / "a" / "long").symlink_to("n" * 300)
        (root / "linked").symlink_to(tmp_path / "out")
        assert list(of_kind(root, FILE)) == ["a/x.png", "a/deep/er/y.png", "linked/z.png"]
        assert of_kind(root, REJECTED) == {
            "a/gone": "a link to nothing",
            "a/long": "cannot be read: File name too long",
            "a/null.png": "not a regular file: a device",
            "a/one": "a link in a circle",
            "a/pipe.png": "not a regular file: a pipe",
            "a/self.png": "a link in a circle",
            "a/socket.png": "not a regular file: a socket",
            "a/through": "a link to nothing",
            "a/two": "a link in a circle",
        }


def test_a_folder_is_read_once_and_itself_rather_than_a_link_to_it(tmp_path: Path):
    touch(tmp_path, "b/x/1.png", "else/2.png", "else/in/3.png")
    (tmp_path / "a").symlink_to("b/x")
    (tmp_path / "b" / "circle").symlink_to("..")
    root = tmp_path / "b"
    (root / "later").symlink_to("../else")
    (root / "earlier").symlink_to("../else/in")
    assert list(of_kind(root, FILE)) == ["x/1.png", "earlier/3.png", "later/2.png"]
    assert of_kind(root, REJECTED) == {
        "circle/": "a link to a folder above this one",
        "later/in/": "a folder that is read already",
    }
    assert of_kind(tmp_path, REJECTED) == dict.fromkeys(
        ("a/", "b/circle/", "b/earlier/", "b/later/"), "a link to a folder that is read already"
    )


def test_what_vanishes_or_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path, "a/1.png", "b/2.png", "c/3.png", "d/4.png", "d/5.png")
    real = os.scandir

    def scandir(path):
        listing = real(path)
        if Path(path) == tmp_path:  # the folders were listed: now one goes and one becomes a file
            entries = list(listing)
            (tmp_path / "a" / "1.png").unlink()
            (tmp_path / "a").rmdir()
            (tmp_path / "b" / "2.png").unlink()
            (tmp_path / "b").rmdir()
            (tmp_path / "b").write_text("a file")
            return Listing(entries)
        if Path(path).name == "d":
            entries = list(listing)
            (tmp_path / "d" / "4.png").unlink()
            return Listing(entries)
        return listing

    class Listing:
        def __init__(self, entries):
            self.entries = entries

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", scandir)
    found = {item.path: item.detail for item in walk(tmp_path) if item.kind in (FILE, REJECTED)}
    assert found == {
        "a/": "the folder cannot be read: No such file or directory",
        "b/": "the folder cannot be read: Not a directory",
        "c/3.png": "",
        "d/4.png": "the file has gone",
        "d/5.png": "",
    }


def test_a_listing_that_breaks_off_keeps_what_it_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path, "a/1.png", "a/2.png", "b/3.png")
    real = os.scandir

    class Broken:
        def __init__(self, path):
            self.listing = real(path)

        def __enter__(self):
            yield next(self.listing)
            raise OSError(5, "Input/output error")

        def __exit__(self, *_):
            self.listing.close()

    monkeypatch.setattr(os, "scandir", lambda path: Broken(path) if str(path).endswith("a") else real(path))
    found = [item for item in walk(tmp_path) if item.kind in (FILE, REJECTED)]
    assert len([item for item in found if item.kind == FILE]) == 2
    assert [item[:3] for item in found if item.kind == REJECTED] == [
        ("a/", REJECTED, "the folder cannot be read: Input/output error")
    ]


AS_NOBODY = """
import os, sys
from pathlib import Path
from photoflux.data.sources import cifar10
from photoflux.data.sources import idx
from photoflux.data.scanning import scan_folder
from photoflux.data.preparation import kind_of
from photoflux.runs.prediction import expand
root = Path(sys.argv[1])
os.setgid(65534), os.setuid(65534)  # after the imports, which nobody may read here
assert kind_of(root) == "folder"
scan = scan_folder(root)
print([file.path for file in scan.files], scan.rejected, scan.unread)
print([(str(path.relative_to(root)), reason) for path, reason in expand([root])[0]])
for below in ("closed/in", "closed"):
    try:
        kind_of(root / below)
        scan_folder(root / below)
    except Exception as error:
        print(type(error).__name__, str(error).replace(str(root), "ROOT"))
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_folders_without_permission(tmp_path_factory: pytest.TempPathFactory):
    root = touch(tmp_path_factory.mktemp("rights"), "a/1.png", "closed/in/2.png", "listed/3.png", "entered/4.png")
    for place in (root, *root.parents):
        if place.stat().st_uid == os.getuid() and place.is_relative_to("/tmp"):
            place.chmod(place.stat().st_mode | 0o055)
    for name, mode in (("closed", 0), ("listed", 0o744), ("entered", 0o711)):
        (root / name).chmod(mode)
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, root], capture_output=True, text=True, check=False)
    denied = "Permission denied"
    assert done.stdout.splitlines() == [
        f"['a/1.png'] [('closed/', 'the folder cannot be read: {denied}'), ('entered/', 'the folder cannot be read: "
        f"{denied}'), ('listed/3.png', 'cannot be read: {denied}')] ['closed', 'entered', 'listed']",
        f"[('a/1.png', None), ('closed', 'the folder cannot be read: {denied}'), ('entered', 'the folder cannot be "
        f"read: {denied}'), ('listed/3.png', 'cannot be read: {denied}')]",
        f"DataError ROOT/closed/in cannot be read: {denied}. Expected a folder of images, 'demo' or 'cifar10'.",
    ], done.stderr


def test_very_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, depth in (("d" * 200, 30), ("e", 600)):  # the first is deeper than a path may be long
        for _ in range(depth):
            Path(name).mkdir()
            os.chdir(name)
        Path("x.png").write_text("")
        os.chdir(tmp_path)
    try:
        assert list(of_kind(tmp_path, FILE)) == ["e/" * 600 + "x.png"]
        (reason,) = of_kind(tmp_path, REJECTED).values()
        assert reason == "the folder cannot be read: File name too long"
    finally:
        subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


IGNORED_NAMES = [
    ".DS_Store", ".ds_store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "Desktop.ini", "ehthumbs.db", "._photo.jpg",
    ".directory", "Icon\r", "Picasa.ini", ".picasa.ini", ".hidden.png", ".git/x.png", ".Trash/x.png",
    ".Trash-1000/x.png", ".ipynb_checkpoints/x.png", ".thumbnails/x.png", "@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg",
    "@EADIR/x.png", "#recycle/x.png", "@Recycle/x.png", ".@__thumb/x.png", "@__thumb/x.png", "#snapshot/x.png",
    "__MACOSX/x.png", ".AppleDouble/x.png", ".picasaoriginals/x.png", "$RECYCLE.BIN/x.png", "$Recycle.Bin/x.png",
    "RECYCLER/S-1-5-21-1/x.png", "System Volume Information/x.png", "lost+found/x.png",
    "1.png:Zone.Identifier", "~$page.docx", "x.jpg@SynoResource", "Adobe Bridge Cache.bct", "BridgeCacheT",
    "Mine Previews.lrdata/x.jpg", "FOUND.000/x.jpg", "x@SynoEAStream/x.jpg", "_vti_cnf/x.jpg", "_gsdata_/x.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", IGNORED_NAMES)
def test_what_is_not_the_users_data_is_ignored_everywhere(tmp_path: Path, name: str):
    touch(tmp_path, "a/1.png", "b/2.png", name, f"a/{name}", f"b/deep/{name}")
    scan = scan_folder(tmp_path)
    assert ([file.path for file in scan.files], scan.rejected) == (["a/1.png", "b/2.png"], [])
    assert scan.ignored["files"] + scan.ignored["folders"] == 3
    found, counts = expand([tmp_path])
    assert [path for path, _ in found] == [tmp_path / "a/1.png", tmp_path / "b/2.png"]
    assert counts == scan.ignored
    # One that is given itself is meant.
    given = tmp_path / name.partition("/")[0]
    assert expand([given])[0] != []


@pytest.mark.parametrize(
    "name",
    [
        "Thumbs/a.png",
        "runs/a.png",
        "Icon/a.png",
        "recycler/a.png",
        "Desktop/a.png",
        "thumbs.png",
        "git/a.png",
        "Found/a.png",
        "~a.png",
    ],
)
def test_a_class_is_never_ignored_for_its_name(tmp_path: Path, name: str):
    assert list(of_kind(touch(tmp_path, name), FILE)) == [name]
    assert of_kind(tmp_path, IGNORED) == {}


def test_ignored_in_words():
    counts = {"files": 12, "folders": 3, "names": {".DS_Store": 8, "._*": 4, "@eaDir": 1, "b": 1, "c": 1}}
    assert ignored_in_words(counts) == (
        "Ignored: 12 files and 3 folders that are not your images (.DS_Store 8, ._* 4, @eaDir 1, b 1, …)."
    )
    one = {"files": 0, "folders": 1, "names": {"runs": 1}}
    assert ignored_in_words(one) == "Ignored: 1 folder that is not your images (runs 1)."
    assert ignored_in_words({"files": 0, "folders": 0, "names": {}}) is ignored_in_words(None) is None


def test_predict_finds_what_prepare_finds(tmp_path: Path):
    touch(tmp_path, "in/a/1.png", "in/b/c/2.png", "in/.DS_Store", "elsewhere/3.png", "in/b/c.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "b" / "gone.png").symlink_to("nowhere")
    scan = scan_folder(tmp_path / "in")
    assert [file.path for file in scan.files] == ["a/1.png", "b/c.png", "b/c/2.png", "linked/3.png"]
    assert expand([tmp_path / "in"])[0] == [
        (tmp_path / "in" / path, reason)
        for path, reason in sorted([*((file.path, None) for file in scan.files), *scan.rejected])
    ]


def test_a_path_that_is_not_there(tmp_path: Path):
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    for name, words in (
        ("none", "No such folder: "),
        ("nu\0ll", "No such folder: "),
        ("self", "self is a link in a circle"),
        ("gone", "gone is a link to nothing"),
        ("n" * 300, "cannot be read: File name too long"),
    ):
        said = absence(tmp_path / name)
        assert said is not None and words in said
        with pytest.raises(DataError, match=r"Expected images, or folders of them"):
            expand([tmp_path / name])
    assert absence(tmp_path) is None
