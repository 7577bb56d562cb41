"""A summary of a run in reading order, shared by the page and the model card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrobust.config import TrainingConfig
from tfrobust.plugins import Choice
from tfrobust.report.runs import RunData
from tfrobust.settings import format_eps

# The settings that the page shows; the rest is in config.yaml.
_SETTINGS = {
    "backbone": ("name", "weights", "alpha", "resize"),
    "threat": ("norm", "eps"),
    "training": ("method", "optimizer", "batch_size", "steps", "batch_norm", "precision", "ema"),
}


def robustness_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The robustness table: clean, each attack, each further radius, the worst case.

    `top5` is None if it was not measured.
    """

    def row(name: str, eps: str, entry: dict[str, Any], key: str, top5: str) -> dict[str, Any]:
        return {
            "name": name, "eps": eps, "accuracy": entry[key], "top5": entry.get(top5),
            "interval": entry[f"{key}_interval"], "worst": key == "robust_accuracy",
        }  # fmt: skip

    norm = found["threat_model"]["norm"]
    yield row("clean", "", found, "clean_accuracy", "clean_top5_accuracy")
    attacks = [{"attack": name, **entry} for name, entry in found["attacks"].items()]
    for entry in (*attacks, *found["sweep"]):
        eps = format_eps(entry["eps"], norm)
        yield row(entry["attack"], eps, entry, "accuracy", "top5_accuracy")
    yield row("worst case", found["threat_model"]["eps_text"], found, "robust_accuracy", "")


def method_of(config: dict[str, Any]) -> Choice:
    """The training method with its own settings, for any run, old or new."""
    training = TrainingConfig.folded(config["training"])
    return Choice.from_plain(training["method"], "method")


def weighs_clean(config: dict[str, Any]) -> bool:
    """Whether the loss has a clean part at the end of training; True for methods without a weight.

    Without it 'nsl' is plain adversarial training under another name.
    """
    weight = method_of(config).settings.get("clean_weight")
    if weight is None:
        return True
    stages = config["training"].get("stages")
    last = stages[-1].get("clean_weight") if stages else None
    return bool(weight if last is None else last)


def attack_settings(attacks: dict[str, Any]) -> list[tuple[str, str]]:
    """(attack, its parameters in words); an older evaluation may lack them."""
    return [(name, _parameters(entry.get("parameters") or {})) for name, entry in attacks.items()]


def _parameters(values: dict[str, Any]) -> str:
    """Disabled parameters are omitted, and so is the target of an untargeted attack."""
    aimless = values.get("targeted") is False
    unused = ("target", "reach_target") if aimless else ()
    words = [
        _parameter(name.replace("_", " "), value) for name, value in values.items()
        if name not in unused and (value is None or value)
    ]  # fmt: skip
    return ", ".join(words) or "none recorded"


def _parameter(name: str, value: Any) -> str:
    if value is True:
        return name
    text = "by default" if value is None else str(value).replace("_", " ")
    return f"{name} {f'{value:g}' if isinstance(value, float) else text}"


def cost(attacks: dict[str, Any]) -> Iterator[list[str]]:
    """The cost of each attack, as text; an older evaluation may lack some of it."""
    columns = ("attacked", "gradient_evaluations", "forward_evaluations", "seconds")
    for name, entry in attacks.items():
        values = (entry.get(column) for column in columns)
        yield [name, *("" if value is None else f"{value:,.0f}" for value in values)]


def transfer(found: dict[str, Any]) -> dict[str, Any] | None:
    """`head`, a description of the transfer, and `rows` of (model, accuracy); None if nothing."""
    entry = found.get("transfer")
    if not entry:
        return None
    head = f"{entry['attack']} at {entry['eps_text']}, crafted on {entry['reference']}"
    return {"head": head, "rows": list(entry["accuracy"].items())}


def conversion(found: dict[str, Any]) -> dict[str, Any] | None:
    """`original`, `agreement` and `rows` of (what, original, converted); None if not converted."""
    entry = found.get("conversion")
    if not entry:
        return None
    rows = {"clean": entry["clean_accuracy"], **entry["attacks"],
            "worst case": entry["robust_accuracy"]}  # fmt: skip
    both = [(what, one["original"], one["converted"]) for what, one in rows.items()]
    return {"original": entry["original"], "agreement": entry["agreement"], "rows": both}


def settings(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """(name, value) of the settings that the page shows."""
    found = []
    for group, names in _SETTINGS.items():
        for name in names:
            value = (config.get(group) or {}).get(name)
            if value not in (None, "none", 0.0):
                found.append((name if name != "name" else group, _setting(config, name, value)))
    return found


def _setting(config: dict[str, Any], name: str, value: Any) -> Any:
    """A value in the user's notation: a radius as a fraction, a file without its folders."""
    if name == "eps":
        return format_eps(value, config["threat"]["norm"])
    if name == "method":
        return str(method_of(config))
    return file_name(value) if name == "weights" else value


def file_name(place: str) -> str:
    """A name, or the last part of a path: folders are private."""
    return Path(place).name


def environment(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of `environment.json`: the machine, then the packages."""
    rows = [(name, str(found[name])) for name in ("python", "platform", "cpus", "seed", "commit")
            if found.get(name) is not None]  # fmt: skip
    return [*rows, *(found.get("packages") or {}).items()]


def training_seconds(run: RunData) -> float:
    """Total training time, 0 without a history."""
    return float(sum(row["seconds"] for row in run.history if row.get("seconds")))
