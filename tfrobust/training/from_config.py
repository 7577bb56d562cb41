"""The training method and the recipe of a configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tfrobust.config import RunConfig, TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.plugins import configured
from tfrobust.training import METHODS

# TensorFlow is imported only where needed: a command checks its settings before reading data.
if TYPE_CHECKING:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.methods import Method
    from tfrobust.training.recipe import Recipe


def recipe_from(
    config: TrainingConfig, threat_model: ThreatModel, seed: int, steps_per_epoch: int = 1
) -> Recipe:
    """The recipe of a run's configuration.

    Args:
      config: of training.
      threat_model: the ball.
      seed: of the run.
      steps_per_epoch: converts settings in epochs to steps.

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
    """A configuration's method, with its own settings and the shared ones.

    Raises:
      UsageError: the method or one of its settings is unknown, or a value is out of range.
    """
    made: Method = configured(
        METHODS[config.method.name], config.method.settings, f"Method {config.method.name}"
    )
    return replace(
        made, attack=_attack_of(config), batch_norm=config.batch_norm,
        label_smoothing=config.label_smoothing, seed=seed,
    )  # fmt: skip


def check_trainable(config: RunConfig) -> None:
    """Rejects settings that contradict each other in training, before the images are read.

    They may be valid for an evaluation, so `RunConfig` itself accepts them.

    Raises:
      UsageError: the method does not train against the threat's norm, or its single step is
        shorter than eps.
    """
    training, eps = config.training, config.threat.eps
    choice = training.method
    cls = METHODS[choice.name]
    cls.check_norm(config.threat.norm, choice.name)
    method = configured(cls, choice.settings, f"Method {choice.name}")
    # A step size meant for many steps gives a training that looks right and is of little use.
    if method.single_step and training.step_size and training.step_size < eps:
        raise UsageError(
            f"step_size: a single step is expected to be at least as long as eps ({eps:g}), found "
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
