"""Data for the figures of explanations: maps computed from models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.explain.feature_maps import FeatureMap
from tfrobust.explain.overlay import overlaid
from tfrobust.explain.saliency import parts, saliency, scale, smoothgrad, sum_channels
from tfrobust.figures.channels import ChannelRows, LayerChannels
from tfrobust.figures.feature_maps import LayerMean, LayerMeans
from tfrobust.figures.maps import MapsByModel, MapsOfMethod, MapsOfModel
from tfrobust.figures.overlay import Overlays
from tfrobust.figures.saliency import GROUPS, Predicted, SaliencyMaps, group_of
from tfrobust.runtime import keras, tf

if TYPE_CHECKING:
    from tfrobust.typing import Explainer

#: Number of channels drawn per layer, and of layers in the figure of channels.
CHANNELS, LAYERS = 16, 8


@dataclass(frozen=True)
class Examples:
    """Images for a figure, each with its adversarial image.

    Attributes:
      x: float32 [N, H, W, C] in [0, 1], N >= 1.
      y: int [N], the true labels.
      x_adv: like x, crafted from it.
    """

    x: np.ndarray
    y: np.ndarray
    x_adv: np.ndarray

    def __post_init__(self) -> None:
        shapes = [list(array.shape) for array in (self.x, self.y, self.x_adv)]
        fits = self.x.shape == self.x_adv.shape and self.y.shape == self.x.shape[:1]
        if not fits or self.x.ndim != 4 or len(self.x) == 0:
            raise UsageError(
                "Expected x and x_adv as [N, H, W, C] and y as [N], N >= 1, "
                f"found {shapes[0]}, {shapes[2]} and {shapes[1]}."
            )


def pick(
    y: np.ndarray, clean_pred: np.ndarray, adv_pred: np.ndarray, per_group: int, seed: int = 0
) -> np.ndarray:
    """Draws examples for the saliency figure: up to `per_group` of each of `GROUPS`, in order.

    Args:
      y: int [N], the true labels.
      clean_pred: int [N], the classes predicted on the clean images.
      adv_pred: int [N], the classes predicted on the adversarial images.
      per_group: number from each group, or all if a group has fewer.
      seed: the same seed draws the same examples.

    Returns:
      int64 indices into `y`, without repetition; ascending within a group.

    Raises:
      UsageError: lengths differ, `y` is empty, or `per_group` is below 1.
    """
    if not len(y) == len(clean_pred) == len(adv_pred) or len(y) == 0 or per_group < 1:
        raise UsageError(
            "Expected as many labels as clean and adversarial predictions, 1 or more, and "
            f"per_group >= 1, found {len(y)}, {len(clean_pred)}, {len(adv_pred)} and {per_group}."
        )
    generator = np.random.default_rng(seed)
    group = group_of(y, clean_pred, adv_pred)
    members = [np.flatnonzero(group == number) for number in range(len(GROUPS))]
    drawn = [generator.permutation(each)[:per_group] for each in members]
    return np.concatenate([np.sort(each) for each in drawn])


def predicted(model: keras.Model, x: np.ndarray) -> Predicted:
    """A model's predictions for images in [0, 1]."""
    logits = tf.cast(model(tf.constant(x), training=False), tf.float32)
    probs = tf.nn.softmax(logits).numpy()
    return Predicted(x, probs.argmax(axis=1), probs.max(axis=1))


def saliency_maps(
    model: keras.Model, examples: Examples, class_names: Sequence[str], *, seed: int = 0
) -> SaliencyMaps:
    """The gradient and SmoothGrad of the predicted class, clean and adversarial.

    Args:
      model: image in [0, 1], float32 [None, H, W, C] -> logits [None, K].
      examples: the images to show.
      class_names: the K classes' names, by label.
      seed: of SmoothGrad's noise.

    Raises:
      UsageError: images, labels or names do not match the model.
      TFRobustError: a gradient is not finite.
    """
    _check(model, examples, class_names)
    clean, adversarial = (predicted(model, x) for x in (examples.x, examples.x_adv))
    maps = [_three_maps(model, view, seed) for view in (clean, adversarial)]
    return SaliencyMaps(clean, adversarial, maps[0], maps[1], examples.y, class_names)


def _three_maps(model: keras.Model, view: Predicted, seed: int) -> tuple[np.ndarray, ...]:
    positive, negative = parts(saliency(model, view.x, view.predicted))
    smooth = smoothgrad(model, view.x, view.predicted, seed=seed)
    return scale(sum_channels(positive)), -scale(sum_channels(negative)), _signed(smooth)


def _signed(maps: np.ndarray) -> np.ndarray:
    """Signed maps [N, H, W, C] as [N, H, W] in [-1, 1]."""
    summed = sum_channels(maps)
    return np.asarray(np.sign(summed) * scale(np.abs(summed)))


def _check(model: keras.Model, examples: Examples, class_names: Sequence[str]) -> None:
    shape, classes = list(model.input_shape[1:]), model.output_shape[-1]
    if list(examples.x.shape[1:]) != shape:
        raise UsageError(
            f"Expected images {shape}, the model's input shape, found "
            f"{list(examples.x.shape[1:])}: resize them, or choose the model's own data."
        )
    if len(class_names) != classes or not (0 <= examples.y.min() <= examples.y.max() < classes):
        raise UsageError(
            f"Expected {classes} class names, one per class, and labels below {classes}, found "
            f"{len(class_names)} names and labels {examples.y.min()} to {examples.y.max()}: "
            "choose the data that the model was trained on."
        )


def overlays(
    model: keras.Model,
    x: np.ndarray,
    x_adv: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str],
) -> Overlays:
    """The gradient of the most confident prediction, overlaid on each image.

    Args:
      model: image in [0, 1] -> logits.
      x: float32 [N, H, W, C] in [0, 1], N >= 1.
      x_adv: like x, crafted from it.
      y: int [N], the true labels.
      class_names: by label.

    Raises:
      UsageError: the arrays do not match.
    """
    Examples(x, y, x_adv)
    clean, adversarial = (predicted(model, one) for one in (x, x_adv))
    reds = [
        overlaid(view.x, saliency(model, view.x, view.predicted)) for view in (clean, adversarial)
    ]
    return Overlays(clean, adversarial, reds[0], reds[1], y, class_names)


def maps_by_model(
    models: Mapping[str, keras.Model],
    x: np.ndarray,
    adversarial: Mapping[str, np.ndarray],
    y: np.ndarray,
    class_names: Sequence[str],
    explainers: Mapping[str, Explainer],
) -> MapsByModel:
    """Maps of each model by each method, clean and adversarial, of the class it predicts.

    Args:
      models: name -> model; all for the same images and classes.
      x: float32 [N, H, W, C] in [0, 1], N >= 1.
      adversarial: name of the model -> images like x crafted against it.
      y: int [N], the true labels.
      class_names: by label.
      explainers: title in the figure -> explainer.

    Raises:
      UsageError: the arrays do not match.
    """
    found = {}
    for name, model in models.items():
        Examples(x, y, adversarial[name])
        views = clean, attacked = predicted(model, x), predicted(model, adversarial[name])
        maps = [
            [_of_method(explain(model, view.x, view.predicted)) for explain in explainers.values()]
            for view in views
        ]
        found[name] = MapsOfModel(clean, attacked, maps[0], maps[1])
    return MapsByModel(found, list(explainers), y, class_names)


def _of_method(maps: np.ndarray) -> MapsOfMethod:
    signed = maps.ndim == 4
    return MapsOfMethod(_signed(maps) if signed else scale(maps), signed)


def layer_means(maps: Mapping[str, Mapping[str, Sequence[FeatureMap]]]) -> LayerMeans:
    """Feature maps in the form of their figure.

    Args:
      maps: model -> image's name -> `feature_maps` of that one image.

    Raises:
      UsageError: the models have different layers, or there is nothing to show.
    """
    return LayerMeans({
        model: {
            image: [LayerMean(one.layer, one.values.shape[1:], one.mean[0]) for one in found]
            for image, found in images.items()
        }
        for model, images in maps.items()
    })  # fmt: skip


def channel_rows(found: Sequence[FeatureMap], layers: Sequence[str] | None = None) -> ChannelRows:
    """Channels, evenly spaced, of some convolutions for one image.

    Args:
      found: `feature_maps` of one image.
      layers: the layers to draw, in this order; None is `LAYERS` of those with maps larger than
        1x1, evenly spaced, from the input up.

    Raises:
      UsageError: no layer has a map larger than 1x1, or a requested one has none.
    """
    rows = [
        LayerChannels(
            one.layer, one.values.shape[1:], np.moveaxis(one.channels(CHANNELS)[0], -1, 0)
        )
        for one in _with_maps(found, layers)
    ]
    return ChannelRows(rows, "Channels, from the input up" if layers is None else "Channels")


def _with_maps(found: Sequence[FeatureMap], layers: Sequence[str] | None) -> list[FeatureMap]:
    """The layers whose channels are drawn: the requested ones, or some from the input up."""
    maps = {
        one.layer: one for one in found if one.values.ndim == 4 and max(one.values.shape[1:3]) > 1
    }
    wrong = [name for name in layers or () if name not in maps]
    if not maps or wrong:
        known = ", ".join(maps) or "the model, which has none"
        raise UsageError(
            f"Expected layers with maps larger than 1x1, out of {known}; found "
            f"{', '.join(wrong) or 'none'}."
        )
    names = list(maps)
    index = np.unique(np.linspace(0, len(names) - 1, min(LAYERS, len(names))).astype(int))
    return [maps[name] for name in layers or [names[i] for i in index]]
