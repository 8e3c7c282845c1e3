"""Augmented views: fixed by seed, image and number; near the image, and continued beyond its edges."""

from __future__ import annotations

import numpy as np
import pytest

from photoflux.features.views import view_of


def smooth(channels, height, width):
    """A disc whose brightness falls from its middle, on grey: the same when mirrored or turned about the middle."""
    y, x = np.mgrid[:height, :width]
    far = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) / min(height, width)
    disc = np.clip(255 - 300 * far, 90, 255)
    return np.stack([disc * share for share in (1, 0.8, 0.6)[:channels]]).astype(np.uint8)


@pytest.mark.parametrize("shape", [(3, 40, 40), (1, 40, 40), (3, 20, 61), (3, 9, 200), (3, 8, 8)])
def test_a_view_has_the_images_shape_and_depends_on_seed_image_and_number_alone(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    view = view_of(image, 1, 1)
    assert (view.dtype, view.shape) == (np.uint8, shape)
    assert np.array_equal(view, view_of(image.copy(), 1, 1))
    for other in (view_of(image, 2, 1), view_of(image, 1, 2)):
        assert not np.array_equal(view, other)
    brighter = image ^ 1
    assert np.abs(view.astype(int) - view_of(brighter, 1, 1)).mean() > 1  # drawn anew for another image


def test_what_is_round_stays_in_its_place_under_every_view():
    image = smooth(3, 60, 60).astype(int)
    y, x = np.mgrid[:60, :60] - 29.5
    within = np.hypot(y, x) < 22  # what is beyond the edges does not come here
    for view in range(1, 30):
        found = view_of(image.astype(np.uint8), 0, view).astype(int)
        # Zoom moves a brightness of slope 5 a pixel by at most 15 % of 22 pixels; rounding and bicubic add 2.
        assert np.abs(found - image)[:, within].max() <= 5 * 0.15 * 22 + 2
        assert abs(found[0].argmax() // 60 - 30) <= 2 and abs(found[0].argmax() % 60 - 30) <= 2


@pytest.mark.parametrize("shape", [(3, 40, 40), (1, 12, 90), (3, 90, 12)])
def test_nothing_but_the_image_is_seen_at_the_edges(shape):
    image = np.full(shape, 200, np.uint8)
    for view in range(1, 40):
        assert np.array_equal(view_of(image, 3, view), image)


def test_views_are_mirrored_turned_and_zoomed():
    image = np.zeros((1, 61, 61), np.uint8)
    image[:, 28:33, 50:] = 255  # a bar at the right
    sides = [view_of(image, 0, view)[0][:, :20].max() > 128 for view in range(1, 41)]
    assert 8 < sum(sides) < 32
    heights = {int(view_of(image, 0, view)[0][:, [5, 55]].max(axis=1).argmax()) for view in range(1, 41)}
    assert min(heights) < 28 and max(heights) >= 30  # turned either way about the middle
    tops = [int((view_of(image, 0, view)[0].max(axis=1) > 128).sum()) for view in range(1, 41)]
    assert len(set(tops)) > 2
