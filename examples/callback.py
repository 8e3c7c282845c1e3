"""A callback that logs every epoch as a line of JSON, and ends the fit when validation images are classified well."""

import json
from pathlib import Path

import photoflux


class JsonLines(photoflux.Callback):
    """A line an epoch, as JSON."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_epoch_end(self, fit: photoflux.RunningFit) -> None:
        """Write what the epoch measured."""
        row = fit.history[-1]
        line = {"epoch": row.epoch, "train": row.train_total, "validation": row.validation_total}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"learning_rate": fit.learning_rate}) + "\n")
        if row.validation_accuracy > 0.85:
            fit.stop()


run = photoflux.train(
    "baseline",
    "demo",
    image_size=32,
    epochs=20,
    learning_rate=0.003,
    schedule="cosine",
    callbacks=[JsonLines("log.jsonl")],
    out="runs/logged",
    progress=False,
)
print(Path("log.jsonl").read_text(encoding="utf-8"), end="")
print(run)
