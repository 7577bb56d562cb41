"""Explanation: maps of what a model looks at, and figures of them."""

from tfrobust.tables import Table

EXPLAINERS = Table(
    "explainer",
    {
        "saliency": "tfrobust.explain.saliency:saliency",
        "smoothgrad": "tfrobust.explain.saliency:smoothgrad",
    },
)
