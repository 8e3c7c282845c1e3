"""Images to prepared datasets."""

from photoflux.data.prepared import FORMAT, SPLITS, PreparedDataset, is_prepared, open_prepared
from photoflux.data.sources import prepare

__all__ = ["FORMAT", "SPLITS", "PreparedDataset", "is_prepared", "open_prepared", "prepare"]
