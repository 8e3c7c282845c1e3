"""Draws the images of the demo's five classes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 64
# Strokes are drawn at twice the size and shrunk, which smooths their edges.
_CANVAS = 2 * SIDE

Colour = tuple[int, int, int]


def draw(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return one image of a class, uint8 (64, 64, 3); the generator alone decides what is on it."""
    return _expose(DRAWERS[kind](rng), rng)


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give an image a brightness, tint and contrast that are drawn alike for all classes."""
    image = image.astype(np.float64)
    mean = rng.uniform(85, 175) + rng.normal(0, 14, size=3)
    spread = rng.uniform(24, 50) / max(float(image.std()), 1.0)
    exposed: np.ndarray = np.clip(np.rint((image - image.mean(axis=(0, 1))) * spread + mean), 0, 255).astype(np.uint8)
    return exposed


def _colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> Colour:
    red, green, blue = rng.integers(low, high, size=3).tolist()
    return red, green, blue


def _paper(rng: np.random.Generator) -> tuple[Image.Image, Colour]:
    """Return a sheet and the colour of the ink: dark on light, or light on dark one time in four."""
    sheet, ink = _colour(rng, 195, 256), _colour(rng, 0, 90)
    if rng.random() < 0.25:
        sheet, ink = ink, sheet
    return Image.new("RGB", (_CANVAS, _CANVAS), sheet), ink


def _shrunk(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)


def _photo(rng: np.random.Generator) -> np.ndarray:
    """Smooth light, shaded blobs in and out of focus, sensor noise."""
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * across + np.sin(angle) * down)[..., None]
    image = np.array(_colour(rng)) * (1 - ramp) + np.array(_colour(rng)) * ramp
    for _ in range(rng.integers(3, 8)):
        x, y = rng.uniform(0, 1, size=2)
        wide, high = rng.uniform(0.07, 0.35, size=2)
        distance = np.hypot((across - x) / wide, (down - y) / high)
        softness = rng.uniform(0.04, 0.6)
        cover = (1 / (1 + np.exp(np.clip((distance - 1) / softness * 4, -30, 30))))[..., None]
        shade = 1 - 0.6 * np.clip((across - x) / wide * np.cos(angle) + (down - y) / high * np.sin(angle), -1, 1)
        image = image * (1 - cover) + np.array(_colour(rng, 20, 230)) * shade[..., None] * cover
    image = image + rng.normal(0, rng.uniform(2, 9), size=(SIDE, SIDE, 1)) + rng.normal(0, 3, size=image.shape)
    vignette = 1 - rng.uniform(0, 0.5) * (np.hypot(across - 0.5, down - 0.5) ** 2)
    photo: np.ndarray = image * vignette[..., None]
    return photo


def _painting(rng: np.random.Generator) -> np.ndarray:
    """Brush strokes along a flow, in a few colours, on canvas."""
    palette = [_colour(rng) for _ in range(rng.integers(4, 8))]
    image = Image.new("RGB", (_CANVAS, _CANVAS), palette[0])
    pen = ImageDraw.Draw(image)
    turn, wave, bend = rng.uniform(0, np.pi), rng.uniform(1, 4), rng.uniform(0.3, 1.5)
    for x, y in rng.uniform(0, _CANVAS, size=(rng.integers(180, 320), 2)).tolist():
        angle = turn + bend * np.sin(wave * (x + 0.7 * y) / _CANVAS * 2) + rng.normal(0, 0.25)
        length, width = rng.uniform(8, 26), int(rng.integers(3, 9))
        place = int(len(palette) * (0.5 + 0.5 * np.sin(wave * y / 30 + turn))) + int(rng.integers(0, 2))
        base = np.array(palette[place % len(palette)]) + rng.normal(0, 18)
        red, green, blue = np.clip(base, 0, 255).astype(int).tolist()
        dx, dy = length * np.cos(angle) / 2, length * np.sin(angle) / 2
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=(red, green, blue), width=width)
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    weave = rng.uniform(3, 8) * (np.sin(across * np.pi * 0.9) + np.sin(down * np.pi * 0.9))
    painting: np.ndarray = _shrunk(image) + weave[..., None]
    return painting


def _schematics(rng: np.random.Generator) -> np.ndarray:
    """Boxes and nodes joined by thin straight lines."""
    image, ink = _paper(rng)
    pen = ImageDraw.Draw(image)
    places = rng.permutation(16)[: rng.integers(4, 9)]
    nodes = [
        (16 + 32 * (p % 4) + rng.integers(-6, 7), 16 + 32 * (p // 4) + rng.integers(-6, 7)) for p in places.tolist()
    ]
    width = int(rng.integers(1, 4))
    for (x, y), (u, v) in pairwise(nodes):
        pen.line((x, y, u, y, u, v) if rng.random() < 0.8 else (x, y, u, v), fill=ink, width=width)
    sheet = image.getpixel((0, 0))
    for x, y in nodes:
        half = int(rng.integers(4, 13))
        tall = int(rng.integers(4, 11))
        shape = rng.integers(0, 4)
        if shape == 0:
            pen.ellipse((x - half, y - half, x + half, y + half), outline=ink, fill=sheet, width=width)
        elif shape == 1:
            pen.polygon((x, y - tall, x + half, y, x, y + tall, x - half, y), outline=ink, fill=sheet)
        else:
            pen.rectangle((x - half, y - tall, x + half, y + tall), outline=ink, fill=sheet, width=width)
        if shape == 3:
            pen.line((x - half, y, x + half, y), fill=ink, width=width)
    if rng.random() < 0.5:
        pen.rectangle((3, 3, _CANVAS - 4, _CANVAS - 4), outline=ink, width=width)
    return _shrunk(image) + rng.normal(0, 2, size=(SIDE, SIDE, 1))


def _sketch(rng: np.random.Generator) -> np.ndarray:
    """Wobbly outlines, drawn more than once, and hatching, on grainy paper."""
    image, ink = _paper(rng)
    pen = ImageDraw.Draw(image)
    around = np.linspace(0, 2 * np.pi, 28)
    for _ in range(rng.integers(2, 5)):
        x, y = rng.uniform(25, 100, size=2)
        wide, high = rng.uniform(12, 45, size=2)
        for _ in range(rng.integers(2, 4)):
            wobble = 1 + 0.09 * rng.normal(size=28) * np.sin(around / 2)
            points = np.stack([x + wide * wobble * np.cos(around), y + high * wobble * np.sin(around)], axis=1)
            pen.line([(u, v) for u, v in points.tolist()], fill=ink, width=1)
        angle, gap = rng.uniform(0, np.pi), rng.uniform(3, 6)
        along, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for step in np.arange(-high, high, gap).tolist():
            start = np.array([x, y]) + aside * step - along * wide * rng.uniform(0.2, 0.7) + rng.normal(0, 1, size=2)
            end = np.array([x, y]) + aside * step + along * wide * rng.uniform(0.2, 0.7) + rng.normal(0, 1, size=2)
            pen.line((*start.tolist(), *end.tolist()), fill=ink, width=1)
    return _shrunk(image.filter(ImageFilter.GaussianBlur(0.6))) + rng.normal(0, 4, size=(SIDE, SIDE, 1))


def _text(rng: np.random.Generator) -> np.ndarray:
    """Rows of words made of glyph-like marks, a little askew."""
    image, ink = _paper(rng)
    sheet = image.getpixel((0, 0))
    pen = ImageDraw.Draw(image)
    high = int(rng.integers(4, 9))
    pitch = high + int(rng.integers(3, 8))
    left, right = int(rng.integers(4, 22)), _CANVAS - int(rng.integers(4, 22))
    y = int(rng.integers(4, 16))
    while y + high < _CANVAS - 4:
        x = left + (8 if rng.random() < 0.15 else 0)
        end = right if rng.random() < 0.8 else int(rng.integers(left + 20, right + 1))
        while x < end:
            for _ in range(rng.integers(2, 9)):
                wide = max(2, int(high * rng.uniform(0.4, 0.8)))
                if x + wide > end:
                    break
                for _ in range(rng.integers(2, 4)):
                    a, b = rng.integers(0, 3, size=2) / 2 * wide, rng.integers(0, 3, size=2) / 2 * high
                    pen.line((x + a[0], y + b[0], x + a[1], y + b[1]), fill=ink, width=int(rng.integers(1, 3)))
                x += wide + 2
            x += high
        y += pitch * (2 if rng.random() < 0.12 else 1)
    turned = image.rotate(rng.normal(0, 1.5), Image.Resampling.BILINEAR, fillcolor=sheet)
    return _shrunk(turned) + rng.normal(0, 3, size=(SIDE, SIDE, 1))


DRAWERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "Painting": _painting,
    "Photo": _photo,
    "Schematics": _schematics,
    "Sketch": _sketch,
    "Text": _text,
}
