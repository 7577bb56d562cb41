"""Trains a classifier: stage after stage, resumable at every epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from tfrobust.backbones import set_trainable
from tfrobust.config import RunConfig, StageConfig, TrainingConfig
from tfrobust.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from tfrobust.data.types import Splits
from tfrobust.distribution import agreed, this_worker
from tfrobust.errors import UsageError
from tfrobust.io import write_json
from tfrobust.models.inference import needs_autograph
from tfrobust.progress import Progress
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.budget import Budget
from tfrobust.training.callbacks import EpochEnd, Schedule
from tfrobust.training.elbow import find_elbow
from tfrobust.training.from_config import recipe_from
from tfrobust.training.guard import Guard
from tfrobust.training.health import Health, Snapshot
from tfrobust.training.recipe import Recipe
from tfrobust.training.selection import Selection
from tfrobust.training.stages import make_optimizer
from tfrobust.training.state import VERSION, Checkpoints, TrainState
from tfrobust.training.tensorboard import TensorBoard

# More epochs than any time limit allows.
_ENDLESS = 1_000_000


def fit(
    model: Any,
    splits: Splits,
    config: RunConfig,
    run: RunFolder,
    *,
    resume: bool = False,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    home: RunFolder | None = None,
) -> TrainState:
    """Trains `model` in place by the config's method and stages.

    After each epoch the model is measured on 'select', the best by PGD accuracy is saved in
    `run.best_model`, and a checkpoint is written. With `resume`, training resumes after the last
    complete epoch and ends with the weights of an uninterrupted run: batches, augmentation and
    attacks depend only on seed and step.

    With a `time_limit`, training ends with the step in which it is used up, epochs only divide
    the time among the stages, and schedules follow the time: a timed run is not reproducible to
    the bit; `resume` continues the checkpoint's count. Otherwise training ends with the last
    stage's last epoch, or by `early_stopping`. A network that does not learn, or whose loss is
    not finite, is rolled back to its last good weights, and training ends after a few recoveries:
    see `Health`. With weight averaging, the averages are measured on 'select' and saved; `model`
    itself ends with the weights of the last step.

    Args:
      model: flat classifier, image in [0, 1] -> logits.
      splits: 'train' and 'select' are used, 'test' is not touched.
      config: of the run.
      run: an existing folder.
      resume: resume from the folder's checkpoint; start from the beginning if there is none.
      on_epoch: called with each row of the history once its checkpoint is written; an
        exception that it raises ends training.
      home: the run's folder, if this process is a worker that does not write it; `resume`
        reads it.

    Returns:
      The state after the last epoch: rows of the history, best epoch, elbow.

    Raises:
      UsageError: a stage names blocks that the network does not have, or the method does not
        train against this norm; raised before any training.
      TFRobustError: the loss is still not finite after several recoveries, or a checkpoint
        cannot be written or read.

    Examples:
      >>> import dataclasses
      >>> from tfrobust.config import StageConfig
      >>> splits = tr.load("digits")
      >>> few = dataclasses.replace(splits, train=splits.train.sample(64, seed=0))
      >>> network = tr.build("simplenet", num_classes=10, image_shape=few.train.image_shape)
      >>> stages = (StageConfig(blocks="all", epochs=1, learning_rate=0.01),)
      >>> training = dataclasses.replace(tr.RunConfig().training, method="standard", stages=stages)
      >>> config = dataclasses.replace(tr.RunConfig(), training=training)
      >>> state = tr.fit(network, few, config, tr.RunFolder(folder / "run"))
      Stage 1 of 1: head to stem train (...).
      epoch   1 stage 1 (all)  loss ... select: clean ...
      >>> (folder / "run" / "history.csv").is_file()
      True
    """
    _check_strategy(model.distribute_strategy, config)
    work = _Training(model, splits, config, run, home)
    work.on_epoch = on_epoch
    state = work.start(resume)
    while state.stage < len(config.training.stages):
        work.run_stage(state)
    if config.training.choose == "elbow":
        work.choose_elbow(state)
    return state


class _Training:
    """The objects shared by all stages."""

    def __init__(
        self, model: Any, splits: Splits, config: RunConfig, run: RunFolder,
        home: RunFolder | None,
    ) -> None:  # fmt: skip
        training = config.training
        # An invalid stage must be found now, not when it starts.
        for stage in training.stages:
            set_trainable(model, stage.blocks)
        self.budget = Budget(training.time_limit)
        self.model, self.config, self.train, self.run = model, config, splits.train, run
        self.threat_model = ThreatModel.from_config(config.threat)
        self.spread = model.distribute_strategy.num_replicas_in_sync > 1
        self.steps = steps_per_epoch(len(self.train), training.batch_size, self.spread)
        self.recipe = recipe_from(training, self.threat_model, config.seed, self.steps)
        # Measuring and saving happen on this model, however training is distributed.
        self.local = keras.models.clone_model(model) if self.spread else model
        with model.distribute_strategy.scope():
            self.method = METHODS[training.method.name].step()(model, self.recipe)
            self.optimizer = make_optimizer(training)
            # Built once for all variables, so that each keeps its state from stage to stage.
            set_trainable(model, "all")
            self.optimizer.build(model.trainable_variables)
        self.checkpoints = Checkpoints(
            run, model, self.optimizer, averages=self.method.averages,
            keep_from=training.keep_from, home=home,
            local=self.refreshed if self.spread else None,
        )  # fmt: skip
        goal = self.method.goal.removeprefix("select_")
        loss_on = None if training.keep_from is None else goal
        self.select = splits.select
        self.selection = self._selection(training.select_limit, loss_on)
        self.guarding: Selection | None = None
        self.board = TensorBoard(run)
        self.on_epoch: Callable[[dict[str, Any]], None] | None = None
        self.samples = next(iter(evaluation_batches(self.train.sample(8, config.seed), 8)))

    def refreshed(self) -> Any:
        """The local model, with the current weights of the distributed one."""
        if self.spread:
            self.local.set_weights(self.model.get_weights())
        return self.local

    def start(self, resume: bool) -> TrainState:
        if resume and self.checkpoints.exists():
            state = self.checkpoints.restore()
            print(f"Resuming after epoch {state.epoch}.", flush=True)
            self.budget = Budget(
                self.config.training.time_limit, state.elapsed + self.budget.elapsed
            )
            return state
        return TrainState()

    def run_stage(self, state: TrainState) -> None:
        stages = self.config.training.stages
        stage = stages[state.stage]
        names = set_trainable(self.model, stage.blocks)
        self.method.recipe = _recipe_of(stage, self.recipe, self.config.training)
        with self.model.distribute_strategy.scope():
            self.method.compile(self.optimizer)
        self.board.craft = lambda x, y: None
        if not self.spread and self.method.recipe.clean_steps != "always":
            self.board.craft = tf.function(self.method.craft, autograph=needs_autograph(self.model))
        first = state.epoch - len(state.stage_losses)
        last = first + stage.epochs
        total = last + sum(later.epochs for later in stages[state.stage + 1 :])
        _announce(state.stage + 1, len(stages), names, self.model)
        progress = Progress("training", total * self.steps, done=state.epoch * self.steps)
        self.method.fit(
            self._batches(state.epoch),
            initial_epoch=state.epoch,
            # With a time limit only the time ends the stage.
            epochs=_ENDLESS if self.budget.limited else last,
            steps_per_epoch=self.steps,
            verbose=0,
            callbacks=self._callbacks(state, progress),
        )
        progress.close()

    def choose_elbow(self, state: TrainState) -> None:
        """Makes the model of the elbow the one that is kept."""
        elbow = find_elbow(state.rows, self.config.training.keep_from or 1)
        if elbow is None:
            print("No elbow: training ended before keep_from; the best epoch's model is kept.")
            return
        if elbow.earlier:
            print(f"Validation was best at epoch {elbow.earlier}, before keep_from: keeping "
                  f"{elbow.epoch}, the best of the later epochs; lower keep_from.")  # fmt: skip
        elif not elbow.turned:
            print("Validation had not turned when training ended: keeping its lowest loss.")
        self.checkpoints.choose(elbow.epoch)
        state.best_epoch = elbow.epoch
        write_json(self.run.state, {"version": VERSION, **dataclasses.asdict(state)})

    def _callbacks(self, state: TrainState, progress: Progress) -> list[Any]:
        """The callbacks in the order in which they act at the end of an epoch."""
        training = self.config.training
        good = self._snapshot()
        health = Health(state, good, self.train.labels)
        schedule = Schedule(
            training, state, steps=self.steps, progress=progress, budget=self.budget, health=health
        )
        end = EpochEnd(
            training, state, selection=self.selection, checkpoints=self.checkpoints,
            on_row=self._log, budget=self.budget, health=health, steps=self.steps,
        )  # fmt: skip
        seen = keras.callbacks.LambdaCallback(on_epoch_end=self.method.drop_unmeasured)
        return [schedule, *self._guards(state, good), seen, end]

    def _snapshot(self) -> Snapshot:
        """The state for rollbacks: of model, optimiser and averages."""
        averages = self.method.averages
        variables = [*self.model.variables, *self.optimizer.variables]
        return Snapshot(variables + (averages.variables if averages else []))

    def _guards(self, state: TrainState, good: Snapshot) -> list[Any]:
        if not self.method.single_step:
            return []
        if state.noise_reach is not None:
            self.method.reach.assign(state.noise_reach)
        if self.guarding is None:
            limit = self.config.training.guard_limit
            self.guarding = self.selection.on(self._select_batches(limit), worst_case=False)
        return [Guard(self.guarding, state, self.config.training.guard_every, good)]

    def _selection(self, limit: int, loss_on: str | None) -> Selection:
        """Measures the model on some images of 'select'."""
        training, seed = self.config.training, self.config.seed
        return Selection(
            self.local, self._select_batches(limit), self.threat_model,
            steps=training.select_steps, seed=seed, loss_on=loss_on, refresh=self.refreshed,
            agree=partial(agreed, self.model.distribute_strategy),
        )  # fmt: skip

    def _select_batches(self, limit: int) -> Any:
        images = self.select.sample(limit, self.config.seed)
        return evaluation_batches(images, self.config.training.batch_size)

    def _batches(self, first_epoch: int) -> Any:
        return training_batches(
            self.train,
            batch_size=self.config.training.batch_size,
            seed=self.config.seed,
            augment=self.config.augment,
            first_epoch=first_epoch,
            drop_remainder=self.spread,
        )

    def _log(self, row: dict[str, Any]) -> None:
        self.board.log(row, self.samples)
        if self.on_epoch is not None:
            self.on_epoch(row)


def _check_strategy(strategy: Any, config: RunConfig) -> None:
    count, training = strategy.num_replicas_in_sync, config.training
    if training.batch_size % count:
        raise UsageError(
            f"batch_size: expected a multiple of the {count} replicas that share each batch, "
            f"found {training.batch_size}."
        )
    if training.time_limit is not None and this_worker(strategy).count > 1:
        raise UsageError(
            "time_limit: the clocks of several workers differ, so they would not stop at the "
            "same step: set epochs instead."
        )


def _recipe_of(stage: StageConfig, recipe: Recipe, training: TrainingConfig) -> Recipe:
    """The recipe with a stage's overrides."""
    clean = recipe.clean_weight if stage.clean_weight is None else stage.clean_weight
    adv = recipe.adv_weight if stage.adv_weight is None else stage.adv_weight
    changed = dataclasses.replace(recipe, clean_weight=clean, adv_weight=adv)
    # Before eps rises the head learns from clean images.
    head_first = training.eps_ramp > 0 or training.clean_start > 0
    if stage.blocks == "head" and head_first:
        return dataclasses.replace(changed, clean_steps="always")
    return changed


def _announce(stage: int, stages: int, names: tuple[str, ...], model: Any) -> None:
    count = sum(int(v.shape.num_elements()) for v in model.trainable_variables)
    below = f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
    print(f"Stage {stage} of {stages}: {below} train ({count:,} weights).", flush=True)
