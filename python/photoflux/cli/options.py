"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photoflux.errors import SettingError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option(help="Fixes split, weights, batch order, dropout and augmentation.")]
ImageSize = Annotated[int | None, typer.Option(help="Height and width in pixels, 8 or more. (default: the variant's)")]
Positive = Annotated[
    str, typer.Option(help="The folder that counts as photo; 'none' keeps all classes; 'auto' takes a folder Photo.")
]
Groups = Annotated[
    Path | None, typer.Option(help="CSV with the columns path and group: a group stays on one side of the split.")
]
Resplit = Annotated[
    bool, typer.Option("--resplit", help="Pool the parts of a folder that is split already, and split it again.")
]
Balance = Annotated[str | None, typer.Option(help="none, weights or augment. (default: the variant's)")]
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone", help="Of transfer variants: a name, A+B, or a file model.onnx. (default: the variant's)"
    ),
]
Precision = Annotated[str | None, typer.Option(help="Of the backbone: float32 or int8. (default: float32)")]
Views = Annotated[int, typer.Option(help="Augmented views of each training image for transfer variants.")]
Numbers = "One number, or three: red,green,blue."
BackboneMean = Annotated[
    str | None, typer.Option(help=f"Of model.onnx, which takes (pixels - mean) / scale, pixels 0 to 255. {Numbers}")
]
Unfreeze = Annotated[int, typer.Option(help="Of transfer variants: train the backbone's last N blocks too.")]
BackboneScale = Annotated[str | None, typer.Option(help=f"Of model.onnx, see --backbone-mean. {Numbers}")]
EngineName = Annotated[str | None, typer.Option("--engine", help="auto, flux or keras. (default: the run's)")]
DeviceName = Annotated[str, typer.Option("--device", help="Where Flux computes: cpu, cuda, amdgpu or metal.")]
Schedule = Annotated[str, typer.Option(help="Of the learning rate: constant, step, cosine or one_cycle.")]
Dask = Annotated[str | None, typer.Option("--dask", metavar="ADDRESS", help="Work on the cluster of a dask scheduler.")]


def numbers_of(argument: str, text: str | None) -> float | list[float] | None:
    """Return what was typed for the numbers of the colours: one, or one each."""
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise SettingError(f"`{argument}` must be one number, or three with commas; received: {text!r}.")
    return numbers[0] if len(numbers) == 1 else numbers
