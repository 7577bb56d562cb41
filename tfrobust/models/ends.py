"""The input and output of an exported model, as its file declares them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ends:
    """The one input of a file, and the output with its classes.

    Attributes:
      shape: of the input in the file's own order, batch axis first, None for any size.
      dtype: of the input.
      scale: of a quantised input, whose numbers q mean scale * (q - zero); 0 for others.
      zero: see `scale`.
      activation: the last activation, '' for logits; None if the graph does not show it.
      channels_first: whether images are [C, H, W]; None if the graph does not show it.
      output_step: of quantised outputs, 0 for floats.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype
    scale: float = 0.0
    zero: int = 0
    activation: str | None = None
    channels_first: bool | None = None
    output_step: float = 0.0
