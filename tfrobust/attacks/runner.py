"""The one place that runs an attack: projects, judges on the model itself, repeats, counts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from tfrobust.attacks.active_rows import is_correct
from tfrobust.data.arrays import as_labels
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.models.classifier import Classifier, as_classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.models.outside import told_plainly
from tfrobust.runtime import tf
from tfrobust.typing import Function, Images, Labels, Model, Tensor

if TYPE_CHECKING:
    from tfrobust.threat_model import ThreatModel


class Attacked(NamedTuple):
    """The outcome of an attack on a batch.

    Attributes:
      x_adv: float32 [B, H, W, C], inside the ball and the bounds.
      success: bool [B], whether the model itself misclassifies it there.
      logits: float32 [B, K], the model's own output there.
    """

    x_adv: Tensor
    success: Tensor
    logits: Tensor


def run(
    attack: Callable[..., Tensor], seen: Function, judge: Function, x: Tensor, y: Tensor,
    ball: ThreatModel, seed: Tensor,
) -> Attacked:  # fmt: skip
    """One run of an attack; attacks never judge themselves.

    Args:
      attack: (model, x, y, ball, seed) -> x_adv.
      seen: the classifier as the attack sees it, perhaps folded.
      judge: the classifier itself.
      x: clean images, float32 [B, H, W, C] in [0, 1].
      y: labels, int [B].
      ball: the threat model.
      seed: int32 [2].
    """
    x_adv = attack(seen, x, y, ball, seed)
    x_adv = ball.project(tf.ensure_shape(x_adv, x.shape), x)
    logits = judge(x_adv)
    return Attacked(x_adv, ~is_correct(logits, y) & ball.contains(x_adv, x), logits)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The base of all attacks: called as ``attack(model, x, y, ball, seed)``.

    That call is one run inside a graph, for callers that project and judge. `perturb` does
    everything.

    Attributes:
      needs_gradient: whether it follows the model's gradient; other attacks see only outputs.
      whole_ball: whether it searches the ball for the worst image; plain noise does not, nor do
        attacks that trade the size of the perturbation against their goal.
      gains_by_steps: whether `steps` can be raised for a stronger attack of the same kind.
      takes_budget: whether the evaluation sets `steps` and `restarts`; other attacks have
        published settings.
      path_title: its name in the figure of its course; '' for no such figure.
      own_norm: norm of the ball that its own rule implies, if any.
      norms: the norms that it supports; it rejects others.
      restarts: independent runs; 1 for an attack without such a setting.
      minimal: whether it returns the nearest adversarial image that it found, even outside the
        ball; the caller projects it; see `minimal_distance`.
    """

    needs_gradient: ClassVar[bool] = True
    whole_ball: ClassVar[bool] = True
    gains_by_steps: ClassVar[bool] = False
    takes_budget: ClassVar[bool] = False
    path_title: ClassVar[str] = ""
    own_norm: ClassVar[str] = "l2"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")
    minimal: ClassVar[bool] = False
    # Not a dataclass field: attacks that can be repeated define it as one.
    restarts = 1

    def tensors(self, ball: ThreatModel) -> dict[str, np.generic]:
        """Settings that a graph can take as arguments, by name: attacks that differ only in these
        share a trace."""
        return {}

    def remark(self, image_shape: tuple[int, int, int], ball: ThreatModel) -> str:
        """What its settings amount to on images (H, W, C) in a ball; '' if that is obvious."""
        return ""

    def __call__(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor, /
    ) -> Tensor:
        """One run inside a graph, as in `tfrobust.typing.Attack`; each attack defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__.")

    def perturb(
        self, model: Model, x: Images, y: Labels, ball: ThreatModel, *, seed: int = 0,
        batch_size: int = 128,
    ) -> np.ndarray:  # fmt: skip
        """Adversarial images: traced, projected, verified, and repeated `restarts` times.

        An image that a run breaks is kept as that run left it; later runs work on the rest. An
        image that is never broken is returned as the last run left it.

        Args:
          model: any classifier that `as_classifier` takes: tf_keras or Keras 3, with logits,
            softmax or sigmoid, or a function.
          x: clean images, float [N, H, W, C] in [0, 1]; an array or tensor.
          y: labels, int [N] or [N, 1], or one-hot rows [N, K].
          ball: the threat model, such as `Linf(8 / 255)`.
          seed: the same seed gives the same images.
          batch_size: images in a batch.

        Returns:
          float32 [N, H, W, C], inside the ball and the bounds.

        Raises:
          UsageError: images and labels do not match, or the images are not in [0, 1].
          TFRobustError: the model does not accept the images.
        """
        images, labels = _checked(x, y)
        judge = as_classifier(model, images[:64])
        refuse_without_gradient(judge, {type(self).__name__: self})
        if not 0 <= labels.min() <= labels.max() < judge.classes:
            raise UsageError(
                f"Expected labels in 0..{judge.classes - 1}, the model's classes, found "
                f"{labels.min()} to {labels.max()}."
            )
        step = _step(self, judge, images.shape[1:], ball)
        made = images.copy()
        for first in range(0, len(images), batch_size):
            part = np.arange(first, min(first + batch_size, len(images)))
            for restart in range(self.restarts):
                if not len(part):
                    break
                state = tf.constant([seed + restart, int(first)], tf.int32)
                found = step(tf.constant(images[part]), tf.constant(labels[part]), state)
                made[part] = found.x_adv.numpy()
                part = part[~found.success.numpy()]
        return made


def refuse_without_gradient(classifier: Classifier, attacks: Mapping[str, object]) -> None:
    """Rejects attacks that follow the gradient if the model gives none.

    Args:
      classifier: from `as_classifier`.
      attacks: name -> attack.

    Raises:
      UsageError: there is such an attack.
    """
    blind = [name for name, one in attacks.items() if getattr(one, "needs_gradient", True)]
    if blind and not classifier.has_gradient:
        raise UsageError(
            f"{', '.join(blind)}: the model returns only outputs and gives no gradient: "
            "expected attacks that need none, such as square or hopskipjump."
        )


def _checked(x: Images, y: Labels) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(x), np.asarray(y)
    if images.ndim != 4 or images.dtype.kind != "f" or not len(images):
        raise UsageError(
            f"Expected images as float [N, H, W, C] in [0, 1], N >= 1, found {images.dtype} "
            f"{list(images.shape)}: divide uint8 images by 255."
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise UsageError(
            f"Expected images in [0, 1], found {images.min():g} to {images.max():g}: scale them, "
            "and put the model's own scaling into a Rescaling layer."
        )
    try:
        listed, _ = as_labels("y", labels, len(images))
    except TFRobustError as error:
        raise UsageError(str(error)) from error
    return images.astype(np.float32), np.array(listed, np.int32)


def _step(
    attack: Attack, model: Classifier, shape: tuple[int, ...], ball: ThreatModel
) -> Callable[..., Attacked]:
    """`run` as a graph, for batches of any size."""
    specs = [
        tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([2], tf.int32),
    ]  # fmt: skip

    @functools.partial(tf.function, input_signature=specs, autograph=False)
    def step(x: Tensor, y: Tensor, seed: Tensor) -> Attacked:
        return run(attack, attackable(model), inference(model), x, y, ball, seed)

    made: Callable[..., Attacked] = told_plainly(model, step)
    return made
