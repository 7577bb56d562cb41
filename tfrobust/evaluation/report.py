"""What an evaluation found: accuracies, flags and costs, as a table, JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.attacks.results import AttackResult, Outcome, accuracy_entry, rate
from tfrobust.chance import wilson
from tfrobust.checks.flags import Flag
from tfrobust.evaluation.calibration import Calibration
from tfrobust.figures.accuracies import Accuracy, AttackedAccuracies, RobustnessBars
from tfrobust.figures.outcomes import Outcomes
from tfrobust.io import csv_text, write_json
from tfrobust.progress import clock
from tfrobust.threat_model import ThreatModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfrobust.attacks.transfer import TransferScores


@dataclass(frozen=True)
class RobustnessReport:
    """The measured robustness of one model.

    Attributes:
      model: where the model came from.
      threat_model: the ball.
      labels: int [N].
      clean: without attack.
      attacks: at the threat model's eps, in the order run, each on the images that the ones
        before it did not break.
      sweep: the same attacks at further radii.
      transfer: accuracies on images crafted on a reference model, or None.
      flags: why the evaluation is unreliable, each with its meaning; empty where it is not.
      seconds: of the whole evaluation.
      extra: further entries of the JSON.
      calibration: of the clean images; None where it was not measured.
      classes: K; the top 5 of 5 classes or fewer are not shown. 0 where it is not known.

    Examples:
      >>> report = tr.evaluate(model, (x, y), ball, attacks="fgsm", class_names=list("0123456789"))
      >>> report.robust.shape == y.shape
      True
      >>> _ = report.save(folder / "report")
      >>> (folder / "report" / "evaluation.json").is_file()
      True
    """

    model: str
    threat_model: ThreatModel
    labels: np.ndarray
    clean: Outcome
    attacks: tuple[AttackResult, ...]
    sweep: tuple[AttackResult, ...] = ()
    transfer: TransferScores | None = None
    flags: tuple[Flag, ...] = ()
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    classes: int = 0
    calibration: Calibration | None = None

    def __str__(self) -> str:
        return self.as_text()

    def __repr__(self) -> str:
        # For notebooks: a summary instead of the arrays of every image.
        flags = [flag["name"] for flag in self.flags]
        return (
            f"<RobustnessReport of {self.model}: {len(self.labels):,} images, {self.threat_model}: "
            f"clean {self.clean_accuracy:.3f}, robust {self.robust_accuracy:.3f}, flags {flags}>"
        )

    @property
    def robust(self) -> np.ndarray:
        """bool [N], whether the model is correct on the clean image and under every attack."""
        every = [self.clean.correct, *(attack.outcome.correct for attack in self.attacks)]
        return np.asarray(np.logical_and.reduce(every))

    @property
    def clean_accuracy(self) -> float:
        """The share of images that are classified correctly without attack."""
        return float(self.clean.correct.mean())

    @property
    def robust_accuracy(self) -> float:
        """The share of images that are classified correctly without and under every attack."""
        return float(self.robust.mean())

    def save(self, folder: Path | str) -> Path:
        """Writes `evaluation.json` into a folder, which is created if it does not exist.

        Returns:
          The file.

        Raises:
          TFRobustError: it cannot be written.
        """
        path = Path(folder) / "evaluation.json"
        write_json(path, self.as_dict())
        return path

    def plot(self) -> Figure:
        """Accuracy without attack and under each, with 95 % intervals: a matplotlib Figure."""
        found = [("clean", self.clean.correct)]
        found += [(attack.name, attack.outcome.correct) for attack in self.attacks]
        found.append(("worst case", self.robust))
        bars = {name: Accuracy(int(correct.sum()), len(correct)) for name, correct in found}
        title = f"{self.model}: {len(self.labels):,} images, {self.threat_model}"
        return RobustnessBars().draw(AttackedAccuracies(bars, title))

    def outcomes(self, class_names: Sequence[str]) -> Outcomes:
        """The model's predictions, clean and under all attacks, as figures take them.

        Args:
          class_names: by label.
        """
        # The outcome of the last attack is the worst case over all attacks.
        last = self.attacks[-1].outcome if self.attacks else self.clean
        return Outcomes(
            self.labels, self.clean.predictions, last.predictions, self.robust, class_names
        )

    @property
    def broken_by(self) -> list[str | None]:
        """For each image the first attack that broke it; None if misclassified or robust."""
        names: list[str | None] = [None] * len(self.labels)
        unbroken = self.clean.correct
        for attack in self.attacks:
            for i in np.flatnonzero(unbroken & ~attack.outcome.correct):
                names[i] = attack.name
            unbroken = unbroken & attack.outcome.correct
        return names

    def _examples(self) -> dict[str, list[Any]]:
        """The outcome of each image, as columns."""
        last = self.attacks[-1].outcome if self.attacks else self.clean
        return {
            "label": self.labels.tolist(),
            "clean_prediction": self.clean.predictions.tolist(),
            "attacked_prediction": last.predictions.tolist(),
            "clean_correct": self.clean.correct.tolist(),
            "robust": self.robust.tolist(),
            "broken_by": self.broken_by,
        }

    def as_dict(self) -> dict[str, Any]:
        """`evaluation.json`."""
        return {
            "model": self.model,
            "num_examples": len(self.labels),
            **accuracy_entry(self.clean.correct, "clean_accuracy"),
            "clean_top5_accuracy": rate(self.clean.in_top5),
            **accuracy_entry(self.robust, "robust_accuracy"),
            "attacks": {attack.name: attack.as_dict() for attack in self.attacks},
            "sweep": [{"attack": a.name, **a.as_dict()} for a in self.sweep],
            "transfer": self.transfer,
            "threat_model": {
                "norm": self.threat_model.norm,
                "eps": self.threat_model.eps,
                "eps_text": self.threat_model.eps_text,
                "bounds": list(self.threat_model.bounds),
            },
            "flags": list(self.flags),
            "unreliable": bool(self.flags),
            "seconds": round(self.seconds, 3),
            **({"calibration": self.calibration.as_dict()} if self.calibration else {}),
            **self.extra,
            "examples": self._examples(),
        }

    def as_text(self) -> str:
        """The printed table."""
        rows: list[tuple[str, str, np.ndarray, np.ndarray | None]] = [
            ("clean", "", self.clean.correct, self.clean.in_top5)
        ]
        for attack in (*self.attacks, *self.sweep):
            eps = attack.threat_model.eps_text
            rows.append((attack.name, eps, attack.outcome.correct, attack.outcome.in_top5))
        rows.append(("worst case", self.threat_model.eps_text, self.robust, None))
        if 0 < self.classes <= 5:
            rows = [(*row[:3], None) for row in rows]
        top5 = f"{'top-5':>9}" if rows[0][3] is not None else ""
        lines = [f"{'':12}{'eps':>10}{'top-1':>9}  {'95 % interval':>15}{top5}"]
        lines += [_line(*row) for row in rows]
        if self.attacks:
            cascade = "cascade: each attack sees only images that survived those before it"
            lines.append(f"({cascade}; {_cost(self.attacks)})")
        if self.calibration:
            lines.append(f"clean: {self.calibration}")
        if self.transfer:
            lines.append(_transfer_line(self.transfer))
        lines += [f"UNRELIABLE, {flag['name']}: {flag['meaning']}" for flag in self.flags]
        return "\n".join(lines)

    def as_csv(self, names: tuple[str, ...], label_names: tuple[str, ...]) -> str:
        """One line per image: prediction and confidence, clean and under each attack."""
        columns = [("clean", self.clean), *((a.name, a.outcome) for a in self.attacks)]
        header = ["image", "label", "label_name", "robust"]
        for name, _ in columns:
            header += [f"{name}_prediction", f"{name}_prediction_name", f"{name}_confidence"]
        robust, rows = self.robust, []
        for i, label in enumerate(self.labels):
            row: list[str | int] = [
                names[i] if names else i,
                label,
                label_names[label],
                int(robust[i]),
            ]
            for _, outcome in columns:
                top = outcome.predictions[i]
                row += [top, label_names[top], f"{outcome.confidences[i]:.4f}"]
            rows.append(row)
        return csv_text(header, rows)


def _line(name: str, eps: str, correct: np.ndarray, top5: np.ndarray | None) -> str:
    low, high = wilson(int(correct.sum()), len(correct))
    interval = f"{low:.3f} to {high:.3f}"
    in_top5 = f"{top5.mean():9.3f}" if top5 is not None else ""
    return f"{name:12}{eps:>10}{correct.mean():9.3f}  {interval:>15}{in_top5}"


def _cost(attacks: tuple[AttackResult, ...]) -> str:
    gradients = sum(attack.gradient_evaluations for attack in attacks)
    forwards = sum(attack.forward_evaluations for attack in attacks) - gradients
    seconds = sum(attack.seconds for attack in attacks)
    return f"{gradients:,} gradients and {forwards:,} forward passes in {clock(seconds)}"


def _transfer_line(transfer: TransferScores) -> str:
    scores = ", ".join(f"{name} {value:.3f}" for name, value in transfer["accuracy"].items())
    return (
        f"{transfer['attack']} at {transfer['eps_text']}, crafted on "
        f"{transfer['reference']}: {scores}"
    )
