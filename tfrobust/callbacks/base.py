"""The callback interface of both Keras versions, plus what robust models and checkpoints call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError

Logs = Mapping[str, Any] | None


class Callback:
    """A callback that `fit` of both Keras versions accepts."""

    model: Any = None
    async_safe = True
    _supports_tf_logs = False
    _chief_worker_only = False
    params: dict[str, Any]

    def set_params(self, params: dict[str, Any]) -> None:
        """Called by `fit`."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called by `fit`."""
        self.model = model

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Called by a robust model before Keras's own `fit`; does nothing.

        Args:
          model: the robust model.
          given: the arguments of `fit` by name, which may be changed in place.
        """

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs, as plain values; empty."""
        return {}

    def arrays(self) -> list[np.ndarray]:
        """The state that a resumed run needs, as arrays; empty."""
        return []

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Restores both before `fit` starts; does nothing."""

    def _implements_train_batch_hooks(self) -> bool:
        return type(self).on_train_batch_end is not Callback.on_train_batch_end

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Does nothing, like every method here that a callback does not override."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Nothing."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Nothing."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Nothing."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Nothing."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Nothing."""

    def __getattr__(self, name: str) -> Any:
        # Hooks of validation and prediction, and any that a later Keras adds.
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


def save_model(model: Any, path: Path) -> None:
    """Writes the base model of a robust model, with the averaged weights if there are any.

    Args:
      model: the robust model.
      path: of the .keras file, which is replaced atomically.

    Raises:
      TFRobustError: it cannot be written.
    """
    # Keras infers the format from the suffix, so the temporary name keeps it.
    made = path.with_name(f".{path.stem}.partial.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with model.kept():
            model.base_model.save(made)
        made.replace(path)
    except OSError as error:
        raise TFRobustError(f"{path} cannot be written: {error}.") from error
