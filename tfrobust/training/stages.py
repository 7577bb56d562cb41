"""Staged unfreezing: which blocks train, at which learning rate, and when a stage ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tfrobust.config import StageConfig, TrainingConfig, parse_milestones
from tfrobust.runtime import keras


def learning_rate(stage: StageConfig, epoch: float) -> float:
    """The learning rate `epoch` epochs (possibly fractional) into the stage.

    'constant' does not change; 'cosine' decays along half a cosine to `final_learning_rate` (0 by
    default; Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983); 'linear' decays
    linearly to it: with a warm-up of half the stage, up and down as in Wong et al. (2020),
    https://arxiv.org/abs/2001.03994; 'step' divides by 10 at a half and at three quarters of the
    stage, and never goes below `final_learning_rate`; 'piecewise' follows `milestones`. A warm-up
    rises linearly before that; the schedule covers the rest of the stage.
    """
    if epoch < stage.warmup_epochs:
        return stage.learning_rate * (epoch + 1e-3) / stage.warmup_epochs
    span = max(stage.epochs - stage.warmup_epochs, 1e-9)
    part = min((epoch - stage.warmup_epochs) / span, 1.0)
    final = stage.final_learning_rate or 0.0
    if stage.schedule == "constant":
        return stage.learning_rate
    if stage.schedule == "step":
        drops = (part >= 0.5) + (part >= 0.75)
        return max(stage.learning_rate / 10**drops, final)
    if stage.schedule == "piecewise":
        reached = [factor for at, factor in parse_milestones(stage.milestones) if part >= at]
        return stage.learning_rate * (reached[-1] if reached else 1.0)
    left = 1 - part if stage.schedule == "linear" else (1 + math.cos(math.pi * part)) / 2
    return final + (stage.learning_rate - final) * left


def plateaued(stage: StageConfig, losses: Sequence[float]) -> bool:
    """Whether the training losses of a stage's epochs have stopped improving.

    True if none of the last `patience` epochs was below the previous best by `min_delta`. Always
    False if `patience` is None.
    """
    if stage.patience is None or len(losses) <= stage.patience:
        return False
    before, after = losses[: -stage.patience], losses[-stage.patience :]
    return min(after) > min(before) - stage.min_delta


def make_optimizer(config: TrainingConfig) -> Any:
    """SGD with momentum, Adam or AdamW; the learning rate is set step by step.

    Weight decay is decoupled (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101) and excludes biases and BatchNorm.
    """
    common = {
        "learning_rate": config.stages[0].learning_rate,
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.clip_norm,
    }
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=config.momentum, **common)
    elif config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(**common)
    else:
        optimizer = keras.optimizers.AdamW(**common | {"weight_decay": config.weight_decay})
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
