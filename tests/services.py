"""A service in a process of its own, and images to send it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image

HELD = Path(__file__).parent / "held_service.py"


def image(value: int = 150, kind: str = "PNG", **options) -> bytes:
    """An image of 9×9 of one grey value, as a file of a format."""
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (value, value, value)).save(stream, kind, **options)
    return stream.getvalue()


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path, command: list[object], environment: dict[str, str]) -> None:
        self.hold, self.fail, self.errors = folder / "hold", folder / "fail", folder / "stderr"
        environment = os.environ | {"HOLD": str(self.hold), "FAIL": str(self.fail)} | environment
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command), "--json", "--port", "0"],
                env=environment, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        self.url = json.loads(line)["url"]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def predict(self, *files: bytes, **options) -> httpx.Response:
        named = [("image", (f"{number}.png", data)) for number, data in enumerate(files)]
        return self.client.post("/predict", files=named, **options)

    def numbers(self) -> dict[str, float]:
        lines = [line for line in self.client.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def until(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        for _ in range(3000):
            if self.numbers().get(name, 0) == value:
                return
            time.sleep(0.01)
        raise AssertionError(f"{name} is {self.numbers().get(name)}, not {value}")

    def folder(self) -> Path:
        """Where it keeps uploads."""
        (found,) = Path(tempfile.gettempdir()).glob(f"photoflux-*-{self.process.pid}-*-serve")
        return found

    def helpers(self) -> list[int]:
        """The process ids of the decoders."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == self.process.pid and b"spawn_main" in command:
                found.append(int(entry.name))
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal, and return its exit code."""
        self.client.close()
        self.process.send_signal(number)
        return self.code()

    def code(self) -> int:
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code
