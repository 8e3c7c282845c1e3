"""A comparison of variants that read pixels with variants on a backbone, each at its own size of images."""

from __future__ import annotations

import pytest

import photoflux
from onnx_backbone import SIZE, write_backbone
from photoflux.data.sources.demo import write_demo_folder
from photoflux.errors import SettingError

pytest.importorskip("onnx", reason="the extra transfer is not installed")
pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")


def test_pixels_and_features_are_compared_on_the_same_splits(flux, tmp_path):
    folder = write_demo_folder(tmp_path / "scans", images_per_class=20)
    backbone = write_backbone(tmp_path / "tiny.onnx")
    options = {"backbone": backbone, "backbone_mean": 127.0, "backbone_scale": 128.0}
    variants = ["dropout", "transfer", "transfer_l1"]
    found = photoflux.compare(
        folder, variants, seeds=2, image_size=16, epochs=2, out=tmp_path / "which", progress=False, **options
    )
    runs = {path.name: photoflux.load_run(path) for path in sorted((tmp_path / "which" / "runs").iterdir())}
    assert len(runs) == 6
    for name, run in runs.items():
        assert run.shape.height == (16 if name.startswith("dropout") else SIZE)
        assert run.settings.balance == ("none" if name.startswith("dropout") else "weights")
        assert (run.backbone is None) == name.startswith("dropout")
    assert "each variant&#39;s own" in (found.path / "report.html").read_text(encoding="utf-8")
    assert "--backbone" in found.command and "--backbone-mean 127" in found.command
    # Finished fits are kept, also those whose L2 was chosen by cross-validation.
    again = photoflux.compare(
        folder, variants, seeds=2, image_size=16, epochs=2, out=tmp_path / "which", progress=False, **options
    )
    assert [row.per_seed for row in again.results] == [row.per_seed for row in found.results]
    if found.run.name.startswith("transfer-"):
        assert "Cross-validation chose its L2 coefficient with each seed" in found.reasons


def test_options_of_a_backbone_need_a_variant_that_has_one(tmp_path):
    with pytest.raises(SettingError, match="`views` is for the variants on a backbone only"):
        photoflux.compare("demo", ["baseline", "l2"], seeds=1, views=2, out=tmp_path / "which", progress=False)
