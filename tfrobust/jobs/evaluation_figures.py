"""What the figures of an evaluation show: measured on a few images, and drawn into one folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from tfrobust.attacks import ATTACKS
from tfrobust.attacks.gradient import PGD
from tfrobust.data.as_pixels import as_pixels
from tfrobust.evaluation.curves import (
    Curve,
    accuracy_against_eps,
    accuracy_against_steps,
    sample_index,
    sweep_curve,
)
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.evaluation.report import RobustnessReport
from tfrobust.figures import draw_figures
from tfrobust.figures.accuracy_curves import AccuracyCurve, EpsCurves, StepsCurves
from tfrobust.figures.attack_path import RecordedPath, resting_step
from tfrobust.figures.gallery import ImagePairs
from tfrobust.io import write_json
from tfrobust.plugins import settings_of
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, RecordedAttack, Tensor

GROUP = "evaluation"
#: Images that the curves are measured on, and the steps that they are measured with.
EPS_SAMPLE, STEPS_SAMPLE = 256, 128
EPS_STEPS, STEPS = 20, (1, 2, 5, 10, 20, 40)
#: Triples shown, and how many of them withstand the attack, if any do.
TRIPLES, WITHSTOOD = 8, 2
#: The attacks whose paths are drawn -> how figures call them.
PATHS = {
    name: title for name in ATTACKS.built_in if (title := getattr(ATTACKS[name], "path_title", ""))
}
# Images tried for a path, fewer where so many values would be recorded.
_CANDIDATES, _RECORDED = 32, 50_000_000


def evaluation_figures(
    evaluator: Evaluator,
    attacks: Mapping[str, Attack],
    report: RobustnessReport,
    class_names: Sequence[str],
    folder: Path | str,
    *,
    seed: int = 42,
) -> list[Path]:
    """Draws what applies: curves, classes, confusion, gallery and paths.

    It runs further attacks on few images: the curves take PGD on 256 and 128 of them, the
    gallery 8, each path 32 at most. The values of the curves are in `curves.json` too. Paths are
    of optimised noise and of the pixel attack: as evaluated where they are among `attacks`, else
    with their defaults in a ball so large that only their own rule limits them.

    Args:
      evaluator: of the model and the images.
      attacks: name -> attack, in the order run.
      report: what they found.
      class_names: by label.
      folder: for the files; created if it does not exist.
      seed: of the samples and of random starts.

    Returns:
      The files; the light version of each figure.

    Raises:
      TFRobustError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    files: list[Path] = []
    if float(report.threat_model.eps) > 0:
        files += _curves(evaluator, report, folder, seed)
    if report.attacks:
        files += draw_figures(report.outcomes(class_names), folder, group=GROUP)
    if report.attacks and report.clean.correct.any():
        pairs = _pairs(evaluator, attacks, report, class_names, seed)
        files += draw_figures(pairs, folder, group=GROUP)
    if report.clean.correct.any():
        for name in PATHS:
            path = _path(evaluator, name, attacks, report, class_names, seed)
            files += draw_figures(path, folder, name, group=GROUP)
    return files


def _curves(evaluator: Evaluator, report: RobustnessReport, folder: Path, seed: int) -> list[Path]:
    ball, attack = report.threat_model, PGD(steps=EPS_STEPS)
    by_eps = accuracy_against_eps(evaluator, attack, ball, limit=EPS_SAMPLE, seed=seed)
    by_steps = accuracy_against_steps(evaluator, attack, ball, STEPS, limit=STEPS_SAMPLE, seed=seed)
    curves: dict[str, Curve] = {f"PGD, {EPS_STEPS} steps": by_eps}
    sweep = sweep_curve(report, round(1 / by_eps.chance))
    if sweep is not None:
        curves[sweep.attack] = sweep
    data = {
        "eps": {name: curve.as_dict() for name, curve in curves.items()},
        "steps": {"PGD": by_steps.as_dict()},
    }
    write_json(folder / "curves.json", data)
    known = (ball.norm, float(ball.eps), by_eps.chance)
    against_eps = EpsCurves([_drawn(*one) for one in curves.items()], *known)
    against_steps = StepsCurves([_drawn("PGD", by_steps)], *known)
    return [
        folder / "curves.json",
        *draw_figures(against_eps, folder, group=GROUP),
        *draw_figures(against_steps, folder, group=GROUP),
    ]


def _drawn(name: str, curve: Curve) -> AccuracyCurve:
    return AccuracyCurve(name, curve.values, curve.correct, curve.total)


def _pairs(
    evaluator: Evaluator,
    attacks: Mapping[str, Attack],
    report: RobustnessReport,
    class_names: Sequence[str],
    seed: int,
) -> ImagePairs:
    """Of the last attack that went by gradients, or the last of all."""
    by_gradient = [result.name for result in report.attacks if result.gradient_evaluations]
    name = by_gradient[-1] if by_gradient else report.attacks[-1].name
    index = pick_triples(report, seed)
    x = evaluator.data.pixels(index)
    x_adv = evaluator.craft(attacks[name], report.threat_model, index)
    p_clean, p_adv = (tf.nn.softmax(evaluator.logits(images)).numpy() for images in (x, x_adv))
    title = f"{name} in {report.threat_model}"
    return ImagePairs(x, x_adv, evaluator.data.labels[index], p_clean, p_adv, class_names, title)


def pick_triples(report: RobustnessReport, seed: int) -> np.ndarray:
    """Up to 8 images, int64, that are right without an attack: first broken, then robust.

    Two of them are images that withstood all attacks, if any did; which ones
    is drawn by `seed`.
    """
    generator = np.random.default_rng(seed)
    broken, robust = (
        generator.permutation(np.flatnonzero(mask))
        for mask in (report.clean.correct & ~report.robust, report.robust)
    )
    few = max(min(WITHSTOOD, len(robust)), TRIPLES - len(broken))
    return np.concatenate([broken[: TRIPLES - min(few, len(robust))], robust[:few]])


def _path(
    evaluator: Evaluator,
    name: str,
    attacks: Mapping[str, Attack],
    report: RobustnessReport,
    class_names: Sequence[str],
    seed: int,
) -> RecordedPath:
    # What bears one of these names records its path.
    attack, ball = cast("RecordedAttack | None", attacks.get(name)), report.threat_model
    if attack is None:
        attack, ball = own_rule(name, evaluator.data.image_shape)
    points = (attack.steps + 1) * (getattr(attack, "retries", 0) + 1)
    values = points * int(np.prod(evaluator.data.image_shape))
    right = np.flatnonzero(report.clean.correct)
    few = sample_index(len(right), min(_CANDIDATES, max(1, _RECORDED // values)), seed)
    index = right[few]
    steps, probs = record_path(evaluator, attack, ball, index, seed)
    i = _longest(steps, probs, evaluator.data.labels[index], attack.steps)
    return RecordedPath(
        steps[:, i],
        evaluator.data.pixels(index)[i],
        int(evaluator.data.labels[index[i]]),
        probs[:, i],
        class_names,
        title=f"{PATHS[name]}, step by step",
    )


def own_rule(name: str, image_shape: Sequence[int]) -> tuple[RecordedAttack, ThreatModel]:
    """One of `PATHS` with its defaults, and a ball in which only its own rule limits it.

    Optimised noise is limited only by its penalty, the pixel attack by its count of pixels,
    here without retries: one choice of pixels makes one path.

    Args:
      name: a name of `PATHS`.
      image_shape: (H, W, C).
    """
    attack = cast(RecordedAttack, ATTACKS[name]())
    ball = ThreatModel(norm=attack.own_norm)
    ball = dataclasses.replace(ball, eps=ball.largest_radius(image_shape))
    once = {"retries": 0} if "retries" in settings_of(attack) else {}
    return dataclasses.replace(attack, **once), ball


def record_path(
    evaluator: Evaluator,
    attack: RecordedAttack,
    threat_model: ThreatModel,
    index: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The path of an attack on some images, and the model's probabilities along it.

    Args:
      evaluator: of the model and the images.
      attack: one with a method `path`.
      threat_model: the ball.
      index: int [B], the images.
      seed: of random starts.

    Returns:
      The images, float32 [S + 1, B, H, W, 3], and probabilities, float32 [S + 1, B, K].
    """

    @tf.function(autograph=False)
    def course(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        pair = tf.constant([seed, 0], tf.int32)
        steps = attack.path(evaluator.logits, as_pixels(x), y, threat_model, pair).x_adv
        soft = tf.map_fn(lambda images: tf.nn.softmax(evaluator.logits(images)), steps)
        return steps, soft

    steps, probabilities = course(*evaluator.batch(index))
    return steps.numpy(), probabilities.numpy()


def _longest(steps: np.ndarray, probabilities: np.ndarray, y: np.ndarray, one_try: int) -> int:
    """The image whose path to misclassification is the longest within one try.

    If none is misclassified, the one that comes closest to it.
    """
    broken = probabilities[-1].argmax(axis=1) != y
    length = np.array([resting_step(steps[:, i]) for i in range(len(y))])
    if (broken & (length <= one_try)).any():
        return int(np.argmax(np.where(broken & (length <= one_try), length, -1)))
    return int(np.argmin(probabilities[-1, np.arange(len(y)), y]))
