"""One call from a model and images to a report that can be believed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from tfrobust.data.types import ImageSet
from tfrobust.evaluation.checks import doubts
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.evaluation.ledger import Ledger
from tfrobust.evaluation.report import AttackResult, RobustnessReport
from tfrobust.threat_model import ThreatModel

Attack = Any


def evaluate(
    model: Any,
    data: ImageSet,
    threat_model: ThreatModel,
    attacks: Mapping[str, Attack],
    *,
    name: str = "model",
    sweep: tuple[float, ...] = (),
    batch_size: int = 128,
    seed: int = 42,
    ledger: Ledger | None = None,
) -> RobustnessReport:
    """Clean accuracy, then the worst case per example over the attacks, and doubts.

    The attacks run in the given order (cheap ones first pay off), each on the images
    that still stand; an attack's accuracy is therefore what it leaves of what the ones
    before it left.

    Args:
      model: a Keras model (tf_keras or Keras 3), what `load_any` returns, or any callable:
        [0, 1] images float32 [B, H, W, 3] -> logits [B, K].
      data: the images to measure on.
      threat_model: the ball.
      attacks: name -> attack.
      name: what the report calls the model.
      sweep: further radii to run the same attacks at.
      batch_size: images in a batch.
      seed: of random starts.
      ledger: keeps the outcomes so far on disk, for an evaluation that is killed.

    Raises:
      TFRobustError: labels out of the model's range, outputs that are not logits.
    """
    start = time.perf_counter()
    evaluator = Evaluator(model, data, batch_size=batch_size, seed=seed, ledger=ledger)
    report = measure(evaluator, threat_model, attacks, name=name, sweep=sweep)
    return dataclasses.replace(report, seconds=time.perf_counter() - start)


def measure(
    evaluator: Evaluator,
    threat_model: ThreatModel,
    attacks: Mapping[str, Attack],
    *,
    name: str = "model",
    sweep: tuple[float, ...] = (),
) -> RobustnessReport:
    """As `evaluate`, with an evaluator that is there already."""
    start = time.perf_counter()
    results = cascade(evaluator, attacks, threat_model)
    further: list[AttackResult] = []
    for eps in sweep:
        further += cascade(evaluator, attacks, dataclasses.replace(threat_model, eps=eps))
    return RobustnessReport(
        model=name,
        threat_model=threat_model,
        labels=evaluator.data.labels,
        clean=evaluator.clean,
        attacks=tuple(results),
        sweep=tuple(further),
        flags=doubts(evaluator, attacks, results),
        classes=evaluator.classifier.classes,
        seconds=time.perf_counter() - start,
    )


def cascade(
    evaluator: Evaluator, attacks: Mapping[str, Attack], threat_model: ThreatModel
) -> list[AttackResult]:
    """Each attack in turn on what the ones before it left standing."""
    results: list[AttackResult] = []
    base = evaluator.clean
    for name, attack in attacks.items():
        results.append(evaluator.run(name, attack, threat_model, base))
        base = results[-1].outcome
    return results
