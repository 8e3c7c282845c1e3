"""The table as Python reads it, against the numbers of the documents; and what a variant must not be."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest

from photoflux import SettingError, Variant, variant, variants


def test_the_numbers_are_the_documents():
    rows = variants()
    assert list(rows) == [
        "baseline", "dropout", "early_stopping", "l1", "l2", "dropout_early_stopping", "elastic_net", "mlp", "dense_l2",
        "dense_dropout", "transfer", "transfer_l1", "transfer_elastic_net", "transfer_mlp",
    ]  # fmt: skip
    both = {"l1": 0.005, "l2": 0.005}
    penalties = {
        "l1": {"conv": {"l1": 0.01}, "hidden": {"l1": 0.01}},
        "l2": {"conv": {"l2": 0.01}, "hidden": {"l2": 0.01}},
        "elastic_net": {"conv": both, "hidden": {"l2": 0.01}},
        "dense_l2": {"hidden": {"l2": 0.001}},
    }
    for name, row in rows.items():
        if row.takes_features:
            continue
        if name != "mlp":
            assert row.penalty == penalties.get(name, {}), name
            assert row.learning_rate == 0.001
        assert row.patience == (5 if "early_stopping" in name else None)
    assert rows["dropout"].dropout == rows["dropout_early_stopping"].dropout == {"pool": 0.25, "hidden": 0.5}
    assert rows["dense_dropout"].dropout == {"hidden": 0.5}
    assert (rows["mlp"].hidden, rows["mlp"].dropout) == ((512, 256), {"hidden": 0.2})
    assert (rows["mlp"].learning_rate, rows["mlp"].epochs) == (0.0001, 100)
    assert (rows["baseline"].epochs, rows["early_stopping"].epochs) == (20, 30)


def test_the_transfer_variants():
    """Their numbers are measured, not a document's; what they are is in their names."""
    rows = {name: row for name, row in variants().items() if row.takes_features}
    kinds = {
        "transfer": {"output": {"l2"}},
        "transfer_l1": {"output": {"l1"}},
        "transfer_elastic_net": {"output": {"l1", "l2"}},
    }
    for name, row in rows.items():
        assert (row.backbone, row.patience is None) == ("efficientnet-lite2", False)
        assert row.proximal == (name in ("transfer_l1", "transfer_elastic_net"))
        if name in kinds:
            assert {group: set(values) for group, values in row.penalty.items()} == kinds[name]
            assert (row.hidden, row.dropout) == ((), {})
    assert (rows["transfer_mlp"].hidden, rows["transfer_mlp"].dropout) == ((128,), {"hidden": 0.5})


def test_backbone_and_proximal_are_in_a_variants_values_only_where_they_are_set():
    """So run.json of the others is as it was, and one of an earlier PhotoFlux is read."""
    for name, row in variants().items():
        values = row.as_dict()
        assert ("backbone" in values, "proximal" in values) == (row.takes_features, row.proximal), name
    changed = variant("transfer_l1").with_penalty(l1=0.5)
    assert (changed.backbone, changed.proximal, changed.penalty) == (
        "efficientnet-lite2",
        True,
        {"output": {"l1": 0.5}},
    )


def test_a_wrong_name_proposes_the_nearest():
    with pytest.raises(SettingError, match=r"received: 'l3'. Did you mean l2 or l1\?"):
        variant("l3")


def test_other_coefficients():
    assert variant("l2").with_penalty(l2=0.5).penalty == {"conv": {"l2": 0.5}, "hidden": {"l2": 0.5}}
    assert variant("l2").penalty["conv"] == {"l2": 0.01}
    with pytest.raises(SettingError, match="has no penalty"):
        variant("baseline").with_penalty(l1=0.1)
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="0 or more"):
            variant("l2").with_penalty(l2=value)


@pytest.mark.parametrize("name", list(variants()))
def test_there_and_back_through_json(name):
    assert Variant.from_dict(json.loads(json.dumps(variant(name).as_dict()))) == variant(name)


def test_a_variant_of_ones_own():
    mine = Variant(name="mine", architecture="dense", hidden=(64,))
    assert (mine.epochs, mine.batch_size, mine.learning_rate, mine.image_size) == (20, 32, 0.001, 180)
    assert (mine.penalty, mine.dropout, mine.patience, mine.loss) == ({}, {}, None, "cross_entropy")
    assert Variant("linear", "dense", ()).hidden == ()
    # As JSON and TOML give them, and as NumPy does; equal to the table's.
    numbers = {"hidden": [np.int64(64)], "learning_rate": 1, "penalty": {"output": {"l2": np.float32(0.5)}}}
    made = Variant("mine", "dense", **numbers, dropout={"hidden": 0})
    assert (made.hidden, made.learning_rate, made.penalty) == ((64,), 1.0, {"output": {"l2": 0.5}})
    assert json.loads(json.dumps(made.as_dict())) == made.as_dict()


def test_the_mappings_are_copies():
    penalty, dropout = {"hidden": {"l2": 0.5}}, {"hidden": 0.5}
    mine = Variant("mine", "dense", (64,), penalty=penalty, dropout=dropout)
    penalty["hidden"]["l2"] = -1.0
    penalty["conv"] = {}
    dropout["pool"] = 7
    assert (mine.penalty, mine.dropout) == ({"hidden": {"l2": 0.5}}, {"hidden": 0.5})


def test_a_variant_cannot_be_changed():
    """Nor can the table, which everything in this process reads."""
    l2 = variant("elastic_net")
    for change in (
        lambda: l2.penalty["conv"].update(l2=-1),
        lambda: l2.penalty.pop("conv"),
        lambda: l2.dropout.__setitem__("pool", 2),
        lambda: variants().__setitem__("l2", None),
    ):
        with pytest.raises((TypeError, AttributeError), match=r"cannot be changed|__setitem__"):
            change()
    for other in (copy.deepcopy(l2), pickle.loads(pickle.dumps(l2)), dataclasses.replace(l2)):
        assert other == l2 == variants()["elastic_net"]


NAN, INF = float("nan"), float("inf")
REFUSED = [
    (
        {"architecture": "dens"},
        r"`architecture` must be one of photo_cnn, dense, transfer, chain; received: 'dens'. Did you mean dense\?",
    ),
    ({"architecture": None}, "`architecture` must be one of photo_cnn, dense, transfer, chain; received: None"),
    (
        {"penalty": {"dense": {"l2": 1}}},
        "`penalty` of the architecture photo_cnn must be one of conv, hidden, output; rec",
    ),
    ({"penalty": {"pool": {"l2": 1}}}, "received: 'pool'"),
    ({"architecture": "dense", "penalty": {"conv": {"l2": 1}}}, "must be one of hidden, output; received: 'conv'"),
    (
        {"hidden": (), "penalty": {"hidden": {"l2": 1}}},
        "photo_cnn without hidden layers must be one of conv, output; rec",
    ),
    (
        {"dropout": {"conv": 0.5}},
        "`dropout` of the architecture photo_cnn must be one of pool, hidden; received: 'conv'",
    ),
    ({"architecture": "dense", "dropout": {"pool": 0.5}}, "must be one of hidden; received: 'pool'"),
    ({"architecture": "dense", "hidden": (), "dropout": {"hidden": 0.5}}, "without hidden layers must be empty"),
    (
        {"penalty": {"conv": {"l3": 1}}},
        "`penalty` on conv must be one of l1, l2; received: 'l3'. Did you mean l",
    ),
    ({"penalty": {"conv": 0.01}}, "`penalty` on conv must be coefficients by name; received: 0.01"),
    ({"penalty": [0.01]}, r"`penalty` of the architecture photo_cnn must be a mapping by group; received: \[0.01\]"),
    ({"dropout": 0.5}, "`dropout` of the architecture photo_cnn must be a mapping by group; received: 0.5"),
    *(
        (
            {"penalty": {"conv": {"l1": value}}},
            r"`l1` must be a finite number, 0 or more \(penalty on conv\); received",
        )
        for value in (-0.1, NAN, INF, 1e39, "0.01", True, None)
    ),
    *(
        ({"dropout": {"pool": value}}, "`dropout` of pool must be a number from 0 to below 1; received")
        for value in (-0.1, 1, 1 - 1e-9, 1.5, NAN, "0.5", False, None)
    ),
    *(
        ({"hidden": value}, "`hidden` must be a list of whole numbers, 1 or more; received")
        for value in (64, "64", None)
    ),
    *(
        ({"hidden": (64, value)}, "Each of `hidden` must be a whole number, 1 or more; received")
        for value in (0, -1, 64.0, "64", True)
    ),
    *(
        ({name: value}, f"`{name}` must be a whole number, {least} or more; received")
        for name, least in (("epochs", 1), ("batch_size", 1), ("image_size", 2), ("patience", 1))
        for value in (least - 1, 2.5, "3", True)
    ),
    *(
        ({"learning_rate": value}, "`learning_rate` must be a finite number above 0; received")
        for value in (0, -0.1, NAN, INF, 1e-60, 10**400, "0.1", True, None)
    ),
    (
        {"loss": "cross"},
        "`loss` must be one of cross_entropy, squared_error; received: 'cross'. Did you mean cross_entropy",
    ),
    *(
        ({"name": name}, "`name` must be letters, digits, `_` and `-`; received")
        for name in ("", "a/b", "a b", "a\n", 3)
    ),
    ({"made_for": None}, "`made_for` must be a text; received: None"),
    *(
        (
            {"architecture": "transfer", "backbone": name},
            "`backbone` of the architecture transfer must be the name of one",
        )
        for name in (None, "", " ", 3)
    ),
    (
        {"backbone": "efficientnet-lite2"},
        "`backbone` belongs to the architecture transfer alone; received 'efficientnet",
    ),
    *(({"proximal": value}, "`proximal` must be True or False; received") for value in (1, "yes", None)),
    *(
        ({"proximal": True, "penalty": penalty}, "`proximal` needs an L1 above 0 in `penalty`; received")
        for penalty in ({}, {"conv": {"l2": 0.1}}, {"conv": {"l1": 0.0}})
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_what_cannot_be_built_is_refused_where_it_is_made(values, message):
    with pytest.raises(SettingError, match=message):
        Variant(**{"name": "mine", "architecture": "photo_cnn", "hidden": (128,)} | values)
    with pytest.raises(SettingError, match=message):
        dataclasses.replace(variant("baseline"), **values)
    with pytest.raises(SettingError, match=message):
        Variant.from_dict(variant("baseline").as_dict() | values)


def test_fields_that_are_missing_or_unknown():
    whole = variant("baseline").as_dict()
    with pytest.raises(
        SettingError, match=r"`field` of a variant must be one of .*; received: 'hiden'. Did you mean hidd"
    ):
        Variant.from_dict(whole | {"hiden": [3]})
    for name in ("name", "architecture", "hidden", "epochs", "batch_size", "learning_rate", "image_size", "made_for"):
        with pytest.raises(SettingError, match=f"A variant must say its {name}; received: "):
            Variant.from_dict({key: value for key, value in whole.items() if key != name})
    for values in ("baseline", [], None):
        with pytest.raises(SettingError, match="A variant must be given by its fields; received"):
            Variant.from_dict(values)
