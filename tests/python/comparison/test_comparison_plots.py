"""The figures of a comparison, as the page shows them."""

from __future__ import annotations

import numpy as np
import pytest

from photoflux.comparison.intervals import Interval
from photoflux.comparison.plots import intervals
from photoflux.reporting.i18n import ENGLISH


@pytest.mark.parametrize("parts", [["validation"], ["validation", "test"], ["validation", "test", "holdout"]])
@pytest.mark.parametrize("names", [["l2"], ["l2", "transfer"], list("abcdefghij")])
def test_the_intervals_of_a_variant_lie_around_its_name_with_space_to_the_frame(parts, names):
    rows = {name: dict.fromkeys(parts, Interval(0.8, 0.7, 0.9)) for name in names}
    (axes,) = intervals(rows, ENGLISH, "accuracy").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    places = np.array([bars.lines[0].get_ydata() for bars in axes.containers])  # parts × variants
    assert np.allclose(places.mean(axis=0), range(len(names)))
    assert (np.abs(places - range(len(names))) < 0.5).all()
    # The first variant is on top, and no bar comes nearer to the frame than 0.3 of a row.
    bottom, top = axes.get_ylim()
    assert bottom - places.max() >= 0.3 - 1e-9
    assert places.min() - top >= 0.3 - 1e-9
