"""Follows `photoflux train l2 FOLDER` from the command to its ``run.json``, and prints the calls on the way.

A call is on the way if, before it returns, Julia is asked for something, or the prepared dataset, a file of the run or
the run itself comes to its place on the disk. A hop is a call from one module to another.

`python docs/walk.py` needs neither Julia nor Keras: what Julia would do is done here. With ``--write`` it puts the walk
into CONTRIBUTING.md.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "photoflux"
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "docs")]

import rooms  # noqa: E402

Tree = dict[str, Any]


class Walk:
    """The calls on the way: of each function, as ``module:function``, those that it calls, in their order."""

    def __init__(self) -> None:
        self.calls: Tree = {}
        self.on = False

    def arrive(self) -> None:
        """Keep the calls that lead here."""
        place, frame = self.calls, sys._getframe(1)
        stack = []
        while frame is not None:
            stack += [name] if (name := _name(frame)) else []
            frame = frame.f_back  # type: ignore[assignment]
        for name in stack[stack.index("cli.training:train") :: -1]:
            place = place.setdefault(name, {})

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Arrive where something comes to its place; Python calls this before it opens or renames a file."""
        if not self.on:
            return
        if event == "os.rename" or (event == "open" and str(arguments[0]).endswith("run.json") and "w" in arguments[1]):
            self.arrive()
            self.on = not str(arguments[1]).endswith("/the-run")


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE):
        return ""
    return f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}:{frame.f_code.co_qualname}"


def hops(calls: Tree, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Return the calls from one module to another: the functions on the way down to the caller, and the one called."""
    found = []
    for name, inner in calls.items():
        way = (*above, name)
        found += [(way, other) for other in inner if _module(name) != _module(other)] + hops(inner, way)
    return found


def back_up(found: list[tuple[tuple[str, ...], str]]) -> list[str]:
    """Return the hops that go to a higher room, or back into a module through which the way led."""
    return [
        f"{way[-1]} calls {other}"
        for way, other in found
        if _module(other) in map(_module, way) or _height(other) > _height(way[-1])
    ]


def _height(name: str) -> int:
    return rooms.ROOMS.index(rooms.room(_module(name)))


def _module(name: str) -> str:
    return name.partition(":")[0]


def julia(walk: Walk) -> SimpleNamespace:
    """Return what stands in for Julia: it fits no weights, and every logit is 0."""
    import numpy as np

    from photoflux.data.prepared import open_prepared
    from photoflux.model.variant import Variant
    from photoflux.model.weights import expected_shapes, metadata_of, write_weights

    def engine_fit(
        variant: str, data: str, target: str, settings: str, start: None, batch: Any, epoch: Any, *rest: Any
    ) -> Any:
        walk.arrive()
        walk.on = False
        recipe, prepared = Variant.from_dict(json.loads(variant)), open_prepared(data)
        of = recipe, prepared.shape, len(prepared.classes)
        zeros = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(*of).items()}
        write_weights(Path(target), zeros, metadata_of(*of))
        epoch(1, 0.5, 1.0, 0.1, 1.1, 0.5, 1.5, 0.1, 1.6, 0.25)
        walk.on = True
        return 1, "epochs"

    def engine_logits_b(target: int, model: None, images: int, *rest: int) -> None:
        *_, count, _, _ = rest
        ctypes.memset(target, 0, 4 * count)  # of two classes a Float32 each

    ours = SimpleNamespace(
        engine_fit=engine_fit,
        engine_load=lambda *given: None,
        engine_logits_b=SimpleNamespace(_jl_call_nogil=engine_logits_b),
        package_version=lambda name: "0",
    )
    return SimpleNamespace(PhotoFlux=ours, VERSION="0", Threads=SimpleNamespace(nthreads=lambda: 1), called=lambda f: f)


def walk() -> Tree:
    """Train on a few images, and return the calls on the way."""
    juliacall: Any = ModuleType("juliacall")
    juliacall.JuliaError = type("JuliaError", (Exception,), {})
    sys.modules["juliacall"] = juliacall
    from photoflux import cli
    from photoflux.data.sources.demo import write_demo_folder
    from photoflux.engines.flux import bridge

    way = Walk()
    stand_in = julia(way)

    def start(say: Any) -> SimpleNamespace:
        if way.on:
            way.arrive()
        return stand_in

    bridge.start = start
    with tempfile.TemporaryDirectory() as place:
        os.environ["PHOTOFLUX_CACHE"] = str(Path(place, "cache"))
        write_demo_folder(Path(place, "scans"), images_per_class=6)
        sys.addaudithook(way.audit)
        way.on = True
        words = ["train", "l2", str(Path(place, "scans")), "--image-size", "16", "--epochs", "1", "--engine", "flux"]
        cli.app([*words, "--out", str(Path(place, "the-run"))], standalone_mode=False)
    return way.calls


def lines(calls: Tree, depth: int = 0) -> list[str]:
    """Return a line a call, each below the one in which it happens."""
    return [line for name, inner in calls.items() for line in ("    " * depth + name, *lines(inner, depth + 1))]


def text(calls: Tree) -> str:
    """Return the walk as it stands in CONTRIBUTING."""
    between = hops(calls)
    last = [f"{len(between)} hops between modules, {len(back_up(between))} of them back up", *back_up(between)]
    return "\n".join(["```text", *lines(calls), *last, "```"]) + "\n"


if __name__ == "__main__":
    made = text(walk())
    print(made)
    if "--write" in sys.argv:
        rooms.write("walk.py", made)
