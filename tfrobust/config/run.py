"""All settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfrobust.config.backbone import BackboneConfig
from tfrobust.config.data import AugmentConfig, DataConfig
from tfrobust.config.evaluation import EvaluationConfig
from tfrobust.config.threat import ThreatConfig, check_radius
from tfrobust.config.training import TrainingConfig
from tfrobust.settings import Checked, setting


@dataclass(frozen=True)
class RunConfig(Checked):
    """All settings of a run; `config.yaml` in its folder.

    Examples:
      >>> config = tr.RunConfig()
      >>> config.threat.norm
      'linf'
    """

    seed: int = setting(42, "seed of split, initial weights, batches and attacks", low=0)
    # What was chosen for these images, and why: for people, nothing reads it.
    chosen: tuple[str, ...] = ()
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    threat: ThreatConfig = field(default_factory=ThreatConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for eps in self.evaluation.sweep:
            check_radius(self.threat.norm, eps)
