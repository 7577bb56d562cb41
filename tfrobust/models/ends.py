"""What an exported model takes and gives, as its file says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ends:
    """What a file tells of its one input and of the output that holds its classes.

    Attributes:
      shape: of the input in the file's own order, batch first, None for any.
      dtype: of the input.
      scale: of a quantised input, whose numbers q mean scale * (q - zero); 0 for others.
      zero: see `scale`.
      activation: what the outputs come from, '' for logits, None where the graph does not say.
      channels_first: whether its first operation says so; None where it does not.
      output_step: of quantised outputs, 0 for floats.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype
    scale: float = 0.0
    zero: int = 0
    activation: str | None = None
    channels_first: bool | None = None
    output_step: float = 0.0
