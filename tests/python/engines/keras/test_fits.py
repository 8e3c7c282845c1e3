"""What the Keras engine fits, and the logits of its weights."""

import dataclasses

import numpy as np
import pytest

from photoflux.data.shape import Shape
from photoflux.engines.proof import Augmentation
from photoflux.errors import DataError, DivergedError, RunError, SettingError
from photoflux.model.layers import layers, outputs_of, penalty_of
from photoflux.model.variants import variants
from photoflux.model.weights import expected_shapes, metadata_of, read_weights, remaining_features, write_weights
from small import PAIR_IDS, PAIRS, data_loss, dense_logits, prepare, random_weights, settings, write_random
from small import logits as logits_by


@pytest.mark.parametrize(("variant", "data"), PAIRS, ids=PAIR_IDS)
def test_every_variant_fits_and_reports_what_its_weights_give(keras, variant, data, request, tmp_path):
    prepared = request.getfixturevalue(data)
    classes, path = len(prepared.classes), tmp_path / "w.safetensors"
    fit = keras.fit(variant, prepared, settings(epochs=4, learning_rate=0.003), path)
    weights, metadata = read_weights(path)
    assert {name: value.shape for name, value in weights.items()} == expected_shapes(variant, prepared.shape, classes)
    assert metadata == metadata_of(variant, prepared.shape, classes)

    assert [row.epoch for row in fit.history] == [1, 2, 3, 4]
    assert fit.history[-1].validation_total < fit.history[0].train_total
    kept = fit.history[fit.kept_epoch - 1]
    # float32 sums of up to 1e5 terms against float64 ones
    penalty = penalty_of(layers(variant, prepared.shape, classes), weights)
    assert kept.validation_penalty == pytest.approx(penalty, rel=1e-5)
    assert kept.validation_total == pytest.approx(kept.validation_loss + kept.validation_penalty, rel=1e-12)
    assert (kept.train_penalty > 0) == bool(variant.penalty)

    chosen = prepared.indices("validation")
    logits = logits_by(keras, variant, path, prepared.images[chosen], classes)
    assert logits.dtype == np.float32
    assert logits.shape == (len(chosen), outputs_of(classes))
    assert kept.validation_loss == pytest.approx(data_loss(variant, logits, prepared.labels[chosen]), rel=1e-4)
    predicted = logits[:, 0] > 0 if classes == 2 else logits.argmax(axis=1)
    assert kept.validation_accuracy == pytest.approx(np.mean(predicted == prepared.labels[chosen]), abs=1e-12)
    # dropout is off, and the batch size changes rounding only
    again = logits_by(keras, variant, path, prepared.images[chosen], classes, batch_size=3)
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-5)


def test_training_columns_are_means_over_images(keras, binary, tmp_path):
    variant = variants()["dense_l2"]
    totals = []
    # A step size that moves no weight: every batch is measured with the weights that the file holds.
    tiny = settings(epochs=1, learning_rate=1e-12, batch_size=12)
    fit = keras.fit(variant, binary, tiny, tmp_path / "w", on_batch=lambda at: totals.append(at) is not None)
    weights, _ = read_weights(tmp_path / "w")
    chosen = binary.indices("train")
    logits = logits_by(keras, variant, tmp_path / "w", binary.images[chosen], 2)
    (row,) = fit.history
    assert row.train_loss == pytest.approx(data_loss(variant, logits, binary.labels[chosen]), rel=1e-5)
    assert row.train_penalty == pytest.approx(penalty_of(layers(variant, binary.shape, 2), weights), rel=1e-5)
    assert row.train_accuracy == pytest.approx(np.mean((logits[:, 0] > 0) == binary.labels[chosen]), abs=1e-12)
    assert [(at.epoch, at.epochs, at.batch, at.batches) for at in totals] == [(1, 1, i, 3) for i in range(1, 4)]
    assert [at.images for at in totals] == [12, 12, 8]
    assert totals[-1].loss == row.train_total
    assert totals[-1].accuracy == row.train_accuracy


def test_the_last_short_batch_is_used(keras, three, tmp_path):
    seen = []
    keras.fit(variants()["dense_l2"], three, settings(epochs=1, batch_size=16), tmp_path / "w", on_batch=seen.append)
    assert [at.images for at in seen] == [16, 12]


def test_weights_come_back_bit_equal_and_logits_follow_the_formula(keras, tmp_path):
    variant, path = variants()["mlp"], tmp_path / "w"
    weights = write_random(path, variant, Shape(3, 6, 5), 4)
    assert all(np.array_equal(value, weights[name]) for name, value in read_weights(path)[0].items())
    images = np.random.default_rng(1).integers(0, 256, (7, 3, 6, 5), dtype=np.uint8)
    # float32 products of 512 terms against NumPy's
    np.testing.assert_allclose(
        logits_by(keras, variant, path, images, 4), dense_logits(weights, images, 2), rtol=1e-4, atol=1e-5
    )
    assert logits_by(keras, variant, path, images[:0], 4).shape == (0, 4)


@pytest.mark.parametrize("name", ["dropout", "mlp"])
def test_same_seed_same_weights_bit_for_bit(keras, three, tmp_path, name):
    def fitted(file: str, seed: int) -> dict[str, np.ndarray]:
        keras.fit(variants()[name], three, settings(seed=seed, balance="augment"), tmp_path / file)
        return read_weights(tmp_path / file)[0]

    first, second, other = fitted("a", 3), fitted("b", 3), fitted("c", 4)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not any(np.array_equal(first[key], other[key]) for key in first)


def test_initial_weights_are_glorot_uniform_with_zero_biases(keras, binary, tmp_path):
    keras.fit(variants()["baseline"], binary, settings(epochs=1, learning_rate=1e-12), tmp_path / "w")
    weights, _ = read_weights(tmp_path / "w")
    for layer, fan in {"conv2": 9 * (16 + 32), "dense1": 4 * 4 * 64 + 128}.items():
        limit = np.sqrt(6 / fan)
        kernel = weights[f"{layer}.kernel"]
        assert limit * 0.99 < np.abs(kernel).max() <= limit * 1.00001
        # the deviation of a uniform law, over thousands of draws
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
        assert np.abs(weights[f"{layer}.bias"]).max() < 1e-10


def test_early_stopping_stops_and_keeps_the_best_epoch(keras, noise, tmp_path):
    variant = dataclasses.replace(variants()["dense_dropout"], dropout={}, patience=3)
    fit = keras.fit(variant, noise, settings(epochs=40), tmp_path / "w")
    totals = [row.validation_total for row in fit.history]
    assert fit.ended == "early_stopping"
    assert fit.kept_epoch == 1 + int(np.argmin(totals)) == len(totals) - 3
    assert totals[-1] > 1.002 * min(totals)
    chosen = noise.indices("validation")
    logits = logits_by(keras, variant, tmp_path / "w", noise.images[chosen], 2)
    assert data_loss(variant, logits, noise.labels[chosen]) == pytest.approx(min(totals), rel=1e-4)

    # The epochs run out two after the best one: its weights are kept all the same.
    short = keras.fit(variant, noise, settings(epochs=fit.kept_epoch + 2), tmp_path / "v")
    assert (short.ended, short.kept_epoch) == ("epochs", fit.kept_epoch)
    best, kept = read_weights(tmp_path / "w")[0], read_weights(tmp_path / "v")[0]
    assert all(np.array_equal(best[key], kept[key]) for key in best)


def test_on_batch_ends_the_fit_with_the_weights_of_that_moment(keras, binary, tmp_path):
    variant, rows = variants()["dense_l2"], []

    def fitted(file: str, last: tuple[int, int]):
        return keras.fit(
            variant,
            binary,
            settings(epochs=3),
            tmp_path / file,
            on_batch=lambda at: (at.epoch, at.batch) == last,
            on_epoch=rows.append,
        )

    fit = fitted("w", (2, 2))
    assert (fit.ended, fit.kept_epoch, fit.history) == ("interrupted", 1, rows)
    assert len(rows) == 1
    assert fitted("v", (2, 3)).ended == "interrupted"
    first, second = read_weights(tmp_path / "w")[0], read_weights(tmp_path / "v")[0]
    # one Adam step further: no weight moves much more than the learning rate
    assert 0 < np.abs(first["output.kernel"] - second["output.kernel"]).max() < 0.002


def test_interrupted_with_patience_keeps_the_best_epoch(keras, noise, tmp_path):
    variant = dataclasses.replace(variants()["dense_dropout"], dropout={}, patience=30)
    fit = keras.fit(variant, noise, settings(epochs=40), tmp_path / "w", on_batch=lambda at: at.epoch == 15)
    totals = [row.validation_total for row in fit.history]
    assert (fit.ended, len(totals)) == ("interrupted", 14)
    assert fit.kept_epoch == 1 + int(np.argmin(totals)) < 14
    chosen = noise.indices("validation")
    logits = logits_by(keras, variant, tmp_path / "w", noise.images[chosen], 2)
    assert data_loss(variant, logits, noise.labels[chosen]) == pytest.approx(min(totals), rel=1e-4)


def test_interrupted_in_the_first_epoch(keras, binary, tmp_path):
    fit = keras.fit(variants()["early_stopping"], binary, settings(), tmp_path / "w", on_batch=lambda at: True)
    assert (fit.ended, fit.kept_epoch, fit.history) == ("interrupted", 0, [])
    assert read_weights(tmp_path / "w")[1]["variant"] == "early_stopping"


# Squared, such weights overflow the penalty on every machine; a loss alone can stay finite where all units die.
@pytest.mark.parametrize(("name", "rate"), [("l2", 1e25), ("dense_l2", 1e25)])
def test_divergence_names_the_place_and_keeps_the_last_good_weights(keras, binary, tmp_path, name, rate):
    path, rows = tmp_path / "w", []
    with pytest.raises(DivergedError, match=r"The loss became (nan|inf) in .*epoch \d+.*learning_rate") as caught:
        keras.fit(variants()[name], binary, settings(epochs=50, learning_rate=rate), path, on_epoch=rows.append)
    assert str(path) in str(caught.value)
    assert (f"epoch {len(rows)}" if rows else "the initial ones") in str(caught.value)
    weights, _ = read_weights(path)
    assert all(np.isfinite(value).all() for value in weights.values())


def test_class_weights_follow_keras(keras, three, tmp_path):
    variant = dataclasses.replace(variants()["dense_l2"], penalty={})
    balanced = settings(epochs=1, learning_rate=1e-12, balance="weights", batch_size=28)
    (row,) = keras.fit(variant, three, balanced, tmp_path / "w").history
    chosen = three.indices("train")
    labels = three.labels[chosen]
    logits = logits_by(keras, variant, tmp_path / "w", three.images[chosen], 3)
    each = [data_loss(variant, logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    counts = np.bincount(labels)
    assert counts.tolist() == [16, 8, 4]
    factors = len(labels) / (3 * counts)
    assert row.train_loss == pytest.approx(np.sum(factors[labels] * each) / len(labels), rel=1e-5)
    validation = three.indices("validation")
    plain = data_loss(
        variant, logits_by(keras, variant, tmp_path / "w", three.images[validation], 3), three.labels[validation]
    )
    assert row.validation_loss == pytest.approx(plain, rel=1e-5)


def test_augment_tops_every_class_up_with_changed_copies(keras, three, tmp_path):
    variant = dataclasses.replace(variants()["dense_l2"], penalty={})
    still = settings(epochs=2, learning_rate=1e-12, balance="augment", batch_size=16)
    seen = []
    first, second = keras.fit(variant, three, still, tmp_path / "w", on_batch=seen.append).history
    assert [at.images for at in seen] == [16, 16, 16] * 2  # 3 classes · 16 images
    # The weights stand still, so another loss means other copies: they are drawn afresh each epoch.
    assert first.train_loss != second.train_loss
    assert first.validation_loss == pytest.approx(second.validation_loss, rel=1e-6)
    chosen = three.indices("train")
    labels = three.labels[chosen]
    logits = logits_by(keras, variant, tmp_path / "w", three.images[chosen], 3)
    each = np.array([data_loss(variant, logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
    unchanged = np.mean([each[labels == label].mean() for label in range(3)])
    assert first.train_loss != pytest.approx(unchanged, rel=1e-6)


def test_balanced_classes_need_no_copies(keras, tmp_path):
    even = prepare(tmp_path / "even", 2)
    plain = keras.fit(variants()["dense_l2"], even, settings(epochs=1), tmp_path / "w").history
    same = keras.fit(variants()["dense_l2"], even, settings(epochs=1, balance="augment"), tmp_path / "v").history
    assert [dataclasses.replace(row, seconds=0) for row in plain] == [
        dataclasses.replace(row, seconds=0) for row in same
    ]


def test_grey_images_and_squared_error(keras, tmp_path):
    prepared = prepare(tmp_path / "grey", 3, channels=1)
    variant = dataclasses.replace(variants()["mlp"], loss="squared_error")
    fit = keras.fit(variant, prepared, settings(epochs=3), tmp_path / "w")
    chosen = prepared.indices("validation")
    logits = logits_by(keras, variant, tmp_path / "w", prepared.images[chosen], 3)
    assert fit.history[-1].validation_loss == pytest.approx(
        data_loss(variant, logits, prepared.labels[chosen]), rel=1e-4
    )


def test_stopping_is_what_the_histories_say(keras):
    assert keras.stopping([3, 2, 2, 2, 1], 2) == (4, 2)  # an equal loss is no better
    assert keras.stopping([3, 2, 2, 1, 5, 5], 2) == (6, 4)
    assert keras.stopping([3, 2, 1], 5) == (3, 3)


def test_augmented_flips_and_turns(keras):
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8)
    drawn = [Augmentation(), Augmentation(flip_x=True), Augmentation(flip_y=True), Augmentation(angle=np.pi / 2)]
    plain, mirrored, upside_down, turned = keras.augmented(np.repeat(image, 4, axis=0), drawn)
    np.testing.assert_array_equal(plain, image[0])
    np.testing.assert_array_equal(mirrored, image[0, :, :, ::-1])
    np.testing.assert_array_equal(upside_down, image[0, :, ::-1])
    np.testing.assert_allclose(turned, np.rot90(image[0], axes=(1, 2)), atol=0.01)  # 255·eps·8·8 = 0.002
    # Half the coordinates: the middle four pixels of a ramp are stretched to its whole.
    ramp = np.tile(np.arange(8, dtype=np.uint8) * 10, (1, 1, 8, 1))
    zoomed = keras.augmented(ramp, [Augmentation(zoom=0.5)])
    np.testing.assert_allclose(zoomed[0, 0, 4], 35 + (np.arange(8) - 3.5) * 5, atol=0.01)


def test_pixels_are_those_of_the_dataset(keras, binary):
    np.testing.assert_array_equal(keras.pixels(binary, np.array([2, 0])), binary.images[[2, 0]].astype(np.float32))


def test_weights_of_another_model_are_refused_with_both_shapes(keras, tmp_path):
    path = tmp_path / "w"
    write_random(path, variants()["dense_l2"], Shape(3, 6, 6), 3)
    images = np.zeros((1, 3, 6, 6), np.uint8)
    with pytest.raises(RunError, match=r"≠ output\.kernel \(128, 3\) +output\.kernel \(128, 4\)"):
        logits_by(keras, variants()["dense_l2"], path, images, 4)
    with pytest.raises(RunError, match=r"≠ – +dense2\.kernel \(512, 256\)"):
        logits_by(keras, variants()["mlp"], path, images, 3)
    with pytest.raises(RunError, match="no weights file"):
        logits_by(keras, variants()["mlp"], tmp_path / "absent", images, 3)


def test_a_weights_file_that_changed_is_read_again(keras, tmp_path):
    variant, path, images = variants()["dense_l2"], tmp_path / "w", np.full((2, 3, 6, 6), 90, np.uint8)
    write_random(path, variant, Shape(3, 6, 6), 3)
    first = logits_by(keras, variant, path, images, 3)
    changed = random_weights(variant, Shape(3, 6, 6), 3, seed=1)
    write_weights(path, changed, metadata_of(variant, Shape(3, 6, 6), 3))
    second = logits_by(keras, variant, path, images, 3)
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, dense_logits(changed, images, 1), rtol=1e-4, atol=1e-5)


def test_unusable_input(keras, binary, three, tmp_path):
    write_random(tmp_path / "w", variants()["mlp"], Shape(3, 6, 6), 3)
    model = keras.load(variants()["mlp"], tmp_path / "w", Shape(3, 6, 6), 3)
    with pytest.raises(SettingError, match=r"uint8 \(N, C, H, W\); received: float64 \(1, 3, 6, 6\)"):
        model.logits(np.zeros((1, 3, 6, 6)))
    with pytest.raises(SettingError, match=r"must be 6×6×3 \(H×W×C\), as the model's; received: 8×6×3"):
        model.logits(np.zeros((1, 3, 8, 6), np.uint8))
    with pytest.raises(SettingError, match="`batch_size` must be 1 or more; received: 0"):
        model.logits(np.zeros((1, 3, 6, 6), np.uint8), batch_size=0)
    alone = prepare(tmp_path / "alone", 2)
    np.save(alone.path / "split.npy", np.zeros(len(alone), np.uint8))
    with pytest.raises(DataError, match="no validation images"):
        keras.fit(variants()["dense_l2"], alone, settings(), tmp_path / "w")
    with pytest.raises(RunError, match="cannot be written"):
        keras.fit(variants()["dense_l2"], binary, settings(epochs=1), tmp_path / "absent" / "w")
    (three.path / "split.npy").rename(three.path / "aside")
    try:
        with pytest.raises(DataError, match=r"split\.npy"):
            keras.fit(variants()["dense_l2"], three, settings(), tmp_path / "w")
    finally:
        (three.path / "aside").rename(three.path / "split.npy")


def test_features_are_standardised_by_the_training_part(keras, features, tmp_path):
    keras.fit(variants()["transfer"], features, settings(epochs=1), tmp_path / "w")
    weights, _ = read_weights(tmp_path / "w")
    rows = features.images[features.indices("train")].reshape(-1, 12).astype(np.float64)
    deviations = rows.std(axis=0)
    assert deviations[-1] < 1e-7  # it is constant
    deviations[-1] = 1
    # float64, rounded once
    np.testing.assert_allclose(weights["standardise.mean"], rows.mean(axis=0), rtol=2**-23)
    np.testing.assert_allclose(weights["standardise.deviation"], deviations, rtol=2**-23)
    keras.fit(variants()["transfer"], features, settings(epochs=1), tmp_path / "v", initial=tmp_path / "w")
    again, _ = read_weights(tmp_path / "v")
    np.testing.assert_array_equal(again["standardise.mean"], weights["standardise.mean"])


@pytest.mark.parametrize("name", ["transfer_l1", "transfer_elastic_net"])
def test_proximal_steps_give_exact_zeros(keras, features, tmp_path, name):
    variant = variants()[name].with_penalty(l1=0.05)
    for file, made in (("a", variant), ("b", variant), ("c", dataclasses.replace(variant, proximal=False))):
        keras.fit(made, features, settings(epochs=40, learning_rate=0.01), tmp_path / file)
    first, second, plain = (read_weights(tmp_path / file)[0] for file in "abc")
    assert all(np.array_equal(first[key], second[key]) for key in first)
    remaining, total = remaining_features(variant, first)
    assert 0 < remaining < total == 12
    assert np.count_nonzero(first["output.kernel"] == 0) > 6
    # Without proximal steps only a feature that never changes has no gradient, and stays where the head starts.
    never = np.ptp(features.images[features.indices("train"), :, 0, 0], axis=0) == 0
    assert never.sum() == 1
    assert np.array_equal(plain["output.kernel"] == 0, np.tile(never[:, None], 3))


def test_features_and_images_are_not_taken_for_each_other(keras, features, binary, tmp_path):
    for variant, prepared, more, message in (
        ("transfer", binary, {}, "fitted to a backbone's features, and .* holds images"),
        ("l2", features, {}, "fitted to images, and .* holds a backbone's features"),
        ("transfer", features, {"balance": "augment"}, "`balance` cannot be 'augment' on features"),
    ):
        with pytest.raises(SettingError, match=message):
            keras.fit(variants()[variant], prepared, settings(**more), tmp_path / "w")
    write_random(tmp_path / "w", variants()["transfer"], Shape(12, 1, 1), 3)
    model = keras.load(variants()["transfer"], tmp_path / "w", Shape(12, 1, 1), 3)
    with pytest.raises(SettingError, match=r"float32 \(N, features, 1, 1\); received: uint8"):
        model.logits(np.zeros((1, 12, 1, 1), np.uint8))
    with pytest.raises(SettingError, match="NaN or infinite"):
        model.logits(np.full((1, 12, 1, 1), np.nan, np.float32))
