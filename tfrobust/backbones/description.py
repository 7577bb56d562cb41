"""The description of a network, from which `build` makes it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tfrobust.config import BackboneConfig
from tfrobust.errors import UsageError
from tfrobust.plugins import as_dataclass, settings_of, typed

# Settings that only some networks support, with their neutral values.
OPTIONS = {
    name: getattr(BackboneConfig(), name)
    for name in ("alpha", "stem", "convolution", "position_embedding")
}


@dataclass(frozen=True)
class Tuning:
    """The settings with which a network trains best from scratch on small images.

    Attributes:
      optimizer: a name of `TrainingConfig.optimizer`.
      learning_rate: peak learning rate.
      weight_decay: in the form of `TrainingConfig`.
      alpha: factor on the channels that scored best on small machines.
      batch_size: images in a batch, for thousands of images.
      quick: whether it learns small images in a few epochs, and overfits them soon after.
      low_precision: whether bfloat16 pays off if the processor supports it.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.003
    weight_decay: float = 0.0
    alpha: float = 1.0
    batch_size: int = 64
    quick: bool = False
    low_precision: bool = False


@dataclass(frozen=True)
class Backbone:
    """A network, as data.

    Attributes:
      name: its name here, and the name of models built from it.
      constructor: its name in `keras.applications`, or 'package.module:function' of a
        builder: normalised images [B, H, W, 3], with its `options` as keywords -> a map
        of features [B, h, w, C] or a vector [B, C].
      normalisation: the pixels that it expects: 'tf' is [-1, 1], 'caffe' is BGR in 0..255 minus
        the ImageNet means, 'torch' is RGB minus the ImageNet mean, divided by the standard
        deviation, 'inside' is 0..255 with a torch normalisation inside the network.
      blocks: (pattern, block) pairs that sort layers by name into the network's repeated unit
        (inverted residual, residual unit, cell) or, for DenseNet, dense block; the first
        pattern that matches the start of a layer's name applies.
      options: the settings that it supports: some of `OPTIONS`, or its own, which are
        keyword-only arguments of its constructor.
      stride: how many times smaller than the image its last map is, with the standard stem.
      gmacs: billions of multiply-adds of a forward pass at 224x224, with the standard stem, as
        published by its authors; 0 if unpublished.
      batch_norm: whether it has BatchNormalization.
      tuning: the settings with which it trains best from scratch.
      halvings: for a network of `keras.applications` that supports `stem`: its first two layers
        that halve the map.
      url: the ImageNet weights without top; `{alpha}` and `{side}` if they come in several widths
        and image sizes; None if Keras publishes none.
      md5: the file's digest, if Keras publishes one.
      file: the name under which Keras caches it, if that is not the URL's last part.
      widths: the values of `alpha` with ImageNet weights, for a network of variable width.
      sides: the image sizes in pixels with their own ImageNet weights.
    """

    name: str
    constructor: str
    normalisation: str
    blocks: tuple[tuple[str, str], ...]
    options: tuple[str, ...] = ()
    stride: int = 32
    gmacs: float = 0.0
    batch_norm: bool = True
    tuning: Tuning = Tuning()
    halvings: tuple[str, ...] = ()
    url: str | None = None
    md5: str | None = None
    file: str | None = None
    widths: tuple[float, ...] = ()
    sides: tuple[int, ...] = ()

    def checked(self, settings: Mapping[str, Any], beside: Sequence[str] = ()) -> dict[str, Any]:
        """The network's own settings, with the types in its constructor's signature.

        Args:
          settings: name -> value, or its text.
          beside: settings that every network has, for the message.

        Raises:
          UsageError: a setting is unknown, or of the wrong type.
        """
        module, _, function = self.constructor.rpartition(":")
        own = as_dataclass(getattr(import_module(module), function)) if module else None
        known = settings_of(own) if own else {}
        for key in settings:
            if key not in known or key not in self.options:
                expected = [*beside, *(name for name in self.options if name not in beside)]
                close = difflib.get_close_matches(key, expected, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise UsageError(
                    f"backbone {self.name}: unknown setting {key!r}: expected one of "
                    f"{', '.join(expected)}.{hint}"
                )
        return typed(own, settings, f"backbone {self.name}")


def scaled(channels: int, alpha: float) -> int:
    """`channels` times `alpha`, rounded to a multiple of 8 of at least 8: fast on CPUs."""
    return 8 * max(1, round(channels * alpha / 8))
