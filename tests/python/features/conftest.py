"""A tiny backbone, installed and in the table, and a cache of its own for each test."""

from __future__ import annotations

import pytest

import tiny_backbone


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Put two tiny backbones into the table, with their packages and an empty cache."""
    folder = tmp_path / "packages"
    rows = {
        name: tiny_backbone.install(folder, name, seed, size)
        for name, seed, size in (("tiny", 0, 20), ("other", 1, 24))
    }
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    for module in ("photoflux.model.backbones", "photoflux.features.backbone"):
        monkeypatch.setattr(f"{module}.backbones", lambda: rows)
    return rows["tiny"]
