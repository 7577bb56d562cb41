"""Contract suites for plug-ins, this project's and those of others.

```python
from tfrobust.testing import check_attack

def test_my_attack():
    check_attack(MyAttack(steps=3), norms=("linf", "l2"))
```

Each check raises `AssertionError` with what is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfrobust.attacks.runner import run
from tfrobust.models.inference import inference
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel

#: A radius for each norm that small images are attacked at.
RADII = {"linf": 0.1, "l2": 0.6, "l1": 3.0, "l0": 4.0}
_SIDE, _CLASSES, _IMAGES = 6, 5, 7


def small_model(channels: int = 3, seed: int = 0) -> Any:
    """A small convolutional classifier of images 6x6, of tf_keras, with 5 classes."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((_SIDE, _SIDE, channels))
    x = keras.layers.Conv2D(6, 3, activation="relu")(image)
    return keras.Model(image, keras.layers.Dense(_CLASSES)(keras.layers.Flatten()(x)))


def small_images(model: Any, channels: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 in [0, 1], and the labels that a model gives them."""
    x = np.random.default_rng(seed).uniform(size=(_IMAGES, _SIDE, _SIDE, channels))
    images = x.astype(np.float32)
    return images, np.argmax(model(images, training=False), axis=1).astype(np.int32)


def check_attack(attack: Any, norms: Sequence[str] = ("linf",)) -> None:
    """What every attack guarantees to the one who runs it.

    - It is a frozen dataclass, and can be replaced and shown.
    - What it returns is of the images' shape, finite, and, projected by the runner, in the
      ball and the bounds; no gradient flows through it.
    - It runs in a graph, with a batch size that is not known while tracing, on one image and on
      many, of one channel and of three.
    - The same seed gives the same images.
    - It calls nothing a success that the model still classifies rightly.

    Args:
      attack: called as ``attack(model, x, y, ball, seed)``.
      norms: that it works in.
    """
    assert dataclasses.is_dataclass(attack) and not isinstance(attack, type), "no dataclass"
    assert dataclasses.replace(attack) == attack, "expected an equal copy of itself"
    for norm in norms:
        for channels in (1, 3):
            _check_in(attack, ThreatModel(norm, RADII[norm]), channels)


def _check_in(attack: Any, ball: ThreatModel, channels: int) -> None:
    model = small_model(channels)
    x, y = small_images(model, channels)
    classify = inference(model)
    specs = [tf.TensorSpec([None, *x.shape[1:]], tf.float32), tf.TensorSpec([None], tf.int32),
             tf.TensorSpec([2], tf.int32)]  # fmt: skip

    @tf.function(input_signature=specs, autograph=False)
    def step(x: Any, y: Any, seed: Any) -> Any:
        return run(attack, classify, classify, x, y, ball, seed)

    where = f"{type(attack).__name__} in {ball} on {channels} channel(s)"
    seed = tf.constant([3, 0], tf.int32)
    found = step(tf.constant(x), tf.constant(y), seed)
    made = found.x_adv.numpy()
    assert made.shape == x.shape and np.isfinite(made).all(), f"{where}: not finite, or reshaped"
    inside = ball.contains(found.x_adv, tf.constant(x)).numpy()
    assert inside.all(), f"{where}: outside of the ball or the bounds"
    again = step(tf.constant(x), tf.constant(y), seed).x_adv.numpy()
    assert np.array_equal(made, again), f"{where}: the same seed gives other images"
    wrong = np.argmax(model(made, training=False), axis=1) != y
    assert not (found.success.numpy() & ~wrong).any(), f"{where}: a success that is none"
    one = step(tf.constant(x[:1]), tf.constant(y[:1]), seed).x_adv.numpy()
    assert one.shape == x[:1].shape, f"{where}: a batch of one is reshaped"
    with tf.GradientTape() as tape:
        images = tf.constant(x)
        tape.watch(images)
        total = tf.reduce_sum(attack(classify, images, tf.constant(y), ball, seed))
    gradient = tape.gradient(total, images)
    assert gradient is None or not np.abs(gradient.numpy()).any(), f"{where}: gradients pass"


def check_explainer(explain: Callable[..., np.ndarray], channels: int = 3) -> None:
    """What every explainer guarantees.

    - Maps are finite float32 [N, H, W] or [N, H, W, C], one for each image.
    - An image's map does not depend on the others in its batch, and repeats.
    - Another class has another map.

    Args:
      explain: called as ``explain(model, x, target)``.
      channels: of the images.
    """
    model = small_model(channels)
    x, y = small_images(model, channels)
    maps = explain(model, x, y)
    assert maps.shape[:3] == x.shape[:3] and maps.dtype == np.float32, "shape or type"
    assert np.isfinite(maps).all(), "not finite"
    assert np.allclose(maps, explain(model, x, y), atol=1e-5), "does not repeat"
    alone = explain(model, x[2:3], y[2:3])
    scale = max(float(np.abs(alone).max()), 1e-6)
    assert np.allclose(maps[2:3], alone, atol=1e-3 * scale), "depends on the batch"
    other = explain(model, x, (y + 1) % _CLASSES)
    assert not np.allclose(maps, other), "does not depend on the class"


def check_backbone(features: Callable[[Any], Any]) -> None:
    """What every builder of features guarantees: a map or vector that gradients reach the image by.

    Args:
      features: normalised symbolic images [B, 32, 32, 3] -> [B, h, w, C] or [B, C].
    """
    image = keras.Input((32, 32, 3))
    made = features(image)
    assert len(made.shape) in (2, 4) and made.shape[-1], "expected [B, h, w, C] or [B, C]"
    model = keras.Model(image, made)
    x = tf.constant(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.square(model(x, training=False)))
    gradient = tape.gradient(total, x)
    assert gradient is not None and np.abs(gradient.numpy()).any(), "no gradient by the image"
    assert model.trainable_variables, "expected weights"
