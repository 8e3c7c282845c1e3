"""Images of which a model is uncertain, and the page of a review in this process."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from photoflux.filtering.ledger import Ledger
from photoflux.reviewing.items import Sitting
from photoflux.reviewing.pictures import Pictures

HOSTILE = "<img src=x onerror=alert(1)>.png"
# The scores of these grey values, with the model `piles.Brightness`: 1 / (1 + exp(10 − grey / 10)).
GREYS = {"even.png": 100, "above.jpg": 103, "below.png": 96, HOSTILE: 106, "dark.png": 20, "light.png": 220}
PORT = 4321
TOKEN = "token"


def plain(grey: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.new("RGB", size, (grey, grey, grey))


def as_file(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def make_scans(folder: Path) -> Path:
    """A pile with uncertain images in files, an archive and a document of pages, one of them large."""
    folder.mkdir()
    for name, grey in GREYS.items():
        plain(grey).save(folder / name)
    plain(102, (2400, 1800)).save(folder / "big.png")
    with zipfile.ZipFile(folder / "box.zip", "w") as archive:
        archive.writestr("in/one.png", as_file(plain(95)))
    plain(30).save(folder / "pages.tif", save_all=True, append_images=[plain(99)])
    return folder


@dataclass
class Page:
    """A page in this process: `client` asks it, and `get` within what the token opens."""

    client: Any
    sitting: Sitting
    pictures: Pictures
    ledger: Ledger

    def get(self, address: str) -> Any:
        return self.client.get(f"/{TOKEN}/{address}")

    def label(self, item: dict[str, Any], label: str | None) -> Any:
        values = {"source": item["source"], "page": item["page"], "label": label}
        return self.client.post(f"/{TOKEN}/label", json=values)

    def items(self) -> dict[str, dict[str, Any]]:
        return {item["name"]: item for item in self.get("items").json()["items"]}

    def labels(self) -> dict[str, str]:
        query = "SELECT path, label FROM labels JOIN sources ON id = source"
        return {Path(path.decode()).name: label for path, label in self.ledger.rows(query)}
