"""Jobs: what each verb of the command line does, as a function of typed objects.

    from tfrobust import jobs

    made = jobs.train(jobs.make_plan({"data": {"dataset": "digits"}}), "runs/a")
    found = jobs.evaluate(jobs.open_subject("runs/a", {"threat": {"eps": 4 / 255}}))
    found.report.robust_accuracy

A job prints only its progress; its messages go to `tell`, which may be `print`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrobust.jobs.certifying import CertifyResult, certify
    from tfrobust.jobs.comparing import CompareResult, compare
    from tfrobust.jobs.evaluation import EvaluateResult, evaluate
    from tfrobust.jobs.explanation import ExplainResult, explain
    from tfrobust.jobs.exporting import ExportResult, export
    from tfrobust.jobs.images import load_splits
    from tfrobust.jobs.imbalancing import ImbalanceResult, imbalance
    from tfrobust.jobs.network import build_network
    from tfrobust.jobs.opening import Subject, open_subject
    from tfrobust.jobs.perturbing import PerturbResult, perturb
    from tfrobust.jobs.plan import Plan, make_plan
    from tfrobust.jobs.prediction import PredictResult, predict
    from tfrobust.jobs.probing import ProbeResult, distances, patch, spatial, universal
    from tfrobust.jobs.reporting import ReportResult, report
    from tfrobust.jobs.searching import SearchResult, search
    from tfrobust.jobs.serving import serve
    from tfrobust.jobs.serving_on_ray import serve_on_ray
    from tfrobust.jobs.studies import Step, StudyResult, study
    from tfrobust.jobs.training import TrainResult, train

_PLACES = {
    "CertifyResult": "certifying",
    "certify": "certifying",
    "CompareResult": "comparing",
    "compare": "comparing",
    "EvaluateResult": "evaluation",
    "evaluate": "evaluation",
    "ExplainResult": "explanation",
    "explain": "explanation",
    "ExportResult": "exporting",
    "export": "exporting",
    "ImbalanceResult": "imbalancing",
    "imbalance": "imbalancing",
    "Subject": "opening",
    "load_splits": "images",
    "open_subject": "opening",
    "PerturbResult": "perturbing",
    "perturb": "perturbing",
    "Plan": "plan",
    "make_plan": "plan",
    "PredictResult": "prediction",
    "predict": "prediction",
    "ProbeResult": "probing",
    "distances": "probing",
    "patch": "probing",
    "spatial": "probing",
    "universal": "probing",
    "ReportResult": "reporting",
    "report": "reporting",
    "SearchResult": "searching",
    "search": "searching",
    "serve": "serving",
    "serve_on_ray": "serving_on_ray",
    "Step": "studies",
    "StudyResult": "studies",
    "study": "studies",
    "TrainResult": "training",
    "build_network": "network",
    "train": "training",
}
__all__ = [
    "CertifyResult",
    "CompareResult",
    "EvaluateResult",
    "ExplainResult",
    "ExportResult",
    "ImbalanceResult",
    "PerturbResult",
    "Plan",
    "PredictResult",
    "ProbeResult",
    "ReportResult",
    "SearchResult",
    "Step",
    "StudyResult",
    "Subject",
    "TrainResult",
    "build_network",
    "certify",
    "compare",
    "distances",
    "evaluate",
    "explain",
    "export",
    "imbalance",
    "load_splits",
    "make_plan",
    "open_subject",
    "patch",
    "perturb",
    "predict",
    "report",
    "search",
    "serve",
    "serve_on_ray",
    "spatial",
    "study",
    "train",
    "universal",
]


def __getattr__(name: str) -> Any:
    # Modules that need TensorFlow are imported on first use, so that help texts stay fast.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
