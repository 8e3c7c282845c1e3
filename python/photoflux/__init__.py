"""PhotoFlux: image classifiers on Flux.jl, proved equal to a Keras reference."""

from photoflux.api import (
    Prediction,
    adopt,
    compare,
    evaluate,
    export,
    load_comparison,
    load_run,
    predict,
    prepare,
    report,
    summary,
    threshold,
    train,
    verify,
)
from photoflux.comparison.comparison import Comparison
from photoflux.data.prepared import PreparedDataset
from photoflux.errors import DataError, DivergedError, EngineError, PhotoFluxError, RunError, SettingError
from photoflux.evaluation import Metrics
from photoflux.promises import Promise
from photoflux.runs import Run
from photoflux.summary import Summary
from photoflux.variants import Variant, variant, variants
from photoflux.verification.verification import Verification

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "DataError",
    "DivergedError",
    "EngineError",
    "Metrics",
    "PhotoFluxError",
    "Prediction",
    "PreparedDataset",
    "Promise",
    "Run",
    "RunError",
    "SettingError",
    "Summary",
    "Variant",
    "Verification",
    "adopt",
    "compare",
    "evaluate",
    "export",
    "load_comparison",
    "load_run",
    "predict",
    "prepare",
    "report",
    "summary",
    "threshold",
    "train",
    "variant",
    "variants",
    "verify",
]
