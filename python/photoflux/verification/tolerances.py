"""How far two correct Float32 computations of the same number may differ; every tolerance of a proof comes from here.

Both engines round every operation to a relative u = eps/2 = 6e-8, and sum in different orders. A sum of n terms then
carries an error of at most n·u times the sum of the magnitudes; but roundings fall either way, and with a probability
of more than 1 − 2·exp(−λ²/2) the factor is λ·√n, not n (Higham & Mary, 2019, "A new approach to probabilistic rounding
error analysis", theorem 2.4; SIAM J. Sci. Comput. 41(5)). λ = 6 makes 3e-8 of the rest. Two engines differ by twice
that: λ·√n·eps times the magnitude. The bound with n would let real faults through: it is 0.8 % of a logit of a photo
CNN on images of 64×64, where this one is 0.02 %.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

from photoflux.engines.proof import TraceRequest

EPS = float(np.finfo(np.float32).eps)
LAMBDA = 6.0
# Adam's own constants in Keras' form: β₁, β₂ and ε.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
# Runs with other roundings are samples of what they do; one that by chance crosses no kink that others cross is far
# nearer. The largest of so many is taken, and another run may be this many times as far off.
SAMPLES, BEYOND = 4, 2.0
# From drawn values to a coordinate: sine, cosine, four products and sums, and the shift to the centre.
COORDINATE_OPERATIONS = 8


def summed(terms: float, magnitude: float) -> float:
    """Return how far two sums of so many terms may differ, where results are of that magnitude."""
    return LAMBDA * float(np.sqrt(terms)) * EPS * magnitude


def terms_before(request: TraceRequest) -> dict[str, int]:
    """Return for each layer the terms summed on the way from a pixel to what it gives: its own inputs and before it."""
    totals = accumulate((layer.terms for layer in request.layers[1:]), initial=1)
    return {layer.name: total for layer, total in zip(request.layers, totals, strict=True)}


def terms_of_gradient(request: TraceRequest, name: str) -> int:
    """Return the terms of a weight's gradient: forward to the loss, back to its layer, and over images and places."""
    number, layer = next((i, layer) for i, layer in enumerate(request.layers) if layer.name == name)
    # Back through a convolution, each place collects from a kernel's places and filters.
    after = (layer.kernel for layer in request.layers[number + 1 :] if layer.kind == "convolution")
    back = sum(math.prod(kernel[:2]) * kernel[-1] for kernel in after)
    batch: int = request.images.shape[1]
    return terms_before(request)["output"] + back + batch * layer.places


def weights_of(request: TraceRequest) -> int:
    """Return the number of weights, the terms of a penalty."""
    return sum(layer.parameters for layer in request.layers)


def adam_step(ours: np.ndarray, theirs: np.ndarray, allowed: float, rate: float, weights: np.ndarray) -> np.ndarray:
    """Return how far each weight may differ after one step of Adam from gradients that differ by up to `allowed`.

    The first update is η·g/(|g| + ε'), ε' = ε/√(1 − β₂). Its slope is η·ε'/(|g| + ε')², at most that at the |g| that is
    smaller by what is allowed: steep near zero, where rounding alone decides the sign of g, and the step is at most η
    to either side. Beside it the step is a few operations, and the weight itself is rounded once.
    """
    shifted = EPSILON / np.sqrt(1 - BETA2)
    difference = np.minimum(np.abs(ours - theirs), allowed)
    smaller: np.ndarray = np.minimum(np.abs(ours), np.abs(theirs))
    smaller[np.sign(ours) != np.sign(theirs)] = 0
    moved = rate * np.minimum(2, difference * shifted / (smaller + shifted) ** 2)
    slack: np.ndarray = moved + 8 * EPS * rate + 2 * EPS * np.abs(weights)
    return slack


def proximal_step(
    ours: np.ndarray, theirs: np.ndarray, allowed: float, rate: float, l1: float, start: np.ndarray
) -> np.ndarray:
    """Return how much farther than after Adam's first step each weight may differ after the proximal step.

    It moves a weight by η·λ₁/(1 − β₁)/(|g| + ε') towards zero at most, ε' as in `adam_step`. That is rounded a few
    times, and its slope is that of `adam_step`'s kind; and no weight is moved farther than to zero, from where it began
    and Adam moved it, by η at most.
    """
    shifted = EPSILON / np.sqrt(1 - BETA2)
    difference = np.minimum(np.abs(ours - theirs), allowed)
    smaller = np.minimum(np.abs(ours), np.abs(theirs)) + shifted
    reach = rate * l1 / (1 - BETA1) / smaller
    slack: np.ndarray = np.minimum(reach * (difference / smaller + 8 * EPS), np.abs(start) + rate)
    return slack


def interpolated(height: int, width: int) -> float:
    """Return how far an interpolated pixel, 0 to 255, may differ: between neighbours it can change by 255 a pixel."""
    return 255 * EPS * (COORDINATE_OPERATIONS * max(height, width) + COORDINATE_OPERATIONS)
