"""Watches single-step training for catastrophic overfitting, and undoes it."""

from __future__ import annotations

import sys

from tfrobust.runtime import keras
from tfrobust.training.health import Snapshot
from tfrobust.training.selection import Selection, overfits_to_fgsm
from tfrobust.training.state import TrainState

# Of a hundred images 15 are robust by more than chance: see `overfits_to_fgsm`.
_LEAST = 0.15


class Guard(keras.callbacks.Callback):
    """Looks at PGD accuracy every few hundred steps; rolls back when it has collapsed.

    Within a few hundred steps single-step training can learn to fool its own attack: Wong
    et al. (2020), https://arxiv.org/abs/2001.03994; `overfits_to_fgsm` says when. Then
    weights, BatchNorm's statistics, weight averages and the optimiser are put back to the
    last look that found nothing, the noise of the attack is widened by one radius of the
    ball (De Jorge et al., 2022, find that wider noise prevents it), and training goes on
    with the next batch; where the step has no noise before it, training ends. It looks at
    the end of every epoch too, so that no checkpoint is written of a collapsed network, and
    a resumed run guards on as an uninterrupted one. It measures the weights that train, not
    their averages, which would hide a collapse.

    Args:
      selection: measures a few held-out images; `worst_case` off, or a network that
        decodes the label from FGSM's noise and has lost the clean images is not seen.
      state: of the training; the looks and the reach are kept in it.
      every: steps between two looks.
      good: the last good state of model, averages and optimiser.
    """

    def __init__(self, selection: Selection, state: TrainState, every: int, good: Snapshot) -> None:
        super().__init__()
        self._selection, self._state, self._every = selection, state, every
        self._good = good
        self._epoch = self._since = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes which epoch of the run this is."""
        self._epoch, self._since = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks when it is time to."""
        self._since += 1
        if self._since == self._every:
            self._look(f"epoch {self._epoch + 1}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the steps since the last look; to be called before the epoch's own end."""
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
            f"are back at the last good look; {self._prevent()}.",
            file=sys.stderr,
            flush=True,
        )

    def _prevent(self) -> str:
        """Sees to it that the same does not happen again, and says how."""
        if not self.model.single_step:
            self.model.stop_training = True
            return "training ends: craft in more steps, or by the method 'fast'"
        self._state.noise_reach = self.model.widen()
        return f"the noise now reaches {self._state.noise_reach:g} * eps"
