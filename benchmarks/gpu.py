"""Milliseconds of a training step of the photo CNN on an NVIDIA GPU: PhotoFlux and plain Flux beside torch.

180×180 colour photos of two classes, Adam, in Float32 and in TF32, from bytes that are on the card to the loss in the
computer's memory; the card and the versions are printed with the times.

Usage: python benchmarks/gpu.py --julia "julia --project=…" [--batches 32 256] [--compile]
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZE, WARM, ROUNDS, STEPS = 180, 8, 5, 20


def milliseconds(step: Callable[[int], float], wait: Callable[[], None]) -> float:
    """Return the median time of a step over the rounds."""
    for number in range(WARM):
        step(number)
    rounds = []
    for _ in range(ROUNDS):
        wait()
        began = time.perf_counter()
        for number in range(STEPS):
            step(number)
        wait()
        rounds.append(1000 * (time.perf_counter() - began) / STEPS)
    return statistics.median(rounds)


def torch_step(torch: Any, batch: int, compiled: bool) -> Callable[[int], float]:
    """Return a step of the same network in torch."""
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(90 * 90 * 64, 128), nn.ReLU(),
        nn.Linear(128, 1),
    ).cuda()  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7, fused=True)
    images = [torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8, device="cuda") for _ in range(4)]
    labels = [torch.randint(0, 2, (batch, 1), device="cuda").float() for _ in range(4)]
    loss_of = nn.BCEWithLogitsLoss()

    def loss(x: Any, y: Any) -> Any:
        return loss_of(model(x.float() / 255), y)

    called = torch.compile(loss) if compiled else loss

    def step(number: int) -> float:
        optimiser.zero_grad()
        value = called(images[number % 4], labels[number % 4])
        value.backward()
        optimiser.step()
        return float(value.item())

    return step


def of_torch(batches: list[int], compiled: bool) -> Iterator[dict[str, Any]]:
    """Yield the times of torch, which must be installed with CUDA."""
    import torch

    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for batch in batches:
            for name, compile_it in (("torch", False), ("torch.compile", True))[: 2 if compiled else 1]:
                step = torch_step(torch, batch, compile_it)
                took = milliseconds(step, torch.cuda.synchronize)
                yield {"who": name, "precision": "tf32" if tf32 else "float32", "batch": batch, "milliseconds": took}
                del step
                torch.cuda.empty_cache()


def of_julia(command: str, batches: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the times that gpu.jl prints, and pass its other lines on."""
    words = [*shlex.split(command), str(Path(__file__).with_suffix(".jl")), *map(str, batches)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
            elif line.startswith("#"):
                print(line.rstrip(), flush=True)
    if process.returncode:
        raise SystemExit(f"{command} ended with exit code {process.returncode}")


def main() -> None:
    """Measure, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--julia", default="julia", help="what starts Julia with a project that has PhotoFlux and CUDA")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    arguments = parser.parse_args()
    for found in (of_julia(arguments.julia, arguments.batches), of_torch(arguments.batches, arguments.compile)):
        for row in found:
            held = f"{row['gigabytes']:8.2f} GB" if "gigabytes" in row else ""
            print(
                f"{row['who']:<16} {row['precision']:<8} batch {row['batch']:>4} {row['milliseconds']:9.2f} ms {held}",
                flush=True,
            )


if __name__ == "__main__":
    main()
