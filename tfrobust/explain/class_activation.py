"""Class-activation maps: where the feature maps of a late layer support a class."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.explain.saliency import check
from tfrobust.explain.target_layer import target_layer as find_layer
from tfrobust.runtime import import_legacy, keras, tf

_log = logging.getLogger(__name__)
# Score-CAM masks the image with each channel of the layer: this many at once.
_MASKS = 32


def gradcam(
    model: keras.Model, x: np.ndarray, target: np.ndarray, *, target_layer: str | None = None
) -> np.ndarray:
    """Grad-CAM: the layer's channels, weighted by the mean gradient of the class's logit.

    Selvaraju et al. (2017), https://arxiv.org/abs/1610.02391.

    Args:
      model: a flat functional model, image in [0, 1] -> logits [N, K].
      x: float32 [N, H, W, C] in [0, 1], one batch.
      target: int [N], the class of each image to explain.
      target_layer: name of the layer; None is the last one with a map larger than 1x1.

    Returns:
      float32 [N, H, W], 0 or more, enlarged from the layer's size to the image's; evidence against
      the class is 0. All 0 if nothing supports the class.

    Raises:
      UsageError: an argument is invalid.
      TFRobustError: a map is not finite.
    """
    found = _map("gradcam.Gradcam", model, x, target, target_layer)
    empty = int((found.max(axis=(1, 2)) == 0).sum())
    if 2 * empty > len(found):
        _log.warning(
            "gradcam: the map of %d of %d images is 0 everywhere. It weights each channel by the "
            "mean of its gradient over the map, which cancels out in networks that flatten their "
            "maps: use layercam or gradcam++ for these.",
            empty,
            len(found),
        )
    return found


def gradcam_plus_plus(
    model: keras.Model, x: np.ndarray, target: np.ndarray, *, target_layer: str | None = None
) -> np.ndarray:
    """Grad-CAM++: positive gradients only, weighted so that each instance of a class counts.

    Chattopadhyay et al. (2018), https://arxiv.org/abs/1710.11063. Arguments, result and
    errors as of `gradcam`.
    """
    return _map("gradcam_plus_plus.GradcamPlusPlus", model, x, target, target_layer)


def layercam(
    model: keras.Model, x: np.ndarray, target: np.ndarray, *, target_layer: str | None = None
) -> np.ndarray:
    """Layer-CAM: every activation weighted by its own positive gradient.

    Jiang et al. (2021), https://doi.org/10.1109/TIP.2021.3089943; also useful at earlier layers.
    Arguments, result and errors as of `gradcam`.
    """
    return _map("layercam.Layercam", model, x, target, target_layer)


def scorecam(
    model: keras.Model,
    x: np.ndarray,
    target: np.ndarray,
    *,
    target_layer: str | None = None,
    channels: int | None = 64,
) -> np.ndarray:
    """Score-CAM: each channel weighted by the class's probability on the image masked with it.

    Wang et al. (2020), https://arxiv.org/abs/1910.01279; uses no gradient, but one forward pass
    for each channel. Arguments, result and errors as of `gradcam`.

    Args:
      model, x, target, target_layer: as in `gradcam`.
      channels: number of channels to use, those that vary most over the image; None uses all.
    """
    check(model, x, target)
    layer = find_layer(model, target_layer)
    count = int(model.get_layer(layer).output.shape[-1])
    few = channels if channels is not None and channels < count else None
    # One image at a time: the library selects the channels of all images together.
    found = [
        _map(
            "scorecam.Scorecam",
            model,
            x[i : i + 1],
            target[i : i + 1],
            layer,
            max_N=few,
            batch_size=_MASKS,
        )
        for i in range(len(x))
    ]
    return np.concatenate(found)


def _map(
    name: str,
    model: keras.Model,
    x: np.ndarray,
    target: np.ndarray,
    target_layer: str | None,
    **options: Any,
) -> np.ndarray:
    check(model, x, target)
    module, _, kind = name.partition(".")
    method = getattr(import_legacy(f"tf_keras_vis.{module}"), kind)
    index = tf.constant(target, tf.int32)
    # The library would search for a Keras 3 layer, its scaling fails on small values, and Keras's
    # `predict`, which it calls, prints a progress bar.
    with contextlib.redirect_stdout(io.StringIO()):
        small = method(model, clone=False)(
            lambda logits: tf.gather(logits, index, batch_dims=1),
            tf.constant(x, tf.float32),
            penultimate_layer=find_layer(model, target_layer),
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
            **options,
        )
    maps = np.asarray(small, np.float32)
    if not np.isfinite(maps).all():
        raise TFRobustError(
            "Expected finite class-activation maps, found NaN or infinity: explain an earlier "
            "checkpoint, or one trained in float32."
        )
    return tf.image.resize(maps[..., None], x.shape[1:3]).numpy()[..., 0]
