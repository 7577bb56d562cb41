"""The settings of a training method, without the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfrobust.config import BATCH_NORM, CRAFTING
from tfrobust.errors import UsageError

# TensorFlow is imported only where needed: a command checks its settings before reading data.
if TYPE_CHECKING:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.threat_model import ThreatModel


@dataclass(frozen=True)
class Recipe:
    """The settings of a method's step: the part of the config that it reads.

    Attributes:
      threat_model: the ball of the training examples.
      attack: how examples are crafted.
      clean_weight: weight of the loss on clean images ('nsl').
      adv_weight: weight of the loss on adversarial images ('nsl': multiplier).
      split_batch: each image of a batch contributes to one of the two losses, in proportion to
        their weights, instead of to both ('nsl').
      shared_gradient: a single step without random start takes its gradient from the clean
        training pass ('nsl').
      batch_norm: which batches update BatchNorm's statistics: 'clean', 'adversarial', 'both', or
        'none' (BatchNorm layers are frozen). If only one kind has a weight, that kind updates
        them, as they would otherwise keep their initial values.
      seed: of the random starts.
      beta: weight of the robustness term ('trades', 'mart').
      blend: weight of the adversarial image, in (0, 1] ('blend').
      adv_probability: share of the batches that are adversarial ('mixture').
      fgsm_eps: radius of the FGSM batches, in the units of eps ('mixture').
      noise_std: standard deviation of the noise, in pixel values of [0, 1] ('noise').
      crafting: 'pgd', or 'nfgsm' for a single step from wide noise, as 'fast' always does.
      noise_reach: radius of the noise before that step, in radii of the ball.
      clean_steps: which steps use only clean images: 'never', 'first' for those while eps is 0,
        or 'always'.
      awp: size of adversarial weight perturbation, relative to the weights; 0 is off.
      awp_warmup: number of steps before it starts.
      label_smoothing: share of the label's probability spread evenly over all classes.
      ema: decay of the weight averages; 0 is off.
      method: the method itself, with its own settings.

    Raises:
      UsageError: an unknown `batch_norm` or `crafting`, or both weights 0.
    """

    threat_model: ThreatModel
    attack: PGD
    clean_weight: float = 1.0
    adv_weight: float = 1.0
    batch_norm: str = "adversarial"
    seed: int = 42
    beta: float = 6.0
    blend: float = 0.5
    adv_probability: float = 0.5
    fgsm_eps: float = 0.01
    noise_std: float = 0.25
    crafting: str = "pgd"
    noise_reach: float = 2.0
    clean_steps: str = "never"
    awp: float = 0.0
    awp_warmup: int = 0
    label_smoothing: float = 0.0
    ema: float = 0.0
    split_batch: bool = False
    shared_gradient: bool = False
    method: Any = None

    def __post_init__(self) -> None:
        if self.batch_norm not in BATCH_NORM:
            raise UsageError(
                f"batch_norm: expected one of {', '.join(BATCH_NORM)}, found {self.batch_norm!r}."
            )
        if self.crafting not in CRAFTING:
            raise UsageError(
                f"crafting: expected one of {', '.join(CRAFTING)}, found {self.crafting!r}."
            )
        if self.clean_weight + self.adv_weight <= 0:
            raise UsageError("clean_weight and adv_weight are both 0: one must be positive.")
