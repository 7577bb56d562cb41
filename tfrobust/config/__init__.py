"""Settings of a run, as frozen dataclasses.

Every field is one setting with its default, its meaning (the help of the command line shows it)
and its range, which is checked when the object is made.
"""

from __future__ import annotations

from tfrobust.config.backbone import CONVOLUTIONS, STEMS, BackboneConfig
from tfrobust.config.data import AugmentConfig, DataConfig
from tfrobust.config.evaluation import EvaluationConfig
from tfrobust.config.run import RunConfig
from tfrobust.config.stages import SCHEDULES, StageConfig, parse_milestones, parse_stages
from tfrobust.config.threat import NORMS, ThreatConfig, check_radius
from tfrobust.config.training import (
    BATCH_NORM,
    CRAFTING,
    GOALS,
    TrainingConfig,
    beside_the_method,
    completed,
    folded_method,
    methods,
)

__all__ = [
    "BATCH_NORM",
    "CONVOLUTIONS",
    "CRAFTING",
    "GOALS",
    "NORMS",
    "SCHEDULES",
    "STEMS",
    "AugmentConfig",
    "BackboneConfig",
    "DataConfig",
    "EvaluationConfig",
    "RunConfig",
    "StageConfig",
    "TrainingConfig",
    "ThreatConfig",
    "beside_the_method",
    "check_radius",
    "completed",
    "folded_method",
    "methods",
    "parse_milestones",
    "parse_stages",
]
