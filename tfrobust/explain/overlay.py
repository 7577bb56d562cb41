"""Images with a map overlaid in red."""

from __future__ import annotations

import numpy as np

from tfrobust.explain.saliency import heat, scale

_RED = np.array([1.0, 0.0, 0.0], np.float32)


def overlaid(x: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Images with a map overlaid in red: [N, H, W, 3] in [0, 1].

    The images lose their colour first, so that only the map is red; each map is scaled by its own
    99th percentile (`scale`), so that even the smallest gradients are visible.

    Args:
      x: float32 [N, H, W, C] in [0, 1].
      maps: of an explainer, signed or non-negative.
    """
    grey = x.mean(axis=-1, keepdims=True) * np.ones(3, np.float32)
    strength = 0.9 * scale(heat(maps))[..., None]
    return np.asarray((1 - strength) * (0.75 * grey + 0.25 * x) + strength * _RED)
