"""A run is a folder that contains everything later verbs need."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import read_json, write_json, write_text
from tfrobust.settings import from_dict, load_yaml, save_yaml


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, `saved_models/<run>/`.

    Examples:
      >>> run = tr.RunFolder(folder / "run")
      >>> run.path.name
      'run'
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; `--recipe` repeats it."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine, commit and seed."""
        return self.path / "environment.json"

    @property
    def history(self) -> Path:
        """One line per epoch."""
        return self.path / "history.csv"

    @property
    def checkpoints(self) -> Path:
        """The last epoch's state, and the best model."""
        return self.path / "checkpoints"

    @property
    def state(self) -> Path:
        """The training state; it names the checkpoint that belongs to it."""
        return self.checkpoints / "state.json"

    @property
    def best_model(self) -> Path:
        """The classifier with the best robust accuracy on 'select'."""
        return self.checkpoints / "best.keras"

    @property
    def seen(self) -> Path:
        """The images used for training and model selection, as digests, and the class names."""
        return self.path / "split.npz"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's logs."""
        return self.path / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """The measured robustness."""
        return self.path / "evaluation.json"

    @property
    def predictions(self) -> Path:
        """Prediction of every evaluated image, clean and under attack."""
        return self.path / "predictions.csv"

    @property
    def figures(self) -> Path:
        """Pictures."""
        return self.path / "figures"

    def started(self) -> bool:
        """Whether the folder contains at least one epoch of a run."""
        return self.config.is_file() and self.state.is_file()

    def create(self) -> None:
        """Creates the folders.

        Raises:
          TFRobustError: they cannot be created.
        """
        try:
            for folder in (self.checkpoints, self.tensorboard, self.figures):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TFRobustError(f"Run folder {self.path} cannot be created: {error}.") from error

    def create_figures(self) -> None:
        """Creates the folder with only its subfolder for figures: results of a bare model.

        Raises:
          TFRobustError: it cannot be created.
        """
        try:
            self.figures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TFRobustError(f"Folder {self.path} cannot be created: {error}.") from error

    def read_config(self) -> RunConfig:
        """The run's configuration.

        Raises:
          UsageError: this is not a run folder.
        """
        if not self.config.is_file():
            raise UsageError(
                f"{self.path} is not a run folder: expected {self.config.name} in it; "
                "create one with 'python -m pipelines.train'."
            )
        config: RunConfig = from_dict(RunConfig, load_yaml(self.config))
        return config

    def write_config(self, config: RunConfig) -> None:
        """Writes the resolved configuration, which makes the folder a run folder.

        Raises:
          TFRobustError: it cannot be written.
        """
        save_yaml(config, self.config)

    def write_environment(self, facts: Mapping[str, Any]) -> None:
        """Writes versions, machine, commit and seed.

        Raises:
          TFRobustError: they cannot be written.
        """
        write_json(self.environment, dict(facts))

    def write_evaluation(self, values: Mapping[str, Any], predictions: str) -> None:
        """Writes an evaluation and, as CSV, the prediction of every image.

        Raises:
          TFRobustError: they cannot be written.
        """
        write_json(self.evaluation, dict(values))
        write_text(self.predictions, predictions)

    def write_card(self, card: str, leaderboard: Mapping[str, Any]) -> None:
        """Writes the model card and the entry for a leaderboard.

        Raises:
          TFRobustError: they cannot be written.
        """
        write_text(self.path / "model_card.md", card)
        write_json(self.path / "leaderboard.json", dict(leaderboard))


def run_of(path: Path) -> RunFolder | None:
    """The run at a path, or the run that contains this model file or SavedModel; else None.

    `RUN`, `RUN/checkpoints/best.keras` and `RUN/1` all belong to the run RUN.
    """
    for folder in (path, path.parent, path.parent.parent):
        if (run := RunFolder(folder)).config.is_file():
            return run
    return None


def class_names(path: Path) -> tuple[str, ...] | None:
    """The class names recorded in a run or a SavedModel's folder; None if there are none."""
    run = run_of(path)
    if run is not None:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile),
            np.load(run.seen, allow_pickle=False) as file,
        ):
            return tuple(str(name) for name in file["classes"])
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = read_json(run.evaluation)["classes"]
            return tuple(map(str, found))
    with contextlib.suppress(OSError, ValueError, TypeError):
        return tuple(map(str, read_json(path / "assets.extra" / "labels.json")))
    return None


GUESSES = "no_better_than_guessing"


def doubt_of_learning(path: Path) -> str | None:
    """The evaluation's verdict on a run whose model is no better than guessing.

    None if the model has learnt something, or if nothing was measured.
    """
    try:
        found = read_json(RunFolder(path).evaluation)
        return next((f["meaning"] for f in found["flags"] if f["name"] == GUESSES), None)
    except (OSError, ValueError, KeyError, TypeError):  # not a run folder, or never evaluated
        return None
