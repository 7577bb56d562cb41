"""tfrobust: train, evaluate, explain and serve robust image classifiers with Keras.

The public names; each is imported on first use, and TensorFlow with it. It does not matter
whether TensorFlow or Keras was imported before.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "APGD": "tfrobust.attacks.apgd",
    "ATTACKS": "tfrobust.attacks",
    "AdversarialTraining": "tfrobust.training.methods",
    "BACKBONES": "tfrobust.backbones",
    "BIM": "tfrobust.attacks.gradient",
    "Blend": "tfrobust.training.methods",
    "Boundary": "tfrobust.attacks.boundary_walk",
    "CarliniWagner": "tfrobust.attacks.carlini_wagner",
    "Certificates": "tfrobust.radii.certificates",
    "Classifier": "tfrobust.models.classifier",
    "DATASETS": "tfrobust.data",
    "DDN": "tfrobust.attacks.ddn",
    "DeepFool": "tfrobust.attacks.deepfool",
    "EAD": "tfrobust.attacks.ead",
    "EXPLAINERS": "tfrobust.explain",
    "FAB": "tfrobust.attacks.fab",
    "FGSM": "tfrobust.attacks.gradient",
    "FMN": "tfrobust.attacks.fmn",
    "Fast": "tfrobust.training.methods",
    "GeoDA": "tfrobust.attacks.geoda",
    "HopSkipJump": "tfrobust.attacks.hopskipjump",
    "InputView": "tfrobust.models.views",
    "L0": "tfrobust.threat_model",
    "L1": "tfrobust.threat_model",
    "L2": "tfrobust.threat_model",
    "Linf": "tfrobust.threat_model",
    "METHODS": "tfrobust.training",
    "Mart": "tfrobust.training.methods",
    "MinimalDistances": "tfrobust.radii.distances",
    "Mixture": "tfrobust.training.methods",
    "NES": "tfrobust.attacks.estimated",
    "Noise": "tfrobust.training.methods",
    "PGD": "tfrobust.attacks.gradient",
    "PGDL0": "tfrobust.attacks.pgd_l0",
    "ReadOptions": "tfrobust.data.types",
    "Regularisation": "tfrobust.training.methods",
    "RobustnessReport": "tfrobust.evaluation.report",
    "RunConfig": "tfrobust.config",
    "RunFolder": "tfrobust.run",
    "SPSA": "tfrobust.attacks.estimated",
    "SigmaZero": "tfrobust.attacks.sigma_zero",
    "SimBA": "tfrobust.attacks.simba",
    "SparseRS": "tfrobust.attacks.sparse_rs",
    "SparseRSPatch": "tfrobust.attacks.sparse_rs_patch",
    "Square": "tfrobust.attacks.square",
    "Standard": "tfrobust.training.methods",
    "TFRobustError": "tfrobust.errors",
    "TargetedAPGD": "tfrobust.attacks.apgd",
    "ThreatModel": "tfrobust.threat_model",
    "Trades": "tfrobust.training.methods",
    "UsageError": "tfrobust.errors",
    "adversarial_patch": "tfrobust.attacks.patch",
    "as_batches": "tfrobust.data.sources",
    "as_classifier": "tfrobust.models.classifier",
    "as_images": "tfrobust.data.sources",
    "autoattack": "tfrobust.attacks.autoattack",
    "build": "tfrobust.backbones",
    "callbacks": "tfrobust.callbacks",
    "certify": "tfrobust.radii.certify",
    "evaluate": "tfrobust.evaluation.evaluate",
    "explain": "tfrobust.explain.explain",
    "export": "tfrobust.export",
    "fit": "tfrobust.training.fit",
    "jobs": "tfrobust.jobs",
    "load": "tfrobust.data",
    "load_any": "tfrobust.models.opening",
    "load_robust": "tfrobust.training.robust",
    "minimal_distance": "tfrobust.radii.minimal_distance",
    "models": "tfrobust.models",
    "quick": "tfrobust.attacks.quick",
    "robust": "tfrobust.training.robust",
    "spatial_accuracy": "tfrobust.attacks.spatial",
    "universal": "tfrobust.attacks.universal",
}

# Names used as modules: `tfrobust.callbacks.TimeBudget`.
_ROOMS = ("callbacks", "jobs", "models")
__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name])
    return module if name in _ROOMS else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
