from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.prepared import FILES, PreparedDataset
from photoflux.data.sources.demo import write_demo_folder
from photoflux.data.sources.folder import prepare_folder
from photoflux.errors import DataError, SettingError

ROOT = Path(__file__).parents[3]
SCANS = next((p for p in (ROOT / "shared/data/tounum", ROOT.parent / "shared/data/tounum") if p.is_dir()), None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_folder(tmp_path_factory.mktemp("folder") / "scans", images_per_class=10)


def contents(dataset: PreparedDataset) -> dict[str, bytes]:
    return {name: (dataset.path / name).read_bytes() for name in FILES}


def noise(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(small).resize((40, 30), Image.Resampling.BICUBIC).save(path)
    return path


def test_binary(scans: Path, tmp_path: Path):
    steps: list[tuple[int, int, str]] = []
    dataset = prepare_folder(scans, tmp_path / "set", image_size=32, on_progress=lambda *step: steps.append(step))
    assert dataset.name == "scans"
    assert dataset.classes == ["not Photo", "Photo"]
    assert dataset.positive == "Photo"
    assert dataset.images.shape == (50, 3, 32, 32)
    assert dataset.counts() == {
        "train": {"not Photo": 28, "Photo": 7},
        "validation": {"not Photo": 4, "Photo": 1},
        "test": {"not Photo": 8, "Photo": 2},
    }
    assert dataset.folder_counts() == dict.fromkeys(["Painting", "Photo", "Schematics", "Sketch", "Text"], 10)
    assert [label == 1 for label in dataset.labels] == [folder == "Photo" for folder in dataset.folder_labels()]
    assert dataset.rejected == dataset.warnings == []
    assert steps[0][1:] == steps[-1][1:] == (50, "Decoding images")
    assert [done for done, _, _ in steps] == list(range(1, 51))


def test_rows_belong_to_their_images(scans: Path, tmp_path: Path):
    dataset = prepare_folder(scans, tmp_path / "set", image_size=64)
    for row, pixels in zip(dataset.files(), dataset.images, strict=True):
        with Image.open(scans / row["path"]) as image:
            assert image.size == (int(row["width"]), int(row["height"]))
            assert np.array_equal(np.asarray(image), pixels.transpose(1, 2, 0))


def test_all_classes(scans: Path, tmp_path: Path):
    dataset = prepare_folder(scans, tmp_path / "set", image_size=8, positive=None)
    assert dataset.classes == ["Painting", "Photo", "Schematics", "Sketch", "Text"]
    assert dataset.positive is None
    assert np.bincount(dataset.labels).tolist() == [10] * 5
    assert prepare_folder(scans, tmp_path / "set", image_size=8, positive="Text").classes == ["not Text", "Text"]


def test_the_result_does_not_depend_on_the_processes(tmp_path: Path, scans: Path):
    (scans / "Photo" / "desktop.ini").write_text("[x]")
    try:
        one = contents(prepare_folder(scans, tmp_path / "one", image_size=16, processes=1))
        two = contents(prepare_folder(scans, tmp_path / "two", image_size=16, processes=2))
    finally:
        (scans / "Photo" / "desktop.ini").unlink()
    assert one == two
    other = contents(prepare_folder(scans, tmp_path / "three", image_size=16, seed=43))
    assert other["images.npy"] == one["images.npy"]
    assert other["split.npy"] != one["split.npy"]


def test_a_script_without_a_main_guard(scans: Path, tmp_path: Path):
    """Fresh processes must not run the user's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from photoflux.data.sources.folder import prepare_folder\n"
        "print('once')\n"
        f"print(len(prepare_folder({str(scans)!r}, {str(tmp_path / 'set')!r}, image_size=8, processes=2)))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["once", "50"]
    assert done.stderr == ""


def test_originals_are_untouched(scans: Path, tmp_path: Path):
    def state() -> dict[str, tuple[int, bytes]]:
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in scans.rglob("*") if p.is_file()}

    before = state()
    prepare_folder(scans, tmp_path / "set", image_size=8)
    assert state() == before


def test_rejected_files_are_listed_and_the_rest_is_used(tmp_path: Path):
    for label in ("Photo", "Text"):
        for number in range(5):
            noise(tmp_path / "in" / label / f"{number}.jpg", seed=ord(label[0]))
    whole = (tmp_path / "in/Photo/1.jpg").read_bytes()
    (tmp_path / "in/Photo/1.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/Photo/desktop.ini").write_text("[.ShellClassInfo]")
    (tmp_path / "in/Text/.DS_Store").write_text("")
    (tmp_path / 'in/note, "odd".txt').write_text("")
    dataset = prepare_folder(tmp_path / "in", tmp_path / "set", image_size=8)
    assert len(dataset) == 9
    assert dataset.meta["ignored"] == {"files": 2, "folders": 0, "names": {".DS_Store": 1, "desktop.ini": 1}}
    assert dict(dataset.rejected) == {
        'note, "odd".txt': "beside the class folders, expected inside one",
    } | {"Photo/1.jpg": dict(dataset.rejected)["Photo/1.jpg"]}
    assert dict(dataset.rejected)["Photo/1.jpg"].startswith("broken JPEG: ")
    with (tmp_path / "set" / "rejected.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 3


def test_a_class_of_which_nothing_can_be_read_is_named(tmp_path: Path):
    for label in ("Photo", "Text"):
        for number in range(5):
            noise(tmp_path / "in" / label / f"{number}.png", seed=ord(label[0]))
    (tmp_path / "in" / "Sketch").mkdir()
    (tmp_path / "in" / "Sketch" / "a.svg").write_text("<svg/>")
    (tmp_path / "in" / "Empty ").mkdir()
    dataset = prepare_folder(tmp_path / "in", tmp_path / "set", image_size=8)
    assert dataset.warnings == [
        "Nothing in the class folder 'Empty ' could be read, so there is no such class.",
        "Nothing in the class folder 'Sketch' could be read, so there is no such class.",
    ]


def test_classes_one_folder_deeper_are_pointed_to(tmp_path: Path):
    for label in ("Photo", "Text"):
        noise(tmp_path / "in" / "scans" / label / "a.png")
    with pytest.raises(DataError, match=r"holds the folders 'Photo', 'Text': if those are the classes, give .*scans\."):
        prepare_folder(tmp_path / "in", tmp_path / "set")


def test_pages_of_a_tiff_are_rows(tmp_path: Path):
    for number in range(6):
        noise(tmp_path / "in" / "Photo" / f"{number}.png")
    pages = [Image.open(noise(tmp_path / "pages" / f"{n}.png", seed=9)) for n in range(4)]
    (tmp_path / "in" / "Text").mkdir()
    pages[0].save(tmp_path / "in/Text/scan.tif", save_all=True, append_images=pages[1:])
    for page in pages:
        page.close()
    dataset = prepare_folder(tmp_path / "in", tmp_path / "set", image_size=8)
    assert [row["path"] for row in dataset.files()][6:] == [f"Text/scan.tif#{n}" for n in range(1, 5)]
    assert dataset.folder_counts() == {"Photo": 6, "Text": 4}


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_are_on_one_side(tmp_path: Path, seed: int):
    for label in ("a", "b"):
        for number in range(12):
            path = noise(tmp_path / "in" / label / f"{number}.png", seed=ord(label))
            with Image.open(path) as image:
                image.convert("RGB").save(path.with_suffix(".jpg"), quality=85)
        noise(tmp_path / "in" / label / "copy" / "0.png", seed=ord(label))
    dataset = prepare_folder(tmp_path / "in", tmp_path / "set", image_size=8, seed=seed)
    rows = dataset.files()
    assert len({row["group"] for row in rows}) == 24
    for name in ("a/0", "b/7"):
        same = [row for row in rows if row["path"].replace("copy/", "").split(".")[0] == name]
        assert len(same) in (2, 3)
        assert len({row["split"] for row in same}) == 1
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_a_hidden_class_of_one_image_trains_with_a_warning(tmp_path: Path):
    for label, count in (("Photo", 10), ("Text", 10), ("Sketch", 1)):
        for number in range(count):
            noise(tmp_path / "in" / label / f"{number}.png", seed=ord(label[0]))
    dataset = prepare_folder(tmp_path / "in", tmp_path / "set", image_size=8)
    assert dataset.warnings == ["Class 'Sketch' has too few different images to be in the validation and test part."]
    (row,) = [row for row in dataset.files() if row["folder"] == "Sketch"]
    assert row["split"] == "train"
    with pytest.raises(DataError, match=r"Class 'Sketch' of .* has one usable image"):
        prepare_folder(tmp_path / "in", tmp_path / "other", image_size=8, positive=None)
    assert not (tmp_path / "other").exists()


def make_single(root: Path) -> None:
    noise(root / "Photo" / "a.png")


def make_unreadable_class(root: Path) -> None:
    noise(root / "Photo" / "a.png")
    (root / "Text").mkdir()
    (root / "Text" / "a.png").write_text("no")


def make_unreadable(root: Path) -> None:
    for label in ("Photo", "Text"):
        (root / label).mkdir()
        (root / label / "a.png").write_text("no")


def make_tiny(root: Path) -> None:
    for name in ("Photo/a.png", "Photo/b.png", "Text/c.png", "Text/d.png"):
        noise(root / name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "has no class folders with files in them"),
        (lambda root: noise(root / "a.png"), "has no class folders with files in them"),
        (make_single, r"has a single class folder \(Photo\), expected two or more"),
        (make_unreadable_class, r"has a single class folder with readable images \(Photo\)"),
        (make_unreadable, r"No image in .* can be read; 2 files were rejected, the first is Photo/a.png: a text file"),
        (make_tiny, "too few different images for a validation part"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, make, message: str):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    with pytest.raises(DataError, match=message):
        prepare_folder(tmp_path / "in", tmp_path / "set", image_size=8)
    assert names(tmp_path) == ["in"]


def test_arguments(scans: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"received: 'Foto'. Did you mean Photo\?"):
        prepare_folder(scans, tmp_path / "set", positive="Foto")
    for size in (7, 0, -1, 8.0, "64", True, None, 5000):
        with pytest.raises(SettingError, match="`image_size` must be an integer from 8 to 4096"):
            prepare_folder(scans, tmp_path / "set", image_size=size)
    for seed in (-1, 1.5, "1", None):
        with pytest.raises(SettingError, match="`seed` must be an integer, 0 or more"):
            prepare_folder(scans, tmp_path / "set", seed=seed)
    for processes in (0, -2, 1.5, True):
        with pytest.raises(SettingError, match="`processes` must be an integer, 1 or more"):
            prepare_folder(scans, tmp_path / "set", processes=processes)
    assert names(tmp_path) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_leaves_the_old_content_and_no_process(scans: Path, tmp_path: Path, processes: int):
    import multiprocessing

    old = contents(prepare_folder(scans, tmp_path / "set", image_size=8))

    def interrupt(done: int, total: int, what: str) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_folder(scans, tmp_path / "set", image_size=16, processes=processes, on_progress=interrupt)
    assert multiprocessing.active_children() == []
    assert {name: (tmp_path / "set" / name).read_bytes() for name in FILES} == old
    assert names(tmp_path) == ["set"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_a_real_ctrl_c(scans: Path, tmp_path: Path):
    """The signal that a terminal sends to the whole process group."""
    import signal

    script = (
        "from photoflux.data.sources.folder import prepare_folder\n"
        "import time\n"
        "from photoflux.system.signals import unblock\n"
        "unblock()\n"
        "def step(done, total, what):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(0.2)\n"
        "try:\n"
        f"    prepare_folder({str(scans)!r}, {str(tmp_path / 'set')!r}, image_size=8, processes=2, on_progress=step)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        start = time.monotonic()
        out, err = process.communicate(timeout=30)
    assert out.endswith("interrupted\n")
    assert err == ""
    assert process.returncode == 0
    assert time.monotonic() - start < 10
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_while_the_processes_start(scans: Path, tmp_path: Path):
    """A Ctrl-C that reaches a decoding process before its first line of ours has run does nothing there."""
    script = (
        "import contextlib, multiprocessing, os, signal, threading, time\n"
        "from photoflux.data.sources.folder import prepare_folder\n"
        "met, over = set(), threading.Event()\n"
        "def interrupt():\n"
        "    while not over.is_set():\n"
        "        for child in multiprocessing.active_children():\n"
        "            met.add(child.pid)\n"
        "            with contextlib.suppress(ProcessLookupError):\n"
        "                os.kill(child.pid, signal.SIGINT)\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=interrupt).start()\n"
        "try:\n"
        f"    prepare_folder({str(scans)!r}, {str(tmp_path / 'set')!r}, image_size=8, processes=2)\n"
        "finally:\n"
        "    over.set()\n"
        "print(len(met))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout == "2\n"
    assert names(tmp_path) == ["set"]


@pytest.mark.skipif(SCANS is None, reason="the real scans are not on this machine")
def test_real_scans(tmp_path: Path):
    """Greys, CMYK, palettes, alpha, 1 bit and EXIF turns, as scans have them."""
    assert SCANS is not None
    modes = set()
    for folder in ("Photo", "Painting", "Schematics", "Sketch", "Text"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        chosen: dict[tuple[str, bool], Path] = {}
        files = sorted((SCANS / folder).iterdir())
        for path in files[:300]:
            with Image.open(path) as image:
                chosen.setdefault((image.mode, image.getexif().get(0x0112, 1) != 1), path)
        modes |= {mode for mode, _ in chosen}
        for path in [*chosen.values(), *files[-15:]]:
            link = tmp_path / "in" / folder / path.name
            if not link.exists():
                link.symlink_to(path)
    assert {"RGB", "L", "CMYK", "P"} <= modes
    dataset = prepare_folder(tmp_path / "in", tmp_path / "set", image_size=32)
    assert dataset.rejected == []
    assert len(dataset) == sum(1 for path in (tmp_path / "in").rglob("*") if path.is_file())
    assert all(count > 0 for part in dataset.counts().values() for count in part.values())
    assert dataset.images.reshape(len(dataset), -1).std(axis=1).min() > 1
