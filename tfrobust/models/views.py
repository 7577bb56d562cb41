"""What pixels a model wants to see, where that is not [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class InputView:
    """How pixels of [0, 1] are turned into what a model takes.

    Pixels x of [0, 1] become ``low + x * (high - low)``, and then ``(that - mean) / std``.
    Attacks stay in [0, 1], so eps is always in units of [0, 1].

    Attributes:
      input_range: (low, high) that the model takes for black and white.
      mean: subtracted afterwards, one number or one for each channel.
      std: divided by, like `mean`.

    Raises:
      UsageError: an empty range, a deviation of 0 or below, or lengths that differ.

    Examples:
      >>> rescaling = keras.layers.Rescaling(1 / 255)
      >>> bytes_in = keras.Sequential([keras.Input(x.shape[1:]), rescaling, model])
      >>> view = tr.InputView((0.0, 255.0))
      >>> found = tr.evaluate(bytes_in, (x, y), ball, attacks="fgsm", view=view)
      >>> found.clean_accuracy == tr.evaluate(model, (x, y), ball, attacks="fgsm").clean_accuracy
      True
    """

    input_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.input_range) != 2 or not self.input_range[0] < self.input_range[1]:
            raise UsageError(
                "input_range: expected LOW,HIGH with LOW below HIGH, such as 0,255 or -1,1, found "
                f"{','.join(f'{value:g}' for value in self.input_range)}."
            )
        if any(value <= 0 for value in self.std):
            raise UsageError(f"input_std: expected numbers above 0, found {self.std}.")
        if len(self.mean) > 1 and len(self.std) > 1 and len(self.mean) != len(self.std):
            raise UsageError(
                f"input_mean and input_std: expected as many numbers, found {len(self.mean)} and "
                f"{len(self.std)}."
            )

    @property
    def is_plain(self) -> bool:
        """Whether the model takes [0, 1]."""
        return self.input_range == (0.0, 1.0) and not self.mean and not self.std

    def __str__(self) -> str:
        low, high = self.input_range
        parts = [f"{low:g}..{high:g}"]
        for name, values in (("mean", self.mean), ("deviation", self.std)):
            if values:
                parts.append(f"{name} {','.join(f'{value:g}' for value in values)}")
        return ", ".join(parts)

    def as_flags(self) -> str:
        """The flags that ask for this."""
        low, high = self.input_range
        found = [f"--input-range {low:g},{high:g}"] if self.input_range != (0.0, 1.0) else []
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values:
                found.append(f"--input-{name} {','.join(f'{value:g}' for value in values)}")
        return " ".join(found)

    def function(self, channels: int | None) -> Callable[[Tensor], Tensor]:
        """Pixels float32 [B, H, W, C] in [0, 1] -> what the model takes.

        Raises:
          UsageError: means or deviations for another number of channels.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) > 1 and channels is not None and len(values) != channels:
                raise UsageError(
                    f"input_{name}: expected 1 or {channels} numbers, one for each channel, found "
                    f"{len(values)}."
                )
        low, high = self.input_range

        def view(x: Tensor) -> Tensor:
            x = low + x * (high - low) if (low, high) != (0.0, 1.0) else x
            x = x - tf.constant(self.mean, tf.float32) if self.mean else x
            return x / tf.constant(self.std, tf.float32) if self.std else x

        return view


def views(x: np.ndarray) -> list[InputView]:
    """What models usually take in place of [0, 1].

    Args:
      x: some of the images, float32 [N, H, W, C] in [0, 1].
    """
    found = [InputView((0.0, 255.0)), InputView((-1.0, 1.0))]
    if x.shape[3] == 3:
        found.append(InputView(mean=IMAGENET[0], std=IMAGENET[1]))
    mean, std = x.mean(axis=(0, 1, 2)), x.std(axis=(0, 1, 2)) + 1e-6
    found.append(InputView(mean=_numbers(mean), std=_numbers(std)))
    # One number for all channels, of pixels in 0..255 as often as of [0, 1].
    found.append(InputView(mean=_numbers(x.mean()), std=_numbers(x.std() + 1e-6)))
    return found


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in np.atleast_1d(values))
