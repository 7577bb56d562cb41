"""Settings of the stages of training, and how the command line writes them."""

from __future__ import annotations

from dataclasses import dataclass

from tfrobust.errors import UsageError
from tfrobust.settings import Checked, setting

SCHEDULES = ("constant", "cosine", "linear", "step", "piecewise")


@dataclass(frozen=True)
class StageConfig(Checked):
    """One stage of staged unfreezing."""

    blocks: str = setting("all", "'head', 'all', or how many top blocks train with the head")
    epochs: int = setting(10, "the most epochs of this stage", low=1)
    learning_rate: float = setting(0.05, "learning rate at the start", above=0)
    final_learning_rate: float | None = setting(None, "learning rate at the end", low=0)
    schedule: str = setting("cosine", "how the learning rate falls", choices=SCHEDULES)
    milestones: str = setting(
        "0.5:0.1,0.75:0.01",
        "of 'piecewise': from which part of the stage on which factor scales the learning rate",
    )
    warmup_epochs: float = setting(0.0, "epochs of linear warm-up", low=0)
    patience: int | None = setting(
        None, "end the stage when the training loss has not improved for this many epochs", low=1
    )
    min_delta: float = setting(0.01, "what counts as an improvement of the loss", low=0)
    clean_weight: float | None = setting(None, "clean_weight of this stage, if another", low=0)
    adv_weight: float | None = setting(None, "adv_weight of this stage, if another", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_milestones(self.milestones)
        if self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"warmup_epochs: expected fewer than the {self.epochs} epochs of the stage, or its "
                f"learning rate is never reached, found {self.warmup_epochs:g}."
            )


def parse_milestones(text: str) -> tuple[tuple[float, float], ...]:
    """Milestones of a 'piecewise' schedule: '0.5:0.1,0.75:0.01'.

    Returns:
      (part of the stage in [0, 1], factor of the learning rate from there on), in rising
      order of the part.

    Raises:
      UsageError: a milestone is not PART:FACTOR, or they do not rise.
    """
    try:
        pairs = [[float(each) for each in part.split(":")] for part in text.split(",")]
        milestones = tuple((at, factor) for at, factor in pairs)
    except ValueError as error:
        raise UsageError(_milestones_error(text)) from error
    parts = [at for at, _ in milestones]
    inside = all(0 <= at <= 1 and factor >= 0 for at, factor in milestones)
    if not inside or parts != sorted(set(parts)):
        raise UsageError(_milestones_error(text))
    return milestones


def _milestones_error(text: str) -> str:
    return (
        "milestones: expected PART:FACTOR with rising parts of the stage in 0 to 1, such as "
        f"0.5:0.1,0.75:0.01, found {text!r}."
    )


def parse_stages(text: str) -> tuple[StageConfig, ...]:
    """Stages as the command line writes them: 'head:2:0.05,6:4:0.01,all:6:0.005'.

    Raises:
      UsageError: a stage is not BLOCKS:EPOCHS:LEARNING_RATE.
    """
    return tuple(_parse_stage(part) for part in text.split(","))


def _parse_stage(text: str) -> StageConfig:
    parts = text.strip().split(":")
    try:
        blocks, epochs, rate = parts
        return StageConfig(blocks=blocks, epochs=int(epochs), learning_rate=float(rate))
    except ValueError as error:
        raise UsageError(
            f"stages: expected BLOCKS:EPOCHS:LEARNING_RATE such as head:2:0.05, found {text!r}."
        ) from error
