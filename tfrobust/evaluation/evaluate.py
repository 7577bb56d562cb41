"""One call from a model and images to a report that can be trusted."""

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
    """Clean accuracy, robust accuracy as the worst case over the attacks, and checks of it.

    The attacks run in the given order (cheap ones should come first), each only on the images
    that the ones before it did not break; the accuracy of an attack is therefore that under it
    and all attacks before it.

    Args:
      model: any classifier: a Keras model (tf_keras or Keras 3) that ends in logits, softmax,
        sigmoids or one output, what `load_any` returns, a path, the address of a served model
        (``http://HOST/v1/models/NAME``), or any callable that takes images float32
        [B, H, W, C].
      data: the images to evaluate on, as `as_images` takes them: (x, y), a `tf.data.Dataset`,
        a built-in data set's name, a path, or an `ImageSet`. Data that does not fit into memory
        is kept in a temporary file.
      threat_model: the ball, such as `Linf(8 / 255)`.
      attacks: names as the command line takes them ('pgd:steps=50', 'autoattack'), or
        name -> attack.
      name: of the model, in the report.
      sweep: further radii to run the same attacks at. An image that was broken in a smaller
        ball is not attacked in a larger one, and an image that withstood the attacks in a larger
        ball is not attacked in a smaller one.
      batch_size: images in a batch.
      seed: of random starts.
      checkpoint: saves the outcomes so far, to resume an evaluation that was killed.
      view: the range of pixels that the model takes; None finds out, or assumes [0, 1].
      class_names: the classes' names, by label.
      on: a Ray cluster to distribute the work over: 'ray' (RAY_ADDRESS, or else this machine's
        cores), 'ray://HOST:PORT', or a `tfrobust.cluster.Ray`; None is this process. The report
        is the same for every image.

    Raises:
      UsageError: unknown attacks, data of another kind, or a cluster without Ray installed.
      TFRobustError: labels out of the model's range, or outputs that are no logits.

    Examples:
      >>> report = tr.evaluate(model, (x, y), tr.Linf(0.1), attacks="fgsm,pgd:steps=10")
      >>> report.robust_accuracy <= report.clean_accuracy
      True
    """
    start = time.perf_counter()
    classifier, images = open_pair(model, data, view=view, class_names=class_names)
    chosen = _attacks(attacks, classifier.classes, threat_model.norm)
    refuse_without_gradient(classifier, chosen)
    with opened_workers(on) as workers:
        evaluator = Evaluator(
            classifier,
            images,
            batch_size=batch_size,
            seed=seed,
            checkpoint=checkpoint,
            workers=workers,
        )
        report = measure(evaluator, threat_model, chosen, name=name, sweep=tuple(sweep))
    extra = {**report.extra, **({"notes": list(classifier.notes)} if classifier.notes else {})}
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
    """As `evaluate`, of an evaluator that exists already."""
    start = time.perf_counter()
    results = cascade(evaluator, attacks, threat_model)
    further = _swept(evaluator, attacks, threat_model, results, sweep)
    try:
        flags = run_checks(evaluator, attacks, results)
    except TFRobustError:
        # An endpoint may fail, or reach its limit, here too: keep what the attacks found.
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
    """Each attack in turn, on the images that the ones before it did not break.

    Args:
      evaluator: of the model and images.
      attacks: name -> attack, in order.
      threat_model: the ball.
      base: the worst case before these attacks; the clean outcome if None.
      robust: bool [N], images that are known to be robust and are not attacked.
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
    """The attacks at further radii, each on the images whose outcome is still open.

    A ball contains every smaller one: an image that is broken in a smaller ball is broken in a
    larger one, by the same adversarial image, and an image that withstands the attacks in a
    larger ball withstands them in a smaller one. Larger radii are measured in rising order,
    smaller ones in falling order; the results are in the given order.
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
