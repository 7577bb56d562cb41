"""Averages of the weights, which are validated and kept instead of the last weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from tfrobust.callbacks.base import Callback, Logs
from tfrobust.errors import UsageError
from tfrobust.training.averaging import Averages


class WeightAveraging(Callback):
    """Averages the weights in each training step; see `Averages`.

    Validation measures the averages, the other callbacks here save them, and the base model has
    them when `fit` ends. Gowal et al. (2020), https://arxiv.org/abs/2010.03593.

    Args:
      decay: in (0, 1).

    Raises:
      UsageError: `decay` is out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise UsageError(f"decay: expected a number in (0, 1), found {decay}.")
        self.decay = decay
        self._averages: Averages | None = None
        self._restored: list[np.ndarray] = []
        self._measuring = ExitStack()

    def set_model(self, model: Any) -> None:
        """Called by `fit`, before tracing."""
        super().set_model(model)
        with model.distribute_strategy.scope():
            self._averages = Averages(model.base_model, self.decay)
        if self._restored:
            for average, value in zip(self._averages.variables, self._restored, strict=True):
                average.assign(value)
        self._restored = []
        model.averages, model.train_function = self._averages, None

    def on_test_begin(self, logs: Logs = None) -> None:
        """Swaps in the averages for validation."""
        self._measuring.enter_context(self.model.kept())

    def on_test_end(self, logs: Logs = None) -> None:
        """Swaps the weights back in for training."""
        self._measuring.close()

    def on_train_end(self, logs: Logs = None) -> None:
        """Makes the averages the model's weights."""
        if self._averages is not None:
            self._averages.apply()
        self.model.averages, self.model.train_function = None, None

    def arrays(self) -> list[np.ndarray]:
        """The averages."""
        return [average.numpy() for average in self._averages.variables] if self._averages else []

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Resumes from saved averages."""
        self._restored = list(arrays)
