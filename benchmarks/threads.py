"""Time a training step with as many Julia threads as cores and with more of them, in turn, on the same cores.

Printed are the medians over the rounds, and each divided by that of as many threads as cores.

    python benchmarks/threads.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics

from run import OURS, rounds_of, start

CASES = {"l2 96 px": "step l2 96 96 3 32 2", "dense_l2, batch 32": "step dense_l2 28 28 1 32 10"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case (7)")
    rounds = parser.parse_args().rounds
    cores = len(os.sched_getaffinity(0))
    peers = []
    for threads in (cores, 2 * cores, 4 * cores):
        peers.append(start(OURS, threads))
        peers[-1].name = f"{threads} threads"
    for case, command in CASES.items():
        rounds_of(peers, case, command, rounds)
        medians = {peer.name: statistics.median(peer.seconds[case]) for peer in peers}
        least = next(iter(medians.values()))
        figures = ", ".join(f"{name} {1000 * s:.3g} ms ({s / least:.2f})" for name, s in medians.items())
        print(f"{case}, {cores} cores: {figures}")
    for peer in peers:
        peer.close()


if __name__ == "__main__":
    main()
