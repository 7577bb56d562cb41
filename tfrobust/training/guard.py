"""Monitors single-step training for catastrophic overfitting, and reverts it."""

from __future__ import annotations

import sys

from tfrobust.runtime import keras
from tfrobust.training.health import Snapshot
from tfrobust.training.selection import Selection, overfits_to_fgsm
from tfrobust.training.state import TrainState

# At 15 of a hundred images, robustness is above chance: see `overfits_to_fgsm`.
_LEAST = 0.15


class Guard(keras.callbacks.Callback):
    """Checks PGD accuracy every few hundred steps; rolls back when it has collapsed.

    Within a few hundred steps single-step training can learn to fool its own attack: Wong et al.
    (2020), https://arxiv.org/abs/2001.03994; `overfits_to_fgsm` defines when. Then weights,
    BatchNorm's statistics, weight averages and the optimiser are rolled back to the last check
    that passed, the noise of the attack is widened by one radius of the ball (De Jorge et al.,
    2022, find that wider noise prevents it), and training continues with the next batch; if the
    step has no noise before it, training ends. It also checks at the end of every epoch, so that
    no checkpoint of a collapsed network is written, and a resumed run behaves like an
    uninterrupted one. It measures the weights that train, not their averages, which would hide a
    collapse.

    Args:
      selection: measures a few held-out images; with `worst_case` off, otherwise a network
        that decodes the label from FGSM's noise and fails on clean images goes unnoticed.
      state: of training; it stores the checks and the reach.
      every: steps between two checks.
      good: the last good state of model, averages and optimiser.
    """

    def __init__(self, selection: Selection, state: TrainState, every: int, good: Snapshot) -> None:
        super().__init__()
        self._selection, self._state, self._every = selection, state, every
        self._good = good
        self._epoch = self._since = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Records the epoch of the run."""
        self._epoch, self._since = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Checks when due."""
        self._since += 1
        if self._since == self._every:
            self._look(f"epoch {self._epoch + 1}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Checks the steps since the last check; called before the epoch is finished."""
        if self._since:
            self._look(f"the end of epoch {epoch + 1}")

    def _look(self, where: str) -> None:
        self._since = 0
        row = self._selection.measure()
        if not overfits_to_fgsm([*self._state.looks, row], _LEAST):
            self._state.looks.append(row)
            self._good.take()
            return
        self._good.put_back()
        self._state.rollbacks += 1
        print(
            f"Catastrophic overfitting at {where}: PGD accuracy {row['select_pgd']:.3f}, FGSM "
            f"{row['select_fgsm']:.3f} on {self._selection.count} images. Weights and optimiser "
            f"are rolled back to the last check that passed; {self._avoid_repeat()}.",
            file=sys.stderr,
            flush=True,
        )

    def _avoid_repeat(self) -> str:
        """Changes a setting so that it does not happen again, and returns a description."""
        if not self.model.single_step:
            self.model.stop_training = True
            return "training ends: craft in more steps, or use the method 'fast'"
        self._state.noise_reach = self.model.widen()
        return f"the noise now reaches {self._state.noise_reach:g} * eps"
