"""PhotoFlux: image classifiers on Flux.jl, proved equal to a Keras reference."""

from photoflux.api import Prediction, adopt, evaluate, export, load_run, predict, prepare, train, verify
from photoflux.data.prepared import PreparedDataset
from photoflux.errors import DataError, DivergedError, EngineError, PhotoFluxError, RunError, SettingError
from photoflux.evaluation import Metrics
from photoflux.runs import Run
from photoflux.variants import Variant, variant, variants
from photoflux.verification.verification import Verification

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "DivergedError",
    "EngineError",
    "Metrics",
    "PhotoFluxError",
    "Prediction",
    "PreparedDataset",
    "Run",
    "RunError",
    "SettingError",
    "Variant",
    "Verification",
    "adopt",
    "evaluate",
    "export",
    "load_run",
    "predict",
    "prepare",
    "train",
    "variant",
    "variants",
    "verify",
]
