"""How robustness changes by a conversion: a file beside the model that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrobust.attacks.results import rate
from tfrobust.evaluation.evaluate import cascade
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.evaluation.report import RobustnessReport
from tfrobust.typing import Attack

ORIGINAL, CONVERTED = "original", "converted"
#: What images crafted on the original are called among the attacks.
CRAFTED = "pgd crafted on the original"


def conversion(
    report: RobustnessReport,
    original: Evaluator,
    attacks: Mapping[str, Attack],
    hits: np.ndarray,
    *,
    original_name: str,
) -> dict[str, Any]:
    """Clean and robust accuracy of both, under the same attacks and on the same crafted images.

    Each is attacked by itself with what the report's attacks are, with the same seeds; besides
    both are shown images crafted on the original, which is the transfer that whoever has that
    model can make, and for the original a white-box attack.

    Args:
      report: of the converted model.
      original: evaluates the original on the same images, with the same seed and batches.
      attacks: name -> attack, the report's.
      hits: bool [2, N], what the original and the converted model are right on of the images
        crafted on the original.
      original_name: what reports call it.

    Returns:
      {'original', 'images', 'agreement', 'clean_accuracy', 'attacks', 'robust_accuracy'}, the
      last three with an entry for each of the two; an attack's is what it and those before it
      leave, that of the crafted images what they alone leave.
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


def as_text(found: Mapping[str, Any], name: str) -> str:
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
