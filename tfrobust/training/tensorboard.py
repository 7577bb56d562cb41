"""TensorBoard logs: the curves, and images of a clean and an adversarial batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfrobust.run import RunFolder
from tfrobust.runtime import tf


class TensorBoard:
    """Writes one entry per epoch to the run's `tensorboard` folder.

    Attributes:
      craft: (x, y) -> x_adv or None, the training attack of the current stage.
    """

    def __init__(self, run: RunFolder) -> None:
        self._writer = tf.summary.create_file_writer(str(run.tensorboard))
        self.craft: Callable[[Any, Any], Any] = lambda x, y: None

    def log(self, row: dict[str, Any], batch: dict[str, Any]) -> None:
        """Logs a row of the history, and `batch` clean and under the training attack."""
        x_adv = self.craft(batch["image"], batch["label"])
        with self._writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
            tf.summary.image("clean", batch["image"], max_outputs=8)
            if x_adv is not None:
                tf.summary.image("adversarial", x_adv, max_outputs=8)
        self._writer.flush()
