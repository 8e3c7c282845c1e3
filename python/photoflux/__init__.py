"""PhotoFlux: image classifiers on Flux.jl, proved equal to a Keras reference."""

from typing import TYPE_CHECKING, Any

from photoflux.api import (
    Prediction,
    compare,
    evaluate,
    export,
    filter,
    import_keras,
    load_comparison,
    load_run,
    predict,
    prepare,
    report,
    review,
    serve,
    status,
    summary,
    threshold,
    train,
    verify,
)
from photoflux.comparison.comparison import Comparison
from photoflux.data.prepared import PreparedDataset
from photoflux.data.sources.own import register_source
from photoflux.engines.callbacks import Callback, RunningFit
from photoflux.errors import DataError, DivergedError, EngineError, PhotoFluxError, RunError, ServingError, SettingError
from photoflux.filtering.decision import Filtered
from photoflux.filtering.status import Status
from photoflux.model.summary import Summary
from photoflux.model.variant import Variant
from photoflux.model.variants import variant, variants
from photoflux.reporting.notebook import attach
from photoflux.reviewing.reviewed import Reviewed
from photoflux.runs.evaluation import Metrics
from photoflux.runs.run import Run
from photoflux.system.version import __version__
from photoflux.thresholds.operating_point import OperatingPoint
from photoflux.verification.verification import Verification

if TYPE_CHECKING:
    from photoflux.data.prepared_writer import PreparedWriter

__all__ = [
    "Callback",
    "Comparison",
    "DataError",
    "DivergedError",
    "EngineError",
    "Filtered",
    "Metrics",
    "OperatingPoint",
    "PhotoFluxClassifier",
    "PhotoFluxError",
    "Prediction",
    "PreparedDataset",
    "PreparedWriter",
    "Reviewed",
    "Run",
    "RunError",
    "RunningFit",
    "ServingError",
    "SettingError",
    "Status",
    "Summary",
    "Variant",
    "Verification",
    "__version__",
    "adopt",
    "compare",
    "evaluate",
    "export",
    "filter",
    "import_keras",
    "load_comparison",
    "load_run",
    "predict",
    "prepare",
    "register_source",
    "report",
    "review",
    "serve",
    "status",
    "summary",
    "threshold",
    "train",
    "variant",
    "variants",
    "verify",
]

adopt = import_keras  # its name until 0.1
attach()


def __getattr__(name: str) -> Any:
    # scikit-learn takes longer to import than all of this; Pillow takes long too.
    if name == "PhotoFluxClassifier":
        from photoflux.estimator import PhotoFluxClassifier

        return PhotoFluxClassifier
    if name == "PreparedWriter":
        from photoflux.data.prepared_writer import PreparedWriter

        return PreparedWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
