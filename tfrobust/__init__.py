"""tfrobust: train, measure, explain and serve robust image classifiers with Keras.

The public names; each is imported when it is first used, and TensorFlow with it.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "ATTACKS": "tfrobust.attacks",
    "BACKBONES": "tfrobust.backbones",
    "DATASETS": "tfrobust.data",
    "METHODS": "tfrobust.training",
    "FGSM": "tfrobust.attacks.gradient",
    "PGD": "tfrobust.attacks.gradient",
    "RunConfig": "tfrobust.config",
    "RunFolder": "tfrobust.run",
    "TFRobustError": "tfrobust.errors",
    "ThreatModel": "tfrobust.threat_model",
    "UsageError": "tfrobust.errors",
    "autoattack": "tfrobust.attacks.autoattack",
    "build": "tfrobust.backbones",
    "evaluate": "tfrobust.evaluation.evaluate",
    "export": "tfrobust.export",
    "fit": "tfrobust.training.fit",
    "load": "tfrobust.data",
    "load_any": "tfrobust.models.opening",
}

__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
