"""A user's ONNX model as a backbone: which models fit, and how their pixels are scaled, is said here.

It must have one image input, (N, 3, H, W) or (N, H, W, 3), of floating numbers or uint8, and one output of floating
numbers with a fixed number F of features for each image: (N, F), or with more axes of length 1. What the file does not
say is given by the user, or in its ``metadata_props``, each as JSON: ``image_size``, a whole number, and ``mean`` and
``scale``, a number or one for each of red, green and blue: a pixel x, 0 to 255, enters as (x − mean) / scale.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from photoflux.data.checks import check_image_size
from photoflux.errors import BackboneError, SettingError
from photoflux.features.graph import FEATURES, PIXELS
from photoflux.features.network import Network
from photoflux.features.runtime import need, session_of
from photoflux.system.names import printable

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Scaling = float | Sequence[float]
_Size = tuple[int | None, int | None]
_Numbers = float | list[float]
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_METADATA = ("image_size", "mean", "scale")


class OnnxFile(Network):
    """A model in an ONNX file.

    Parameters
    ----------
    path : Path
        The file.
    image_size : int, optional
        Height and width of the images that it is given; needed where neither its input nor its metadata fixes them.
    mean, scale : float or sequence of three floats, optional
        A pixel x, 0 to 255, enters as (x − mean) / scale; needed where its metadata does not say it. None are needed
        of a model that takes uint8.

    Raises
    ------
    BackboneError
        If the model does not fit, cannot be run, or something is not said; the message says what was found, and what
        to do.
    SettingError
        If an argument cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        image_size: int | None = None,
        mean: Scaling | None = None,
        scale: Scaling | None = None,
    ) -> None:
        need("onnxruntime")
        need("onnx")
        self.path = path.absolute()
        self.name = self.path.stem
        sha256, metadata = self._read()
        given = {"image_size": image_size, "mean": mean, "scale": scale}
        said = {key: self._from_json(key, metadata[key]) for key in _METADATA if key in metadata}
        settings = {**said, **{key: value for key, value in given.items() if value is not None}}
        (self._input, self._dtype, self.layout, self._batch, self.fixed), size = self._check_input()
        self._output, self.features = self._check_output()
        self.image_size = self._check_size(size, settings.get("image_size"))
        self.mean, self.scale = self._check_scaling(settings)
        parts = [sha256, self.mean, self.scale]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the features, float32 (N, F), of a batch, uint8 (N, 3, H, W)."""
        pixels = images if self.layout == "NCHW" else images.transpose(0, 2, 3, 1)
        if self._dtype != np.uint8:
            mean, scale = (self._by_channel(value) for value in (self.mean, self.scale))
            pixels = ((pixels.astype(np.float32) - mean) / scale).astype(self._dtype)
        pixels = np.ascontiguousarray(pixels)
        if self._batch is None:
            return self._features(pixels)
        # It takes so many images and no others: the last ones are filled up, and what that gives is dropped.
        missing = -len(pixels) % self._batch
        whole = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
        parts = [self._features(whole[start : start + self._batch]) for start in range(0, len(whole), self._batch)]
        return np.concatenate(parts)[: len(pixels)]

    def model(self) -> onnx.ModelProto:
        """Return its graph, with the scaling of pixels before it; see `Network.model`."""
        import onnx
        from onnx import TensorProto, compose, helper, numpy_helper

        if self._batch is not None:
            self._refuse(
                f"takes {self._batch} images at a time and no other number, so it cannot be part of a model that takes "
                "any",
                "Export it with a batch of any size",
            )
        model = compose.add_prefix(onnx.load(self.path), "model.")
        before, after = [helper.make_node("Cast", [PIXELS], ["whole"], to=TensorProto.FLOAT)], "whole"
        if self._dtype != np.uint8:
            for name, value in (("mean", self.mean), ("scale", self.scale)):
                numbers = np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (3,)).reshape(1, 3, 1, 1)
                model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numbers), name))
                before.append(helper.make_node("Sub" if name == "mean" else "Div", [after, name], [f"{name}.done"]))
                after = f"{name}.done"
        if self.layout == "NHWC":
            before.append(helper.make_node("Transpose", [after], ["places"], perm=[0, 2, 3, 1]))
            after = "places"
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(self._dtype))
        before.append(helper.make_node("Cast", [after], [f"model.{self._input}"], to=dtype))
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, self.features]), "row"))
        end = [
            helper.make_node("Reshape", [f"model.{self._output}", "row"], ["rows"]),
            helper.make_node("Cast", ["rows"], [FEATURES], to=TensorProto.FLOAT),
        ]
        nodes = [*before, *model.graph.node, *end]
        del model.graph.node[:], model.graph.input[:], model.graph.output[:]
        model.graph.node.extend(nodes)
        sides: list[str | int | None] = ["images", 3, "height", "width"]
        model.graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, sides))
        model.graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["images", self.features]))
        return model

    def as_dict(self) -> dict[str, Any]:
        """Return its name, fingerprint, path and layout, and how pixels are scaled."""
        settings = {"image_size": self.image_size, "mean": self.mean, "scale": self.scale}
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "path": str(self.path),
            "layout": self.layout,
            **settings,
        }

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return session_of(self.path)

    def _features(self, pixels: np.ndarray) -> np.ndarray:
        try:
            (found,) = self._session.run([self._output], {self._input: pixels})
        except Exception as error:  # onnxruntime's have no base class of their own
            self._refuse(f"cannot be run on images of shape {pixels.shape}: {error}", "Export it again")
        return np.asarray(found).reshape(len(pixels), -1).astype(np.float32)

    def _by_channel(self, value: Scaling | None) -> np.ndarray:
        shape = (3, 1, 1) if self.layout == "NCHW" else (3,)
        return np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (3,)).reshape(shape)

    def _refuse(self, found: str, advice: str) -> NoReturn:
        raise BackboneError(f"The model {printable(self.path)} {found}. {advice}.")

    def _read(self) -> tuple[str, dict[str, str]]:
        """Return the SHA-256 of the file and those beside it that it keeps its weights in, and its metadata."""
        import onnx

        if not self.path.is_file():
            self._refuse("is not there", "Give the path of an .onnx file")
        try:
            model = onnx.load(self.path, load_external_data=False)
        except Exception as error:  # of protobuf, whichever implementation it has
            self._refuse(f"is no ONNX file, or is truncated ({error})", "Take another copy, or export it again")
        if not model.graph.node:
            self._refuse("is no ONNX file: it has no graph", "Take another copy, or export it again")
        digest = hashlib.sha256()
        for path in (self.path, *(self._beside(name) for name in sorted(set(_external(model))))):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:
                self._refuse(
                    f"keeps weights in the file {printable(path)}, which cannot be read",
                    "Put that file beside it, or export it with its weights inside",
                )
        return digest.hexdigest(), {entry.key: entry.value for entry in model.metadata_props}

    def _beside(self, name: str) -> Path:
        """Return the file of a name beside the model, or in a folder beside it; there may be none."""
        place, parts = self.path.parent / name, PureWindowsPath(name)
        inside = not parts.anchor and ".." not in parts.parts
        if not inside or (place.exists() and not place.is_file()):
            self._refuse(
                f"keeps weights in {printable(name[:200])}, which is no file in its own folder",
                "Take only models whose weights are beside them, or export it with its weights inside",
            )
        return place

    def _from_json(self, key: str, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            self._refuse(
                f"has {key} = {text[:100]!r} in its metadata, expected a number or a list of three",
                f"Give its {key} yourself",
            )

    def _check_input(self) -> tuple[tuple[str, Any, str, int | None, tuple[int, int] | None], _Size]:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs) or "none"
            self._refuse(f"has {len(inputs)} inputs ({names}), expected one image", "Export the image's part alone")
        (entry,) = inputs
        dtype = {**_FLOATS, "tensor(uint8)": np.uint8}.get(entry.type)
        if dtype is None:
            self._refuse(f"takes {entry.type}, expected floating numbers or uint8", "Export a model of images")
        shape = [length if isinstance(length, int) else None for length in entry.shape]
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            self._refuse(
                f"takes an input of shape {_in_words(entry.shape)}, expected images (N, 3, H, W) or (N, H, W, 3)",
                "Export a model of RGB images with its three channels fixed",
            )
        layout = "NCHW" if shape[1] == 3 else "NHWC"
        high, wide = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
        fixed = (high, wide) if high is not None and wide is not None else None
        return (entry.name, dtype, layout, shape[0], fixed), (high, wide)

    def _check_output(self) -> tuple[str, int]:
        outputs = self._session.get_outputs()
        if len(outputs) != 1:
            names = ", ".join(entry.name for entry in outputs)
            self._refuse(
                f"has {len(outputs)} outputs ({names}), expected one: the features",
                "Export it with that output alone",
            )
        (entry,) = outputs
        if entry.type not in _FLOATS:
            self._refuse(f"gives {entry.type}, expected floating numbers", "Export the features, not a decision")
        rest = [length for length in entry.shape[1:] if length != 1]
        if not all(isinstance(length, int) for length in rest):
            self._refuse(
                f"gives an output of shape {_in_words(entry.shape)}, whose number of features is not fixed",
                "Export it with a fixed number of features",
            )
        if len(entry.shape) < 2 or len(rest) > 1:
            self._refuse(
                f"gives an output of shape {_in_words(entry.shape)}, expected a row of features for each image, (N, F)",
                "Export it with its last pooling, such as the mean over height and width",
            )
        return entry.name, rest[0] if rest else 1

    def _check_size(self, size: _Size, wanted: Any) -> int | None:
        known = [side for side in size if side is not None]
        if wanted is None and len(known) < 2:
            self._refuse(
                "takes images of any size, and does not say which it was trained on",
                "Give `image_size` (--image-size), or put image_size into its metadata",
            )
        if wanted is not None:
            check_image_size(wanted)
            if any(side != wanted for side in known):
                shown = " × ".join("any" if side is None else str(side) for side in size[::-1])
                self._refuse(f"takes images of {shown}, `image_size` says {wanted}", "Leave `image_size` out")
            return int(wanted)
        return known[0] if known[0] == known[1] else None

    def _check_scaling(self, settings: Mapping[str, Any]) -> tuple[_Numbers | None, _Numbers | None]:
        given = [key for key in ("mean", "scale") if key in settings]
        if self._dtype == np.uint8:
            if given:
                self._refuse(f"takes pixels as they are, uint8, and has no `{given[0]}`", "Leave it out")
            return None, None
        if len(given) < 2:
            self._refuse(
                "does not say how pixels are scaled",
                "Give `mean` and `scale` (--backbone-mean, --backbone-scale): a pixel x, 0 to 255, enters as "
                "(x − mean) / scale, each a number or three for red, green and blue, as it was trained (often "
                "123.675, 116.28, 103.53 and 58.395, 57.12, 57.375)",
            )
        return _numbers("mean", settings["mean"]), _numbers("scale", settings["scale"])


def _numbers(name: str, value: Any) -> _Numbers:
    """Return a number, or three, as JSON has them."""
    numbers = np.ravel(value).tolist() if isinstance(value, list | tuple | np.ndarray) else [value]
    good = all(isinstance(n, int | float | np.number) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if not good or len(numbers) not in (1, 3) or (name == "scale" and 0 in numbers):
        expected = "a finite number, or three" + (", none of them 0" if name == "scale" else "")
        raise SettingError(f"`{name}` must be {expected}; received: {value!r}.")
    return float(numbers[0]) if len(numbers) == 1 else [float(number) for number in numbers]


def _in_words(shape: Sequence[Any]) -> str:
    return "(" + ", ".join(str(length) if isinstance(length, int) else str(length or "any") for length in shape) + ")"


def _external(part: Any) -> Iterator[str]:
    """Yield the names of the files beside a model in which tensors are kept, wherever in it they are."""
    from onnx import TensorProto

    if isinstance(part, TensorProto):
        if part.data_location == TensorProto.EXTERNAL:
            yield from (entry.value for entry in part.external_data if entry.key == "location")
        return
    for field, value in part.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, Iterable) else (value,):
                yield from _external(inner)
