"""What a training method needs to know beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfrobust.config import BATCH_NORM, CRAFTING
from tfrobust.errors import UsageError

# What needs TensorFlow is imported when it is used: a command checks before it reads anything.
if TYPE_CHECKING:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.threat_model import ThreatModel


@dataclass(frozen=True)
class Recipe:
    """What a method needs to know beside the model: the part of the config it reads.

    Attributes:
      threat_model: the ball that training examples are crafted in.
      attack: how they are crafted.
      clean_weight: weight of the loss on clean images ('nsl').
      adv_weight: weight of the loss on adversarial images ('nsl': multiplier).
      split_batch: each image of a batch has one of the two losses, in the share of their
        weights, instead of both ('nsl').
      shared_gradient: a single step without random start takes its gradient off the clean
        training pass ('nsl').
      batch_norm: which batches move BatchNorm's statistics: 'clean', 'adversarial',
        'both', or 'none' (BatchNorm layers are frozen as they are). Where only one kind
        has a weight, that kind moves them, or they would stay at their initial values.
      seed: of the random starts.
      beta: weight of the robustness term ('trades', 'mart').
      blend: share of the adversarial image, in (0, 1] ('blend').
      adv_probability: part of the batches that is adversarial ('mixture').
      fgsm_eps: radius of the FGSM batches, in the units of eps ('mixture').
      noise_std: standard deviation of the noise, in pixel values of [0, 1] ('noise').
      crafting: 'pgd', or 'nfgsm' for a single step from wide noise, as 'fast' always does.
      noise_reach: radius of the noise before that step, in radii of the ball.
      clean_steps: which steps are on clean images alone: 'never', 'first' for those while eps
        is 0, or 'always'.
      awp: size of adversarial weight perturbation, relative to the weights; 0 is off.
      awp_warmup: steps before it begins.
      label_smoothing: part of the label's probability spread evenly over all classes.
      ema: decay of the weight averages; 0 is off.
      method: the method itself, with settings that no other has.

    Raises:
      UsageError: an unknown `batch_norm`, or both weights 0.
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
            raise UsageError("clean_weight and adv_weight are both 0: at least one must be more.")
