"""Recolours a few random pixels by gradient until the image is misclassified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.ascent import Climb, Model, Path, Rows, ascend, begin, named_loss, record
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class PixelAttack(Attack):
    """Recolours a random share of the pixels, all their channels, by signed gradients.

    If an image is still classified correctly after `steps`, the attack starts again with other
    random pixels, up to `retries` times. In an 'l0' ball of eps pixels, at most eps are changed;
    in any other ball the colours are projected onto it.

    Attributes:
      fraction: share of the pixels, in (0, 1]; see `pixel_count`.
      steps: gradient steps for one choice of pixels.
      step_size: change of each channel in a step, in pixel values.
      retries: further selections of pixels.
      random_start: start with random colours instead of the image's own.
      loss: the loss to maximise, a name of `LOSSES`.
      restarts: independent runs, repeated by the caller with other seeds on the examples
        that survive.

    Raises:
      UsageError: a value out of range; when called, images whose height or width is
        unknown.
    """

    whole_ball: ClassVar[bool] = False
    path_title: ClassVar[str] = "Pixel attack"
    own_norm: ClassVar[str] = "l0"

    fraction: float = 0.005
    steps: int = 20
    step_size: float = 0.1
    retries: int = 5
    random_start: bool = True
    loss: str = "margin"
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")
        if not 0 < self.fraction <= 1:
            raise UsageError(f"fraction: expected a number in (0, 1], found {self.fraction!r}.")
        if not self.step_size > 0:
            raise UsageError(f"step_size: expected more than 0, found {self.step_size!r}.")
        for name, least in (("steps", 1), ("retries", 0), ("restarts", 1)):
            if getattr(self, name) < least:
                found = getattr(self, name)
                raise UsageError(f"{name}: expected {least} or more, found {found!r}.")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Images with recoloured pixels, float32 [B, H, W, C], inside the ball and the bounds.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the choice of pixels and their first colours.
        """
        return ascend(model, *self._setup(x, y, threat_model, seed))

    def path(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Path:
        """The course of the attack, one retry after another.

        It has (`retries` + 1) * (`steps` + 1) points: for each selection of pixels the start and
        `steps` further ones; the last images are the attack's result.
        """
        return record(model, *self._setup(x, y, threat_model, seed))

    def _setup(
        self, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> tuple[Rows, Climb]:
        x = tf.convert_to_tensor(x)
        period = self.steps + 1

        def fresh(i: Tensor) -> tuple[Tensor, Tensor]:
            return self._start(x, threat_model, tf.random.experimental.stateless_fold_in(seed, i))

        def again(i: Tensor, rows: Rows) -> tuple[Tensor, ...]:
            # Drawn for the whole batch, so that dropped examples change no draw.
            return tuple(tf.gather(each, rows.index) for each in fresh(i))

        def recolour(rows: Rows, grad: Tensor) -> tuple[Tensor, Tensor]:
            moved = rows.x_adv + self.step_size * tf.sign(grad) * rows.memory
            return threat_model.project(moved, rows.x), rows.memory

        def move(i: Tensor, rows: Rows, grad: Tensor) -> tuple[Tensor, Tensor]:
            # A try's last colours are evaluated before the next try starts: that move does not
            # use its gradient.
            ended = tf.equal((i + 1) % period, 0)
            return tf.cond(ended, lambda: again(i + 1, rows), lambda: recolour(rows, grad))

        start, chosen = fresh(tf.constant(0))
        climb = Climb(
            (self.retries + 1) * period - 1,
            lambda logits, rows: named_loss(self.loss)(logits, rows.y),
            move,
        )
        return begin(x, y, start, chosen), climb

    def remark(self, image_shape: tuple[int, int, int], ball: ThreatModel) -> str:
        """How many pixels it recolours."""
        height, width = image_shape[:2]
        count = int(self.pixels((height, width), ball))
        return f"{count} of the {height * width} pixels of an image"

    def pixels(self, size: Any, threat_model: ThreatModel) -> int | Tensor:
        """The maximum number of recoloured pixels in an image of `size` (height, width)."""
        count = pixel_count(self.fraction, *size)
        if threat_model.norm != "l0":
            return count
        return tf.minimum(count, tf.cast(threat_model.eps, tf.int32))

    def _start(self, x: Tensor, threat_model: ThreatModel, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Images at the start of a try, and a mask of their selected pixels, [B, H, W, 1]."""
        count = self.pixels(x.shape[1:3], threat_model)
        seeds = tf.random.experimental.stateless_split(seed, 2)
        chosen = random_pixels(x, count, seeds[0])
        if not self.random_start:
            return x, chosen
        colours = tf.random.stateless_uniform(tf.shape(x), seeds[1], *threat_model.bounds)
        return threat_model.project(tf.where(chosen > 0, colours, x), x), chosen


def pixel_count(fraction: float, height: int | None, width: int | None) -> int:
    """The number of pixels in a share of an image: rounded, at least 1.

    0.005 is 5 pixels at 32x32 and 20 at 64x64.

    Raises:
      UsageError: the height or width is unknown.
    """
    if height is None or width is None:
        raise UsageError(
            "Expected images of known height and width, found [B, None, None, C]: fix their "
            "shape in the input signature."
        )
    return max(1, round(fraction * height * width))


def random_pixels(x: Tensor, count: int | Tensor, seed: Tensor) -> Tensor:
    """A mask of exactly `count` random pixels of each image: float32 [B, H, W, 1]."""
    shape = tf.shape(x)
    lottery = tf.random.stateless_uniform([shape[0], shape[1] * shape[2]], seed)
    # The rank, not a threshold: with tied draws a threshold would select too many.
    rank = tf.argsort(tf.argsort(lottery, axis=1), axis=1)
    return tf.reshape(tf.cast(rank < count, x.dtype), [shape[0], x.shape[1], x.shape[2], 1])
