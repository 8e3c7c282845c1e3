"""The claims of docs/errata.md that no other test shows, and its links."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photoflux.data.shape import Shape
from photoflux.engines.keras.engine import why_unavailable
from photoflux.model.history import EpochRow
from photoflux.model.variants import variant
from photoflux.model.weights import expected_shapes
from photoflux.reporting.plots import plot_curves

ERRATA = Path(__file__).parents[2] / "docs" / "errata.md"
CLAIMS = Path(__file__).parent / "errata"
LINK = re.compile(r"\[`([^`]+)`\]\(([^)]+)\)")
# The customer's collection.
COLLECTION = {"Painting": 10_000, "Photo": 9_993, "Schematics": 10_000, "Sketch": 1_406, "Text": 10_000}
IMAGES = sum(COLLECTION.values())


def outcomes(command: list[str], **environment: str) -> dict[str, Any]:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def tried() -> dict[str, Any]:
    """What Keras and TensorFlow do with the documents' code."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    return outcomes([sys.executable, str(CLAIMS / "keras_claims.py")])


@pytest.fixture(scope="module")
def tried_in_julia(julia_command) -> dict[str, Any]:
    """What Flux does with the first document's code."""
    command, environment = julia_command
    return outcomes([*command, str(CLAIMS / "flux_claims.jl")], **environment)


def kernels(name: str, shape: tuple[int, int, int], classes: int) -> dict[str, tuple[int, ...]]:
    shapes = expected_shapes(variant(name), Shape(*shape), classes)
    return {weight: shape for weight, shape in shapes.items() if weight.endswith("kernel")}


def glorot_sums(shapes: dict[str, tuple[int, ...]]) -> tuple[float, float]:
    """Expected Σ|w| and Σw² of fresh Glorot-uniform kernels: half and a third of the limit's powers."""
    absolute = squared = 0.0
    for shape in shapes.values():
        limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        absolute += math.prod(shape) * limit / 2
        squared += math.prod(shape) * limit**2 / 3
    return absolute, squared


# The page itself.


def test_the_errata_are_numbered_and_complete():
    text = ERRATA.read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [entry.split(".")[0] for entry in entries] == [f"E{n}" for n in range(1, len(entries) + 1)]
    for entry in entries:
        parts = [f"**{part}.**" for part in ("Says", "Wrong", "Effect", "PhotoFlux", "Test")]
        assert [part for part in parts if part not in entry] == [], entry
        assert LINK.search(entry.split("**Test.**")[1]), entry


def test_every_link_leads_to_its_test():
    links = LINK.findall(ERRATA.read_text(encoding="utf-8"))
    assert links
    for name, target in links:
        path = (ERRATA.parent / target).resolve()
        assert path.is_file(), target
        quoted = f'"{name}"' if path.suffix == ".jl" else f"def {name}("
        assert quoted in path.read_text(encoding="utf-8"), f"{name} is not in {target}"


# Document 1.


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ReLULayer", "UndefVarError"),
        ("SoftmaxLayer", "UndefVarError"),
        ("×", "UndefVarError"),
        ("mean", "UndefVarError"),
        ("square", "UndefVarError"),
        ("accuracy", "UndefVarError"),
        ("x and y", "UndefVarError"),
        ("Dropout keyword", "MethodError"),
        ("ADAM keyword", "MethodError"),
        ("loss is a number", "MethodError"),
        ("images with labels", "MethodError"),
        ("images into 768", "DimensionMismatch"),
        ("columns into 768", "DimensionMismatch"),
        ("labels as numbers", "DimensionMismatch"),
        ("power of a matrix", "DimensionMismatch"),
    ],
)
def test_lines_that_fail_in_julia(tried_in_julia, line, error):
    assert tried_in_julia[line] == error


def test_a_chain_has_no_parameters(tried_in_julia):
    assert tried_in_julia["parameters"] in ("FieldError", "ErrorException")  # Julia 1.12 and later, before


def test_a_square_matrix_is_multiplied_by_itself(tried_in_julia):
    assert tried_in_julia["power of a square matrix"] is True


def test_what_flux_train_does(tried_in_julia):
    assert tried_in_julia["columns into 3072"] == [512, 2]
    assert tried_in_julia["train! returns"] == "nothing"
    # The whole images are one batch, the whole labels the next; neither comes with the other.
    assert tried_in_julia["train! walks over"] == [[[32, 32, 3, 7]], [[7]]]
    assert tried_in_julia["a rule forgets its moments"] is True
    # Up to 0.16.10 it is on within a gradient only, from 0.16.11 on until `testmode!` is called.
    assert tried_in_julia["dropout after train!"] in ([None, False], [True, True])


def test_cifar10_has_3072_numbers():
    assert kernels("mlp", (3, 32, 32), 10)["dense1.kernel"] == (3072, 512)


def test_softmax_of_softmax_is_at_most_23_percent():
    sure = np.eye(10)[3]
    assert (np.exp(sure) / np.exp(sure).sum()).max() == pytest.approx(0.2320, abs=5e-5)


def test_a_penalty_of_one_tenth_outweighs_the_data():
    _, squared = glorot_sums(kernels("mlp", (3, 32, 32), 10))
    error = 0.5 * np.mean((np.full(10, 0.1) - np.eye(10)[0]) ** 2)
    assert 0.1 * squared == pytest.approx(124, rel=0.01)
    assert error == pytest.approx(0.045)
    assert 0.1 * squared / error > 2700


# Document 2.


def test_the_lesson_has_two_hidden_layers_and_an_output(tried):
    assert tried["layers_with_weights"] == [64, 64, 10]


def test_square_images_do_not_fit_784_inputs(tried):
    assert tried["square_images"].startswith("ValueError")


def test_input_shape_is_warned_of(tried):
    assert all(warning.startswith("Do not pass an `input_shape`") for warning in tried["input_shape_warning"])


def test_a_model_must_be_compiled(tried):
    assert "compile()" in tried["not_compiled"]


def test_one_kernel_is_penalised_by_a_sum_of_squares(tried):
    count, ratio = tried["penalised_kernels"]
    assert count == 1
    assert ratio == pytest.approx(1, rel=1e-5)


def test_the_loss_of_a_sure_probability_is_capped(tried):
    loss = tried["loss_at_logit_50"]
    assert loss["on logits"] == loss["in the model"] == 50
    assert loss["on probabilities"] < 17  # −log(1e-7) = 16.1


# Document 3: loading and preparing.


def test_the_parts_of_the_loader(tried):
    assert tried["parts_overlap"] is False
    assert tried["validation_images_of_each_class"] == [1, 2, 3, 1, 1]  # stratified, none could differ by 2


def test_the_loader_reads_no_tiff_or_webp_and_does_not_say_so(tried):
    assert tried["formats_read"] == ["scan.bmp"]


def test_a_broken_file_ends_the_epoch(tried):
    assert tried["broken_file"].startswith("InvalidArgumentError")
    assert "0.png" not in tried["broken_file"]


def test_the_loader_leaves_photos_lying_and_makes_transparency_black(tried):
    assert tried["shape_of_a_rotated_jpeg"] == [20, 40, 3]
    assert tried["transparent_pixel"] == [0, 0, 0]


def test_a_list_is_not_called(tried):
    assert tried["list_call"].startswith("TypeError")
    assert "'list' object is not callable" in tried["list_call"]


def test_a_batch_is_no_condition(tried):
    assert tried["condition_on_a_batch"].startswith("InvalidArgumentError")


def test_mapping_adds_no_images(tried):
    before, after = tried["counts_before_and_after"]
    assert before == after == [26, 6]


def test_augmenting_photos_only_gives_the_label_away(tried):
    assert tried["changed_labels"] == [[0, False], [1, True]]


def test_brightness_is_not_augmented(tried):
    assert tried["flat_image_stays_flat"] < 1e-3


def test_the_cache_freezes_augmentation_and_batches(tried):
    assert tried["epochs_differ_without_and_with_cache"] == [True, False]
    assert tried["cached_batches_keep_their_images"] is True


def test_the_shuffle_buffer_is_filled_first(tried):
    assert math.ceil((IMAGES - int(0.2 * IMAGES)) / 32) == 1035
    assert tried["read_before_the_first_step"] >= 1000


def test_the_cache_needs_16_gigabytes(tried):
    size = np.dtype(tried["pixel_type"]).itemsize * 180 * 180 * 3
    assert IMAGES * size == pytest.approx(16.1e9, rel=0.01)


def test_counting_two_labels_reads_everything_twice(tried):
    assert tried["read_to_count_labels"] == 2 * 6


def test_titles_name_two_of_five_classes(tried):
    assert tried["titles"] == ["Painting", "Photo"]


def test_the_printed_shape_is_one_batch(tried):
    assert tried["printed_shape"] == [4, 12, 12, 3]


# Document 3: the model and its training.


def test_a_constant_answer_is_right_for_76_percent():
    assert 1 - COLLECTION["Photo"] / IMAGES == pytest.approx(0.759, abs=5e-4)
    assert COLLECTION["Sketch"] / (IMAGES - COLLECTION["Photo"]) == pytest.approx(0.045, abs=5e-4)


def test_the_photo_cnn_has_more_weights_than_an_mlp():
    shapes = expected_shapes(variant("baseline"), Shape(3, 180, 180), 2)
    cnn = sum(math.prod(shape) for shape in shapes.values())
    mlp = (180 * 180 * 3 + 1) * 128 + 129
    assert math.prod(shapes["dense1.kernel"]) == 66_355_200
    assert kernels("baseline", (3, 64, 64), 2)["dense1.kernel"] == (8_388_608 // 128, 128)
    assert cnn == 66_379_041
    assert cnn / mlp == pytest.approx(5.3, abs=0.05)
    # Weights, gradients and Adam's two moments, against the logits that a second output would add to a batch.
    assert 4 * 4 * cnn == pytest.approx(1.06e9, rel=0.01)
    assert 32 * 4 == 128


def test_a_dense_layer_sees_all_pixels_but_no_neighbours():
    rng = np.random.default_rng(0)
    kernel, order = rng.normal(size=(48, 5)), rng.permutation(48)
    images = rng.normal(size=(3, 48))
    hidden = np.maximum(images @ kernel, 0)
    assert np.allclose(hidden, np.maximum(images[:, order] @ kernel[order], 0))
    # What changing one pixel does depends on another: they are not treated apart.
    one, other = np.eye(48)[0] * 50, np.eye(48)[1] * 50
    effect = np.maximum((images + one) @ kernel, 0) - hidden
    effect_after = np.maximum((images + other + one) @ kernel, 0) - np.maximum((images + other) @ kernel, 0)
    assert not np.allclose(effect, effect_after)


def test_penalties_of_one_hundredth_at_the_start():
    shapes = kernels("l1", (3, 180, 180), 2)
    del shapes["output.kernel"]
    absolute, squared = glorot_sums(shapes)
    assert 0.01 * absolute == pytest.approx(1140, rel=0.01)
    assert 0.01 * squared == pytest.approx(3.25, rel=0.01)
    assert 0.01 * absolute > 1000 * math.log(2)  # the data loss of a model that knows nothing


def test_l1_by_adam_makes_weights_small_but_not_zero(tried):
    assert tried["l1_by_adam"]["zero"] == 0
    assert tried["l1_by_adam"]["small"] > 80  # of 160


def test_the_reported_loss_contains_the_penalty(tried):
    l1 = tried["l1_by_adam"]
    assert l1["reported"] == pytest.approx(l1["data"] + l1["penalty"], rel=1e-4)
    assert l1["penalty"] > 0.3 * l1["data"]


def test_the_summary_of_an_unbuilt_model_is_empty(tried):
    assert "Total params: 0" in tried["unbuilt_summary"]
    assert "unbuilt" in tried["unbuilt_summary"]


def test_nothing_fixes_the_first_weights(tried):
    assert tried["first_weights_differ"] is True


def test_curves_of_an_early_stop(tmp_path):
    from matplotlib.figure import Figure

    with pytest.raises(ValueError, match="same first dimension"):
        Figure().subplots().plot(range(30), [0.5] * 8)
    history = [EpochRow(n, 1.0, 0.5, 0.0, 0.5, 0.8, 0.6, 0.0, 0.6, 0.7) for n in range(1, 9)]
    plot_curves(history, "early_stopping", "early_stopping", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
