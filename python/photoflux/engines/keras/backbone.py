"""Builds a backbone as Keras layers, for the export of a transfer run. Worker process only."""

from __future__ import annotations

import keras
from keras import layers

from photoflux.features.folding import Folded


def features_of(pixels: keras.KerasTensor, folded: Folded) -> keras.KerasTensor:
    """Return a backbone's features, (N, F), of images (N, H, W, 3) or (N, H, W, 1), 0 to 255.

    Parameters
    ----------
    pixels : keras.KerasTensor
        The images; a grey one is repeated for the three colours.
    folded : Folded
        The weights; each layer has its name there, behind that of the backbone.
    """
    weights = folded.weights

    def named(name: str) -> str:
        return f"{folded.name}.{name}".replace(".", "_")

    def convolution(name: str, x: keras.KerasTensor, stride: int = 1, relu6: bool = False) -> keras.KerasTensor:
        kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
        options = {"strides": stride, "padding": "same", "name": named(name)}
        if name.endswith("depthwise"):
            layer = layers.DepthwiseConv2D(len(kernel), **options)
        else:
            layer = layers.Conv2D(len(bias), len(kernel), **options)
        x = layer(x)
        layer.set_weights([kernel, bias])
        return layers.ReLU(6, name=named(f"{name}.relu6"))(x) if relu6 else x

    x = pixels
    if x.shape[-1] == 1:
        x = layers.Concatenate(name=named("colours"))([x, x, x])
    x = layers.Rescaling(1 / folded.scale, -folded.mean / folded.scale, name=named("scaled"))(x)
    x = convolution("stem", x, 2, relu6=True)
    for number, block in enumerate(folded.blocks, 1):
        entered, name = x, f"block{number}"
        if block.expand:
            x = convolution(f"{name}.expand", x, relu6=True)
        x = convolution(f"{name}.depthwise", x, block.stride, relu6=True)
        x = convolution(f"{name}.project", x)
        if block.residual:
            x = layers.Add(name=named(f"{name}.add"))([x, entered])
    x = convolution("top", x, relu6=True)
    return layers.GlobalAveragePooling2D(name=named("pool"))(x)
