"""Models of any make, seen as one kind of function: images in [0, 1] -> logits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrobust.models.randomised import expectation, smoothed, straight_through
    from tfrobust.models.substitutes import ensemble

__all__ = ["ensemble", "expectation", "smoothed", "straight_through"]


def __getattr__(name: str) -> Any:
    # When it is first used: what opens model files safely does so without TensorFlow.
    if name in __all__:
        place = "substitutes" if name == "ensemble" else "randomised"
        return getattr(importlib.import_module(f"tfrobust.models.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
