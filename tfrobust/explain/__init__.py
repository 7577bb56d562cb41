"""Explanation: maps of what a model looks at, figures of them, and what they are worth.

Every explainer is called as `explain(model, x, target)` and returns float32 maps: signed
attributions [N, H, W, C], or class-activation maps [N, H, W], which are 0 or more.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.explain.explain import explain as explain
    from tfrobust.explain.explainers import Explainer


class _Explainers(Table["Explainer"]):
    """Explainers as objects with their settings; a user's plain function is made one."""

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


class _Callable(types.ModuleType):
    """`tfrobust.explain` is a room and a function: which one it is does not depend on imports."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tfrobust.explain.explain import explain

        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
