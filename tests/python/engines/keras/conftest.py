"""The tiny datasets that the Keras engine is tried on."""

import pytest

from small import prepare, prepare_features


@pytest.fixture(scope="session")
def binary(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("binary") / "data", 2, counts=[21, 19])


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("three") / "data", 3, counts=[20, 12, 8])


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    return prepare_features(tmp_path_factory.mktemp("features") / "data", 3, counts=[20, 12, 8])


@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    """No class can be learnt, so the validation loss soon rises."""
    return prepare(tmp_path_factory.mktemp("noise") / "data", 2, band=0)
