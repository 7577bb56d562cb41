"""Explanation: maps of what a model looks at, figures of them, and what they are worth.

Every explainer is called as `explain(model, x, target)` and returns float32 maps: signed
attributions [N, H, W, C], or class-activation maps [N, H, W], which are 0 or more.
"""

from tfrobust.tables import Table

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
)
