"""Scores of explanations: faithfulness, stability, sanity checks, completeness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.explain.saliency import heat
from tfrobust.models.inference import inference
from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor

#: (model, x, target) -> maps, like every entry of `EXPLAINERS`.
Explainer = Callable[[keras.Model, np.ndarray, np.ndarray], np.ndarray]

# Standard deviation of the Gaussian blur at the start of insertion, relative to the image's side.
_BLUR = 0.1


def deletion(
    model: keras.Model, x: np.ndarray, target: np.ndarray, maps: np.ndarray, *, steps: int = 20
) -> np.ndarray:
    """The class's probability as the most important pixels are removed first.

    Petsiuk et al. (2018), https://arxiv.org/abs/1806.07421. A removed pixel takes the image's
    mean colour. The lower the mean of a curve (`area`), the better the map identified what the
    model needs.

    Args:
      model: image in [0, 1] -> logits [N, K].
      x: float32 [N, H, W, C] in [0, 1].
      target: int [N], the explained class.
      maps: an explainer's maps for them.
      steps: number of removal steps; at least 1.

    Returns:
      float32 [N, steps + 1]: the probability with 0, 1/steps, ... all pixels removed.

    Raises:
      UsageError: the maps do not match the images, or `steps` is below 1.
    """
    plain = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    return _curve(model, x, plain, target, maps, steps)


def insertion(
    model: keras.Model, x: np.ndarray, target: np.ndarray, maps: np.ndarray, *, steps: int = 20
) -> np.ndarray:
    """The class's probability as the most important pixels are inserted first.

    They are inserted into a blurred image, which adds no sharp edges. Paper, arguments, result
    and errors as of `deletion`; a higher area is better.
    """
    return _curve(model, _blurred(x), x, target, maps, steps)


def area(curves: np.ndarray) -> np.ndarray:
    """The area under each curve [N, steps + 1] over the fraction of pixels, by trapezoids; [N]."""
    return np.asarray((curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2)


def _curve(
    model: keras.Model,
    begin: np.ndarray,
    end: np.ndarray,
    target: np.ndarray,
    maps: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Probabilities as `begin`'s pixels turn into `end`'s, in order of descending heat."""
    hot = heat(maps)
    if hot.shape != begin.shape[:3] or steps < 1:
        raise UsageError(
            f"Expected maps for {list(begin.shape[:3])} pixels and at least 1 step, found "
            f"{list(maps.shape)} and {steps}."
        )
    # The rank of each pixel: 0 for the most heat; of ties the upper left pixel comes first.
    order = np.argsort(-hot.reshape(len(hot), -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable").reshape(hot.shape)
    run = _probability_of(model, tf.constant(target, tf.int32))
    found = []
    for step in range(steps + 1):
        changed = rank < step * hot[0].size / steps
        found.append(run(tf.constant(np.where(changed[..., None], end, begin), tf.float32)).numpy())
    return np.stack(found, axis=1)


def _probability_of(model: keras.Model, target: Tensor) -> Callable[[Tensor], Tensor]:
    classify = inference(model)

    @tf.function(autograph=False)
    def run(x: Tensor) -> Tensor:
        return tf.gather(tf.nn.softmax(classify(x)), target, batch_dims=1)

    return run


def _blurred(x: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    sigma = _BLUR * max(x.shape[1:3])
    return np.asarray(gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest"))


def stability(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The similarity of two maps of each image: Spearman's rank correlation of their heat.

    Between the maps of a clean and of its adversarial image it shows how far an attack changes
    the explanation (Ghorbani et al. 2019, https://arxiv.org/abs/1710.10547).

    Args:
      maps, others: maps of the same N images, [N, H, W] or [N, H, W, C].

    Returns:
      float64 [N] in [-1, 1]; 0 if a map is constant.

    Raises:
      UsageError: the maps differ in shape.
    """
    from scipy.stats import spearmanr

    if maps.shape != others.shape or maps.ndim not in (3, 4):
        raise UsageError(
            "Expected two arrays of maps of one shape, [N, H, W] or [N, H, W, C], found "
            f"{list(maps.shape)} and {list(others.shape)}."
        )
    rows = [heat(m).reshape(len(m), -1) for m in (maps, others)]
    return np.array([
        spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0
        for a, b in zip(*rows, strict=True)
    ])  # fmt: skip


def randomisation(
    explain: Explainer, model: keras.Model, x: np.ndarray, target: np.ndarray, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """The similarity of a map before and after randomising the network: near 0 passes.

    Adebayo et al. (2018), https://arxiv.org/abs/1810.03292: a map that does not change under
    random weights shows the image and not the network. From the top down, as in the paper's
    cascade, the weights of each layer are shuffled, which keeps their scale.

    Args:
      explain: an entry of `EXPLAINERS`.
      model: a flat functional model; not modified.
      x: float32 [N, H, W, C] in [0, 1].
      target: int [N].
      seed: of the shuffling.

    Returns:
      'head' (the last layer with weights randomised), 'half' (the upper half of the layers with
      weights) and 'all' -> rank correlation with the model's own map, float64 [N].
    """
    own = explain(model, x, target)
    layers = [layer.name for layer in model.layers if layer.weights]
    parts = {"head": layers[-1:], "half": layers[len(layers) // 2 :], "all": layers}
    found = {}
    for name, forgotten in parts.items():
        found[name] = stability(own, explain(_randomised(model, forgotten, seed), x, target))
    return found


def _randomised(model: keras.Model, layers: list[str], seed: int) -> keras.Model:
    """A copy of the model in which the named layers have random weights."""
    copy = keras.Model.from_config(model.get_config())
    generator = np.random.default_rng(seed)
    for layer, original in zip(copy.layers, model.layers, strict=True):
        if layer.name not in layers:
            layer.set_weights(original.get_weights())
        else:
            layer.set_weights([_shuffled(w, generator) for w in original.get_weights()])
    return copy


def _shuffled(weight: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The weight's own values, shuffled: another function of the same scale."""
    return generator.permutation(weight.ravel()).reshape(weight.shape)


def completeness(
    model: keras.Model, x: np.ndarray, target: np.ndarray, maps: np.ndarray, baseline: float = 0.0
) -> np.ndarray:
    """The deviation of attributions from the sum that integrated gradients guarantee; [N].

    |sum of the map - (logit at x - logit at the baseline)|, relative to the latter.

    Args:
      model: image in [0, 1] -> logits [N, K].
      x: float32 [N, H, W, C] in [0, 1].
      target: int [N].
      maps: signed attributions [N, H, W, C].
      baseline: the value of every pixel of the baseline image.
    """
    ends = [x, np.full_like(x, baseline)]
    index = tf.constant(target, tf.int32)
    at_x, at_plain = (
        tf.gather(model(tf.constant(one), training=False), index, batch_dims=1).numpy()
        for one in ends
    )
    gap = np.abs(maps.sum(axis=(1, 2, 3), dtype=np.float64) - (at_x - at_plain))
    return np.asarray(gap / np.maximum(np.abs(at_x - at_plain), 1e-6))
