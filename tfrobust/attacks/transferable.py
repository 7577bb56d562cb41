"""Attacks made to transfer: one iterative attack with several ways to stabilise its gradient.

They are crafted on one substitute, or on several (`tr.models.ensemble`), and are meant to fool
a model that is never queried. Each option makes the gradient depend less on the substitute's
peculiarities; the options combine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from tfrobust.attacks.ascent import Model, input_gradient, named_loss
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

__all__ = ["Transferable", "di", "mi", "ni", "si", "ti", "vmi"]

# Noise around a point may leave the pixel range: it is only evaluated.
_ANYWHERE = (-1e3, 1e3)
_FOLDS = {"diversity": 1, "noise": 2}


@dataclass(frozen=True, kw_only=True)
class Transferable(Attack):
    """BIM with a stabilised gradient: MI-, NI-, DI-, TI-, SI- and VMI-FGSM and combinations.

    Every example makes every step, even once the substitute is fooled. With momentum 0 and all
    options off it is BIM.

    Attributes:
      steps: number of moves.
      step_size: length of a move, in the units of eps; None is eps / steps.
      loss: the loss to maximise, a name of `LOSSES`.
      momentum: share of the accumulated gradient that a move keeps; 0 is none. Each new gradient
        is added with a mean absolute value of 1. MI: Dong et al. (2018),
        https://arxiv.org/abs/1710.06081.
      nesterov: take the gradient where the momentum alone leads. NI: Lin et al. (2020),
        https://arxiv.org/abs/1908.06281.
      diversity: probability, for each image and gradient, that it is shrunk and placed at random
        on black. DI: Xie et al. (2019), https://arxiv.org/abs/1803.06978.
      least_share: minimum side of a shrunk image, as a share of its side, in (0, 1].
      kernel: side of the Gaussian kernel that smooths gradients, odd; 1 is none. TI:
        Dong et al. (2019), https://arxiv.org/abs/1904.02884.
      scales: number of copies of the image, each with half the values of the last, whose
        gradients are averaged. SI: Lin et al. (2020).
      draws: number of points around the current one whose mean gradient corrects the next; 0 is
        none. VMI: Wang and He (2021), https://arxiv.org/abs/2103.15571.
      beta: radius of the ball that those points are drawn from, in radii of the threat model.

    Raises:
      UsageError: a value out of range; when called, the norm 'l0'.

    Examples:
      >>> from tfrobust.attacks.transferable import Transferable
      >>> x_adv = Transferable(steps=3, diversity=0.5).perturb(model, x[:4], y[:4], ball)
      >>> bool(np.abs(x_adv - x[:4]).max() <= ball.eps + 1e-6)
      True
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = 10
    step_size: float | None = None
    loss: str = "cross_entropy"
    momentum: float = 1.0
    nesterov: bool = False
    diversity: float = 0.0
    least_share: float = 0.9
    kernel: int = 1
    scales: int = 1
    draws: int = 0
    beta: float = 1.5

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")
        sound = {
            "steps": (self.steps >= 1, "1 or more"),
            "step_size": (self.step_size is None or self.step_size > 0, "more than 0"),
            "momentum": (self.momentum >= 0, "0 or more"),
            "diversity": (0 <= self.diversity <= 1, "a probability in [0, 1]"),
            "least_share": (0 < self.least_share <= 1, "a share in (0, 1]"),
            "kernel": (self.kernel >= 1 and self.kernel % 2 == 1, "an odd number, 1 or more"),
            "scales": (self.scales >= 1, "1 or more"),
            "draws": (self.draws >= 0, "0 or more"),
            "beta": (self.beta > 0, "more than 0"),
        }
        for name, (right, expected) in sound.items():
            if not right:
                raise UsageError(f"{name}: expected {expected}, found {getattr(self, name)!r}.")

    @property
    def gradient_evaluations(self) -> int:
        """Gradients per example."""
        return self.steps * self.scales * (1 + self.draws)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Args:
          model: the substitute: [0, 1] images float32 [B, H, W, C] -> logits [B, K].
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball; its norm is 'linf', 'l2' or 'l1'.
          seed: int32 [2], for the random draws.

        Raises:
          UsageError: the norm 'l0', or too few classes for the loss.
        """
        if threat_model.norm == "l0":
            raise UsageError("norm: expected linf, l2 or l1 for a transfer attack, found l0.")
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        size = threat_model.eps / self.steps if self.step_size is None else self.step_size

        def step(
            i: Tensor, x_adv: Tensor, gathered: Tensor, variance: Tensor
        ) -> tuple[Tensor, ...]:
            seeds = tf.random.experimental.stateless_fold_in(seed, i)
            here = x_adv + size * self.momentum * gathered if self.nesterov else x_adv
            grad = self._gradient(model, here, y, seeds)
            gathered = self._gather(gathered, self._smoothed(grad + variance))
            if self.draws:
                variance = self._around(model, x_adv, y, threat_model, seeds) - grad
            moved = x_adv + threat_model.steepest_step(gathered, size)
            return i + 1, threat_model.project(moved, x), gathered, variance

        state = (tf.constant(0), x, tf.zeros_like(x), tf.zeros_like(x))
        found = tf.while_loop(lambda i, *_: i < self.steps, step, state, parallel_iterations=1)
        return tf.stop_gradient(found[1])

    def _gather(self, gathered: Tensor, grad: Tensor) -> Tensor:
        """The momentum plus the gradient; without momentum, the gradient itself."""
        if not self.momentum:
            return grad
        mean = tf.reduce_mean(tf.abs(grad), axis=[1, 2, 3], keepdims=True)
        return self.momentum * gathered + tf.math.divide_no_nan(grad, mean)

    def _gradient(self, model: Model, x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
        """The mean gradient at x over the scales, each with its own random diversity."""
        if self.scales == 1:
            return self._at_scale(model, x, y, seed, tf.constant(0))
        return _mean(lambda k: self._at_scale(model, x, y, seed, k), self.scales, x)

    def _at_scale(self, model: Model, x: Tensor, y: Tensor, seed: Tensor, k: Tensor) -> Tensor:
        seeds = tf.random.experimental.stateless_fold_in(_fold(seed, "diversity"), k)

        def seen(images: Tensor) -> Tensor:
            if self.scales > 1:
                images = images * 0.5 ** tf.cast(k, tf.float32)
            if self.diversity:
                images = shrunk(images, seeds, self.diversity, self.least_share)
            return model(images)

        return input_gradient(seen, x, y, named_loss(self.loss))[0]

    def _around(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """The mean gradient at points around x."""
        ball = ThreatModel(threat_model.norm, self.beta * threat_model.eps, _ANYWHERE)

        def one(k: Tensor) -> Tensor:
            seeds = tf.random.experimental.stateless_fold_in(_fold(seed, "noise"), k)
            return self._gradient(model, ball.random_start(x, seeds), y, seeds)

        return _mean(one, self.draws, x)

    def _smoothed(self, grad: Tensor) -> Tensor:
        if self.kernel == 1:
            return grad
        channels = int(grad.shape[-1])
        kernel = tf.tile(gaussian_kernel(self.kernel)[:, :, None, None], [1, 1, channels, 1])
        return tf.nn.depthwise_conv2d(grad, kernel, [1, 1, 1, 1], "SAME")


def mi() -> Transferable:
    """MI-FGSM: momentum. Dong et al. (2018)."""
    return Transferable()


def ni() -> Transferable:
    """NI-FGSM: Nesterov's momentum. Lin et al. (2020)."""
    return Transferable(nesterov=True)


def di() -> Transferable:
    """M-DI2-FGSM: momentum, and randomly shrunk images. Xie et al. (2019)."""
    return Transferable(diversity=0.5)


def ti() -> Transferable:
    """TI-MI-FGSM: momentum, and smoothed gradients, 7x7. Dong et al. (2019)."""
    return Transferable(kernel=7)


def si() -> Transferable:
    """SI-NI-FGSM: Nesterov's momentum over 5 scales. Lin et al. (2020)."""
    return Transferable(nesterov=True, scales=5)


def vmi() -> Transferable:
    """VMI-FGSM: momentum, corrected by 20 gradients at points around. Wang and He (2021)."""
    return Transferable(draws=20)


def shrunk(x: Tensor, seed: Tensor, chance: float, least_share: float) -> Tensor:
    """Images, some of which are shrunk and placed at random on black, like x.

    Args:
      x: float32 [B, H, W, C].
      seed: int32 [2].
      chance: probability that an image is shrunk.
      least_share: minimum share of its side; drawn uniformly from there to 1.
    """
    count = tf.shape(x)[0]
    chances, shares, places = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    share = tf.random.stateless_uniform([count, 1], shares, least_share, 1.0)
    share = tf.where(tf.random.stateless_uniform([count, 1], chances) < chance, share, 1.0)
    # A crop box larger than the image in inverse proportion, filled with 0 outside the image.
    low = -(1 / share - 1) * tf.random.stateless_uniform([count, 2], places)
    boxes = tf.concat([low, low + 1 / share], axis=1)
    side = tf.shape(x)[1:3]
    return tf.ensure_shape(tf.image.crop_and_resize(x, boxes, tf.range(count), side), x.shape)


def gaussian_kernel(side: int) -> Tensor:
    """A Gaussian kernel with sum 1, cut off at 3 deviations, float32 [side, side]."""
    places = tf.linspace(-3.0, 3.0, side)
    weights = tf.exp(-tf.square(places) / 2)
    kernel = weights[:, None] * weights[None]
    return kernel / tf.reduce_sum(kernel)


def _mean(one: Callable[[Tensor], Tensor], count: int, like: Tensor) -> Tensor:
    """The mean of one(k) over k in 0..count - 1, in a loop: the graph holds `one` once."""
    _, total = tf.while_loop(
        lambda k, _: k < count, lambda k, total: (k + 1, total + one(k)),
        (tf.constant(0), tf.zeros_like(like)), parallel_iterations=1,
    )  # fmt: skip
    return total / count


def _fold(seed: Tensor, what: str) -> Tensor:
    """A separate seed for each random draw."""
    return tf.random.experimental.stateless_fold_in(seed, _FOLDS[what])
