"""One call from a model and images to a report that can be believed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfrobust.attacks.named import make_attacks
from tfrobust.attacks.results import AttackResult, Outcome
from tfrobust.attacks.runner import refuse_without_gradient
from tfrobust.checks.run import run_checks
from tfrobust.cluster import Ray
from tfrobust.cluster.pool import opened_workers
from tfrobust.config import EvaluationConfig
from tfrobust.errors import TFRobustError
from tfrobust.evaluation.checkpoint import Checkpoint
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.evaluation.report import RobustnessReport
from tfrobust.models.pairs import open_pair
from tfrobust.models.views import InputView
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Model, Source


def evaluate(
    model: Model | str | Path,
    data: Source,
    threat_model: ThreatModel,
    attacks: str | Sequence[str] | Mapping[str, Attack] = "quick",
    *,
    name: str = "model",
    sweep: Sequence[float] = (),
    batch_size: int = 128,
    seed: int = 42,
    checkpoint: Checkpoint | None = None,
    view: InputView | None = None,
    class_names: Sequence[str] | None = None,
    on: str | Ray | None = None,
) -> RobustnessReport:
    """Clean accuracy, then the worst case per example over the attacks, and doubts.

    The attacks run in the given order (cheap ones first pay off), each on the images
    that still stand; an attack's accuracy is therefore what it leaves of what the ones
    before it left.

    Args:
      model: any classifier: a Keras model (tf_keras or Keras 3) that ends in logits, softmax,
        sigmoids or one output, what `load_any` returns, a path, the address of a served model
        (``http://HOST/v1/models/NAME``), or any callable that takes images float32
        [B, H, W, C].
      data: the images to measure on, as `as_images` takes them: (x, y), a `tf.data.Dataset`,
        a built-in data set's name, a path, or an `ImageSet`. What does not fit into memory is
        kept in a file meanwhile.
      threat_model: the ball, such as `Linf(8 / 255)`.
      attacks: names as the command line takes them ('pgd:steps=50', 'autoattack'), or
        name -> attack.
      name: what the report calls the model.
      sweep: further radii to run the same attacks at; an image that fell in a smaller ball is
        not attacked in a larger one, nor one that withstood them in a larger in a smaller.
      batch_size: images in a batch.
      seed: of random starts.
      checkpoint: keeps the outcomes so far on disk, for an evaluation that is killed.
      view: what the model takes for pixels; None finds out, or else [0, 1].
      class_names: the classes' names, by label.
      on: spread the work over a Ray cluster: 'ray' (RAY_ADDRESS, or else this machine's cores),
        'ray://HOST:PORT', or a `tfrobust.cluster.Ray`; None is this process. The report is the
        same to the image.

    Raises:
      UsageError: unknown attacks, data of another kind, or a cluster without Ray installed.
      TFRobustError: labels out of the model's range, outputs that are no logits.

    Examples:
      >>> report = tr.evaluate(model, (x, y), tr.Linf(0.1), attacks="fgsm,pgd:steps=10")
      >>> report.robust_accuracy <= report.clean_accuracy
      True
    """
    start = time.perf_counter()
    judge, images = open_pair(model, data, view=view, class_names=class_names)
    chosen = _attacks(attacks, judge.classes, threat_model.norm)
    refuse_without_gradient(judge, chosen)
    with opened_workers(on) as workers:
        evaluator = Evaluator(
            judge, images, batch_size=batch_size, seed=seed, checkpoint=checkpoint, workers=workers
        )
        report = measure(evaluator, threat_model, chosen, name=name, sweep=tuple(sweep))
    extra = {**report.extra, **({"notes": list(judge.notes)} if judge.notes else {})}
    return dataclasses.replace(report, extra=extra, seconds=time.perf_counter() - start)


def _attacks(
    attacks: str | Sequence[str] | Mapping[str, Attack], classes: int, norm: str
) -> Mapping[str, Attack]:
    if isinstance(attacks, Mapping):
        return attacks
    names = attacks.split(",") if isinstance(attacks, str) else attacks
    return make_attacks(EvaluationConfig(attacks=tuple(names)), classes, norm)


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
    further = _swept(evaluator, attacks, threat_model, results, sweep)
    try:
        flags = run_checks(evaluator, attacks, results)
    except TFRobustError:
        # An address may fail, or meet its limit, here too: what the attacks found is kept.
        evaluator.save_progress()
        raise
    return RobustnessReport(
        model=name,
        threat_model=threat_model,
        labels=evaluator.data.labels,
        clean=evaluator.clean,
        attacks=tuple(results),
        sweep=tuple(further),
        flags=flags,
        classes=evaluator.classifier.classes,
        calibration=evaluator.calibration,
        seconds=time.perf_counter() - start,
    )


def cascade(
    evaluator: Evaluator,
    attacks: Mapping[str, Attack],
    threat_model: ThreatModel,
    base: Outcome | None = None,
    robust: np.ndarray | None = None,
) -> list[AttackResult]:
    """Each attack in turn on what the ones before it left standing.

    Args:
      evaluator: of the model and images.
      attacks: name -> attack, in order.
      threat_model: the ball.
      base: what stood before; the clean outcome if None.
      robust: bool [N], images that are known to stand and are not attacked.
    """
    results: list[AttackResult] = []
    base = base or evaluator.clean
    for name, attack in attacks.items():
        results.append(evaluator.run(name, attack, threat_model, base, robust))
        base = results[-1].outcome
    return results


def _swept(
    evaluator: Evaluator,
    attacks: Mapping[str, Attack],
    threat_model: ThreatModel,
    results: Sequence[AttackResult],
    radii: Sequence[float],
) -> list[AttackResult]:
    """The attacks at further radii, each image only where the radii before leave it open.

    A ball holds every smaller one: what fell in a smaller ball has fallen in a larger, with
    the same images, and what withstood the attacks in a larger ball withstands them in a
    smaller. Radii are gone through from the run's own outwards, and returned as given.
    """
    main = float(threat_model.eps)
    found: dict[float, list[AttackResult]] = {}
    base = results[-1].outcome if results else evaluator.clean
    for eps in sorted({eps for eps in radii if eps > main}):
        ball = dataclasses.replace(threat_model, eps=eps)
        found[eps] = cascade(evaluator, attacks, ball, base)
        base = found[eps][-1].outcome if found[eps] else base
    robust = results[-1].outcome.correct if results else None
    for eps in sorted({eps for eps in radii if eps <= main}, reverse=True):
        ball = dataclasses.replace(threat_model, eps=eps)
        found[eps] = cascade(evaluator, attacks, ball, robust=robust)
        robust = found[eps][-1].outcome.correct if found[eps] else robust
    return [result for eps in radii for result in found[eps]]
