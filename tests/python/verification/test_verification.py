"""What `verify` returns, prints, writes and refuses; the checks themselves are in tests/crosscheck."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import photoflux
from photoflux import cli
from photoflux.data.preparation import prepare
from photoflux.data.shape import Shape
from photoflux.engines.proof import TraceRequest
from photoflux.errors import DataError, EngineError, RunError, SettingError
from photoflux.model.variants import variant
from photoflux.verification import inputs, tolerances, verify
from photoflux.verification.checks import Check, Part, compare
from photoflux.verification.proof import Curves, Proof
from photoflux.verification.verification import Verification


def made_up(*, passed: bool) -> Verification:
    good = compare("conv1.kernel", [1.0, 2.0], [1.0, 2.0 + 1e-6], 1e-5)
    bad = compare("<dense1>", [1.0], [2.0], 1e-3)
    checks = [Check("first", "n·eps", [good]), Check("second", "none", [good] if passed else [good, bad])]
    curves = Curves(np.array([2.0, 1.0]), np.array([2.0, 1.00001]), np.array([1e-4, 2e-4]))
    proof = Proof(variant("l2"), checks, curves, 3, 1.5)
    versions = {
        "flux": {"flux": "0.16", "julia": "1.12", "threads": "2"},
        "keras": {"keras": "3.15", "tensorflow": "2.21"},
    }
    return Verification("demo", Shape(3, 8, 8), 2, 2, versions, [proof])


def test_compare_finds_the_element_that_exceeds_most():
    part = compare("w", [1.0, 2.0, 3.0], [1.0, 2.5, 3.6], [1.0, 0.1, 0.5])
    assert (part.absolute, part.tolerance, part.passed) == (0.5, 0.1, False)
    assert part.relative == pytest.approx(0.5 / 3.6)
    assert part.share == pytest.approx(5)
    assert compare("w", [1.0], [1.0], 0) == Part("w", 0.0, 0.0, 0.0, True)
    assert compare("w", [1.0], [1.1], 0).share == float("inf")


@pytest.mark.parametrize("ours", [[np.nan, 1], [np.inf, 1], [1.0], [[1.0, 1.0]]])
def test_compare_never_lets_nan_or_another_shape_pass(ours):
    part = compare("w", ours, [1.0, 1.0], 1e9)
    assert not part.passed
    assert part.absolute == float("inf")


def test_a_check_shows_the_first_that_failed_else_the_nearest():
    near, far = Part("near", 0.9, 0.1, 1.0, True), Part("far", 0.5, 0.1, 100.0, True)
    wrong, worse = Part("wrong", 2.0, 1, 1.0, False), Part("worse", 9.0, 1, 1.0, False)
    assert Check("c", "", [far, near]).shown is near
    assert Check("c", "", [near, wrong, worse]).shown is wrong
    assert not Check("c", "", [near, wrong]).passed


def test_summed_is_the_probabilistic_bound():
    # 6·√100·2⁻²³·3
    assert tolerances.summed(100, 3.0) == pytest.approx(6 * 10 * 2**-23 * 3)


def test_terms_of_a_photo_cnn(tmp_path):
    request = TraceRequest(
        variant("dropout"), tmp_path, np.zeros((1, 2, 3, 8, 6), np.uint8), np.zeros((1, 2)), 2, 0.001
    )
    terms = tolerances.terms_before(request)
    # Each layer adds its inputs and its bias: 3·3·3, 3·3·16, 3·3·32, 4·3·64, 128.
    conv = 1 + 28 + 145 + 289
    assert terms == {
        "rescale": 1,
        "conv1": 29,
        "pool": 29,
        "pool_dropout": 29,
        "conv2": 174,
        "conv3": conv,
        "flatten": conv,
        "dense1": conv + 769,
        "dense1_dropout": conv + 769,
        "output": conv + 769 + 129,
    }
    assert tolerances.terms_of_gradient(request, "dense1") == terms["output"] + 2
    assert tolerances.terms_of_gradient(request, "conv3") == terms["output"] + 2 * 12
    assert tolerances.terms_of_gradient(request, "conv1") == terms["output"] + 9 * (32 + 64) + 2 * 48


def test_adam_step_is_steep_where_the_gradient_is_small():
    g, rate = np.array([1.0, 1e-6, 1e-9]), 0.001
    slack = tolerances.adam_step(g, g + np.array([1e-8, 1e-8, -2e-9]), 1e-7, rate, np.zeros(3))
    exact = [rate * (x / (abs(x) + 1e-7 / np.sqrt(1e-3))) for x in (1e-6, 1.01e-6)]
    assert slack[0] < 1e-9
    assert slack[1] >= abs(exact[1] - exact[0])
    assert slack[2] <= 2 * rate + 1e-9
    # No more than the gradients may differ counts: a wrong gradient is no excuse for a wrong step.
    wrong = tolerances.adam_step(g, g + 1, 1e-12, rate, np.zeros(3))
    assert wrong[0] < 1e-9


def test_images_at_a_kink_are_found():
    conv = np.ones((2, 2, 2, 1), np.float32)
    conv[:, 1, 1] = 2
    ours = {"activation/conv1": conv.copy(), "activation/pool": conv.max(axis=(1, 2), keepdims=True)}
    images = np.zeros((1, 2, 1, 2, 2), np.uint8)
    images[0, :, 0, 0, 0] = 9
    request = TraceRequest(variant("l2"), None, images, np.zeros((1, 2)), 2, 0.001)  # type: ignore[arg-type]
    theirs = {name: value.copy() for name, value in ours.items()}
    assert inputs.decided_alike(request, ours, theirs).tolist() == [True, True]
    theirs["activation/conv1"][1, 0, 0] = 2.1  # another one is the largest of the window
    assert inputs.decided_alike(request, ours, theirs).tolist() == [True, False]
    # Where all four see the same pixels it does not matter which is taken.
    black = dataclasses.replace(request, images=np.zeros_like(images))
    assert inputs.decided_alike(black, ours, theirs).tolist() == [True, True]
    theirs["activation/conv1"][1, 0, 0] = 1
    theirs["activation/conv1"][0, 0, 0] = 0  # off here, on there
    assert inputs.decided_alike(request, ours, theirs).tolist() == [False, True]


def test_every_variant_gets_the_same_images_and_the_same_call_the_same_numbers(tmp_path):
    prepared = prepare("demo", tmp_path / "demo", image_size=16)
    one, other, again = (
        inputs.request_from(variant(name), prepared, tmp_path, 3, 4, 42) for name in ("l2", "dropout", "l2")
    )
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert one.images.shape == (3, 4, 3, 16, 16)
    assert set(other.masks) == {"pool_dropout", "dense1_dropout"}
    assert set(np.unique(other.masks["dense1_dropout"])) == {0.0, 2.0}
    # More steps than the dataset has images: it is gone through again.
    long = inputs.request_from(variant("l2"), prepared, tmp_path, 50, 32, 42)
    assert len(prepared.indices("train")) < 50 * 32 == long.labels.size


def test_a_verification_says_whether_it_passed_and_where_not():
    assert "All 2 checks hold" in str(made_up(passed=True))
    failed = made_up(passed=False)
    assert not failed.passed
    assert "1 of 2 checks FAIL (l2: second)." in str(failed)
    assert "<dense1>" in str(failed)
    assert "13 of 16 images" in str(failed)
    values = json.loads(json.dumps(failed.as_dict()))
    assert values["passed"] is False
    assert values["variants"]["l2"]["checks"][1]["parts"][1]["absolute"] == 1.0


def test_it_shows_in_a_notebook_and_as_a_page(tmp_path):
    failed = made_up(passed=False)
    assert "&lt;dense1&gt;" in failed._repr_html_()
    assert "<html" not in failed._repr_html_()
    page = failed.write(tmp_path / "new" / "folder")
    text = page.read_text(encoding="utf-8")
    assert page.name == "verify.html"
    assert text.count("<svg") == 1
    assert "http" not in text.replace("http://www.w3.org/", "")  # the names of SVG; nothing is loaded
    assert [file.name for file in page.parent.iterdir()] == ["verify.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        failed.write(tmp_path / "file")
    (tmp_path / "taken" / "verify.html").mkdir(parents=True)
    with pytest.raises(RunError, match="cannot be written"):
        failed.write(tmp_path / "taken")


def test_what_cannot_be_verified_is_refused_before_anything_starts(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="l3"):
        photoflux.verify("l3")
    for steps in (1, 2.5, True):
        with pytest.raises(SettingError, match="`steps`"):
            photoflux.verify("l2", steps=steps)
    with pytest.raises(DataError):
        photoflux.verify("l2", tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        photoflux.verify("l2", out=tmp_path / "file")
    monkeypatch.setattr(verify, "why_unavailable", lambda: "Keras is not installed.")
    with pytest.raises(EngineError, match="needs both"):
        photoflux.verify("l2")


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_it_too(passed, code, monkeypatch):
    monkeypatch.setattr(cli.api, "verify", lambda *args, **kwargs: made_up(passed=passed))
    answer = CliRunner().invoke(cli.app, ["verify", "l2", "--json"])
    assert answer.exit_code == code
    assert json.loads(answer.stdout)["passed"] is passed


def test_verify_from_the_command_line(flux, keras, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["verify", "dense_l2", "--steps", "3", "--image-size", "12", "--out", str(tmp_path)]
    answer = CliRunner().invoke(cli.app, arguments)
    assert answer.exit_code == 0, answer.output
    assert "All 10 checks hold" in answer.stdout
    assert (tmp_path / "verify.html").is_file()


# Julia would keep Ctrl-C to itself; it reaches Python, also while Keras computes, and the mask is what it was.
WITH_JULIA = """
import os, signal, threading, time
import numpy as np
from photoflux.engines.flux.engine import FluxEngine
from photoflux.engines.keras.engine import KerasEngine
FluxEngine(print).versions()
with KerasEngine() as keras:
    keras.versions()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            keras.stopping(np.ones(1000), 2000)
    except KeyboardInterrupt:
        print("interrupted", signal.SIGINT in before, signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before)
"""


def test_ctrl_c_reaches_python_while_keras_computes_beside_julia(flux, keras):
    done = subprocess.run([sys.executable, "-c", WITH_JULIA], capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == "interrupted False True", done.stderr
