"""Activation maximisation: the image that maximises the logit of a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.runtime import import_legacy, keras, tf


def maximise(
    model: keras.Model,
    classes: Sequence[int],
    *,
    steps: int = 200,
    learning_rate: float = 0.02,
    smoothness: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Optimises grey noise into images that maximise the model's logits of these classes.

    Erhan et al. (2009); Olah et al. (2017), https://doi.org/10.23915/distill.00007. The images of
    a robust model show shapes of the class, those of a standard model look like noise: Tsipras
    et al. (2019), https://arxiv.org/abs/1805.12152.

    Args:
      model: image in [0, 1] -> logits [N, K].
      classes: the classes, each in 0..K-1; one image for each.
      steps: of Adam.
      learning_rate: of Adam, in pixels of [0, 1].
      smoothness: weight of the total variation, which suppresses isolated extreme pixels.
      seed: of the noise and of the jitter.

    Returns:
      float32 [len(classes), H, W, 3] in [0, 1].

    Raises:
      UsageError: a class does not exist, or steps is below 1.
      TFRobustError: the images are not finite.
    """
    _check(model, classes, steps)
    library = import_legacy("tf_keras_vis.activation_maximization")
    regularizers = import_legacy("tf_keras_vis.activation_maximization.regularizers")

    index = tf.constant(list(classes), tf.int32)
    noise = np.random.default_rng(seed).normal(0.5, 0.05, (len(classes), *model.input_shape[1:]))
    found = library.ActivationMaximization(model, clone=False)(
        lambda logits: tf.gather(logits, index, batch_dims=1),
        seed_input=tf.constant(noise, tf.float32),
        input_range=(0.0, 1.0),
        input_modifiers=[_Jitter(seed)],
        regularizers=[regularizers.TotalVariation2D(weight=smoothness)],
        steps=steps,
        optimizer=keras.optimizers.Adam(learning_rate),
    )
    images = np.asarray(found, np.float32)
    if not np.isfinite(images).all():
        raise TFRobustError(
            "Activation maximisation diverged to NaN or infinity: lower its learning_rate."
        )
    return np.clip(images, 0, 1)


class _Jitter:
    """Shifts the images by a pixel or two at every step, seeded by the step."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        reach = max(1, int(images.shape[1]) // 16)
        shift = self._generator.integers(-reach, reach + 1, 2)
        # The library itself clips to the range only at the very end.
        return tf.roll(tf.clip_by_value(images, 0.0, 1.0), shift.tolist(), axis=(1, 2))


def _check(model: keras.Model, classes: Sequence[int], steps: int) -> None:
    count = int(model.output_shape[-1])
    if not classes or not all(0 <= one < count for one in classes) or steps < 1:
        raise UsageError(
            f"Expected classes in 0..{count - 1}, at least one, and at least 1 step, found "
            f"{list(classes)} and {steps}."
        )
