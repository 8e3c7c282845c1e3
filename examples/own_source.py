"""A source of your own: images as HuggingFace and torchvision datasets give them, without a download."""

import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

import photoflux


def made_up(count: int) -> Iterator[dict]:
    """Stand in for `datasets.load_dataset(…)`: circles and squares, of different sizes."""
    random = np.random.default_rng(0)
    for number in range(count):
        side = int(random.integers(40, 80))
        image = Image.fromarray(random.integers(0, 100, (side, side, 3), dtype=np.uint8))
        left, top = random.integers(2, side // 4, 2).tolist()
        box, colour = (left, top, left + side // 2, top + side // 2), tuple(random.integers(150, 256, 3).tolist())
        (ImageDraw.Draw(image).rectangle if number % 2 else ImageDraw.Draw(image).ellipse)(box, fill=colour)
        yield {"image": image, "label": number % 2}


# 1. A dataset in a folder.
with photoflux.PreparedWriter("shapes", ["circle", "square"], image_size=32) as writer:
    for item in made_up(400):
        writer.add(item["image"], item["label"])
    print(writer.finish().counts())


# 2. A source with a name, for everything that takes data.
@photoflux.register_source("shapes", state=lambda argument: "version 1")
def shapes(argument: str, writer: photoflux.PreparedWriter) -> None:
    """Read as many shapes as the argument says: "shapes:400"."""
    for item in made_up(int(argument)):
        writer.add(item["image"], ("circle", "square")[item["label"]])


if "--train" in sys.argv:
    prepared = photoflux.prepare("shapes:400", image_size=32)
    run = photoflux.train("dense_l2", "shapes:400", image_size=32, epochs=8)
    print(run)
    assert run.data.fingerprint == prepared.fingerprint  # read once: its state is the same
