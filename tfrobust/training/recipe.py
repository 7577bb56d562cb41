"""What a training method needs to know beside the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tfrobust.config import BATCH_NORM, CRAFTING, RunConfig, TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.plugins import configured
from tfrobust.training import METHODS

# What needs TensorFlow is imported when it is used: a command checks before it reads anything.
if TYPE_CHECKING:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.methods import Method


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

    @classmethod
    def from_config(
        cls, config: TrainingConfig, threat_model: ThreatModel, seed: int, steps_per_epoch: int = 1
    ) -> Recipe:
        """The recipe that a run's configuration names.

        Args:
          config: of the training.
          threat_model: the ball.
          seed: of the run.
          steps_per_epoch: turns what the config counts in epochs into steps.

        Raises:
          UsageError: the method does not train against this norm.
        """
        method = method_from(config, seed)
        method.check_norm(threat_model.norm, config.method.name)
        return replace(
            method.recipe(threat_model),
            clean_steps="first" if config.clean_start > 0 else "never",
            awp_warmup=round(config.awp_warmup * steps_per_epoch),
            ema=config.ema,
        )


def method_from(config: TrainingConfig, seed: int = 42) -> Method:
    """The method that a configuration names, with its settings and those that all share.

    Raises:
      UsageError: there is no such method, or a setting is none of its, or out of range.
    """
    made: Method = configured(
        METHODS[config.method.name], config.method.settings, f"Method {config.method.name}"
    )
    return replace(
        made, attack=_attack_of(config), batch_norm=config.batch_norm,
        label_smoothing=config.label_smoothing, seed=seed,
    )  # fmt: skip


def check_trainable(config: RunConfig) -> None:
    """Refuses settings that do not go together in training, before the images are read.

    They may be good for an evaluation, so `RunConfig` itself takes them.

    Raises:
      UsageError: the method does not train against the norm of the threat, or its single
        step is shorter than eps.
    """
    training, eps = config.training, config.threat.eps
    choice = training.method
    cls = METHODS[choice.name]
    cls.check_norm(config.threat.norm, choice.name)
    method = configured(cls, choice.settings, f"Method {choice.name}")
    # A step size meant for many steps makes a training that looks right and is worth little.
    if method.single_step and training.step_size and training.step_size < eps:
        raise UsageError(
            f"step_size: a single step is expected to be as long as eps ({eps:g}) or more, found "
            f"{training.step_size:g}: give --train-step-size {eps:g}."
        )


def _attack_of(config: TrainingConfig) -> PGD:
    from tfrobust.attacks.gradient import PGD

    aimed = config.target != "none"
    return PGD(
        steps=config.steps,
        step_size=config.step_size,
        random_start=config.random_start,
        early_stop=False,
        targeted=aimed,
        target=config.target if aimed else "least_likely",
    )
