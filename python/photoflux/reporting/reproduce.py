"""The commands that reproduce a run, or the reason why no command does."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.errors import SettingError
from photoflux.model.settings import OWN_SCHEDULE, Settings, chosen_variant
from photoflux.model.variant import Variant
from photoflux.model.variants import variants
from photoflux.reporting.i18n import Translator
from photoflux.runs.run import Run


def why_not(run: Run, tr: Translator) -> str | None:
    """Return why no `photoflux train` command makes a run again, in words; None where one does."""
    if run.ended == "adopted":
        place = (run.initial or {}).get("path") or tr("a run in memory")
        return tr.sentence("No command reproduces it: it was imported from {place}.", place=place)
    if run.data.path is None:
        return tr("No command reproduces it: it does not say where its prepared dataset is.")
    if _variant_options(run.variant) is None:
        return tr("No command reproduces it: its variant is not of the table.")
    if run.settings.schedule == OWN_SCHEDULE:
        return tr("No command reproduces it: its learning-rate schedule is a function of Julia's.")
    if run.initial is not None and run.initial["path"] is None:
        return tr("No command reproduces it: it started from weights that were in memory only.")
    return None


def train_command(run: Run) -> str:
    """Return the `photoflux train` command that makes a run again from its prepared dataset; there is no `why_not`."""
    options = _variant_options(run.variant)
    assert options is not None
    own = variants()[run.variant.name]
    defaults = asdict(Settings(own.epochs, own.batch_size, own.learning_rate, balance=own.balance))
    options |= {name: value for name, value in asdict(run.settings).items() if value != defaults[name]}
    if run.initial is not None:
        options["initial"] = run.initial["path"]
    options |= _backbone_options(run)
    return command_line(["photoflux", "train", run.variant.name, str(run.data.path)], {"engine": run.engine, **options})


def _backbone_options(run: Run) -> dict[str, Any]:
    """Return the options that give a run its backbone, as far as they differ from what its variant says."""
    said = run.backbone
    if said is None:
        return {}
    spec = "+".join(network.get("path") or network["name"] for network in said["networks"])
    scaled: Mapping[str, Any] = next((network for network in said["networks"] if network.get("mean") is not None), {})
    return {
        "backbone": spec if spec != variants()[run.variant.name].backbone else None,
        "precision": said["precision"] if said["precision"] != "float32" else None,
        "views": said["views"] or None,
        "unfreeze": said.get("unfrozen"),
        "backbone_mean": numbers_text(scaled.get("mean")),
        "backbone_scale": numbers_text(scaled.get("scale")),
    }


def numbers_text(value: Any) -> str | None:
    """Return a number, or several with commas, as an option takes them; None stays None."""
    return None if value is None else ",".join(f"{x:g}" for x in np.ravel(value))


def prepare_command(prepared: PreparedDataset) -> str | None:
    """Return the `photoflux prepare` command that makes a prepared dataset again; None if there is no such command.

    There is none of arrays that were given to Python, and of a dataset to which labelled images were added.

    A folder, and a file of groups, are named only, as the dataset does not say where they were.
    """
    made_from = prepared.meta.get("made_from") or {}
    if prepared.meta.get("source") not in ("folder", "demo", "cifar10", "idx") or "labels" in made_from:
        return None
    options: dict[str, Any] = {"positive": prepared.positive or "none", "seed": prepared.meta["seed"]}
    if prepared.height == prepared.width:
        options["image_size"] = prepared.height
    if prepared.meta.get("groups"):
        options["groups"] = "groups.csv"
    flags = ["--resplit"] if made_from.get("resplit") else []
    return command_line(["photoflux", "prepare", *flags, prepared.name, str(prepared.path)], options)


def command_line(words: list[str], options: dict[str, Any]) -> str:
    """Return the words of a command and its options: True is a flag, and None is left out."""
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items() if value is not None}
    for name, value in given.items():
        words += [name] if value is True else [name, str(value)]
    return shlex.join(words)


def _variant_options(variant: Variant) -> dict[str, Any] | None:
    """Return the options that make a variant from the table's of that name; None if none do."""
    if variant.name not in variants():
        return None
    own = variants()[variant.name]
    options: dict[str, Any] = {}
    for kind in ("l1", "l2"):
        values = {coefficients.get(kind) for coefficients in variant.penalty.values()}
        if len(values) == 1 and values != {None} and values != {c.get(kind) for c in own.penalty.values()}:
            options[kind] = values.pop()
    if variant.loss != own.loss:
        options["loss"] = variant.loss
    try:
        made = chosen_variant(variant.name, options.get("l1"), options.get("l2"), options.get("loss"))
    except SettingError:
        return None
    if own.backbone:  # given by options of their own, see `_backbone_options`
        made = dataclasses.replace(made, backbone=variant.backbone)
    return options if made == variant else None
