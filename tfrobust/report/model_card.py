"""The model card of a run: what the model is, how robust it is, and what it is not for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tfrobust.progress import clock
from tfrobust.report.runs import RunData
from tfrobust.report.summary import (
    attack_settings,
    conversion,
    environment,
    file_name,
    method_of,
    robustness_rows,
    settings,
    training_seconds,
    transfer,
    weighs_clean,
)
from tfrobust.report.summary_data import data_rows
from tfrobust.settings import format_eps

# Packages whose version affects the scores; the rest is in environment.json.
_PACKAGES = ("tensorflow", "tf_keras", "numpy")


def model_card(run: RunData) -> str:
    """Markdown, after Mitchell et al. (2019), https://arxiv.org/abs/1810.03993.

    Args:
      run: the same data as for the report and the leaderboard entry; an empty `config` means a
        model whose training is unknown.
    """
    found = run.evaluation
    low, high = found["robust_accuracy_interval"]
    parts = [
        f"# {found['model']}",
        f"{_origin(run.config)}\n{_classes(found.get('classes') or ())}".strip(),
        f"## Measured on {found['num_examples']:,} images",
        "\n".join(_table(found)),
        f"The worst case's 95 % interval is {low:.3f} to {high:.3f}. Stronger attacks may lower "
        "these\nscores, none can raise them. Top-5 under attack is an upper bound: the attacks "
        "target the\nfirst class.",
        "\n".join(f"- {name}: {text}" for name, text in attack_settings(found["attacks"])),
        "\n\n".join(_further(found)),
        "\n".join(f"- **Unreliable**: {f['name']}: {f['meaning']}" for f in found["flags"]),
        _rows("Data", data_rows(run)),
        _training(run),
        "## Limits",
        "The scores apply to perturbations inside this ball, on images like these. They\n"
        "say nothing about other norms, larger radii, rotations, weather or patches.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(config: dict[str, Any]) -> str:
    if not config:
        return "A model file; its training is unknown."
    backbone, threat = config["backbone"], config["threat"]
    alone = "" if weighs_clean(config) else " (adversarial loss only: the clean weight is 0)"
    return (
        f"{backbone['name']} (weights: {file_name(backbone['weights'])}), trained with "
        f"`{method_of(config).name}`{alone} on `{file_name(config['data']['dataset'])}`; its "
        f"settings name {threat['norm']} perturbations of "
        f"{format_eps(threat['eps'], threat['norm'])}."
    )


def _classes(names: Any) -> str:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"{len(names)} classes: {shown}." if names else ""


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield f"| attack | eps ({found['threat_model']['norm']}) | accuracy | top-5 |"
    yield "|---|---|---|---|"
    for row in robustness_rows(found):
        top5 = "" if row["top5"] is None else f"{row['top5']:.3f}"
        yield f"| {row['name']} | {row['eps']} | {row['accuracy']:.3f} | {top5} |"


def _further(found: dict[str, Any]) -> Iterator[str]:
    """Measurements other than attacks on the model itself."""
    moved, corrupted = transfer(found), found.get("corruptions")
    if moved:
        rows = ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in moved["rows"])
        yield f"Transfer, {moved['head']}: {rows}."
    if converted := conversion(found):
        rows = ", ".join(
            f"{what} {own:.3f} and {made:.3f}" for what, own, made in converted["rows"]
        )
        yield f"Compared with the original model, {converted['original']}: {rows}."
    if corrupted:
        yield (
            f"Mean accuracy over {len(corrupted['by_corruption'])} corruptions: "
            f"{corrupted['mean_accuracy']:.3f} ({corrupted['note']})."
        )


def _training(run: RunData) -> str:
    """Settings, time and packages of a model that was trained here."""
    if not run.config:
        return ""
    rows: list[tuple[str, Any]] = list(settings(run.config))
    seconds = training_seconds(run)
    if seconds:
        rows.append(("time", f"{len(run.history)} epochs in {clock(seconds)}"))
    rows += [(name, value) for name, value in environment(run.environment)
             if name in ("cpus", "seed", "commit", *_PACKAGES)]  # fmt: skip
    return _rows("Training", rows)


def _rows(head: str, rows: Sequence[tuple[str, Any]]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"## {head}", "", "| | |", "|---|---|", *lines])
