"""The Keras engine's worker process: ``python -m photoflux.engines.keras.server``, driven by `worker.Worker`.

Keras and TensorFlow are imported here and nowhere else, because their LLVM and Julia's cannot share a process.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

os.environ["KERAS_BACKEND"] = "tensorflow"

from photoflux.data.prepared import open_prepared
from photoflux.engines.base import Checkpoints
from photoflux.engines.keras.worker import SCRATCH
from photoflux.errors import PhotoFluxError
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.system import atomic


class Channel:
    """The worker's end of the two pipes; a thread reads, so that a stop, or the end of our parent, is seen at once."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopped_id = -1
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._incoming:
            message = json.loads(line)
            if message["do"] == "stop":
                self._stopped_id = message["id"]
            else:
                self._lines.put(message)
        # Our parent has closed the pipe or died: nobody wants the rest.
        if SCRATCH in os.environ:
            atomic.remove_in_use(Path(os.environ[SCRATCH]))
        os._exit(0)

    def next(self) -> dict[str, Any]:
        """Wait for the next request."""
        return self._lines.get()

    def stopped(self, request_id: int) -> bool:
        """Say whether a request was told to stop."""
        return self._stopped_id == request_id

    def send(self, **message: Any) -> None:
        """Send one line."""
        self._outgoing.write(json.dumps(message).encode() + b"\n")
        self._outgoing.flush()

    def tell(self, event: str, values: dict[str, Any]) -> None:
        """Send an event and wait until the parent has dealt with it."""
        self.send(event=event, values=values)
        self._lines.get()


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def serve(channel: Channel) -> None:
    """Answer requests until the parent ends."""
    import tensorflow as tf

    from photoflux.engines.keras.export import export
    from photoflux.engines.keras.fit import KerasFit
    from photoflux.engines.keras.import_model import import_model
    from photoflux.engines.keras.predict import Predictor
    from photoflux.engines.keras.trace import augmented, pixels, stopping, trace

    tf.config.experimental.enable_op_determinism()  # costs nothing that can be measured on a CPU
    predictor = Predictor()

    def fit(request: dict[str, Any]) -> dict[str, Any]:
        predictor.forget()
        return KerasFit(
            variant=Variant.from_dict(request["variant"]),
            prepared=open_prepared(request["prepared"]),
            settings=Settings(**request["settings"]),
            weights=Path(request["weights"]),
            initial=None if request["initial"] is None else Path(request["initial"]),
            stopped=lambda: channel.stopped(request["id"]),
            on_epoch=lambda row: channel.tell("epoch", row),
            on_note=lambda note: channel.tell("note", {"note": note}),
            checkpoints=checkpoints_of(request["checkpoints"]),
            on_batch=(lambda progress: channel.tell("batch", progress)) if request["batches"] else None,
        ).run()

    actions = {
        "fit": fit,
        "load": predictor.load,
        "logits": predictor.logits,
        "trace": trace,
        "stopping": stopping,
        "augmented": augmented,
        "pixels": pixels,
        "export": export,
        "import_model": import_model,
    }
    channel.send(event="ready", values=versions())
    while True:
        request = channel.next()
        try:
            os.chdir(request["folder"])  # so that paths mean, and messages show, what the user gave
            done = actions[request["do"]](request)
        except PhotoFluxError as error:
            channel.send(error=type(error).__name__, message=str(error))
        except Exception as error:
            traceback.print_exc()
            channel.send(error="EngineError", message=_plain(request["do"], error))
        else:
            channel.send(done=done)


def checkpoints_of(values: dict[str, Any] | None) -> Checkpoints | None:
    """Return where a fit keeps its checkpoints, as a request says it."""
    return None if values is None else Checkpoints(**{**values, "folder": Path(values["folder"])})


def _plain(do: str, error: Exception) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return f"Keras ran out of memory during {do}. Take a smaller `batch_size` or smaller images."
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"Keras failed during {do}: {type(error).__name__}: {first}"


def main() -> None:
    """Keep the real standard output for the protocol, send whatever else is printed to the log, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(Channel(os.fdopen(os.dup(sys.stdin.fileno()), "rb"), outgoing))


if __name__ == "__main__":
    main()
