"""Prepared datasets: images from folders, files and arrays are read, split and written here."""

from photoflux.data.preparation import prepare
from photoflux.data.prepared import FORMAT, SPLITS, PreparedDataset, is_prepared, open_prepared

__all__ = ["FORMAT", "SPLITS", "PreparedDataset", "is_prepared", "open_prepared", "prepare"]
