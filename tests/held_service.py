"""`photoflux serve` with a network that a test holds: run as a script, in a process of its own.

The logit of an image is its mean less 100. While the file that HOLD names is there, the network waits; where FAIL is
there, it fails. SECONDS_OF_HEAD is how long the head of a request may take.
"""

import os
import time
from pathlib import Path

import numpy as np

from photoflux import api, cli
from photoflux.errors import EngineError
from photoflux.serving import server


class Held:
    """A model whose logit is the mean of an image less 100."""

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        while Path(os.environ["HOLD"]).exists():
            time.sleep(0.01)
        if Path(os.environ["FAIL"]).exists():
            raise EngineError("no more memory")
        return images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] - 100


if __name__ == "__main__":
    api._model_of = lambda *_: Held()
    server.HEAD = float(os.environ.get("SECONDS_OF_HEAD", server.HEAD))
    cli.main()
