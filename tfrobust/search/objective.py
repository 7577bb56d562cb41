"""One trial: trains with a configuration, and measures the model that was kept."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.config import DataConfig, RunConfig
from tfrobust.data import load_all
from tfrobust.data.types import ImageSet, Splits
from tfrobust.errors import TFRobustError
from tfrobust.run import RunFolder
from tfrobust.search.study import Pruned, Report


@dataclass(frozen=True)
class Training:
    """The objective of a search: `fit`, then accuracies of the kept model.

    'clean' is measured on all of 'select'; 'robust' under FGSM and PGD as after each epoch, on
    `select_limit` images of it, always in the ball and with the steps of `config`, whatever eps
    a trial trains with; 'perturbed_train' and 'perturbed_validation' on files of
    `pipelines.perturb`. 'test' is not touched.

    Attributes:
      config: of the search, before any factor is set: it defines how trials are measured.
      load: (data settings, seed) -> the images, split.
      build: (configuration, splits) -> the classifier.
      perturbed_train: an .npz file, or None to skip it.
      perturbed_validation: an .npz file, or None to skip it.
    """

    config: RunConfig
    load: Callable[[DataConfig, int], Splits]
    build: Callable[[RunConfig, Splits], Any]
    perturbed_train: str | None = None
    perturbed_validation: str | None = None

    def __call__(self, config: RunConfig, run: RunFolder, report: Report) -> dict[str, float]:
        """Trains into the run folder, resuming what is there, and measures.

        Raises:
          Pruned: the report of an epoch returned stop.
          TFRobustError: the loss is not finite, or a file cannot be read.
        """
        from tfrobust.runtime import import_quietly

        import_quietly()
        # Accessing Keras imports TensorFlow, which must be silenced by now.
        from tfrobust.runtime import keras, setup

        setup(seed=config.seed, precision=config.training.precision)
        splits = self.load(config.data, config.seed)
        sets = self._sets(splits)
        try:
            kept = _fit(self.build(config, splits), splits, config, run, report)
            setup(seed=config.seed)
            found = self._measure(run, splits, sets)
            return found | {"robust": self._robust(config, run, splits, kept),
                            "best_epoch": kept["epoch"]}  # fmt: skip
        finally:
            keras.backend.clear_session()
            gc.collect()

    def _sets(self, splits: Splits) -> dict[str, ImageSet]:
        """The perturbed sets, read before training so that errors show early."""
        files = {
            "perturbed_train": self.perturbed_train,
            "perturbed_validation": self.perturbed_validation,
        }
        found = {name: load_all(str(Path(file).expanduser()))
                 for name, file in files.items() if file}  # fmt: skip
        for name, data in found.items():
            if data.image_shape != splits.train.image_shape:
                raise TFRobustError(
                    f"{files[name]}: expected images of {splits.train.image_shape} as in train, "
                    f"found {data.image_shape}: build the set from the same data."
                )
        return found

    def _measure(
        self, run: RunFolder, splits: Splits, sets: dict[str, ImageSet]
    ) -> dict[str, float]:
        from tfrobust.models.opening import load_any

        model = load_any(run.best_model)
        batch = self.config.evaluation.batch_size
        found = {"clean": accuracy(model, splits.select, batch)}
        return found | {name: accuracy(model, data, batch) for name, data in sets.items()}

    def _robust(
        self, config: RunConfig, run: RunFolder, splits: Splits, kept: dict[str, Any]
    ) -> float:
        """Measures again if the trial measured its epochs differently.

        With mixed precision the epochs were measured in it; the kept model is float32, as in all
        other measurements.
        """
        if config.training.precision == "float32" and _select(config) == _select(self.config):
            return float(kept["select_pgd"])
        from tfrobust.models.opening import load_any

        return robust_accuracy(load_any(run.best_model), splits.select, self.config)


def _select(config: RunConfig) -> tuple[Any, ...]:
    """What determines an epoch's accuracy on 'select', besides weights and precision."""
    training = config.training
    how = (training.select_limit, training.select_steps)
    return config.threat, config.data, config.seed, *how


def _fit(
    model: Any, splits: Splits, config: RunConfig, run: RunFolder, report: Report
) -> dict[str, Any]:
    """Trains and returns the history's row for the epoch whose model is kept."""
    from tfrobust.figures.training import LearningCurves, TrainingHistory
    from tfrobust.training.fit import fit

    def on_epoch(row: dict[str, Any]) -> None:
        if report(row["epoch"], row):
            raise Pruned

    state = fit(model, splits, config, run, resume=True, on_epoch=on_epoch)
    with contextlib.suppress(TFRobustError):
        LearningCurves().save(TrainingHistory(state.rows), run.figures / "curves.png")
    return next(row for row in state.rows if row["epoch"] == state.best_epoch)


def accuracy(model: Any, data: ImageSet, batch_size: int = 128) -> float:
    """Plain accuracy on all images of a set."""
    from tfrobust.evaluation.evaluator import Evaluator

    return float(Evaluator(model, data, batch_size=batch_size).clean.correct.mean())


def robust_accuracy(model: Any, select: ImageSet, config: RunConfig) -> float:
    """Accuracy under FGSM and PGD, as `Selection` measures it, on `select_limit` images."""
    from tfrobust.data.pipeline import evaluation_batches
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.selection import Selection

    training = config.training
    # The same images as in `fit`, in the same order: batches and random starts are equal.
    chosen = select.sample(training.select_limit, config.seed)
    measured = Selection(
        model, evaluation_batches(chosen, training.batch_size),
        ThreatModel.from_config(config.threat), steps=training.select_steps, seed=config.seed,
    )  # fmt: skip
    return measured.measure()["select_pgd"]
