"""The table of explainers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.explain.explainers import Explainer


class _Explainers(Table["Explainer"]):
    """Explainers as objects with their settings; a user's plain function is wrapped as one."""

    def __getitem__(self, name: str) -> Explainer:
        from tfrobust.explain.explainers import explainer_of

        found: Any = super().__getitem__(name)
        return explainer_of(found)


EXPLAINERS = _Explainers(
    "explainer",
    {
        "saliency": "tfrobust.explain.explainers:Saliency",
        "smoothgrad": "tfrobust.explain.explainers:SmoothGrad",
        "integrated-gradients": "tfrobust.explain.explainers:IntegratedGradients",
        "gradcam": "tfrobust.explain.explainers:GradCAM",
        "gradcam++": "tfrobust.explain.explainers:GradCAMPlusPlus",
        "scorecam": "tfrobust.explain.explainers:ScoreCAM",
        "layercam": "tfrobust.explain.explainers:LayerCAM",
    },
    "tfrobust.explainers",
)
