"""The distance of each image's nearest adversarial image, and accuracy against eps from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.certificates import RadiusCurve
from tfrobust.figures.distances import DistanceCurves, MinimalDistancesFigure
from tfrobust.io import csv_text, write_json, write_text
from tfrobust.settings import format_eps

#: Percentiles of the printed table, over the correctly classified images.
_SHOWN = (10, 25, 50, 75, 90)


@dataclass(frozen=True)
class MinimalDistances:
    """The result of one minimal-norm attack on N images.

    Each distance is an upper bound: that of an image found, verified on the model itself.

    Attributes:
      model: the classifier's name.
      attack: the attack's name.
      norm: of the distances: linf, l2, l1, or l0 (pixels).
      labels: int32 [N].
      distances: float64 [N], in the units of the norm over pixels of [0, 1]; 0 if the clean image
        is misclassified, infinite if no adversarial image was found.
      classes: number of the model's classes.
      parameters: of the attack, name -> value.
      seconds: of wall-clock time.
      notes: what was detected about the model.

    Examples:
      >>> found = tr.minimal_distance(model, (x[:16], y[:16]), "ddn:steps=30")
      >>> radii, accuracy = found.curve()
      >>> bool(accuracy[0] == found.clean_accuracy)
      True
      >>> [path.name for path in found.save(folder)]
      ['minimal_distances.json', 'minimal_distances.csv', 'minimal_distances.png']
    """

    model: str
    attack: str
    norm: str
    labels: np.ndarray
    distances: np.ndarray
    classes: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def clean_accuracy(self) -> float:
        """The share of images that are classified correctly without attack."""
        return self.accuracy(0.0)

    @property
    def found(self) -> float:
        """The share of correctly classified images for which an adversarial image was found."""
        return float(np.mean(np.isfinite(self._attacked))) if len(self._attacked) else 0.0

    @property
    def median(self) -> float:
        """The median over correctly classified images; infinite if fewer than half were found."""
        return self.percentile(50)

    def percentile(self, share: float) -> float:
        """The distance that `share` percent of the correctly classified images do not exceed.

        Args:
          share: in [0, 100].
        """
        if not len(self._attacked):
            return 0.0
        # Between two neighbours, like a median; infinite if either is.
        ordered = np.sort(self._attacked)
        place = share / 100 * (len(ordered) - 1)
        low, high = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        return float(low if low == high else low + (place % 1) * (high - low))

    def accuracy(self, eps: float) -> float:
        """The share of images for which no adversarial image was found within `eps`.

        Args:
          eps: in the units of the norm, 0 or more.
        """
        return float(np.mean(self.distances > eps))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Radii, ascending from 0, and the accuracy at each: the steps of the curve."""
        finite = self.distances[np.isfinite(self.distances)]
        radii = np.unique(np.concatenate([[0.0], finite]))
        return radii, np.array([self.accuracy(radius) for radius in radii])

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry: settings, shares and percentiles; null for infinite values."""
        shown = {str(share): self.percentile(share) for share in _SHOWN}
        return {
            "model": self.model,
            "attack": self.attack,
            "parameters": dict(self.parameters),
            "norm": self.norm,
            "num_examples": len(self.labels),
            "clean_accuracy": round(self.clean_accuracy, 6),
            "found": round(self.found, 6),
            "median": _finite(self.median),
            "percentiles": {share: _finite(value) for share, value in shown.items()},
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.model}: {self.attack}, {self.norm}, {len(self.labels):,} images, "
            f"clean accuracy {self.clean_accuracy:.3f}; of those, {self.found:.1%} found",
            f"{'of the images':>14}{'within':>18}",
        ]
        for share in _SHOWN:
            distance = self.percentile(share)
            shown = format_eps(distance, self.norm) if np.isfinite(distance) else "none found"
            lines.append(f"{share:13}%{shown:>18}")
        return "\n".join(lines)

    def save(self, folder: Path | str) -> list[Path]:
        """Writes minimal_distances.json, minimal_distances.csv and minimal_distances.png.

        Returns:
          The paths written.

        Raises:
          TFRobustError: the disk is full or the folder cannot be written.
        """
        path = Path(folder) / "minimal_distances"
        write_json(path.with_suffix(".json"), self.as_dict())
        write_text(path.with_suffix(".csv"), self._table())
        figure = MinimalDistancesFigure()
        picture = figure.save(distance_curves([self]), path.with_suffix(".png"))
        return [path.with_suffix(".json"), path.with_suffix(".csv"), picture]

    def _table(self) -> str:
        columns = zip(self.labels.tolist(), self.distances.tolist(), strict=True)
        rows = ([i, label, f"{distance:.8g}"] for i, (label, distance) in enumerate(columns))
        return csv_text(["index", "label", "distance"], rows)

    @property
    def _attacked(self) -> np.ndarray:
        return self.distances[self.distances > 0]


def distance_curves(found: Sequence[MinimalDistances]) -> DistanceCurves:
    """Accuracy against eps of several models or attacks, in the form of their figure.

    Raises:
      UsageError: the sequence is empty, or the norms differ.
    """
    norms = {one.norm for one in found}
    if len(norms) != 1:
        named = ", ".join(sorted(norms)) or "none"
        raise UsageError(f"Expected minimal distances of one norm to draw, found {named}.")
    curves = [_curve_of(one) for one in found]
    return DistanceCurves(curves, [o.median for o in found], found[0].norm, 1 / found[0].classes)


def _curve_of(one: MinimalDistances) -> RadiusCurve:
    radii, accuracy = one.curve()
    return RadiusCurve(f"{one.model}, {one.attack}", radii, accuracy, len(one.labels))


def _finite(value: float) -> float | None:
    return round(value, 8) if np.isfinite(value) else None
