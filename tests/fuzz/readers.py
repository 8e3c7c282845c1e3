"""Fuzzes the Python readers of files from somebody else with atheris, a target each; a developer runs it by hand.

    pip install atheris            # not a dependency, nor of the suite
    python tests/fuzz/readers.py run_json -runs=100000
    python tests/fuzz/readers.py all 100000     # each target in turn, in a process of its own

A target ends with an error if a reader raises anything but the errors of PhotoFlux, or takes more than 2 GB
(libFuzzer's ``-rss_limit_mb``) or 20 seconds (``-timeout``). libFuzzer keeps the input as ``crash-…``; what it showed
becomes a test.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests"), str(ROOT / "tests" / "python")]

Target = tuple[Callable[[bytes], Any], list[bytes]]


def target_of(name: str, folder: Path) -> Target:
    """Return what reads bytes as one kind of file, and valid files of that kind to begin with."""
    import atheris

    with atheris.instrument_imports(include=["photoflux"]):
        from photoflux.comparison.comparison import NAME, load_comparison
        from photoflux.data.archives import members
        from photoflux.data.images.decoding import decode_file
        from photoflux.data.labelled import LEDGER, read_labels
        from photoflux.data.prepared import open_prepared
        from photoflux.data.shape import Shape
        from photoflux.data.sources.idx import read_idx
        from photoflux.data.sources.pickles import load_batch
        from photoflux.data.tables import read_table
        from photoflux.features.pth import read_pth
        from photoflux.filtering.ledger import Ledger
        from photoflux.filtering.status import status_of
        from photoflux.model.weights import read_arrays, read_weights
        from photoflux.runs.run import load_run

    def file(name: str, data: bytes) -> Path:
        path = folder / name
        path.unlink(missing_ok=True)  # one that is mapped must not be cut off
        path.write_bytes(data)
        return path

    if name in ("run_json", "history_csv"):
        from piles import make_run

        run = make_run(folder / "run").path
        part = "run.json" if name == "run_json" else "history.csv"
        good = (run / part).read_bytes() + (b"" if name == "run_json" else b"1,0.5,0.7,0.0,0.7,0.5,0.6,0.0,0.6,0.75\n")
        return lambda data: str(load_run(file(f"run/{part}", data).parent)), [good]
    if name in ("meta_json", "files_csv", "images_npy", "labels_npy"):
        from small import prepare

        place = prepare(folder / "data", 2, counts=[6, 6]).path
        part = {"meta_json": "meta.json", "files_csv": "files.csv"}.get(name, name.replace("_", "."))

        def use(data: bytes) -> None:
            opened = open_prepared(file(f"data/{part}", data).parent)
            assert opened.files() and int(opened.images[-1:].sum()) >= 0 and int(opened.labels.sum()) >= 0

        return use, [(place / part).read_bytes()]
    if name == "comparison_json":
        from comparison.test_hostile_comparison import made

        made(folder / "c")
        return lambda data: str(load_comparison(file(f"c/{NAME}", data).parent)), [(folder / "c" / NAME).read_bytes()]
    if name == "safetensors":
        from piles import make_run

        good = make_run(folder / "run").weights.read_bytes()
        head = good[: 8 + int.from_bytes(good[:8], "little")]

        def both(data: bytes) -> None:
            path = file("w.safetensors", data)
            for read in (read_weights, lambda path: read_arrays(path, "photoflux-seen-1")):
                with ours():
                    read(path)

        return both, [good[:4000], head]
    if name == "ledger":
        from piles import LIGHT, make_run, picture, run_job

        file("pile.png", picture(LIGHT))
        run_job(make_run(folder / "run"), folder / "pile.png", folder / "out", workers=1)

        def use_ledger(data: bytes) -> None:
            out = file(f"out/{LEDGER}", data).parent
            with ours():
                assert str(status_of(out))
            with ours(), contextlib.closing(Ledger(out)) as ledger:
                list(ledger.results())
            with ours():
                read_labels([out])

        return use_ledger, [(folder / "out" / LEDGER).read_bytes()]
    if name == "pth":
        import numpy as np

        import tiny_backbone as torchlike

        arrays = {"a": np.ones((2, 3, 1, 1), np.float32), "b": np.arange(4)}
        return lambda data: read_pth(file("x.pth", data)), [
            torchlike.pth_of(arrays, zipped) for zipped in (False, True)
        ]
    if name == "cifar10_batch":
        import pickle

        import numpy as np

        batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
        return lambda data: load_batch(data, "x"), [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]
    if name == "idx":
        good = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, *range(8)])
        return lambda data: read_idx(file("x-idx3-ubyte", data), 3), [good]
    if name == "tables":
        columns = ("path", "group")
        return lambda data: list(read_table(data, folder / "g.csv", columns)), [
            b"path,group\na.png,1\n",
            "path,group\na.png,1\n".encode("utf-16"),
        ]
    if name == "archives":
        import tarfile
        import zipfile

        packed, tarred = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/one.png", b"x" * 100)
        with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a/../../b.png"), io.BytesIO())

        def listed(data: bytes) -> None:
            for ending in (".zip", ".tar", ".tar.gz"):
                list(members(file(f"x{ending}", data), folder, lambda name, nth: True))

        return listed, [packed.getvalue(), tarred.getvalue()]
    if name == "decoder":
        from PIL import Image

        image = Image.effect_noise((20, 15), 60).convert("RGB")
        seeds = []
        for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000", "PDF"):
            with contextlib.suppress(Exception), io.BytesIO() as stream:
                image.save(stream, kind)
                seeds.append(stream.getvalue())
        return lambda data: decode_file(file("x", data), Shape(3, 8, 8)), seeds
    raise SystemExit(f"no target {name}; there are {', '.join(TARGETS)}")


TARGETS = (
    "run_json", "history_csv", "meta_json", "files_csv", "images_npy", "labels_npy", "comparison_json", "safetensors",
    "ledger", "pth", "cifar10_batch", "idx", "tables", "archives", "decoder",
)  # fmt: skip


class ours(contextlib.AbstractContextManager):
    """Lets errors of PhotoFlux pass, in words of a length that can be read, and nothing else."""

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        from photoflux.errors import PhotoFluxError

        if not isinstance(error, PhotoFluxError):
            return False
        assert len(str(error)) < 20_000
        return True


def changed(good: list[bytes], rng: random.Random, data: bytes) -> bytes:
    """Return a valid file that is changed in some places by what libFuzzer gives, or these bytes as they are."""
    if not good or (data and data[0] < 64):
        return data[1:]
    found = bytearray(rng.choice(good))
    for _ in range(rng.randrange(1, 6)):
        at, piece = rng.randrange(len(found) + 1), data[1 : 1 + rng.randrange(1, 9)]
        match rng.randrange(5):
            case 0:
                found[at : at + len(piece)] = piece
            case 1:
                found[at:at] = piece
            case 2:
                del found[at : at + rng.randrange(1, 9)]
            case 3:
                found[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                found[at : at + 4] = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4, b"-1", b"NaN", b"9" * 20])
    return bytes(found[: rng.randrange(len(found) + 1)] if rng.random() < 0.1 else found)


def fuzz(name: str, arguments: list[str]) -> None:
    """Run one target; libFuzzer ends the process."""
    import warnings

    import atheris

    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="photoflux-fuzz-"))
    use, good = target_of(name, folder)
    for data in good:
        use(data)  # a valid file is read
    rng = random.Random(1)

    def one(data: bytes) -> None:
        with ours():
            use(changed(good, rng, data))

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(good):
        (corpus / str(number)).write_bytes(b"\0" + data)
    options = ["-seed=1", "-rss_limit_mb=2048", "-timeout=20", "-max_len=20000", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *arguments, str(corpus)], one)
    atheris.Fuzz()


def fuzz_all(runs: str) -> int:
    """Run each target in a process of its own, and print a line for each."""
    failed = 0
    for name in TARGETS:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, name, f"-runs={runs}"],
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        failed += done.returncode != 0
        print(
            f"{name}: {runs} files, {'passed' if not done.returncode else 'FAILED'}, {time.monotonic() - began:.0f} s"
        )
        if done.returncode:
            print(done.stderr[-4000:])
    for left in Path(tempfile.gettempdir()).glob("photoflux-fuzz-*"):
        shutil.rmtree(left, ignore_errors=True)
    return min(failed, 1)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("all", *TARGETS):
        sys.exit(f"usage: readers.py {{all,{','.join(TARGETS)}}} [RUNS | libFuzzer's options]")
    if sys.argv[1] == "all":
        sys.exit(fuzz_all(sys.argv[2] if len(sys.argv) > 2 else "100000"))
    fuzz(sys.argv[1], sys.argv[2:])
