"""The result of randomised smoothing: a radius per image, and certified accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.figures.certificates import CertifiedAccuracy, CertifiedCurves, RadiusCurve
from tfrobust.io import csv_text, write_json, write_text

#: The prediction for an image whose certification abstained.
ABSTAINED = -1
#: Radii of the printed table, as multiples of sigma.
_SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Certificates:
    """The certificates of N images under one smoothed classifier.

    With probability of at least 1 - alpha for each image, the smoothed classifier predicts
    `predictions[i]` on every image within L2 distance `radii[i]` of image i (Cohen et al.
    2019, https://arxiv.org/abs/1902.02918).

    Attributes:
      model: the classifier's name.
      labels: int32 [N].
      predictions: int32 [N], the certified class, or `ABSTAINED`.
      radii: float64 [N], in L2 over pixels of [0, 1]; 0 if it abstained.
      sigma: standard deviation of the noise, in pixels of [0, 1].
      samples: noisy images per estimated probability.
      selection: noisy images by which each class was selected.
      alpha: the probability, for each image, that its certificate is wrong.
      classes: number of the model's classes.
      seconds: of wall-clock time.
      notes: what was detected about the model.

    Examples:
      >>> found = tr.certify(model, (x[:4], y[:4]), sigma=0.1, samples=200)
      >>> [path.name for path in found.save(folder / "certified")]
      ['certificates.json', 'certificates.csv', 'certified_accuracy.png']
    """

    model: str
    labels: np.ndarray
    predictions: np.ndarray
    radii: np.ndarray
    sigma: float
    samples: int
    selection: int
    alpha: float
    classes: int
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def correct(self) -> np.ndarray:
        """Whether each image is certified as its own class at radius 0, bool [N]."""
        return np.asarray(self.predictions == self.labels)

    @property
    def abstained(self) -> float:
        """The share of images without a certificate."""
        return float(np.mean(self.predictions == ABSTAINED))

    def certified_accuracy(self, radius: float) -> float:
        """The share of images that are certified as their own class within `radius`.

        Args:
          radius: L2, in pixels of [0, 1], 0 or more.
        """
        return float(np.mean(self.correct & (self.radii >= radius)))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Radii, ascending from 0, and the certified accuracy at each: the steps of the curve."""
        radii = np.unique(np.concatenate([[0.0], self.radii[self.correct]]))
        return radii, np.array([self.certified_accuracy(radius) for radius in radii])

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry: settings, the table and every image."""
        shown = [round(factor * self.sigma, 6) for factor in _SHOWN]
        return {
            "model": self.model,
            "certificate": "randomised smoothing, L2",
            "sigma": self.sigma,
            "samples": self.samples,
            "selection": self.selection,
            "alpha": self.alpha,
            "num_examples": len(self.labels),
            "abstained": round(self.abstained, 6),
            "certified_accuracy": {str(r): round(self.certified_accuracy(r), 6) for r in shown},
            "mean_radius": round(float(np.where(self.correct, self.radii, 0).mean()), 6),
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.model}: {len(self.labels):,} images, noise of sigma {self.sigma:g}, "
            f"{self.samples:,} samples, alpha {self.alpha:g}",
            f"{'L2 radius':>10}{'certified accuracy':>20}",
        ]
        radii = [factor * self.sigma for factor in _SHOWN]
        lines += [f"{r:10.3f}{self.certified_accuracy(r):20.3f}" for r in radii]
        return "\n".join([*lines, f"abstained on {self.abstained:.1%} of the images"])

    def save(self, folder: Path | str) -> list[Path]:
        """Writes certificates.json, certificates.csv and certified_accuracy.png.

        Raises:
          TFRobustError: the disk is full or the folder cannot be written.
        """
        folder = Path(folder)
        write_json(folder / "certificates.json", self.as_dict())
        write_text(folder / "certificates.csv", self._table())
        figure = CertifiedAccuracy()
        picture = figure.save(self.figure_data(), folder / "certified_accuracy.png")
        return [folder / "certificates.json", folder / "certificates.csv", picture]

    def figure_data(self) -> CertifiedCurves:
        """Certified accuracy against the radius, in the form of its figure."""
        name = f"{self.model}, sigma {self.sigma:g}"
        radii, accuracy = self.curve()
        curve = RadiusCurve(name, radii, accuracy, len(self.labels))
        return CertifiedCurves([curve], 1 / self.classes)

    def _table(self) -> str:
        rows = []
        columns = (self.labels.tolist(), self.predictions.tolist(), self.radii.tolist())
        for index, (label, prediction, radius) in enumerate(zip(*columns, strict=True)):
            shown = "abstain" if prediction == ABSTAINED else prediction
            rows.append([index, label, shown, f"{radius:.6f}"])
        return csv_text(["index", "label", "prediction", "radius"], rows)
