"""Backbones: pretrained networks turn an image into features, once."""

from photoflux.features.backbone import Backbone, backbone_from, open_backbone
from photoflux.features.dataset import features_dataset
from photoflux.features.folding import folded_weights

__all__ = ["Backbone", "backbone_from", "features_dataset", "folded_weights", "open_backbone"]
