"""What checks share: their flags, and the images that they spend gradients of their own on."""

from __future__ import annotations

import numpy as np

from tfrobust.typing import Attack

Flag = dict[str, str]
# Images that a check looks at: what it costs does not grow with the data.
SAMPLE = 64


def flag(name: str, meaning: str) -> Flag:
    """A doubt: its name, which the docs explain, and what was seen, with a remedy."""
    return {"name": name, "meaning": meaning}


def drawn(index: np.ndarray, seed: int) -> np.ndarray:
    """At most `SAMPLE` of `index` at random: splits are ordered by class.

    Args:
      index: int [M].
      seed: the same seed draws the same.
    """
    if len(index) <= SAMPLE:
        return index
    return np.sort(np.random.default_rng(seed).choice(index, SAMPLE, replace=False))


def is_iterative(attack: Attack) -> bool:
    """Whether it searches the whole ball by gradient, in more than one step.

    What weighs the size of the noise against its goal, or moves a few pixels of its own choice,
    is no worst case over the ball.
    """
    return getattr(attack, "steps", 1) > 1 and getattr(attack, "whole_ball", True)
