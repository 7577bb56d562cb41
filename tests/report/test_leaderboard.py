"""The leaderboard entry: it claims what was measured, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tfrobust.attacks.autoattack import autoattack
from tfrobust.report.leaderboard import leaderboard_entry
from tfrobust.report.model_card import model_card
from tfrobust.report.runs import RunData


def entry_of(attacks: dict[str, Any]) -> dict[str, Any]:
    """The JSON of attacks, the accuracy of each a little lower than of the one before."""
    return {
        name: {"accuracy": 0.5 - n / 100, "accuracy_interval": [0, 1], "eps": 8 / 255,
               "parameters": json.loads(json.dumps(dataclasses.asdict(attack)))}
        for n, (name, attack) in enumerate(attacks.items())
    }  # fmt: skip


def run_of(attacks: dict[str, Any], config: dict[str, Any] | None = None) -> RunData:
    evaluation = {
        "model": "robust", "num_examples": 100, "clean_accuracy": 0.75, "sweep": [],
        "clean_accuracy_interval": [0, 1], "robust_accuracy": 0.4, "attacks": entry_of(attacks),
        "robust_accuracy_interval": [0, 1], "unreliable": False, "flags": [],
        "threat_model": {"norm": "linf", "eps": 8 / 255, "eps_text": "8/255"},
        "classes": [str(n) for n in range(10)],
    }  # fmt: skip
    return RunData("robust", Path("robust"), config or {}, {}, [], evaluation, [])


STANDARD = autoattack("standard", 10)


def test_autoattack_is_claimed_where_it_was_run_as_published() -> None:
    entry = leaderboard_entry(run_of(STANDARD))
    # The fourth attack's: 50 - 3.
    assert entry["autoattack_acc"] == "47.00"
    assert entry["reported"] == "40.00" and entry["norm"] == "Linf" and entry["eps"] == "8/255"


@pytest.mark.parametrize(
    "attacks",
    [
        {**STANDARD, "square": dataclasses.replace(STANDARD["square"], queries=20)},
        {name: STANDARD[name] for name in ("apgd-t", "apgd-ce", "fab-t", "square")},
        {"fgsm": STANDARD["apgd-ce"], **STANDARD},
        {name: attack for name, attack in STANDARD.items() if name != "fab-t"},
        autoattack("plus", 10),
        # Fewer than 4 classes have another loss: its own docstring says that is not the standard.
        autoattack("standard", 3),
    ],
    ids=["queries", "order", "before", "missing", "plus", "three-classes"],
)
def test_autoattack_is_not_claimed_otherwise(attacks) -> None:
    assert "autoattack_acc" not in leaderboard_entry(run_of(attacks))


def test_what_ran_after_autoattack_takes_nothing_from_it() -> None:
    later = dataclasses.replace(STANDARD["apgd-ce"], restarts=5)
    assert leaderboard_entry(run_of({**STANDARD, "again": later}))["autoattack_acc"] == "47.00"


def config_of(weights: str, **data: Any) -> dict[str, Any]:
    return {
        "backbone": {"name": "resnet18", "weights": weights},
        "data": {"dataset": "/home/me/own.zip", **data},
        "threat": {"norm": "linf", "eps": 8 / 255},
        "training": {"method": "pgd"},
    }


@pytest.mark.parametrize(
    ("config", "additional"),
    [
        ({}, None),
        (config_of("none"), False),
        (config_of("none", augment_with="/home/me/perturbed.npz"), False),
        (config_of("/home/me/weights.pth"), True),
        (config_of("imagenet"), True),
    ],
)
def test_additional_data_is_what_pretrained_weights_bring(config, additional) -> None:
    entry = leaderboard_entry(run_of(STANDARD, config))
    assert entry["additional_data"] is additional
    assert ("pretrained weights" in (entry["footnote"] or "")) is bool(additional)


def test_places_on_a_disk_are_not_published() -> None:
    run = run_of(STANDARD, config_of("/home/me/weights.pth", augment_with="/home/me/set.npz"))
    entry = leaderboard_entry(run)
    assert entry["dataset"] == "own.zip" and "weights.pth" in entry["footnote"]
    card = model_card(run)
    assert "own.zip" in card and "weights.pth" in card and "set.npz" in card
    assert "/home" not in json.dumps(entry) + card
