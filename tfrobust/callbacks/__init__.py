"""Callbacks for `fit` of a robust model (`tfrobust.robust`), of either Keras.

They implement the methods that both versions call on a callback, and derive from neither.
"""

from __future__ import annotations

from tfrobust.callbacks.averaging import WeightAveraging
from tfrobust.callbacks.checkpoint import RobustCheckpoint
from tfrobust.callbacks.elbow import KeepElbow
from tfrobust.callbacks.history import RobustHistory
from tfrobust.callbacks.overfitting import OverfittingGuard
from tfrobust.callbacks.time_budget import TimeBudget
from tfrobust.callbacks.unfreezing import StagedUnfreezing

__all__ = [
    "KeepElbow",
    "OverfittingGuard",
    "RobustCheckpoint",
    "RobustHistory",
    "StagedUnfreezing",
    "TimeBudget",
    "WeightAveraging",
]
