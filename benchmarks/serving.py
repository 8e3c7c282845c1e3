"""A service under load on this machine, bad input mixed in: requests a second, latency, and memory over time.

python benchmarks/serving.py RUN [--minutes 3] [--clients 8] [--images 4] [--size 640] [--bad 0.2]

Starts `photoflux serve RUN` on a free port. Each client sends one request after the other: JPEGs of photographs' size,
and in a share of the requests something bad. Memory is the resident set of the server process and of its children, from
/proc (Linux); the first figure is taken after a tenth of the time, when all parts have been used.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from PIL import Image


def jpegs(size: int, count: int = 40) -> list[bytes]:
    """Pictures with large and small structure, so that they pack as photographs do."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((size, size * 3 // 4))
        noise = rng.normal(0, 6, (size * 3 // 4, size, 3))
        stream = io.BytesIO()
        pixels = np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG", quality=88)
        found.append(stream.getvalue())
    return found


def bomb(side: int) -> bytes:
    """A PNG of few bytes that says it has side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, pixels = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Load:
    """Clients that send good and bad requests until a time is over."""

    def __init__(self, url: str, files: list[bytes], images: int, bad: float, until: float) -> None:
        self.url, self.files, self.images, self.bad, self.until = url, files, images, bad, until
        self.seconds: list[float] = []
        self.good: Counter[int] = Counter()
        self.odd: Counter[str] = Counter()
        self.lock = threading.Lock()

    def client(self, seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while time.monotonic() < self.until:
                if rng.random() < self.bad:
                    name, status = self.send_bad(client, rng)
                    with self.lock:
                        self.odd[f"{name}: {status}"] += 1
                    continue
                files = [("image", (f"{n}.jpg", rng.choice(self.files))) for n in range(self.images)]
                began = time.monotonic()
                status = client.post("/predict", files=files).status_code
                with self.lock:
                    self.seconds.append(time.monotonic() - began)
                    self.good[status] += 1

    def send_bad(self, client: httpx.Client, rng: random.Random) -> tuple[str, object]:
        whole = rng.choice(self.files)
        files = {
            "truncated JPEG": whole[: len(whole) // 2],
            "bomb": bomb(30_000),
            "packed zeros": bomb(6_000),
            "random bytes": rng.randbytes(10_000),
            "JPEG with flipped bytes": bytes(b ^ (rng.random() < 0.001) for b in whole[:20_000]) + whole[20_000:],
        }
        others = ("no form", "many fields", "client that goes", "half a body", "not HTTP", "too large")
        name = rng.choice([*files, *others])
        if name in files:
            return name, client.post("/predict", files={"image": (name, files[name])}).status_code
        if name == "no form":
            return name, client.post("/predict", content=b"words").status_code
        if name == "many fields":
            return name, client.post("/predict", files={str(n): (None, "a") for n in range(10_000)}).status_code
        if name == "too large":
            return name, client.post("/predict", files={"image": ("a", bytes(70 << 20))}).status_code
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            if name == "not HTTP":
                connection.sendall(rng.randbytes(500) + b"\r\n\r\n")
                return name, connection.recv(100)[9:12].decode("ascii", "replace")
            body = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + whole + b"\r\n--b--\r\n"
            head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + (body if name == "client that goes" else body[: len(body) // 2]))
        return name, "gone"


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def resident(pid: int) -> tuple[float, float]:
    """MiB of a process, and of its children together."""
    sizes = []
    for one in family(pid):
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return sizes[0], sum(sizes[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--bad", type=float, default=0.2)
    parser.add_argument("serve", nargs="*", help="further options of photoflux serve, behind --")
    options = parser.parse_args()

    command = [sys.executable, "-m", "photoflux", "serve", options.run, "--port", "0", "--json", *options.serve]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    began = time.monotonic()
    load = Load(url, jpegs(options.size), options.images, options.bad, began + 60 * options.minutes)
    clients = [threading.Thread(target=load.client, args=(seed,)) for seed in range(options.clients)]
    for client in clients:
        client.start()
    memory = []
    for step in range(1, 11):
        time.sleep(max(0.0, began + 6 * options.minutes * step - time.monotonic()))
        memory.append(resident(server.pid))
        print(f"after {6 * options.minutes * step:4.0f} s: server {memory[-1][0]:.0f} MiB, children "
              f"{memory[-1][1]:.0f} MiB, {sum(load.good.values())} good requests", flush=True)  # fmt: skip
    for client in clients:
        client.join()
    seconds = time.monotonic() - began
    health = httpx.get(f"{url}/health", timeout=60)
    server.send_signal(signal.SIGTERM)
    code = server.wait(60)

    cuts = statistics.quantiles(load.seconds, n=100)
    count = sum(load.good.values())
    print(f"good requests of {options.images} images: {count}, {count / seconds:.1f} a second, "
          f"{options.images * count / seconds:.0f} images a second; by status {dict(load.good)}")  # fmt: skip
    print(f"their latency: median {cuts[49]:.3f} s, 95 % {cuts[94]:.3f} s, 99 % {cuts[98]:.3f} s, "
          f"longest {max(load.seconds):.3f} s")  # fmt: skip
    print(f"bad requests: {sum(load.odd.values())}")
    for what, times in sorted(load.odd.items()):
        print(f"  {times:5} × {what}")
    (first, children), (last, later) = memory[0], memory[-1]
    print(f"memory: server {first:.0f} → {last:.0f} MiB ({last / first - 1:+.1%})")
    print(f"        children {children:.0f} → {later:.0f} MiB ({later / children - 1:+.1%})")
    print(f"health at the end {health.status_code}; exit code after SIGTERM {code}")


if __name__ == "__main__":
    main()
