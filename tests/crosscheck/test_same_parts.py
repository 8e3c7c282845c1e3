"""The same data has the same parts in both languages, and a run of the one is scored alike by the other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import photoflux
from photoflux.data.sources import cifar10
from photoflux.data.sources.cifar10 import BINARY_FILES, prepare_cifar10


def batches(folder: Path) -> Path:
    """CIFAR-10's binary version with 60 images to a batch."""
    rng = np.random.default_rng(3)
    records = rng.integers(0, 256, (6, 60, 3073), dtype=np.uint8)
    records[..., 0] = rng.permuted(np.tile(np.arange(10), (6, 6)), axis=1)
    # Equal images stay together: in two batches, and with two labels.
    records[3, :3, 1:] = records[0, 0, 1:]
    folder.mkdir()
    for name, batch in zip(BINARY_FILES, records, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH", 60)
    return batches(tmp_path / "cifar-10-batches-bin")


def mixed(folder: Path, dest: Path) -> Path:
    """The same files, but that 20 of the 60 test images are those of the first training batch."""
    shutil.copytree(folder, dest)
    first, test = (np.fromfile(dest / name, np.uint8).reshape(60, 3073) for name in (BINARY_FILES[0], BINARY_FILES[-1]))
    test[:20] = first[:20]
    test.tofile(dest / BINARY_FILES[-1])
    return dest


@pytest.mark.parametrize("seed", [42, 7])
def test_cifar10_has_the_same_parts_in_both_languages(seed, flux, folder, tmp_path):
    ours = prepare_cifar10(folder, tmp_path / "set", seed=seed)
    theirs = flux.julia.PhotoFlux.open_dataset(str(folder), seed=seed)
    assert np.array(theirs.split).tolist() == ours.split.tolist()
    assert len(ours.indices("validation")) >= 25
    assert str(theirs.fingerprint) == ours.fingerprint
    other = prepare_cifar10(folder, tmp_path / "other", seed=seed + 1)
    assert other.split.tolist() != ours.split.tolist()


SCRIPT = """
using PhotoFlux
cifar, mixed, out, theirs = ARGS
run = train("dense_l2", open_dataset(cifar; seed=7); epochs=1)
save_run(out, run)
# Other data, of which the run has seen some.
other = evaluate(run, open_dataset(mixed; seed=8); part=:test)
println(join((evaluate(run, cifar).images, other.images, other.left_out), ' '))
python = load_run(theirs)
println(join((evaluate(python, cifar).images, evaluate(python, cifar).accuracy), ' '))
"""


def test_a_run_of_one_language_is_scored_alike_by_the_other(flux, folder, tmp_path, julia_command):
    ours = photoflux.train("dense_l2", folder, engine="flux", epochs=1, seed=7, out=tmp_path / "ours", progress=False)
    (tmp_path / "script.jl").write_text(SCRIPT)
    command, environment = julia_command
    theirs = tmp_path / "theirs"
    other_folder = mixed(folder, tmp_path / "mixed")
    line = [*command, str(tmp_path / "script.jl"), str(folder), str(other_folder), str(theirs), str(ours.path)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.split("\n")[:2]
    run = photoflux.load_run(theirs)
    assert (run.data.seed, run.settings.seed) == (7, 42)
    assert run.data.fingerprint == ours.data.fingerprint
    # Without data: it is prepared from the folder that the run names.
    own = photoflux.evaluate(run, progress=False)
    other = photoflux.prepare(other_folder, seed=8, progress=False)
    found = photoflux.evaluate(run, other, part="test", progress=False)
    assert first.split() == [str(n) for n in (own.images, found.images, found.left_out)]
    assert (found.images, found.left_out) == (40, 20)
    images, accuracy = second.split()
    assert int(images) == own.images == 60
    assert float(accuracy) == pytest.approx(photoflux.evaluate(ours, progress=False).accuracy, abs=1e-12)
