"""What a conversion does to robustness: a converted file beside its original model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from tfrobust.attacks.results import rate
from tfrobust.evaluation.evaluate import cascade
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.evaluation.report import RobustnessReport
from tfrobust.typing import Attack

ORIGINAL, CONVERTED = "original", "converted"
#: The name of images crafted on the original, among the attacks.
CRAFTED = "pgd crafted on the original"


class ConversionScores(TypedDict):
    """What `compare_robustness` returns; an entry of the report.

    Attributes:
      original: the name of the original.
      images: the number of images.
      agreement: the share of clean images that both give the same class.
      clean_accuracy: of 'original' and 'converted'.
      attacks: the accuracies of both under each attack and those before it, and on images
        crafted on the original alone.
      robust_accuracy: of both, as the worst case over all of these.
    """

    original: str
    images: int
    agreement: float
    clean_accuracy: dict[str, float]
    attacks: dict[str, dict[str, float]]
    robust_accuracy: dict[str, float]


def compare_robustness(
    report: RobustnessReport,
    original: Evaluator,
    attacks: Mapping[str, Attack],
    hits: np.ndarray,
    *,
    original_name: str,
) -> ConversionScores:
    """Clean and robust accuracy of both models, under the same attacks with the same seeds.

    Both are also evaluated on images crafted on the original: a white-box attack on the original,
    and for the converted model the transfer attack of an adversary who has the original.

    Args:
      report: of the converted model.
      original: evaluates the original on the same images, with the same seed and batches.
      attacks: name -> attack, the report's.
      hits: bool [2, N], which of the images crafted on the original the original and the
        converted model classify correctly.
      original_name: of the original, in reports.

    Returns:
      The scores of both.
    """
    results = cascade(original, attacks, report.threat_model)
    clean = {ORIGINAL: original.clean, CONVERTED: report.clean}
    left = {
        attack.name: {
            ORIGINAL: own.outcome.correct & clean[ORIGINAL].correct,
            CONVERTED: attack.outcome.correct & clean[CONVERTED].correct,
        }
        for attack, own in zip(report.attacks, results, strict=True)
    }
    left[CRAFTED] = {
        name: right & clean[name].correct
        for name, right in zip((ORIGINAL, CONVERTED), hits, strict=True)
    }
    worst = {
        name: np.logical_and.reduce([clean[name].correct, *(one[name] for one in left.values())])
        for name in clean
    }
    same = clean[ORIGINAL].predictions == clean[CONVERTED].predictions
    return {
        "original": original_name,
        "images": len(report.labels),
        "agreement": round(float(same.mean()), 6),
        "clean_accuracy": {name: rate(one.correct) for name, one in clean.items()},
        "attacks": {
            name: {which: rate(one) for which, one in both.items()} for name, both in left.items()
        },
        "robust_accuracy": {name: rate(one) for name, one in worst.items()},
    }


def as_text(found: ConversionScores, name: str) -> str:
    """The printed table, for a converted model of that name."""
    rows = {
        "clean": found["clean_accuracy"],
        **found["attacks"],
        "worst case": found["robust_accuracy"],
    }
    wide = max(map(len, rows)) + 2
    names = (found["original"], name)
    columns = [max(len(one), 8) + 2 for one in names]
    head = "".join(f"{one:>{width}}" for one, width in zip(names, columns, strict=True))
    lines = [f"{'':{wide}}{head}"]
    for row, both in rows.items():
        values = (both[ORIGINAL], both[CONVERTED])
        cells = "".join(f"{one:{width}.3f}" for one, width in zip(values, columns, strict=True))
        lines.append(f"{row:{wide}}{cells}")
    lines.append(
        f"(the same class on {found['agreement']:.1%} of {found['images']:,} clean images)"
    )
    return "\n".join(lines)
