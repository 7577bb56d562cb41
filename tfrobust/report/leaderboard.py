"""The fields that robustness leaderboards ask for, from the same data as the page."""

from __future__ import annotations

from typing import Any

from tfrobust.report.runs import RunData


def leaderboard_entry(run: RunData) -> dict[str, Any]:
    """The entry of a run, with the names that RobustBench's JSON files use.

    Accuracies are percentages as strings, as there. `autoattack_acc` is there only where
    the four attacks of standard AutoAttack were all run; `reported` is the worst case over
    all that were, by whatever attacks.

    Croce et al. (2021), https://arxiv.org/abs/2010.09670.
    """
    found, config = run.evaluation, run.config
    threat, backbone = found["threat_model"], config.get("backbone") or {}
    entry = {
        "name": run.name,
        "authors": "",
        "link": "",
        "venue": "",
        "dataset": (config.get("data") or {}).get("dataset", ""),
        "architecture": _architecture(backbone),
        "norm": {"linf": "Linf", "l2": "L2", "l1": "L1"}.get(threat["norm"], threat["norm"]),
        "eps": threat["eps_text"],
        "additional_data": bool((config.get("data") or {}).get("augment_with")),
        "number_forward_passes": 1,
        "clean_acc": _percentage(found["clean_accuracy"]),
        "reported": _percentage(found["robust_accuracy"]),
        "num_examples": found["num_examples"],
        "unreliable": bool(found["unreliable"]),
        "footnote": "; ".join(flag["meaning"] for flag in found["flags"]) or None,
    }
    if {"apgd-ce", "apgd-t", "fab-t", "square"} <= found["attacks"].keys():
        entry["autoattack_acc"] = _percentage(found["attacks"]["square"]["accuracy"])
    return entry


def _architecture(backbone: dict[str, Any]) -> str:
    name = backbone.get("name", "")
    alpha = backbone.get("alpha", 1.0)
    return f"{name} (alpha {alpha:g})" if name and alpha != 1.0 else name


def _percentage(value: float) -> str:
    return f"{100 * value:.2f}"
