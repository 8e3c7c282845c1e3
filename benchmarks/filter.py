"""Filters a pile with a run, and with the peers in turn: how many images a second, beyond what the start takes.

    python benchmarks/filter.py RUN [--small 30000] [--large 3000] [--rounds 3] [--workers N] [--torch-python PYTHON]

Makes a pile of small JPEGs (256 px) and one of 8-megapixel scans, and runs on each, in turn and as a process of its
own: decoding alone in as many processes, `photoflux filter --list`, torch's DataLoader with ONNX Runtime (of a Python
that has both; as most write it, which decodes all pixels, and with Pillow's `draft`, as we have it) and tf.data with
Keras, on the same weights. Each is run on a pile and on a third of it: the rate is that of the other two thirds in the
time between, the best of the rounds. So what is decoded while an engine starts does not count.

    python benchmarks/filter.py RUN --calls 1000       `predict` of so many files and `evaluate` of the test part,
                                                       beside decoding plus network measured apart
    python benchmarks/filter.py RUN --memory 100000    the most memory of the job over so many generated images
    python benchmarks/filter.py RUN --start 1000000    how long until the first images of so many names are decoded
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import photoflux
from photoflux import api
from photoflux.data.images.parallel import Decoders, cores
from photoflux.filtering.status import status_of
from photoflux.runs.progress import Display
from photoflux.runs.selection import select

DECODE = """
import sys
from pathlib import Path
from photoflux.data.images.parallel import Decoders
from photoflux.data.shape import Shape
with Decoders(Shape({channels}, {height}, {width}), {workers}, hashed=False) as decoders:
    print(sum(len(one.part.images) for one in decoders.decode(sorted(Path(sys.argv[1]).iterdir()))))
"""
TORCH = """
import sys, os
from pathlib import Path
import numpy as np, onnxruntime, torch
from PIL import Image
files = sorted(Path(sys.argv[1]).iterdir())
class Files(torch.utils.data.Dataset):
    def __len__(self):
        return len(files)
    def __getitem__(self, at):
        with Image.open(files[at]) as image:
            if {draft}:
                image.draft("RGB", (2 * {width}, 2 * {height}))
            return np.asarray(image.convert("RGB").resize(({width}, {height}), Image.Resampling.BILINEAR))
session = onnxruntime.InferenceSession({onnx!r})
name = session.get_inputs()[0].name
kind = np.uint8 if "uint8" in session.get_inputs()[0].type else np.float32
loader = torch.utils.data.DataLoader(Files(), batch_size=64, num_workers={workers}, collate_fn=np.stack)
print(sum(len(session.run(None, {{name: batch.astype(kind)}})[0]) for batch in loader))
"""
TENSORFLOW = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras, tensorflow as tf
files = sorted(os.path.join(sys.argv[1], name) for name in os.listdir(sys.argv[1]))
model = keras.saving.load_model({keras!r})
def read(path):
    return tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), ({height}, {width}), antialias=True)
data = tf.data.Dataset.from_tensor_slices(files).map(read, num_parallel_calls={workers}).batch(64).prefetch(2)
print(sum(len(model(batch, training=False)) for batch in data))
"""

# The command, as far as to where the engine is loaded: the first images are decoded then.
START = """
import os, sys
from photoflux import api, cli
api._model_of = lambda *_: os._exit(0)
sys.argv = ["photoflux", "filter", *sys.argv[1:3], "--out", sys.argv[3], "--list"]
cli.main()
"""


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth noise, which JPEG packs as it does a photograph."""
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make(folder: Path, count: int, width: int, height: int) -> Path:
    """Make a folder of so many names of pictures, of which 20 in 50,000 differ: the others are links to them."""
    folder.mkdir()
    originals = folder.with_name(f"{folder.name}-originals")
    originals.mkdir()
    rng = np.random.default_rng(0)
    some: list[Path] = []
    for number in range(count):
        if number % 50_000 < 20:  # a file has no more than so many links
            some = [*some, originals / f"{number:07}.jpg"][-20:]
            picture(rng, width, height).save(some[-1], quality=88 + number % 5)
        os.link(some[number % len(some)], folder / f"{number:07}.jpg")
    return folder


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "agg"})
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr[-2000:])
    return time.perf_counter() - began


def compare(run: str, options: argparse.Namespace, folder: Path) -> None:
    opened = photoflux.load_run(run)
    channels, height, width = opened.shape
    shape = {"channels": channels, "height": height, "width": width, "workers": options.workers}
    exports = {kind: str(photoflux.export(run, folder / f"model.{kind}")) for kind in ("onnx", "keras")}
    scripts = {"decoding alone": (sys.executable, DECODE), "tf.data + Keras": (sys.executable, TENSORFLOW)}
    if options.torch_python:
        scripts["DataLoader + ONNX Runtime"] = (options.torch_python, TORCH)
        scripts["the same, with Pillow's draft"] = (options.torch_python, TORCH)
    print(f"{cores()} cores, {options.workers} decode; {opened.variant.name}, {opened.shape}; images a second")
    for what, count, size in (("small", options.small, (256, 256)), ("large", options.large, (2448, 3264))):
        piles = [make(folder / f"{what}-{some}", some, *size) for some in (count, count // 3)]
        rates: dict[str, float] = {}
        for round_ in range(options.rounds):
            for name in ("photoflux filter", *scripts):
                times = []
                for place in piles:
                    if name == "photoflux filter":
                        out = str(folder / f"out-{what}-{place.name}-{round_}")
                        command = [sys.executable, "-m", "photoflux", "filter", run, str(place), "--out", out, "--list"]
                        command += ["--workers", str(options.workers)]
                    else:
                        python, script = scripts[name]
                        text = script.format(**shape, **exports, draft="draft" in name)
                        command = [python, "-c", text, str(place)]
                    times.append(seconds(command))
                rates[name] = max(rates.get(name, 0.0), (count - count // 3) / (times[0] - times[1]))
        print(f"{what}, {size[0]} × {size[1]}:")
        for name, rate in rates.items():
            print(f"  {name:<30} {rate:8.1f}   ours ÷ this {rates['photoflux filter'] / rate:5.2f}")


def memory(run: str, count: int, folder: Path) -> None:
    """Print the most memory of the job's process and its helpers, for each tenth of the work."""
    pile = folder / "pile"
    make(pile, count, 128, 128)
    out = folder / "out"
    command = [sys.executable, "-m", "photoflux", "filter", run, str(pile), "--out", str(out), "--list"]
    with subprocess.Popen(command) as process:
        most: dict[int, float] = {}
        while process.poll() is None:
            time.sleep(0.5)
            if (out / "ledger.sqlite").is_file():
                done = sum(status_of(out).counts.values())
                tenth = 10 * done // count
                most[tenth] = max(most.get(tenth, 0.0), resident(process.pid))
    for tenth, mebibytes in sorted(most.items()):
        print(f"from {tenth * count // 10:>8} images: {mebibytes:.0f} MiB")


def resident(pid: int) -> float:
    """Return the proportional memory of a process and its children in MiB."""
    total = 0.0
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    for each in (str(pid), *children):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def calls(run: str, count: int, folder: Path) -> None:
    """Print how long the two calls take in a process that has Julia already, beside their parts; the best of five."""
    opened = photoflux.load_run(run)
    pile = make(folder / "pile", count, 256, 256)
    with Display(False) as display:
        selection = select(opened, None, None, display)
        test = selection.prepared.images[selection.chosen]
        model = api._model_of(opened, None, display)

    def decode() -> np.ndarray:
        with Decoders(opened.shape, cores(), hashed=False) as decoders:
            return np.stack([each.part.images[0].pixels for each in decoders.decode(sorted(pile.iterdir()))])

    pixels = decode()
    decoding, network = best(decode), best(lambda: model.logits(pixels))
    print(f"decoding {count} files {decoding:.2f} s, network {network:.2f} s; of {len(test)} images alone", end=" ")
    alone = best(lambda: model.logits(test))
    print(f"{alone:.2f} s")
    for name, call, parts in (
        (f"predict of {count} files", lambda: photoflux.predict(opened, pile, progress=False), decoding + network),
        (f"evaluate of {len(test)} images", lambda: photoflux.evaluate(opened, progress=False), alone),
    ):
        taken = best(call)
        print(f"{name}: {taken:.2f} s, {taken / parts:.2f} of its parts")


def best(call: Callable[[], object]) -> float:
    """Return the fewest seconds of a call, of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def start(run: str, count: int, folder: Path) -> None:
    """Print how long it takes from the command to the first decoded block, in a folder of many names."""
    pile = make(folder / "pile", count, 256, 256)
    command = [sys.executable, "-c", START, run, str(pile), str(folder / "out")]
    print(f"{count} names: the first images are decoded {seconds(command):.1f} s after the command")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--small", type=int, default=30_000)
    parser.add_argument("--large", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=cores(), help="processes that decode, of the peers too")
    parser.add_argument("--torch-python")
    parser.add_argument("--calls", type=int)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--start", type=int)
    options = parser.parse_args()
    run = str(Path(options.run).resolve())
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        if options.memory:
            memory(run, options.memory, folder)
        elif options.calls:
            calls(run, options.calls, folder)
        elif options.start:
            start(run, options.start, folder)
        else:
            compare(run, options, folder)


if __name__ == "__main__":
    main()
