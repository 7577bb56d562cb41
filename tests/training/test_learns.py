"""Defaults learn: in seconds on 600 digits, and, slowly, on photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.learns import main as learns
from tfrobust.backbones import build
from tfrobust.data import load
from tfrobust.data.types import Splits
from tfrobust.jobs.plan import facts_of
from tfrobust.run import RunFolder
from tfrobust.runtime import setup
from tfrobust.settings import to_dict
from tfrobust.training.defaults import chosen_config
from tfrobust.training.fit import fit


def test_defaults_learn_600_digits_in_seconds(tmp_path):
    setup(seed=1)
    whole = load("digits")
    splits = Splits(whole.train.sample(600, 0), whole.select, whole.test, whole.log)
    given = {"backbone": {"name": "resnet18", "alpha": 0.1}, "threat": {"eps": 0.05}}
    config = chosen_config(facts_of(splits), given, epochs=10)
    assert config.training.method.name == "nsl"
    method = config.training.method.settings
    assert method["crafting"] == "nfgsm"
    chosen = to_dict(config)["backbone"]
    model = build(chosen.pop("name"), num_classes=10, image_shape=(32, 32, 3), seed=1, **chosen)
    run = RunFolder(tmp_path / "run")
    run.create()
    rows = fit(model, splits, config, run).rows
    # From the loss of guessing, both parts weighed, downwards, though eps rises meanwhile.
    guess = (method["clean_weight"] + method["adv_weight"]) * np.log(10)
    assert rows[0]["loss"] > 0.9 * guess and rows[-1]["loss"] < 0.6 * guess
    assert rows[-1]["clean_accuracy"] > 0.8 > rows[0]["clean_accuracy"]
    best = max(row["select_clean"] for row in rows if "select_clean" in row)
    assert best > 0.7 and not any(row.get("event") for row in rows)


@pytest.mark.slow
def test_a_thin_diagonal_of_the_table(shared_data, tmp_path, monkeypatch):
    """One network for each data set and kind of method; `python -m benchmarks.learns` runs all."""
    diagonal = (
        ("digits", "simplenet_plus", "standard"),
        ("cifar10", "auto", "nsl"),
        ("cifar10", "mobilenetv2", "fast"),
        ("tiny20", "resnet18", "trades"),
    )
    for data, network, method in diagonal:
        words = ["--data", data, "--networks", network, "--methods", method]
        places = ["--output", str(tmp_path), "--rows", str(tmp_path / "rows.jsonl")]
        learns([*words, *places, "--minutes", "1"])
        row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[-1])
        assert row["exit"] == 0, row
        assert row["clean"] > {"digits": 0.5, "cifar10": 0.15, "tiny20": 0.1}[data], row
