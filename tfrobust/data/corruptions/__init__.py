"""Common corruptions: the 15 of Hendrycks and Dietterich (2019) at 5 severities.

https://arxiv.org/abs/1903.12261. The parameters are those that the paper's authors used for
CIFAR-10-C (32x32) and TinyImageNet-C (64x64). The images differ from those of the official -C
sets and cannot be compared with them: the random draws differ, frost's textures are generated
here, and nothing is rounded to 8 bits afterwards. Compare scores between models that saw the same
images, not with published -C scores.
"""

from __future__ import annotations

from collections.abc import Callable

from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.tables import Table
from tfrobust.typing import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}

CORRUPTIONS: Table[Callable[..., Tensor]] = Table(
    "corruption",
    {
        name: f"tfrobust.data.corruptions.{group}:{name}"
        for group, names in GROUPS.items()
        for name in names
    },
)
# Odd, so that no two rows of a batch get the same seed.
_ROW_STRIDE = 0x3C6EF373


def corrupt(x: Tensor, name: str, severity: int, seed: Tensor) -> Tensor:
    """Corrupts a batch of images; usable in `tf.data.Dataset.map` on batches.

    An image's result depends only on its pixels, its seed, `name` and `severity`, not on its
    neighbours in the batch. For image sizes other than 32x32 and 64x64 the parameters are those
    of the nearer size, with lengths in pixels scaled in proportion (but not below those of
    32x32).

    Args:
      x: float32 [B, H, W, 3] in [0, 1]; H and W are known when traced, and at least 8.
      name: a name of `CORRUPTIONS`.
      severity: 1 (mild) to 5.
      seed: int32 [2], from which row i of the batch gets its own seed; or int32 [B, 2], one
        seed per image, for results that do not depend on its position. zoom_blur,
        defocus_blur, brightness, contrast, pixelate and jpeg_compression are deterministic
        and ignore it.

    Returns:
      float32 [B, H, W, 3] in [0, 1].

    Raises:
      UsageError: an unknown name or severity, or x or seed of another type or shape.
    """
    function = CORRUPTIONS[name]
    if severity not in SEVERITIES:
        raise UsageError(f"severity: expected 1, 2, 3, 4 or 5, found {severity!r}.")
    x, seed = tf.convert_to_tensor(x), tf.convert_to_tensor(seed)
    _check(x, seed)
    seeds = _row_seeds(seed, tf.shape(x)[0]) if seed.shape.rank == 1 else seed
    return tf.ensure_shape(tf.clip_by_value(function(x, severity, seeds), 0.0, 1.0), x.shape)


def _check(x: Tensor, seed: Tensor) -> None:
    shape = x.shape
    known = shape.rank == 4 and None not in shape[1:] and shape[3] == 3
    if x.dtype != tf.float32 or not known or min(shape[1:3]) < 8:
        raise UsageError(
            "corrupt: expected float32 images [B, H, W, 3] in [0, 1] of at least 8x8, found "
            f"{x.dtype.name} {shape}: cast them and divide by 255."
        )
    fits = [seed.shape.is_compatible_with(one) for one in ([2], [shape[0], 2])]
    if seed.dtype != tf.int32 or seed.shape.rank is None or not any(fits):
        raise UsageError(
            "corrupt: expected an int32 seed [2], or [B, 2] for one per image, found "
            f"{seed.dtype.name} {seed.shape}: give tf.constant([a, b])."
        )


def _row_seeds(seed: Tensor, count: Tensor) -> Tensor:
    first = seed[0] + tf.range(count) * _ROW_STRIDE
    return tf.stack([first, tf.fill([count], seed[1])], axis=1)
