"""Monitors whether training learns, and rolls back to the last good weights if not."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrobust.chance import above_chance, guessing_loss, majority_rate
from tfrobust.training.state import TrainState

# After this many failed recoveries training stops instead of using up its time.
TRIES = 3
# No check is made before this part of training, or this many steps.
_PATIENCE, _LEAST_STEPS = 0.25, 100
_SLOWER, _EASIER = 0.3, 0.5
# Clean accuracy, as a multiple of guessing, from which a network has clearly learnt.
_CLEARLY = 2.0


class Snapshot:
    """The values of some variables at one moment, kept in memory."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self.take()

    def take(self) -> None:
        """Stores the current values."""
        self._values = [variable.read_value() for variable in self._variables]

    def put_back(self) -> None:
        """Restores every variable to exactly the stored value."""
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)


class Health:
    """Judges each epoch, for every method, and reverts what damaged the network.

    Four conditions count as failures: a loss that is not finite, a training loss no better than
    that of the best constant prediction (unless clean accuracy on 'select' is twice that of the
    majority class), clean accuracy not above the majority class, and clean accuracy that no
    longer is well above it. The middle two are checked from a quarter of training on. After a
    failure, weights and optimiser are rolled back to the last good state, the learning rate is
    multiplied by 0.3, from the second failure on eps is halved as well, and the row of the
    history says so. The third failed recovery ends training.

    Args:
      state: of training; it stores the factors and the number of recoveries.
      good: the snapshot of the last good state.
      labels: of the training images; they determine the accuracy of guessing.
    """

    def __init__(self, state: TrainState, good: Snapshot, labels: np.ndarray) -> None:
        self._state, self._good = state, good
        self._majority, self._guessing = majority_rate(labels), guessing_loss(labels)
        self._event: str | None = None
        self._last_loss = math.nan

    @property
    def hopeless(self) -> bool:
        """Whether the maximum number of recoveries is reached."""
        return self._state.recoveries > TRIES

    def has_learnt(self, clean_accuracy: float, count: int) -> bool:
        """Whether an accuracy on `count` images of 'select' is above that of guessing."""
        return above_chance(round(clean_accuracy * count), count, self._majority)

    def undo_step(self, method: Any, loss: float, where: str) -> None:
        """Recovers from a non-finite loss; the epoch's mean continues from the last finite one.

        Args:
          method: the Keras model that trains.
          loss: the mean of the epoch after its last step.
          where: the place in training, for the message.
        """
        self.recover(method, f"the loss became {loss}", where)
        rows = self._state.rows
        last = self._last_loss
        if not math.isfinite(last):
            last = rows[-1]["loss"] if rows else self._guessing
        method.metrics[0].update_state(last)

    def note_loss(self, loss: float) -> None:
        """Records the epoch's mean after a step."""
        self._last_loss = loss

    def recover(self, method: Any, what: str, where: str) -> None:
        """Rolls back to the last good state with gentler settings.

        Args:
          method: the Keras model that trains.
          what: the failure, for the message.
          where: the place in training, for the message.
        """
        state = self._state
        self._good.put_back()
        method.reset_metrics()
        state.recoveries += 1
        state.rate_factor *= _SLOWER
        change = f"the learning rate is now {state.rate_factor:.2g} times the schedule's"
        if state.recoveries > 1:
            state.eps_factor *= _EASIER
            change += f", eps {state.eps_factor:.2g} times its setting"
        if self.hopeless:
            change = "no recoveries are left"
        self._event = what
        print(
            f"At {where} {what}: rolled back to the last good weights; {change}.",
            file=sys.stderr,
            flush=True,
        )

    def judge(self, row: dict[str, Any], method: Any, part: float, steps: int, count: int) -> str:
        """An epoch's failure, or one recovered from since the last epoch; '' if all is well.

        Args:
          row: of the history.
          method: the Keras model that trains.
          part: completed share of training, in [0, 1].
          steps: of training so far.
          count: images of 'select' that were measured; 0 if the epoch was not.
        """
        what = self._wrong(row, method, part, steps, count)
        if what:
            self.recover(method, what, f"the end of epoch {row['epoch']}")
            self._state.recovered_at = part
        elif count:
            self._good.take()
        event, self._event = self._event, None
        return event or ""

    def _wrong(self, row: dict[str, Any], method: Any, part: float, steps: int, count: int) -> str:
        if not math.isfinite(row["loss"]):
            return "the loss is not finite"
        if not count:
            return ""
        clean, guess = row["select_clean"], self._majority
        learnt = self.has_learnt(clean, count)
        best = max((other.get("select_clean", 0.0) for other in self._state.rows), default=0.0)
        if not learnt and clean < guess + (best - guess) / 4 and best > 1.5 * guess:
            return f"clean accuracy collapsed from {best:.3f} to {clean:.3f}"
        if steps < _LEAST_STEPS or part < self._state.recovered_at + _PATIENCE:
            return ""
        if not learnt:
            return (
                f"clean accuracy on 'select' ({clean:.3f}) is not above that of the most frequent "
                f"class ({guess:.3f})"
            )
        # The epoch's mean loss includes its first steps, and rises with eps: a network that is
        # right twice as often as guessing has clearly learnt, whatever that mean is.
        limit = method.loss_of_guessing(self._guessing) if clean < _CLEARLY * guess else None
        if limit is not None and row["loss"] >= limit:
            return f"the loss ({row['loss']:.3f}) is no better than that of guessing ({limit:.3f})"
        return ""
