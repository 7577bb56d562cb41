"""Callbacks for `fit` of a robust model (`tfrobust.robust`), of either Keras.

They follow the calls that both make of a callback, and so are of neither.
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
