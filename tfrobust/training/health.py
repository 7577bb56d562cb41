"""Watches whether training learns, and goes back to the last good weights where it does not."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrobust.chance import above_chance, guessing_loss, majority_rate
from tfrobust.training.state import TrainState

# After so many recoveries in vain training stops instead of spending the whole time.
TRIES = 3
# Nothing is asked of a network before this part of the training, or this many steps.
_PATIENCE, _LEAST_STEPS = 0.25, 100
_SLOWER, _EASIER = 0.3, 0.5
# Clean accuracy from which a network has clearly learnt, times that of guessing.
_CLEARLY = 2.0


class Snapshot:
    """The values of some variables at one moment, held in memory."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self.take()

    def take(self) -> None:
        """Remembers the present values."""
        self._values = [variable.read_value() for variable in self._variables]

    def put_back(self) -> None:
        """Sets every variable to exactly what was remembered."""
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)


class Health:
    """Judges each epoch, for every method, and undoes what spoiled the network.

    Four things are wrong: a loss that is not finite, a training loss no better than that of
    the best constant prediction (unless clean accuracy on 'select' is twice that of the majority
    class), clean accuracy that is not above the majority class, and clean accuracy that was well
    above it and is no more. The middle two are asked
    from a quarter of the training on. Then weights and optimiser go back to the last good
    state, the learning rate falls to 0.3 of what the schedule says, from the second time on eps
    to a half as well, and the row of the history says so. The third time in vain ends training.

    Args:
      state: of the training; factors and tries are kept in it.
      good: the snapshot of the last good state.
      labels: of the training images: they say what guessing reaches.
    """

    def __init__(self, state: TrainState, good: Snapshot, labels: np.ndarray) -> None:
        self._state, self._good = state, good
        self._majority, self._guessing = majority_rate(labels), guessing_loss(labels)
        self._event: str | None = None
        self._last_loss = math.nan

    @property
    def hopeless(self) -> bool:
        """Whether it has been tried often enough."""
        return self._state.recoveries > TRIES

    def has_learnt(self, clean_accuracy: float, count: int) -> bool:
        """Whether an accuracy on `count` images of 'select' is above that of guessing."""
        return above_chance(round(clean_accuracy * count), count, self._majority)

    def undo_step(self, method: Any, loss: float, where: str) -> None:
        """Goes back from a loss that is not finite; the epoch's mean goes on from the last one.

        Args:
          method: the Keras model that trains.
          loss: the mean of the epoch after its last step.
          where: it was found.
        """
        self.recover(method, f"the loss became {loss}", where)
        rows = self._state.rows
        last = self._last_loss
        if not math.isfinite(last):
            last = rows[-1]["loss"] if rows else self._guessing
        method.metrics[0].update_state(last)

    def note_loss(self, loss: float) -> None:
        """Remembers the epoch's mean after a step."""
        self._last_loss = loss

    def recover(self, method: Any, what: str, where: str) -> None:
        """Goes back to the last good state with gentler settings.

        Args:
          method: the Keras model that trains.
          what: is wrong.
          where: it was found.
        """
        state = self._state
        self._good.put_back()
        method.reset_metrics()
        state.recoveries += 1
        state.rate_factor *= _SLOWER
        change = f"the learning rate is {state.rate_factor:.2g} of the schedule's"
        if state.recoveries > 1:
            state.eps_factor *= _EASIER
            change += f", eps {state.eps_factor:.2g} of its value"
        if self.hopeless:
            change = "that was the last try"
        self._event = what
        print(f"At {where} {what}: back to the last good weights; {change}.", file=sys.stderr,
              flush=True)  # fmt: skip

    def judge(self, row: dict[str, Any], method: Any, part: float, steps: int, count: int) -> str:
        """What is wrong with an epoch, or what was since the last one; '' where all is well.

        Args:
          row: of the history.
          method: the Keras model that trains.
          part: of the training that is done, in [0, 1].
          steps: of training so far.
          count: images of 'select' that were measured; 0 where the epoch was not.
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
        # The epoch's mean loss looks back to its first step, and rises with eps: a network that
        # is right twice as often as guessing has left it behind, whatever that mean is.
        limit = method.loss_of_guessing(self._guessing) if clean < _CLEARLY * guess else None
        if limit is not None and row["loss"] >= limit:
            return f"the loss ({row['loss']:.3f}) is no better than that of guessing ({limit:.3f})"
        return ""
