"""Measure PhotoFlux beside plain Flux and Keras on TensorFlow, torch and JAX, in turn, on the same cores.

Every peer is a process: it is started once untimed and some times in turn, for the time to its first step, and the last
one stays. Every case is run by all of them, warm, one round each in turn; a round repeats the call for half a second at
least. Printed are the medians over the rounds, and the peers' medians divided by ours. Peers that are not installed are
left out, with a line. `docs/performance.md` explains the columns.

    python benchmarks/run.py [--threads N] [--rounds 7] [--cases step,predict,epoch,memory]
                             [--data PREPARED] [--sysimage FILE] [--out FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import juliapkg

import photoflux

HERE = Path(__file__).parent
OURS, PLAIN = "photoflux", "plain flux"
BACKENDS = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}
# Name, then kind, variant, width, height, channels, batch, classes.
FIRST = ("baseline 180 px, step", "step baseline 180 180 3 32 2")
STEPS = [
    ("l2 180 px, step", "step l2 180 180 3 32 2"),
    ("dropout 180 px, step", "step dropout 180 180 3 32 2"),
    ("baseline 96 px, step", "step baseline 96 96 3 32 2"),
    ("l2 96 px, step", "step l2 96 96 3 32 2"),
    ("dropout 96 px, step", "step dropout 96 96 3 32 2"),
    ("mlp, batch 128, step", "step mlp 32 32 3 128 10"),
    ("mlp, batch 32, step", "step mlp 32 32 3 32 10"),
    ("dense_l2, batch 32, step", "step dense_l2 28 28 1 32 10"),
]
PREDICTIONS = [(f"baseline 180 px, {n} images", f"predict baseline 180 180 3 {n} 2") for n in (1, 32, 256)]
ROUND_SECONDS = 0.5
# Of each process: one untimed, that precompiles packages and reads every file into memory, then these.
STARTS = 3


@dataclass
class Peer:
    """A process that takes cases and repetitions by line, and answers each with a line."""

    name: str
    process: subprocess.Popen[str]
    started: float
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        for answer in self.process.stdout:
            if answer.startswith("@ "):
                return answer[2:].strip()
        raise SystemExit(f"{self.name} ended with exit code {self.process.wait()} at: {line}")

    def call(self, repetitions: int) -> float:
        return float(self.ask(str(repetitions)).split()[0]) / repetitions

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start(name: str, threads: int, sysimage: str | None = None) -> Peer:
    count = str(threads)
    environment = os.environ | {
        "JULIA_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_NUM_THREADS": count,
        "JULIA_LOAD_PATH": os.pathsep.join(("@", str(HERE.parent), "@stdlib")),
        "KERAS_BACKEND": BACKENDS.get(name, "tensorflow"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if name in (OURS, PLAIN):
        executable = os.environ.get("PYTHON_JULIACALL_EXE") or juliapkg.executable()
        project = os.environ.get("PYTHON_JULIACALL_PROJECT") or juliapkg.project()
        script = HERE / ("ours.jl" if name == OURS else "plain_flux.jl")
        image = [f"--sysimage={sysimage}"] if sysimage and name == OURS else []
        command = [executable, *image, "--startup-file=no", f"--project={project}", str(script)]
    else:
        command = [sys.executable, str(HERE / "keras_peer.py")]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    began = time.perf_counter()
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("SHOW_PEERS") else subprocess.DEVNULL,
        text=True,
    )
    return Peer(name, process, began)


def rounds_of(peers: list[Peer], case: str, command: str, rounds: int) -> None:
    """Run a case: every peer warm, then one round each in turn."""
    repetitions = {}
    for peer in peers:
        peer.ask(f"case {command}")
        peer.call(1)
        repetitions[peer.name] = 1 if command.startswith("epoch") else max(1, round(ROUND_SECONDS / peer.call(1)))
    for _ in range(rounds):
        for peer in peers:
            peer.seconds.setdefault(case, []).append(peer.call(repetitions[peer.name]))
    say(case, peers)


def say(case: str, peers: list[Peer]) -> None:
    medians = ", ".join(f"{peer.name} {statistics.median(peer.seconds[case]):.4g} s" for peer in peers)
    print(f"{case}: {medians}", file=sys.stderr, flush=True)


def figures(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "minimum": min(values)}


def markdown(results: dict[str, dict[str, dict[str, float]]], names: list[str]) -> str:
    """The table: our figure, each peer's, and how many times ours the peers' are; the fastest peer's ratio in bold."""
    others = [name for name in names if name != OURS]
    head = ["case", OURS, *others, *(f"{name} ÷ ours" for name in others)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case, row in results.items():
        unit = "MB" if "memory" in case else "s"
        scale = {name: value["median"] for name, value in row.items()}
        best = min((scale[name] for name in others if name in scale), default=None)
        cells = [f"{scale[name]:.3g} {unit}" if name in scale else "–" for name in names]
        ratios = [f"{scale[name] / scale[OURS]:.2f}" if name in scale else "–" for name in others]
        bold = [scale.get(name) == best for name in others]
        marked = [f"**{ratio}**" if fastest else ratio for ratio, fastest in zip(ratios, bold, strict=True)]
        lines.append("| " + " | ".join([case, *cells, *marked]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="cores to use (all)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (7)")
    parser.add_argument("--cases", default="step,predict,epoch,memory", help="which cases, by comma")
    parser.add_argument("--peers", default=",".join([PLAIN, *BACKENDS]), help="which peers, by comma")
    parser.add_argument("--data", help="a prepared dataset for the epochs (the demo at 96 px)")
    parser.add_argument("--sysimage", help="a system image with PhotoFlux in it, for its own process")
    parser.add_argument("--out", type=Path, default=HERE / "results.json", help="the figures as JSON")
    options = parser.parse_args()
    kinds, wanted = options.cases.split(","), [name for name in options.peers.split(",") if name]
    missing = [name for name in wanted if name in BACKENDS and importlib.util.find_spec(BACKENDS[name]) is None]
    for name in missing:
        print(f"{name} is not installed here and is left out.", file=sys.stderr)
    names = [OURS, *(name for name in wanted if name not in missing)]

    peers: list[Peer] = []
    firsts: dict[str, list[float]] = {name: [] for name in names}
    peak = {}
    case, command = FIRST
    for number in range(STARTS + 1):
        for name in names:
            peer = start(name, options.threads, options.sysimage)
            peer.ask(f"case {command}")
            peer.call(1)
            seconds = time.perf_counter() - peer.started
            if number > 0:
                firsts[name].append(seconds)
                print(f"{name}: first step after {seconds:.1f} s", file=sys.stderr, flush=True)
            if number == STARTS:
                peers.append(peer)
            else:
                peer.close()
    rounds_of(peers, case, command, options.rounds)
    for peer in peers:
        peak[peer.name] = figures([float(peer.ask("peak"))])
    cases = [*(STEPS if "step" in kinds else []), *(PREDICTIONS if "predict" in kinds else [])]
    for case, command in cases:
        rounds_of(peers, case, command, options.rounds)
    results = {case: {peer.name: figures(peer.seconds[case]) for peer in peers} for case, _ in [FIRST, *cases]}
    results["process start to first step"] = {name: figures(values) for name, values in firsts.items()}
    results["peak memory of steps at 180 px"] = peak

    with tempfile.TemporaryDirectory() as temporary:
        ours, facts = peers[0], {}
        demo = str(photoflux.prepare("demo", Path(temporary) / "demo", image_size=96, progress=False).path)
        if "epoch" in kinds:
            folder = options.data or demo
            keras = [peer for peer in peers if peer.name != PLAIN]
            case = "epoch of a prepared dataset"
            rounds_of(keras, case, f"epoch baseline {folder}", min(3, options.rounds))
            results[case] = {peer.name: figures(peer.seconds[case]) for peer in keras}
            ours.ask(f"case waiting baseline {folder}")
            facts["share of an epoch spent waiting for images"] = float(ours.ask("1").split()[1])
        if "memory" in kinds:
            ours.ask(f"case memory baseline {demo} 20")
            facts["resident MB after each of 20 epochs"] = [float(mb) for mb in ours.ask("1").split()[1:]]
    ours.ask(FIRST[1].replace("step", "case profile", 1))
    facts["ms of each layer, forward + backward"] = ours.ask("1").split()[1:]
    for kind, amount, unit in (("gemm", 2 * 2048**3, "GFLOP/s"), ("copy", 2 * 4 * 2**27, "GB/s")):
        ours.ask(f"case {kind} baseline")
        ours.call(1)
        facts[f"{kind}, {unit}"] = amount / min(ours.call(1) for _ in range(7)) / 1e9
    for peer in peers:
        peer.close()

    machine = {"cores": options.threads, "processor": processor(), "python": platform.python_version()}
    print(f"{machine['processor']}, {options.threads} core(s), {options.rounds} rounds, medians\n")
    print(markdown(results, names))
    print()
    for name, value in facts.items():
        print(f"- {name}: {value if isinstance(value, list) else f'{value:.3g}'}")
    options.out.write_text(json.dumps({"machine": machine, "results": results, "facts": facts}, indent=2) + "\n")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
