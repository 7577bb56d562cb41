"""Corruption accuracy as a table, for the terminal."""

from __future__ import annotations

import numpy as np

from tfrobust.data.corruptions import SEVERITIES
from tfrobust.evaluation.corrupted import CorruptionScores
from tfrobust.evaluation.published_corruptions import PublishedScores


def corruption_table(found: CorruptionScores) -> str:
    """Accuracy by corruption and severity, as text."""
    lines = [f"{'corruption':20}" + "".join(f"{s:>7}" for s in SEVERITIES) + f"{'mean':>8}"]
    for name, row in found["by_corruption"].items():
        cells = "".join(f"{value:7.3f}" for value in row)
        lines.append(f"{name:20}{cells}{np.mean(row):8.3f}")
    lines.append(f"{'mean corruption accuracy':55}{found['mean_accuracy']:8.3f}")
    for key, value in found.get("calibration", {}).items():
        lines.append(f"{'mean ' + key.replace('_', ' '):55}{value:8.3f}")
    return "\n".join(lines) + f"\n({found['note']})"


def published_table(found: PublishedScores) -> str:
    """The same of a published set, with its mean corruption errors."""
    lines = [
        corruption_table(found),
        f"{'mean error (mCE without baseline)':55}{found['mean_error']:8.3f}",
    ]
    for one in found["mce"]:
        value = "unknown" if one["value"] is None else f"{one['value']:8.3f}"
        lines.append(f"{'mCE relative to ' + one['baseline']:55}{value}")
    return "\n".join(lines)
