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

EXPLAINERS = Table(
    "explainer",
    {
        "saliency": "tfrobust.explain.saliency:saliency",
        "smoothgrad": "tfrobust.explain.saliency:smoothgrad",
        "integrated-gradients": "tfrobust.explain.integrated_gradients:integrated_gradients",
        "gradcam": "tfrobust.explain.class_activation:gradcam",
        "gradcam++": "tfrobust.explain.class_activation:gradcam_plus_plus",
        "scorecam": "tfrobust.explain.class_activation:scorecam",
        "layercam": "tfrobust.explain.class_activation:layercam",
    },
    "tfrobust.explainers",
)


class _Callable(types.ModuleType):
    """`tfrobust.explain` is a room and a function: which one it is does not depend on imports."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tfrobust.explain.explain import explain

        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
