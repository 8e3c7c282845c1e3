"""The architectures: what stands before the hidden Dense layers, and which groups a penalty or dropout may name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Block:
    """A layer of an architecture's body; `group` is what a variant calls its kernel, or its dropout rate."""

    name: str
    kind: Literal["rescaling", "standardisation", "convolution", "max pooling", "dropout"]
    group: str = ""
    filters: int = 0


# The architecture whose input is not images but the features that a backbone makes of them.
TRANSFER = "transfer"
# The architecture of a network of a user's own, which has layers of its own in place of all of these.
NETWORK = "chain"
RESCALE = Block("rescale", "rescaling")
# Every architecture ends with the flattening, the hidden Dense layers and the output. A convolution is 3×3 with `same`
# zero padding and ReLU; a pooling takes the largest of 2×2.
ARCHITECTURES: Mapping[str, Sequence[Block]] = {
    "photo_cnn": (
        RESCALE,
        Block("conv1", "convolution", "conv", 16),
        Block("pool", "max pooling"),
        Block("pool_dropout", "dropout", "pool"),
        Block("conv2", "convolution", "conv", 32),
        Block("conv3", "convolution", "conv", 64),
    ),
    "dense": (RESCALE,),
    TRANSFER: (Block("standardise", "standardisation"),),
    NETWORK: (),
}


def penalty_groups(architecture: str, hidden: Sequence[int]) -> list[str]:
    """Return the groups of kernels of an architecture with these hidden layers, first layer to last."""
    if architecture == NETWORK:
        return ["kernels"]
    return _groups(architecture, "convolution") + ["hidden"] * bool(hidden) + ["output"]


def dropout_groups(architecture: str, hidden: Sequence[int]) -> list[str]:
    """Return the groups of dropout layers of an architecture with these hidden layers, first layer to last."""
    if architecture == NETWORK:
        return []
    return _groups(architecture, "dropout") + ["hidden"] * bool(hidden)


def _groups(architecture: str, kind: str) -> list[str]:
    return list(dict.fromkeys(block.group for block in ARCHITECTURES[architecture] if block.kind == kind))
