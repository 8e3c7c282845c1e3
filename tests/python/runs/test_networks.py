"""Networks of a user's own from Python: described once, trained, killed and resumed, evaluated, compared, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import photoflux
from julias import ROOT
from photoflux import EngineError, SettingError, Variant, variant
from photoflux.model.networks import file_of, network_file, parts_of
from photoflux.model.weights import read_weights

pytestmark = pytest.mark.usefixtures("undrawn")
# The network of the examples, and functions that make none.
OTHERS = """
wrong(size, classes) = Chain(Flux.flatten, Dense(5 => 1))
not_a_chain(size, classes) = 3
anonymous(size, classes) = Chain(Flux.flatten, x -> 2x)
fails(size, classes) = error("no such thing")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.jl"
    path.write_text((ROOT / "examples" / "my_model.jl").read_text() + OTHERS)
    return path


@pytest.fixture
def images(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.arange(90) % 2
    pixels = rng.integers(0, 90, (90, 12, 10, 3), dtype=np.uint8)
    pixels[labels == 1, :6] += 120
    return pixels, labels


def trained(file: Path, images: Any, out: Path, **more: Any) -> photoflux.Run:
    return photoflux.train(
        data=images, chain=f"{file}:build", engine="flux", epochs=2, batch_size=8, out=out, progress=False, **more
    )


def test_it_is_trained_evaluated_predicted_and_reported(flux: Any, file: Path, images: Any, tmp_path: Path):
    run = trained(file, images, tmp_path / "run", l2=0.01)
    assert run.variant.name == "build" and run.variant.penalty == {"kernels": {"l2": 0.01}}
    assert run.history[0].train_penalty > 0
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert str(file) not in json.dumps(stored["variant"])
    file.unlink()  # a run needs it no more
    again = photoflux.load_run(tmp_path / "run")
    assert again.variant == run.variant
    metrics = photoflux.evaluate(again, progress=False)
    assert metrics.total == pytest.approx(run.metrics.test.total, rel=1e-6)
    # λ₂·Σw² of the kernels, of the stored file: of the two convolutions and the Dense layer, and of nothing else.
    weights = read_weights(run.weights)[0]
    kernels = [value for name, value in weights.items() if name.endswith(".kernel")]
    assert len(kernels) == 3
    assert metrics.penalty == pytest.approx(0.01 * sum(float(np.square(w, dtype=np.float64).sum()) for w in kernels))
    predicted = photoflux.predict(again, images[0][:5], progress=False)
    assert len(predicted) == 5
    pile = tmp_path / "pile"
    pile.mkdir()
    for number, pixels in enumerate(images[0][:5]):
        Image.fromarray(pixels).save(pile / f"{number}.png")
    found = photoflux.filter(again, pile, tmp_path / "filtered", threshold=0.5, how="list", progress=False)
    assert sum(found.counts.values()) == 5
    summary = photoflux.summary(again)
    # Conv 3·3·3·16, norm 2·16, conv 3·3·16·16 + 16, norm 2·16, Dense 16 + 1; means and variances are not trained.
    assert summary.parameters == 432 + 32 + 2320 + 32 + 17 and summary.not_trained == 64
    # 6·5 places of 3·3·3 → 16, and of 3·3·16 → 16; 16 of the Dense layer.
    assert summary.multiply_adds == 30 * 432 + 30 * 2304 + 16
    assert "layer4.layers.layer1" in str(summary) and "BatchNorm" in str(summary)
    page = photoflux.report(again)
    assert page.is_file() and "layer4.layers.layer2" in page.read_text()


def test_one_seed_gives_one_network(flux: Any, file: Path, images: Any, tmp_path: Path):
    runs = [trained(file, images, tmp_path / str(number), seed=seed) for number, seed in enumerate((1, 1, 2))]
    first, same, other = [run.weights.read_bytes() for run in runs]
    assert first == same != other


def test_a_fit_that_was_killed_goes_on_to_the_same_bytes(flux: Any, file: Path, images: Any, tmp_path: Path):
    whole = trained(file, images, tmp_path / "whole")
    killed, kept = tmp_path / "killed", tmp_path / "kept"

    class Killed(Exception):
        pass

    def at_once(prepared: Any) -> None:
        original = photoflux.runs.training.Display.batch
        batches = iter(range(100))

        def batch(display: Any, progress: Any) -> None:
            original(display, progress)
            if next(batches) == 5:
                # What SIGKILL would leave at this moment.
                shutil.copytree(killed, kept)
                raise Killed

        patch.setattr(photoflux.runs.training.Display, "batch", batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        trained(file, images, killed, checkpoint_minutes=0, on_prepared=at_once)
    shutil.rmtree(killed, ignore_errors=True)
    resumed = trained(file, images, kept, checkpoint_minutes=0, resume=True)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    # Of another network it is said so.
    assert not (kept / "checkpoints").exists()


def test_it_is_compared_with_a_variant_of_the_table(flux: Any, file: Path, images: Any, tmp_path: Path):
    found = photoflux.compare(
        images, ["l2", f"{file}:build"], seeds=1, epochs=1, engine="flux", out=tmp_path / "c", progress=False
    )
    assert [result.variant.name for result in found.results] == ["l2", "build"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", "does not take images of 10×12×3 .* its layer `layer2` is given numbers of size 360×1"),
        ("not_a_chain", r"must return a Flux\.Chain; it returned a Int64"),
        ("anonymous", "`layer2` is an anonymous function, which can be written only as code"),
        ("fails", "cannot be used: no such thing"),
        ("missing", "has no function `missing`"),
    ],
)
def test_a_function_that_makes_no_network_is_said_to(
    flux: Any, file: Path, images: Any, tmp_path: Path, function: str, message: str
):
    with pytest.raises(EngineError, match=message):
        photoflux.train(f"{file}:{function}", images, engine="flux", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_julia_is_said_to_be_none(flux: Any, file: Path, images: Any, tmp_path: Path):
    file.write_text("function build(\n")
    with pytest.raises(EngineError, match=r"my_model\.jl"):
        photoflux.train(f"{file}:build", images, engine="flux", out=tmp_path / "run", progress=False)


def test_names(file: Path):
    named = variant(f"{file}:build")
    assert named.made_by == f"{file}:build" and network_file("l2") is None
    with pytest.raises(SettingError, match=r"Say which function of .*my_model\.jl makes the network"):
        variant(file)
    with pytest.raises(SettingError, match=r"There is no file nowhere\.jl"):
        variant("nowhere.jl:build")
    with pytest.raises(SettingError, match="Give `variant` or `chain`, not both"):
        photoflux.train("l2", chain=f"{file}:build")
    with pytest.raises(SettingError, match="`chain` must name a Julia file"):
        photoflux.train(chain="l2")
    with pytest.raises(SettingError, match="Keras does not have"):
        photoflux.verify(named)


def test_what_a_file_brings_is_never_run(file: Path, tmp_path: Path):
    values = variant(f"{file}:build").as_dict()
    with pytest.raises(SettingError, match="may not name a Julia file to run"):
        Variant.from_dict(values)
    own = tmp_path / "my.toml"
    own.write_text(f"[a]\narchitecture = 'chain'\nhidden = []\nchain = {{ file = '{file}', function = 'build' }}\n")
    with pytest.raises(SettingError, match="`field` of a variant must be one of"):
        variant(own)


DENSE = {"layer": "Dense", "output": [1], "arrays": [["kernel", [4, 1]], ["bias", [1]]], "activation": "relu"}


@pytest.mark.parametrize(
    "chain",
    [
        {}, {"layer": 3}, {"layer": "Chain", "layers": 3}, {"layer": "Chain", "layers": []},
        {"layer": "Chain", "layers": [["a"]]}, {"layer": "Chain", "layers": [["a/b", DENSE]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "output": [-1]}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "output": "1"}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "arrays": [["kernel", [1.5]]]}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "arrays": {"kernel": [1]}}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "layer": "Conv"}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "layer": "Conv", "size": 3}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "stride": [[]]}]]},
        {"layer": "Chain", "layers": [["a", {**DENSE, "rate": "x"}]]},
    ],
)  # fmt: skip
def test_what_describes_no_network_is_refused(chain: dict[str, Any]):
    with pytest.raises(SettingError, match="train again"):
        Variant("own", "chain", (), chain=chain)


def test_a_description_is_read():
    chain = {"layer": "Chain", "layers": [["a", {"layer": "Chain", "layers": [["b", DENSE]]}]]}
    own = Variant("own", "chain", (), chain=chain)
    (part,) = parts_of(own.chain or {})
    assert (part.name, part.kind, part.output, part.details) == ("a.b", "Dense", (1,), "relu")
    assert file_of(own.chain) is None and Variant.from_dict(json.loads(json.dumps(own.as_dict()))) == own
    nested: dict[str, Any] = DENSE
    for _ in range(40):
        nested = {"layer": "Chain", "layers": [["a", nested]]}
    with pytest.raises(SettingError, match="train again"):
        Variant("own", "chain", (), chain=nested)


def test_keras_refuses_to_fit_it(file: Path, images: Any, tmp_path: Path):
    pytest.importorskip("keras")
    with pytest.raises(SettingError, match="which the engine keras does not have"):
        photoflux.train(f"{file}:build", images, engine="keras", out=tmp_path / "run", progress=False)


def test_keras_refuses_to_apply_it_and_it_is_not_exported(flux: Any, file: Path, images: Any, tmp_path: Path):
    run = trained(file, images, tmp_path / "run")
    with pytest.raises(SettingError, match="no Keras model and no ONNX file"):
        photoflux.export(run, tmp_path / "model.onnx")
    pytest.importorskip("keras")
    with pytest.raises(SettingError, match="Keras does not have"):
        photoflux.evaluate(run, engine="keras", progress=False)
