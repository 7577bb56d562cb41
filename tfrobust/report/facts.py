"""The facts of a run in the order that people read them: the page and the card show the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrobust.report.runs import RunData
from tfrobust.settings import format_eps

# Settings that are worth a line of the page; the rest is in config.yaml.
_SETTINGS = {
    "data": ("dataset", "limit_train", "select_fraction"),
    "backbone": ("name", "weights", "alpha", "resize"),
    "threat": ("norm", "eps"),
    "training": ("method", "optimizer", "batch_size", "steps", "batch_norm", "precision", "ema"),
}


def robustness_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The robustness table: clean, each attack, each further radius, the worst case."""

    def row(name: str, eps: str, entry: dict[str, Any], key: str) -> dict[str, Any]:
        return {
            "name": name, "eps": eps, "accuracy": entry[key],
            "interval": entry[f"{key}_interval"], "worst": key == "robust_accuracy",
        }  # fmt: skip

    norm = found["threat_model"]["norm"]
    yield row("clean", "", found, "clean_accuracy")
    attacks = [{"attack": name, **entry} for name, entry in found["attacks"].items()]
    for entry in (*attacks, *found["sweep"]):
        yield row(entry["attack"], format_eps(entry["eps"], norm), entry, "accuracy")
    yield row("worst case", found["threat_model"]["eps_text"], found, "robust_accuracy")


def cost(attacks: dict[str, Any]) -> Iterator[list[str]]:
    """What each attack took, as texts; an older evaluation may not know all of it."""
    columns = ("attacked", "gradient_evaluations", "forward_evaluations", "seconds")
    for name, entry in attacks.items():
        values = (entry.get(column) for column in columns)
        yield [name, *("" if value is None else f"{value:,.0f}" for value in values)]


def settings(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """(name, value) of the settings that a reader asks for first."""
    found = []
    for group, names in _SETTINGS.items():
        for name in names:
            value = (config.get(group) or {}).get(name)
            if value not in (None, "none", 0.0):
                found.append((name if name != "name" else group, _setting(config, name, value)))
    return found


def _setting(config: dict[str, Any], name: str, value: Any) -> Any:
    """A value as people write it: a radius as a fraction, a file without its folders."""
    if name == "eps":
        return format_eps(value, config["threat"]["norm"])
    return Path(value).name if name in ("weights", "dataset") else value


def environment(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of `environment.json`: the machine, then the packages."""
    rows = [(name, str(found[name])) for name in ("python", "platform", "cpus", "seed", "commit")
            if found.get(name) is not None]  # fmt: skip
    return [*rows, *(found.get("packages") or {}).items()]


def training_seconds(run: RunData) -> float:
    """What training took in all, 0 where no history is known."""
    return float(sum(row["seconds"] for row in run.history if row.get("seconds")))
