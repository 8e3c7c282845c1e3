"""Callbacks, schedules and time budgets of a fit from Python: who is told what, and what it may ask for."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import photoflux
import small
from julias import ROOT
from photoflux import Callback, RunningFit, SettingError
from photoflux.cli import app
from photoflux.data.prepared import PreparedDataset
from photoflux.engines.callbacks import HOOKS, Caller, Hooks, hooks_of
from photoflux.engines.keras.engine import KerasEngine
from photoflux.model.variants import variant
from photoflux.runs.checkpoints import checkpoint_files

# 32 training images: four batches an epoch.
FIT: dict[str, Any] = {"variant": "dense_l2", "engine": "flux", "epochs": 3, "batch_size": 8, "progress": False}


class Mine(Exception):
    """What a callback raises."""


def at(hook: str, do: Any) -> Any:
    """An object that has one method, and is of no class of ours."""
    return SimpleNamespace(**{hook: do})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return small.prepare(tmp_path_factory.mktemp("data") / "prepared", 2)


@pytest.fixture
def train(flux: object, prepared: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Scores and figures, which take most of the time here, are made after the fit.
    monkeypatch.setattr("photoflux.api.finish_fit", lambda trained, *_: trained.run)

    def train(name: str = "r", **options: Any) -> photoflux.Run:
        return photoflux.train(data=prepared, out=tmp_path / name, **FIT | options)

    return train


def outcome(run: photoflux.Run) -> tuple[bytes, list[list[float]], int, str]:
    rows = [[value for name, value in vars(row).items() if name != "seconds"] for row in run.history]
    return run.weights.read_bytes(), rows, run.kept_epoch, run.ended


def test_what_a_callback_is_told_and_when(train: Any):
    seen: list[tuple[str, RunningFit, tuple[Any, ...]]] = []

    class All(Callback):
        pass

    def noting(hook: str) -> Any:
        def note(self: Callback, fit: RunningFit) -> None:
            seen.append((hook, fit, (fit.epoch, fit.batch, fit.loss, fit.accuracy, len(fit.history))))

        return note

    for hook in HOOKS:
        setattr(All, hook, noting(hook))
    run = train(epochs=2, callbacks=[All()], learning_rate=0.01)
    epochs = [
        [("on_epoch_begin", e, 0), *(("on_batch_end", e, b) for b in range(1, 5)), ("on_epoch_end", e, 4)]
        for e in (1, 2)
    ]
    told = [(hook, *values[:2]) for hook, _, values in seen]
    assert told == [("on_train_begin", 1, 0), *epochs[0], *epochs[1], ("on_train_end", 2, 4)]
    assert all(math.isnan(values[2]) for hook, _, values in seen if hook == "on_epoch_begin")
    for row in run.history:
        # The means over the last batch's epoch are those of the row.
        loss, accuracy = next(v[2:4] for hook, _, v in seen if hook == "on_epoch_end" and v[0] == row.epoch)
        assert loss == pytest.approx(row.train_total, rel=1e-12) and accuracy == row.train_accuracy
    assert [values[4] for hook, _, values in seen if hook == "on_epoch_end"] == [1, 2]
    fit = seen[-1][1]
    assert fit.history == run.history and fit.settings == run.settings and fit.variant == run.variant
    assert (fit.epochs, fit.batches, fit.learning_rate) == (2, 4, 0.01) and fit.seconds > 0
    assert outcome(run) == outcome(train("without", epochs=2, learning_rate=0.01))


def test_python_is_asked_after_a_batch_only_where_somebody_wants_that(train: Any, monkeypatch: pytest.MonkeyPatch):
    called, call = [], Caller.call
    monkeypatch.setattr(Caller, "call", lambda self, hook, *values: called.append(hook) or call(self, hook, *values))
    train(epochs=2, callbacks=[Callback(), at("on_epoch_end", lambda fit: None)])
    assert called == ["on_train_begin", *["on_epoch_begin", "on_epoch_end"] * 2, "on_train_end"]
    called.clear()
    train("every", epochs=1, callbacks=[at("on_batch_end", lambda fit: None)])
    assert called.count("on_batch_end") == 4
    called.clear()
    train("none", epochs=1)
    assert called == []


class AfterThree(Callback):
    """Stops a fit within its second epoch."""

    def on_batch_end(self, fit: RunningFit) -> None:
        if (fit.epoch, fit.batch) == (2, 3):
            fit.stop()


def test_a_fit_is_stopped_within_an_epoch_and_is_finished(train: Any, tmp_path: Path, prepared: PreparedDataset):
    run = train(callbacks=[AfterThree()], checkpoint_minutes=0)
    assert run.ended == "stopped" and len(run.history) == 2 and run.kept_epoch == 2
    note = "The fit was stopped in epoch 2, after batch 3 of 4, by the callback AfterThree (on_batch_end)"
    assert any(text.startswith(note) for text in run.notes)
    assert json.loads((run.path / "run.json").read_text())["ended"] == "stopped"
    assert photoflux.load_run(run.path).ended == "stopped" and "2 epochs, stopped by a callback" in str(run)
    assert not checkpoint_files(run.path)
    assert train(resume=True).history == run.history
    done = CliRunner().invoke(app, ["train", "dense_l2", str(prepared.path), "--out", str(run.path), "--resume"])
    assert done.exit_code == 0, done.output


def test_a_fit_is_stopped_after_an_epoch(train: Any):
    run = train(callbacks=[at("on_epoch_end", lambda fit: fit.epoch == 2 and fit.stop())])
    assert run.ended == "stopped"
    assert run.notes[-1] == "The fit was stopped after epoch 2 by the callback SimpleNamespace (on_epoch_end)."
    assert outcome(run)[:3] == outcome(train("two", epochs=2))[:3]


class Tenth(Callback):
    """What the schedule "step" does in three epochs."""

    def on_epoch_end(self, fit: RunningFit) -> None:
        fit.learning_rate *= 0.1


def test_a_callback_sets_the_learning_rate(train: Any):
    rates: list[float] = []
    run = train(
        callbacks=[Tenth(), at("on_batch_end", lambda fit: rates.append(fit.learning_rate))], learning_rate=0.01
    )
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 4 + [0.0001] * 4)
    assert outcome(run) == outcome(train("step", schedule="step", learning_rate=0.01))
    with pytest.raises(SettingError, match="cannot be set in a fit with the schedule 'cosine'"):
        train("both", schedule="cosine", callbacks=[Tenth()])
    for rate in (0, -1, math.inf, "high"):
        with pytest.raises(SettingError, match="`learning_rate` must be a finite number above 0"):
            train(
                f"bad {rate}",
                callbacks=[at("on_train_begin", lambda fit, rate=rate: setattr(fit, "learning_rate", rate))],
            )


@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_in_a_callback_reaches_the_user_as_it_is(train: Any, hook: str):
    error = Mine("mine")

    def fail(fit: RunningFit) -> None:
        raise error

    with pytest.raises(Mine) as raised:
        train(epochs=2, callbacks=[at(hook, fail)])
    assert raised.value is error


def test_a_fit_that_a_callback_ended_by_an_error_is_resumed_to_the_same_bytes(train: Any):
    def fail(fit: RunningFit) -> None:
        if (fit.epoch, fit.batch) == (2, 2):
            raise Mine

    for name, options in (("rate", {"callbacks": [Tenth()]}), ("cycle", {"schedule": "one_cycle", "callbacks": []})):
        whole = train(name, **options)
        broken = options | {"callbacks": [*options["callbacks"], at("on_batch_end", fail)]}
        with pytest.raises(Mine):
            train(f"{name}-broken", checkpoint_minutes=0, **broken)
        assert outcome(train(f"{name}-broken", resume=True, **options)) == outcome(whole)


def test_a_schedule_is_a_setting(train: Any, tmp_path: Path):
    plain = train("plain", epochs=1)
    assert "schedule" not in json.loads((plain.path / "run.json").read_text())["settings"]
    rates: list[float] = []
    run = train(
        schedule="cosine",
        learning_rate=0.01,
        callbacks=[at("on_batch_end", lambda fit: rates.append(fit.learning_rate))],
    )
    # ½(1 + cos πp), p the share of the 12 batches that are done.
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * done / 12)) / 2 for done in range(12)])
    assert photoflux.load_run(run.path).settings.schedule == "cosine"
    with pytest.raises(SettingError, match="`schedule` must be one of constant, step, cosine, one_cycle"):
        train("other", schedule="linear")


def test_a_time_budget_ends_the_fit_at_a_batch(train: Any):
    """Of one that is over when the first batch is, and one that is not over in a test."""
    run = train(max_time=1e-6)
    assert run.ended == "stopped" and len(run.history) == 1
    assert "in epoch 1, after batch 1 of 4, by `max_time`, 1.0e-6 s" in run.notes[-1]
    assert outcome(train("long", max_time="10h")) == outcome(train("none"))


def test_options_of_the_command(train: Any, prepared: PreparedDataset, tmp_path: Path):
    command = [
        "train",
        "dense_l2",
        str(prepared.path),
        "--engine",
        "flux",
        "--epochs",
        "2",
        "--out",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(app, [*command, "--schedule", "one_cycle", "--max-time", "0.000001s", "--json"])
    assert done.exit_code == 0, done.output
    run = photoflux.load_run(tmp_path / "r")
    assert (run.ended, run.settings.schedule) == ("stopped", "one_cycle")
    for option, value in (("--schedule", "linear"), ("--max-time", "soon")):
        done = CliRunner().invoke(app, [*command, option, value])
        assert done.exit_code == 2 and value in done.output


def test_the_loggers_of_the_page_log_every_epoch(train: Any, monkeypatch: pytest.MonkeyPatch):
    """TensorBoard's and MLflow's, with stand-ins for both."""
    scalars: list[Any] = []
    logged: list[Any] = []
    writer = SimpleNamespace(add_scalar=lambda *values: scalars.append(values), close=lambda: scalars.append("closed"))
    for name in ("torch", "torch.utils"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=lambda folder: writer))
    stand_in = SimpleNamespace(log_params=logged.append, log_metrics=lambda values, step: logged.append((step, values)))
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"photoflux": photoflux}
    for block in blocks[1:]:
        exec(block, names)
    run = train(epochs=2, callbacks=[names["TensorBoard"](), names["MLflow"]()])
    rows = [vars(row) for row in run.history]
    expected = [(name, value, row["epoch"]) for row in rows for name, value in [*row.items(), ("learning_rate", 0.001)]]
    assert scalars == [*expected, "closed"]
    assert logged == [{"variant": "dense_l2", **run.settings.as_dict()}, (1, rows[0]), (2, rows[1])]


def test_what_is_no_callback_is_refused():
    assert hooks_of([AfterThree(), at("on_train_end", print)], 3.0).max_time == 3.0
    for given, words in (
        (AfterThree(), r"must be a list of callbacks; received: .*AfterThree object.*Write \[callback\]"),
        ("on_batch_end", "must be a list of callbacks"),
        ([AfterThree], r"received the class AfterThree\. Write AfterThree\(\)"),
        ([print], "with some of the methods on_train_begin, .*, on_train_end; received: <built-in function print>"),
        ([at("on_epoch_end", 3)], "which has none. See `photoflux.Callback`"),
    ):
        with pytest.raises(SettingError, match=words):
            hooks_of(given)  # type: ignore[arg-type]


def test_keras_refuses_what_it_does_not_do(prepared: PreparedDataset, tmp_path: Path):
    """Before its process is started."""
    engine, chosen = KerasEngine(), variant("dense_l2")
    for settings, hooks, words in (
        (
            small.settings(schedule="step"),
            Hooks(),
            "`schedule` can be given to the engine flux only; this one is keras. Leave out it",
        ),
        (small.settings(), Hooks((Tenth(),), 3.0), "`callbacks` and `max_time` can be given to the engine flux only"),
    ):
        with pytest.raises(SettingError, match=words):
            engine.fit(chosen, prepared, settings, tmp_path / "w", hooks=hooks)
