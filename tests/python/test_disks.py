"""No room, a read-only disk, no permission, a disk that vanishes: each command says so, and what was there stays."""

from __future__ import annotations

import contextlib
import importlib
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import photoflux
from disks import bound_by_permissions
from photoflux.cli import app
from piles import Brightness, files_below, make_pile, make_run
from small import prepare
from still import Still

# What the system says of each.
FAULTS = {
    "full": "No space left on device|is full|disk I/O error",
    "read-only": "Read-only file system",
    "forbidden": "Permission denied",
    "gone": "No such file or directory|There is no folder",
}
TRAINED = ["--epochs", "1", "--engine", "keras"]
PAIR = ["--variants", "dense_l2,dense_dropout", "--seeds", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the commands read, on a disk without faults."""
    folder = tmp_path_factory.mktemp("made")
    prepared = prepare(folder / "prepared", 2)
    split = np.load(prepared.path / "split.npy")
    split[:3] = split[20:23] = 2
    np.save(prepared.path / "split.npy", split)
    rng = np.random.default_rng(1)
    for name, base in (("Photo", 100), ("Text", 0)):
        for number in range(12):
            place = folder / "scans" / name / f"{number}.bmp"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(base, base + 150, (64, 64, 3), np.uint8)).save(place)
    make_pile(folder / "pile", 12)
    make_run(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("photoflux.api.get_engine", lambda *_: Still())
        photoflux.train("dense_l2", prepared, epochs=1, out=folder / "trained", progress=False)
    return folder


@pytest.fixture
def engines(monkeypatch, keras):
    """Engines that train and score nothing, and one that exports."""
    monkeypatch.setattr("photoflux.api.get_engine", lambda *_: Still())
    monkeypatch.setattr("photoflux.comparison.compare.get_engine", lambda *_: Still())
    monkeypatch.setattr("photoflux.api._model_of", lambda *_: Brightness())
    monkeypatch.setattr("photoflux.runs.export.KerasEngine", lambda: contextlib.nullcontext(keras))


# Of each command: its words, given where it reads and writes; a function that it calls when it has begun and has not
# yet written its last file; how many bytes are too few for it.
COMMANDS = {
    "train": (
        lambda made, out: ["train", "dense_l2", made / "prepared", *TRAINED, "--out", out / "made"],
        "still.Still.fit",
        20_000,
    ),
    "compare": (
        lambda made, out: ["compare", made / "prepared", *TRAINED, *PAIR, "--out", out / "made"],
        "still.Still.fit",
        20_000,
    ),
    "prepare": (
        lambda made, out: ["prepare", made / "scans", out / "made", "--image-size", "64"],
        "photoflux.data.writer.FilesWriter.finish",
        20_000,
    ),
    "filter": (
        lambda made, out: ["filter", made / "run", made / "pile", "--out", out / "made", "--copy"],
        "piles.Brightness.logits",
        60_000,
    ),
    "report": (
        lambda made, out: ["report", out / "trained"],
        "photoflux.reporting.run_page.page_of",
        4_096,
    ),
    "export": (
        lambda made, out: ["export", made / "trained", out / "made.keras"],
        "photoflux.engines.keras.engine.KerasEngine.export",
        20_000,
    ),
}


# Keras, which exports, has a process of its own, that of root: nothing is forbidden to it.
CASES = [(command, fault) for command in COMMANDS for fault in FAULTS if (command, fault) != ("export", "forbidden")]


def words_of(command, made, out):
    return list(map(str, COMMANDS[command][0](made, out)))


@pytest.mark.fault(
    "no space, a read-only disk, no permission, or a disk that vanishes, in any command",
    costs="what the command would have written; an error says where and why, what was there stays, and the same "
    "command does its work when that is mended",
)
@pytest.mark.parametrize(("command", "fault"), CASES)
def test_an_error_says_so_and_what_was_there_stays(made, engines, small_disk, monkeypatch, command, fault):
    disk = small_disk("8m")
    _, moment, too_few = COMMANDS[command]
    shutil.copytree(made / "trained", disk.path / "trained")
    before = files_below(disk.path)
    with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
        if fault == "full":
            disk.leave(too_few)
        elif fault == "read-only":
            disk.read_only()
        elif fault == "forbidden":
            disk.path.chmod(0o555)
            (disk.path / "trained").chmod(0o555)
            stack.enter_context(bound_by_permissions())
        else:
            vanish_at(patch, moment, disk)
        done = CliRunner().invoke(app, words_of(command, made, disk.path))
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert any(words in done.stderr for words in FAULTS[fault].split("|")), done.stderr
    assert str(disk.path) in done.stderr, done.stderr
    disk.mend()
    disk.path.chmod(0o755)
    (disk.path / "trained").chmod(0o755)
    after = files_below(disk.path)
    assert {name: after[name] for name in before} == before
    # What it could not reach any more is swept when this process has ended.
    assert fault == "gone" or not [name for name in after if "/." in f"/{name}"]
    done = CliRunner().invoke(app, words_of(command, made, disk.path))
    assert done.exit_code in (0, 3), done.output


def vanish_at(patch, moment, disk):
    """Have a disk vanish when a function is called for the first time."""
    place, _, name = moment.rpartition(".")
    try:
        owner = importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, cls = place.rpartition(".")
        owner = getattr(importlib.import_module(module), cls)
    real = getattr(owner, name)

    def vanishing(*given, **options):
        if disk.path.exists():
            disk.vanish()
        return real(*given, **options)

    patch.setattr(owner, name, vanishing)
