"""Decoding in helper processes: one that dies costs one file at most, and all end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.images import helpers, parallel
from photoflux.data.images.decoding import DecodedFile, decode_file
from photoflux.data.images.parallel import Decoders, decode_files
from photoflux.data.shape import Shape

KILLED = "the decoder was killed by signal 9 while it read this file, perhaps because memory ran out"
# Runs in every helper when its Python starts: opening a file of a certain name is its end.
DEADLY = """
import os, pathlib, sys, time
def die(event, args):
    if event != "open" or not isinstance(args[0], str):
        return
    name = os.path.basename(args[0])
    if name.startswith("killer"):
        os.kill(os.getpid(), 9)
    if name.startswith("crash"):
        os.kill(os.getpid(), 11)
    if name.startswith("exit"):
        os._exit(7)
    if name.startswith("hang"):
        time.sleep(600)
    if name.startswith("bomb"):
        bytearray(3 << 30)
    if name.startswith("once"):
        if not os.path.exists(args[0] + ".seen"):
            os.mkdir(args[0] + ".seen")
            os.kill(os.getpid(), 9)
sys.addaudithook(die)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for k in range(60):
        Image.new("RGB", (20, 20), (k, 2 * k, 255 - k)).save(tmp_path / "images" / f"{k:02}.png")
    return tmp_path / "images"


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)


def decode(paths: list[Path], processes: int | None) -> list[DecodedFile]:
    """What each file gave, its parts put together; they must come in order."""
    whole = [DecodedFile([], [], []) for _ in paths]
    order = []
    for index, part in decode_files(paths, Shape(3, 8, 8), processes=processes):
        order.append(index)
        for gathered, new in zip(whole[index], part, strict=True):
            gathered.extend(new)
    assert order == sorted(order)
    assert set(order) == set(range(len(paths)))
    assert multiprocessing.active_children() == []
    return whole


def plain(results: list[DecodedFile]) -> list[object]:
    return [
        ([(image.pixels.tobytes(), *image._replace(pixels=None)) for image in result.images], *result[1:])
        for result in results
    ]


def alone(paths: list[Path]) -> list[object]:
    return plain([decode_file(path, Shape(3, 8, 8)) for path in paths])


@pytest.mark.parametrize("processes", [1, 3])
def test_every_file_in_order_whatever_is_in_it(folder: Path, processes: int):
    Image.new("L", (9, 9)).save(folder / "10a.tif", save_all=True, append_images=[Image.new("L", (9, 9), 7)] * 70)
    (folder / "10b.png").write_bytes(b"")
    (folder / "zz.png").write_bytes(b"words")
    paths = sorted(folder.iterdir())
    assert plain(decode(paths, processes)) == alone(paths)


def test_few_files_need_no_helpers(folder: Path, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr(parallel, "Helper", lambda *_, **__: started.append(1) or (_ for _ in ()).throw(OSError))
    paths = sorted(folder.iterdir())
    decode(paths, None)
    assert started == []
    monkeypatch.setattr(parallel, "FEW", 20)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    assert plain(decode(paths, None)) == alone(paths), "where none can be started this process decodes"
    assert started == [1]


@pytest.mark.fault("a file that kills its decoder", costs="that file: it is listed with the reason")
def test_a_file_that_kills_its_helper_costs_itself_only(folder: Path, deadly: None):
    for k, name in enumerate(("killer", "crash", "exit", "once")):
        (folder / f"{10 * k + 5:02}.png").rename(folder / f"{name}.png")
    paths = sorted(folder.iterdir(), key=lambda path: path.name[::-1])
    results = decode(paths, 2)
    assert {path.name: result.rejected for path, result in zip(paths, results, strict=True) if result.rejected} == {
        "killer.png": [(0, KILLED)],
        "crash.png": [(0, "the decoder was killed by signal 11 while it read this file")],
        "exit.png": [(0, "the decoder ended with code 7 while it read this file")],
    }
    assert (folder / "once.png.seen").exists()
    good = [k for k, result in enumerate(results) if not result.rejected]
    assert plain([results[k] for k in good]) == alone([paths[k] for k in good])


def test_a_file_that_hangs_and_one_that_takes_all_memory(folder: Path, deadly: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parallel, "SECONDS", 2.0)
    (folder / "07.png").rename(folder / "hang.png")
    (folder / "41.png").rename(folder / "bomb.png")
    paths = sorted(folder.iterdir(), key=lambda path: path.name[::-1])
    rejected, images = {}, 0
    with Decoders(Shape(3, 8, 8), 2) as decoders:
        for decoded in decoders.decode(iter(paths)):
            images += len(decoded.part.images)
            assert decoded.source == paths[decoded.number]
            for _, reason in decoded.part.rejected:
                rejected[decoded.source.name] = reason
            assert decoded.last, "each has one part"
        # The same processes go on with others.
        assert sum(len(decoded.part.images) for decoded in decoders.decode(paths[:5])) == 5
    assert images == len(paths) - 2
    assert rejected == {
        "hang.png": "takes longer than 2 s to decode",
        "bomb.png": "needs more memory than there is for one image",
    }
    assert multiprocessing.active_children() == []


def test_without_hashes_pixels_are_the_same(folder: Path):
    paths = sorted(folder.iterdir())
    with Decoders(Shape(3, 8, 8), 0, hashed=False) as decoders:
        plainer = [decoded.part.images[0] for decoded in decoders.decode(paths)]
    assert {image.phash for image in plainer} == {0}
    assert all(
        (image.pixels == decode_file(path, Shape(3, 8, 8)).images[0].pixels).all()
        for path, image in zip(paths, plainer, strict=True)
    )


def test_many_files_that_kill(folder: Path, deadly: None):
    for path in sorted(folder.iterdir())[::25]:
        path.rename(folder / f"killer{path.name}")
    paths = sorted(folder.iterdir(), key=lambda path: path.name[-6:])
    results = decode(paths, 2)
    assert [bool(result.images) for result in results] == ["killer" not in path.name for path in paths]
    assert {reason for result in results for _, reason in result.rejected} == {KILLED}


def test_a_large_image_beside_a_file_that_kills(folder: Path, deadly: None):
    """Nobody knows which of the two the process died of, so that both are decoded alone."""
    (folder / "01.png").rename(folder / "killer.png")
    Image.new("1", (10_000, 5_001), 1).save(folder / "large.png")
    paths = [folder / name for name in ("00.png", "killer.png", "large.png", "02.png", "03.png")]
    results = decode(paths, 2)
    assert [result.rejected for result in results] == [[], [(0, KILLED)], [], [], []]
    assert results[2].images[0].width == 10_000


def test_ends_of_files_are_told_together_and_pages_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(helpers, "_SOON", 600.0)
    monkeypatch.setattr(helpers, "TOGETHER", 3)
    lasts = [True, True, False, False, True, True, True, True]
    messages = [helpers.Message(k, None, last) for k, last in enumerate(lasts)]
    together = list(helpers._together(iter(messages)))
    assert [[message.file for message in some] for some in together] == [[0, 1, 2], [3], [4, 5, 6], [7]]
    monkeypatch.setattr(helpers, "_SOON", -1.0)
    assert [len(some) for some in helpers._together(iter(messages))] == [1] * 8


def test_a_helper_killed_from_outside_costs_nothing(folder: Path):
    paths = sorted(folder.iterdir()) * 3
    killed = 0
    seen = Counter()
    parts = decode_files(paths, Shape(3, 8, 8), processes=2)
    for index, part in parts:
        assert part.rejected == []
        seen[index] += len(part.images)
        if index in (20, 50, 100):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            killed += 1
    assert killed == 3
    assert seen == dict.fromkeys(range(len(paths)), 1)


def test_pages_already_received_do_not_come_twice(folder: Path):
    """The helper dies within a file of pages, of which some have been handed on."""
    path = folder / "pages.tif"
    pages = [Image.fromarray(np.full((9, 9), k, np.uint8)) for k in range(200)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    got = []
    for index, part in decode_files([path], Shape(3, 100, 100), processes=2):
        assert index == 0
        got += [image.page for image in part.images]
        if len(got) == 3:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
    assert got == list(range(1, 201))


def test_what_waits_is_bounded_and_nothing_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parallel, "_WAITING", 0)
    for k in (3, 17, 40):
        pages = [Image.new("L", (9, 9), page) for page in range(50)]
        pages[0].save(folder / f"{k:02}x.tif", save_all=True, append_images=pages[1:])
    paths = sorted(folder.iterdir())
    assert plain(decode(paths, 3)) == alone(paths)


def test_large_images_have_a_process_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch):
    started = []

    def started_helper(shape: Shape, *, large: bool, hashed: bool, seconds: float) -> helpers.Helper:
        started.append(large)
        return helpers.Helper(shape, large=large, hashed=hashed, seconds=seconds)

    monkeypatch.setattr(parallel, "Helper", started_helper)
    large = Image.new("1", (10_000, 5_001), 1)
    large.save(folder / "30.png")
    small = Image.new("1", (9, 9), 1)
    small.save(folder / "40.tif", save_all=True, append_images=[small, large.copy(), small], compression="group4")
    paths = sorted(folder.iterdir())
    results = decode(paths, 2)
    assert plain(results) == alone(paths)
    assert [image.width for image in results[paths.index(folder / "40.tif")].images] == [9, 9, 10_000, 9]
    assert started == [False, False, True, True]


@pytest.mark.parametrize("how", ["not started", "ends at once"])
def test_without_helpers_this_process_decodes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str):
    if how == "not started":

        def refuse(*_: object) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", refuse)
    else:
        (tmp_path / "site").mkdir()
        leave = "import os, sys\nif 'spawn_main' in str(sys.orig_argv):\n    os._exit(1)\n"
        (tmp_path / "site" / "sitecustomize.py").write_text(leave)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    paths = sorted(folder.iterdir())
    assert plain(decode(paths, 2)) == alone(paths)


def test_a_daemonic_process_and_no_semaphores(folder: Path):
    """As in a worker of a multiprocessing pool, and where there is no /dev/shm."""
    script = (
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "import _multiprocessing\n"
        "del _multiprocessing.SemLock\n"
        "from photoflux.data.images.parallel import decode_files\n"
        "from photoflux.data.shape import Shape\n"
        "def work(folder):\n"
        "    paths = sorted(Path(folder).iterdir())\n"
        "    print(sum(len(p.images) for _, p in decode_files(paths, Shape(3, 8, 8), processes=2)), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    work(sys.argv[1])\n"
        "    child = multiprocessing.get_context('spawn').Process(target=work, args=sys.argv[1:], daemon=True)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    print(child.exitcode)\n"
    )
    path = folder.parent / "script.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, path, folder], capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["60", "60", "0"], done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_helpers_end_with_their_parent(folder: Path, number: signal.Signals):
    script = (
        "import multiprocessing, sys, time\n"
        "from pathlib import Path\n"
        "from photoflux.data.images.parallel import decode_files\n"
        "from photoflux.data.shape import Shape\n"
        "from photoflux.system.signals import unblock\n"
        "unblock()\n"
        "for index, _ in decode_files(sorted(Path(sys.argv[1]).iterdir()), Shape(3, 400, 400), processes=2):\n"
        "    if index == 30:\n"
        "        print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(number)
        # The pipe ends only when every process that has it is gone.
        assert process.stdout.read() == ""
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a helper outlives its parent"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_it_can_be_left_at_any_time(folder: Path):
    parts = decode_files(sorted(folder.iterdir()), Shape(3, 8, 8), processes=2)
    next(parts)
    parts.close()
    assert multiprocessing.active_children() == []
