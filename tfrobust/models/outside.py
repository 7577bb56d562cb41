"""A model that runs outside of TensorFlow's graph: nothing of it is seen but its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor


class Outside:
    """A model in NumPy, behind an address or in another runtime, as one of TensorFlow.

    Attributes:
      classes: K; None until it is known.
      failure: the last error, for `told_plainly`.
    """

    #: Whether gradients pass through it.
    has_gradient = False
    classes: int | None = None
    failure: TFRobustError | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [B, H, W, C] -> float32 outputs [B, K], also in a graph.

        Raises:
          TFRobustError: there is no answer, or none that is understood; in a graph as an error
            of TensorFlow, which `told_plainly` mends.
        """
        found = tf.numpy_function(self._answered, [x], tf.float32)
        found.set_shape([x.shape[0], self.classes])
        return found

    def expect(self, classes: int) -> None:
        """Tells how many classes its images have, for those whose outputs do not say.

        Args:
          classes: of the images that it is shown.
        """

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """float32 [B, H, W, C] -> float32 [B, K].

        Raises:
          TFRobustError: there is no answer, or none that is understood.
        """
        raise NotImplementedError(f"{type(self).__name__} answers nothing.")

    def _answered(self, x: np.ndarray) -> np.ndarray:
        try:
            return self.outputs(x)
        except TFRobustError as error:
            self.failure = error
            raise


def expect_classes(model: object, classes: int) -> None:
    """Tells a model that runs outside how many classes images have; to others it is no news."""
    if isinstance(model, Outside):
        model.expect(classes)


def told_plainly(model: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """A traced function of a model, with what one outside failed by raised as it is.

    A graph tells an error of Python as one of TensorFlow, with a traceback in it.

    Args:
      model: any; of all but an `Outside`, or a `Classifier` of one, the function itself is
        returned.
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
