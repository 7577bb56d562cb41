"""Several models as one, such as the substitutes that a transfer attack is crafted on."""

from __future__ import annotations

from collections.abc import Sequence

from tfrobust.errors import UsageError
from tfrobust.models.inference import inference
from tfrobust.runtime import tf
from tfrobust.typing import Function, Model, Tensor


def ensemble(models: Sequence[Model]) -> Function:
    """The mean logits of several models, as a model.

    Liu et al. (2017), https://arxiv.org/abs/1611.02770; averaged in logits as by Dong et al.
    (2018), https://arxiv.org/abs/1710.06081.

    Args:
      models: one or more, each images float32 [B, H, W, C] in [0, 1] -> logits [B, K], of the
        same classes; of either Keras, or functions.

    Returns:
      Images -> their mean logits, float32 [B, K].

    Raises:
      UsageError: no model.

    Examples:
      >>> both = tr.models.ensemble([model, lambda images: model(images) + 1])
      >>> bool(np.allclose(both(x[:4]), model(x[:4]) + 0.5, atol=1e-5))
      True
    """
    if not models:
        raise UsageError("models: expected one or more, found none.")
    each = [inference(model) for model in models]

    def mean(x: Tensor) -> Tensor:
        return tf.add_n([logits(x) for logits in each]) / len(each)

    return mean
