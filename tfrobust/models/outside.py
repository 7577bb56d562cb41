"""A model that runs outside of TensorFlow's graph, of which only the outputs are accessible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.runtime import tf
from tfrobust.typing import Model, Tensor


class Outside:
    """A model in NumPy, behind an address or in another runtime, as a function of TensorFlow.

    Attributes:
      classes: K; None while unknown.
      failure: the last error, for `told_plainly`.
    """

    #: Whether gradients pass through it.
    has_gradient = False
    classes: int | None = None
    failure: TFRobustError | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [B, H, W, C] -> float32 outputs [B, K], also in a graph.

        Raises:
          TFRobustError: there is no answer, or no valid one; in a graph as an error of
            TensorFlow, which `told_plainly` turns back.
        """
        found = tf.numpy_function(self._answered, [x], tf.float32)
        found.set_shape([x.shape[0], self.classes])
        return found

    def expect(self, classes: int) -> None:
        """Sets the number of classes, for models whose outputs do not show it.

        Args:
          classes: of the images.
        """

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """float32 [B, H, W, C] -> float32 [B, K].

        Raises:
          TFRobustError: there is no answer, or no valid one.
        """
        raise NotImplementedError(f"{type(self).__name__} answers nothing.")

    def _answered(self, x: np.ndarray) -> np.ndarray:
        try:
            return self.outputs(x)
        except TFRobustError as error:
            self.failure = error
            raise


def expect_classes(model: object, classes: int) -> None:
    """Sets the number of classes of a model that runs outside; does nothing for others."""
    if isinstance(model, Outside):
        model.expect(classes)


def told_plainly(model: Model, function: Callable[..., Any]) -> Callable[..., Any]:
    """A traced function of a model that raises the original errors of a model outside.

    A graph would raise them as errors of TensorFlow, with a traceback in the message.

    Args:
      model: any; unless it is an `Outside`, or a `Classifier` of one, the function is returned
        as it is.
      function: that calls the model.
    """
    inner = getattr(model, "inner", model)
    if not isinstance(inner, Outside):
        return function

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except tf.errors.OpError as error:
            if inner.failure is None:
                raise
            raise inner.failure from error

    return call
