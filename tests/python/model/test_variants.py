"""The table as Python reads it, against the numbers of the documents."""

from __future__ import annotations

import json

import pytest

from photoflux import SettingError, Variant, variant, variants


def test_the_numbers_are_the_documents():
    rows = variants()
    assert list(rows) == [
        "baseline", "dropout", "early_stopping", "l1", "l2", "dropout_early_stopping", "elastic_net", "mlp", "dense_l2",
        "dense_dropout",
    ]  # fmt: skip
    both = {"l1": 0.005, "l2": 0.005}
    penalties = {
        "l1": {"conv": {"l1": 0.01}, "hidden": {"l1": 0.01}},
        "l2": {"conv": {"l2": 0.01}, "hidden": {"l2": 0.01}},
        "elastic_net": {"conv": both, "hidden": {"l2": 0.01}},
        "dense_l2": {"hidden": {"l2": 0.001}},
    }
    for name, row in rows.items():
        if name != "mlp":
            assert row.penalty == penalties.get(name, {}), name
            assert row.learning_rate == 0.001
        assert row.patience == (5 if "early_stopping" in name else None)
    assert rows["dropout"].dropout == rows["dropout_early_stopping"].dropout == {"pool": 0.25, "hidden": 0.5}
    assert rows["dense_dropout"].dropout == {"hidden": 0.5}
    assert (rows["mlp"].hidden, rows["mlp"].dropout) == ((512, 256), {"hidden": 0.2})
    assert (rows["mlp"].learning_rate, rows["mlp"].epochs) == (0.0001, 100)
    assert (rows["baseline"].epochs, rows["early_stopping"].epochs) == (20, 30)


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
