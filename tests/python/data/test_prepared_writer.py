from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux import DataError, PreparedWriter, SettingError
from photoflux.data.images.decoding import decode_file
from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.data.shape import Shape

X = np.random.default_rng(0).integers(0, 256, (40, 9, 11, 3), dtype=np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(dest: Path, images=X, labels=None, classes=("cat", "dog"), **settings) -> PreparedDataset:
    """The dataset of images with labels that take turns, or with those given."""
    with PreparedWriter(dest, classes, **settings) as writer:
        for number, image in enumerate(images):
            writer.add(image, number % 2 if labels is None else labels[number])
        return writer.finish()


def test_arrays_and_pillow_images_come_back(tmp_path: Path):
    dataset = write(tmp_path / "set")
    assert np.array_equal(dataset.images, X.transpose(0, 3, 1, 2))
    assert dataset.labels.tolist() == [0, 1] * 20 and dataset.classes == ["cat", "dog"]
    assert dataset.name == "set" and dataset.meta["source"] == "own" and dataset.meta["split"] == "made"
    # 70, 10 and 20 % of 20 images of each class
    assert dataset.counts() == {
        part: {"cat": count, "dog": count} for part, count in {"train": 14, "validation": 2, "test": 4}.items()
    }
    row = dataset.files()[3]
    assert (row["path"], row["folder"], row["width"], row["height"]) == ("image#4", "dog", "11", "9")
    assert row["sha256"] == hashlib.sha256(X[3].transpose(2, 0, 1).tobytes()).hexdigest()
    of_pillow = write(tmp_path / "pillow", [Image.fromarray(image) for image in X])
    assert of_pillow.fingerprint == dataset.fingerprint
    assert names(tmp_path) == ["pillow", "set"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([("dog", "cat")[n % 2] for n in range(40)], ["dog", "cat"]),
        ([np.int64(n % 2) for n in range(40)], ["cat", "dog"]),
        ([n % 2 == 1 for n in range(40)], ["cat", "dog"]),
    ],
)
def test_labels_are_positions_or_names(tmp_path: Path, labels: list, classes: list[str]):
    assert write(tmp_path / "set", labels=labels, classes=classes).labels.tolist() == [0, 1] * 20


def test_without_classes_the_labels_name_them(tmp_path: Path):
    dataset = write(tmp_path / "set", labels=[("dog", "cat")[n % 2] for n in range(40)], classes=None)
    assert dataset.classes == ["cat", "dog"] and dataset.labels.tolist() == [1, 0] * 20
    dataset = write(tmp_path / "set", classes=None)
    assert dataset.classes == ["0", "1"] and dataset.labels.tolist() == [0, 1] * 20


def test_the_positive_class(tmp_path: Path):
    labels = [n % 3 for n in range(40)]
    dataset = write(tmp_path / "set", labels=labels, classes=["x", "Photo", "z"])
    assert dataset.classes == ["not Photo", "Photo"] and dataset.positive == "Photo"
    assert dataset.labels.tolist() == [int(label == 1) for label in labels]
    assert dataset.folder_labels()[:3] == ["x", "Photo", "z"]
    assert write(tmp_path / "set", labels=labels, classes=["x", "Photo", "z"], positive=None).positive is None


def test_images_of_several_sizes_are_resized_as_those_of_a_folder(tmp_path: Path):
    random = np.random.default_rng(1)
    images = [Image.fromarray(random.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)) for n in range(20)]
    dataset = write(tmp_path / "set", images, image_size=16)
    images[3].save(tmp_path / "4.png")
    expected = decode_file(tmp_path / "4.png", Shape(3, 16, 16)).images[0]
    assert np.array_equal(dataset.images[3], expected.pixels)
    assert dataset.looks is not None and int(dataset.looks[3]) == expected.phash
    assert (dataset.files()[3]["width"], dataset.files()[3]["height"]) == ("30", "23")


def test_every_mode_of_pillow_is_read_as_from_a_file(tmp_path: Path):
    grey = Image.fromarray(X[0, ..., 0])
    deep = Image.fromarray(X[0, ..., 0].astype(np.uint16) * 16)
    clear = Image.merge("RGBA", (*Image.fromarray(X[1]).split(), grey))
    turned = Image.fromarray(X[2].transpose(1, 0, 2).copy())
    turned.getexif()[0x0112] = 6
    for number, image in enumerate([grey, deep, clear, Image.fromarray(X[3]).convert("P"), turned]):
        image.save(tmp_path / f"{number}.png", exif=image.getexif())
        given = [image, *(Image.fromarray(pixels) for pixels in X[4:34])]
        dataset = write(tmp_path / "set", given, channels=3)
        assert np.array_equal(
            dataset.images[0], decode_file(tmp_path / f"{number}.png", Shape(3, 9, 11)).images[0].pixels
        )
        # 16-bit values that end below 4096 are of 12 bits.
        assert ["read as 12-bit" in note for note in dataset.warnings if "16-bit" in note] == [True] * (image is deep)


def test_grey(tmp_path: Path):
    for images in (X[..., 0], X[..., :1], [Image.fromarray(image[..., 0]) for image in X]):
        dataset = write(tmp_path / "set", images)
        assert dataset.channels == 1 and np.array_equal(dataset.images[:, 0], X[..., 0])
    dataset = write(tmp_path / "set", [X[0], *X[1:, ..., 0]])
    assert dataset.channels == 3 and np.array_equal(dataset.images[5], np.repeat(X[5, None, ..., 0], 3, axis=0))
    assert write(tmp_path / "set", channels=1).channels == 1


def test_nearly_equal_images_are_on_one_side(tmp_path: Path):
    near = X.copy()
    near[:, 0, 0, 0] ^= 1
    for seed in range(5):
        dataset = write(tmp_path / "set", np.concatenate([X, near]), seed=seed)
        assert np.array_equal(dataset.split[:40], dataset.split[40:])
        assert [row["group"] for row in dataset.files()[:40]] == [row["group"] for row in dataset.files()[40:]]


def test_equal_images_of_two_classes_are_noted(tmp_path: Path):
    dataset = write(tmp_path / "set", [*X, X[0]], [*([0, 1] * 20), 1])
    assert any("image#1 = image#41" in note for note in dataset.warnings)
    assert (dataset.path / "conflicts.csv").is_file()


def given_split(dest: Path, parts: list[str | None], images=X) -> PreparedDataset:
    with PreparedWriter(dest, ["cat", "dog"]) as writer:
        for number, part in enumerate(parts):
            writer.add(images[number], number % 2, split=part, name=f"number {number}")
        return writer.finish()


def test_a_given_split_is_taken(tmp_path: Path):
    parts = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8
    dataset = given_split(tmp_path / "set", parts)
    assert dataset.split.tolist() == [0] * 24 + [1] * 8 + [2] * 8
    assert dataset.meta["split"] == "given" and dataset.files()[7]["path"] == "number 7"
    # Without a validation part a tenth of the training part is it: 1 of the 15 images of each class, or 2.
    dataset = given_split(tmp_path / "set", ["train"] * 30 + ["test"] * 10)
    assert np.all(dataset.split[30:] == 2) and 2 <= np.count_nonzero(dataset.split[:30] == 1) <= 4
    twins = given_split(tmp_path / "set", parts, np.concatenate([X[:39], X[:1]]))
    assert any("1 of the 8 test images are equal" in note and "resplit" not in note for note in twins.warnings)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (["train", None], DataError, "'number 1' has no `split`, and those before it have one"),
        ([None, "train"], DataError, "'number 1' has a `split`, and those before it have none"),
        (["train", "tset"], SettingError, "`split` must be one of train.*Did you mean test"),
        (["test"] * 4, DataError, "`split` says test for all images, expected train and one more"),
        (["train"] * 4, DataError, "`split` says train for all images"),
    ],
)
def test_a_wrong_split_is_refused(tmp_path: Path, parts: list, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        given_split(tmp_path / "set", parts)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (X[1] / 255, r"'image#2' must be uint8 .* float64 from 0 to 1. Convert with \(x \* 255\)"),
        (X[1].astype(np.int16), "'image#2' must be uint8 .* received int16. Convert with"),
        (
            X[1].transpose(2, 0, 1),
            r"must have the shape \(H, W\).*received \(3, 9, 11\). The channels must be last",
        ),
        (np.zeros((9, 11, 4), np.uint8), r"1 or 3 channels; received \(9, 11, 4\)"),
        (np.zeros((0, 11, 3), np.uint8), r"received \(0, 11, 3\)"),
        (X[:1], r"received \(1, 9, 11, 3\)"),
        ("cat.png", "'image#2' must be a Pillow image or a uint8 array; received str. Open a file with PIL.Image.open"),
        (None, "'image#2' must be uint8 .* received object"),
        (X[1, :8], "'image#2' has 11 × 8 pixels, and the first image 11 × 9. Give `image_size`"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: object, message: str):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "set", [X[0], image])
    assert names(tmp_path) == []


def test_other_images_than_the_first_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"'image#2' is coloured, and the first image is grey. Give `channels`"):
        write(tmp_path / "set", [X[0, ..., 0], X[1]])
    with pytest.raises(DataError, match=r"'image#1' has 11 × 7 pixels, expected 8 or more a side. Give `image_size`"):
        write(tmp_path / "set", X[:, :7])
    assert len(write(tmp_path / "set", X[:, :7], image_size=8)) == 40


@pytest.mark.parametrize(
    ("label", "classes", "message"),
    [
        (2, ["cat", "dog"], "The label of 'image#2' must be an integer from 0 to 1, or one of cat, dog; received: 2"),
        (-1, ["cat", "dog"], "from 0 to 1, or one of cat, dog; received: -1"),
        ("cow", ["cat", "dog"], "received: 'cow'"),
        (0.0, ["cat", "dog"], "received: 0.0"),
        (None, None, "must be the name of its class, or an integer from 0; received: None"),
        (-1, None, "an integer from 0; received: -1"),
        ("", None, "received: ''"),
        ("cat", None, "The label of 'image#2' is 'cat', and of the first image 0. Give integers or names"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path: Path, label: object, classes: list[str] | None, message: str):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "set", X[:2], [0, label], classes)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (X[:0], [], ["cat", "dog"], r"No image was added to .*set\.$"),
        (X, [0] * 40, ["cat", "dog"], "Class 'dog' of set has no usable image"),
        (X, [0] * 40, None, "All 40 images are of one class, '0', expected two or more"),
        (X, ["cat"] * 40, None, "All 40 images are of one class, 'cat'"),
        (X, [0] * 39 + [1], ["cat", "dog"], "Class 'dog' of set has one usable image"),
        (X, [0] * 39 + [50], None, "integers from 0 without gaps; received 50 among 40 images"),
        (X, [0, 2] * 20, None, "Class '1' of set has no usable image"),
        (X[[0] * 40], None, ["cat", "dog"], "too few different images for a "),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, images, labels, classes, message: str):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "set", images, labels, classes)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 4}, "`image_size`"),
        ({"channels": 4}, "`channels` must be 1"),
        ({"channels": True}, "`channels` must be 1"),
        ({"seed": -1}, "`seed`"),
        ({"classes": ["cat"]}, "`classes` must be two or more different names"),
        ({"classes": ["cat", "cat"]}, "different names"),
        ({"classes": ["cat", 2]}, "different names"),
        ({"classes": "ab"}, "different names"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict, message: str):
    with pytest.raises(SettingError, match=message):
        PreparedWriter(tmp_path / "set", **settings)
    with pytest.raises(DataError, match="`positive` must be"):
        PreparedWriter(tmp_path / "set", ["cat", "dog"], positive="cow")


def broken() -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "JPEG")
    return Image.open(io.BytesIO(file.getvalue()[:-200]))


def test_what_cannot_be_decoded_is_listed(tmp_path: Path):
    with PreparedWriter(tmp_path / "set", ["cat", "dog"]) as writer:
        writer.add(broken(), 0, name="broken.jpg")
        writer.reject("gone.jpg", "the server does not answer")
        for number, image in enumerate(X):
            writer.add(image, number % 2)
        dataset = writer.finish()
    assert len(dataset) == 40 and dataset.files()[0]["path"] == "image#2"
    assert [name for name, _ in dataset.rejected] == ["broken.jpg", "gone.jpg"]
    assert "truncated" in dataset.rejected[0][1] and dataset.rejected[1][1] == "the server does not answer"
    with pytest.raises(DataError, match=r"No image was added.* 1 were rejected, the first is image#1: .*trunc"):
        write(tmp_path / "other", [broken()])


def raising(error: type[BaseException]):
    yield from X[:20]
    raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_iterable_that_raises_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]):
    with pytest.raises(error):
        write(tmp_path / "set", raising(error))
    assert names(tmp_path) == []
    before = write(tmp_path / "set").fingerprint
    with pytest.raises(error):
        write(tmp_path / "set", raising(error))
    assert open_prepared(tmp_path / "set").fingerprint == before and names(tmp_path) == ["set"]


def test_a_folder_of_others_is_refused_before_anything_is_read(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "holiday.jpg").write_text("mine")
    with pytest.raises(DataError, match=r"is not a prepared dataset \(holiday.jpg\)"), PreparedWriter(tmp_path / "set"):
        pytest.fail("it was opened")
    assert names(tmp_path / "set") == ["holiday.jpg"]


def test_a_block_without_finish_says_so(tmp_path: Path):
    with pytest.raises(DataError, match="ended without `finish`"), PreparedWriter(tmp_path / "set") as writer:
        writer.add(X[0], 0)
    assert names(tmp_path) == []
    with pytest.raises(DataError, match="cannot be added: images are added in a `with` block, before `finish`"):
        writer.add(X[0], 0)


def test_finish_may_be_called_again_and_nothing_added_after(tmp_path: Path):
    with PreparedWriter(tmp_path / "set") as writer:
        for number, image in enumerate(X):
            writer.add(image, number % 2)
        assert writer.finish() is writer.finish()
        with pytest.raises(DataError, match="before `finish`"):
            writer.add(X[0], 0)


def test_it_is_public_and_its_dataset_a_source(tmp_path: Path):
    assert photoflux.PreparedWriter is PreparedWriter
    dataset = write(tmp_path / "set")
    assert photoflux.prepare(tmp_path / "set", progress=False).fingerprint == dataset.fingerprint
