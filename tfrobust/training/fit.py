"""Trains a classifier: stage after stage, resumable at every epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfrobust.backbones import set_trainable
from tfrobust.config import RunConfig, StageConfig
from tfrobust.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfrobust.data.types import ImageSet, Splits
from tfrobust.progress import Progress
from tfrobust.run import RunFolder
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.callbacks import EpochEnd, Schedule
from tfrobust.training.selection import Selection
from tfrobust.training.stages import make_optimizer
from tfrobust.training.state import Checkpoints, TrainState
from tfrobust.training.step import Recipe
from tfrobust.training.tensorboard import TensorBoard


def fit(
    model: Any, splits: Splits, config: RunConfig, run: RunFolder, *, resume: bool = False
) -> TrainState:
    """Trains `model` in place by the config's method and stages.

    After each epoch the model is measured on 'select', the best by PGD accuracy is kept
    in `run.best_model`, and a checkpoint is written. With `resume`, training goes on
    from the last complete epoch and ends with the weights that an uninterrupted run
    would have had: batches, augmentation and attacks depend on seed and step alone.

    Args:
      model: flat classifier, image in [0, 1] -> logits.
      splits: 'train' and 'select' are used, 'test' is not touched.
      config: of the run.
      run: the folder, made already.
      resume: go on where the folder's checkpoint stands; starts afresh without one.

    Returns:
      The state after the last epoch: rows of the history, best epoch.

    Raises:
      TFRobustError: the loss is not finite, or a checkpoint cannot be written or read.
    """
    work = _Training(model, splits, config, run)
    state = work.start(resume)
    while state.stage < len(config.training.stages):
        work.run_stage(state)
    return state


class _Training:
    """The objects that live through all stages."""

    def __init__(self, model: Any, splits: Splits, config: RunConfig, run: RunFolder) -> None:
        training = config.training
        self.model, self.config, self.train = model, config, splits.train
        self.threat_model = ThreatModel.from_config(config.threat)
        self.recipe = Recipe.from_config(training, self.threat_model, config.seed)
        self.method = METHODS[training.method](model, self.recipe)
        self.optimizer = make_optimizer(training)
        # Built once on all variables, so that each keeps its state from stage to stage.
        set_trainable(model, "all")
        self.optimizer.build(model.trainable_variables)
        self.checkpoints = Checkpoints(run, model, self.optimizer)
        select = _sample(splits.select, training.select_limit, config.seed)
        self.selection = Selection(
            model,
            evaluation_batches(select, training.batch_size),
            self.threat_model,
            steps=training.select_steps,
            seed=config.seed,
        )
        self.steps = steps_per_epoch(len(self.train), training.batch_size, False)
        self.board = TensorBoard(run)
        self.samples = next(iter(evaluation_batches(_sample(self.train, 8, config.seed), 8)))

    def start(self, resume: bool) -> TrainState:
        if resume and self.checkpoints.exists():
            state = self.checkpoints.restore()
            print(f"Resuming after epoch {state.epoch}.", flush=True)
            return state
        return TrainState()

    def run_stage(self, state: TrainState) -> None:
        stages = self.config.training.stages
        stage = stages[state.stage]
        names = set_trainable(self.model, stage.blocks)
        self.method.recipe = _recipe_of(stage, self.recipe)
        self.method.compile(self.optimizer)
        self.board.craft = tf.function(self.method.craft)
        first = state.epoch - len(state.stage_losses)
        last = first + stage.epochs
        total = last + sum(later.epochs for later in stages[state.stage + 1 :])
        _announce(state.stage + 1, len(stages), names, self.model)
        progress = Progress("training", total * self.steps, done=state.epoch * self.steps)
        self.method.fit(
            self._batches(state.epoch),
            initial_epoch=state.epoch,
            epochs=last,
            steps_per_epoch=self.steps,
            verbose=0,
            callbacks=[
                Schedule(stage, self.steps, first, progress),
                EpochEnd(stage, state, self.selection, self.checkpoints, self._log),
            ],
        )
        progress.close()

    def _batches(self, first_epoch: int) -> Any:
        return training_batches(
            self.train,
            batch_size=self.config.training.batch_size,
            seed=self.config.seed,
            augment=self.config.augment,
            first_epoch=first_epoch,
        )

    def _log(self, row: dict[str, Any]) -> None:
        self.board.log(row, self.samples)


def _recipe_of(stage: StageConfig, recipe: Recipe) -> Recipe:
    """The recipe with the weights that a stage sets otherwise."""
    clean = recipe.clean_weight if stage.clean_weight is None else stage.clean_weight
    adv = recipe.adv_weight if stage.adv_weight is None else stage.adv_weight
    return dataclasses.replace(recipe, clean_weight=clean, adv_weight=adv)


def _sample(data: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` random images (splits are ordered by class), the same for the same seed."""
    if len(data) <= count:
        return data
    return data.subset(np.random.default_rng(seed).permutation(len(data))[:count])


def _announce(stage: int, stages: int, names: tuple[str, ...], model: Any) -> None:
    count = sum(int(v.shape.num_elements()) for v in model.trainable_variables)
    below = f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
    print(f"Stage {stage} of {stages}: {below} train ({count:,} weights).", flush=True)
