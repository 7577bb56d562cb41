"""The fields of robustness leaderboards, from the same data as the page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from tfrobust.report.runs import RunData
from tfrobust.report.summary import file_name

_AUTOATTACK = ["apgd-ce", "apgd-t", "fab-t", "square"]


def leaderboard_entry(run: RunData) -> dict[str, Any]:
    """The entry of a run, with the field names of RobustBench's JSON files.

    Accuracies are percentages as strings, as there. `autoattack_acc` is only present if standard
    AutoAttack was run, in its order, with its published settings, and nothing before it;
    `reported` is the worst case over all attacks that were run.

    `additional_data` says whether training started from pretrained weights, whose data comes in
    addition to the data set. Perturbed copies of the model's own training images do not count.
    It is None if the training of the model is unknown.

    Croce et al. (2021), https://arxiv.org/abs/2010.09670.
    """
    found, config = run.evaluation, run.config
    threat, backbone = found["threat_model"], config.get("backbone") or {}
    entry = {
        "name": run.name,
        "authors": "",
        "link": "",
        "venue": "",
        "dataset": file_name((config.get("data") or {}).get("dataset", "")),
        "architecture": _architecture(backbone),
        "norm": {"linf": "Linf", "l2": "L2", "l1": "L1"}.get(threat["norm"], threat["norm"]),
        "eps": threat["eps_text"],
        "additional_data": _pretrained(backbone) is not None if config else None,
        "number_forward_passes": 1,
        "clean_acc": _percentage(found["clean_accuracy"]),
        "reported": _percentage(found["robust_accuracy"]),
        "num_examples": found["num_examples"],
        "unreliable": bool(found["unreliable"]),
        "footnote": "; ".join(_notes(found, backbone)) or None,
    }
    if _is_standard_autoattack(found["attacks"], threat["norm"]):
        entry["autoattack_acc"] = _percentage(found["attacks"]["square"]["accuracy"])
    return entry


def _is_standard_autoattack(attacks: dict[str, Any], norm: str) -> bool:
    """Whether the first attacks were the published ones, each with its published settings."""
    if list(attacks)[: len(_AUTOATTACK)] != _AUTOATTACK or norm == "l0":
        return False
    # Imported only here: it imports TensorFlow, which the report does not need.
    from tfrobust.attacks.autoattack import autoattack

    # The variants for fewer than 4 classes have another loss, and are not the published ones.
    suite = autoattack("standard", norm=norm)
    published = {name: dataclasses.asdict(one) for name, one in suite.items()}
    asked = {name: attacks[name].get("parameters") for name in _AUTOATTACK}
    return bool(json.loads(json.dumps(published)) == asked)


def _notes(found: dict[str, Any], backbone: dict[str, Any]) -> Iterator[str]:
    yield from (flag["meaning"] for flag in found["flags"])
    weights = _pretrained(backbone)
    if weights is not None:
        yield f"additional_data: training started from the pretrained weights {weights}"


def _pretrained(backbone: dict[str, Any]) -> str | None:
    weights = backbone.get("weights") or "none"
    return None if weights == "none" else file_name(weights)


def _architecture(backbone: dict[str, Any]) -> str:
    name = backbone.get("name", "")
    alpha = backbone.get("alpha", 1.0)
    return f"{name} (alpha {alpha:g})" if name and alpha != 1.0 else name


def _percentage(value: float) -> str:
    return f"{100 * value:.2f}"
