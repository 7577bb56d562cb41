"""Explainers as frozen dataclasses: settings, what they can do, and how figures call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfrobust.plugins import as_dataclass
from tfrobust.settings import Checked, setting


@dataclass(frozen=True, kw_only=True)
class Explainer(Checked):
    """What every explainer is: called as ``explain(model, x, target)``, it returns float32 maps.

    Attributes:
      title: how figures call it; '' is by its name.
      reads_layers: whether its maps are of a layer, so that the model must be a graph.
      complete: whether its attributions add up to what they explain.
    """

    title: ClassVar[str] = ""
    reads_layers: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Maps of images [N, H, W, C] in [0, 1] for the classes int [N]."""
        raise NotImplementedError(f"{type(self).__name__} has no maps of its own.")


def explainer_of(found: Any) -> Explainer:
    """An explainer with its default settings: of its class, or of a function.

    A function's keyword-only arguments are its settings; one of them named 'target_layer' says
    that it reads a layer.

    Args:
      found: an `Explainer`, its class, or a function (model, x, target, *, settings) -> maps.
    """
    if isinstance(found, Explainer):
        return found
    if not isinstance(found, type):
        found = as_dataclass(found, Explainer)
        found.reads_layers = "target_layer" in found.__dataclass_fields__
    made: Explainer = found()
    return made


@dataclass(frozen=True, kw_only=True)
class Saliency(Explainer):
    """The gradient of the class's logit: `saliency.saliency`."""

    title: ClassVar[str] = "gradient"

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Signed, float32 [N, H, W, C]."""
        from tfrobust.explain.saliency import saliency

        return saliency(model, x, target)


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Explainer):
    """The mean gradient over noisy copies: `saliency.smoothgrad`.

    Attributes:
      noise: its standard deviation, as a part of the image's range.
      samples: noisy copies, each with one gradient.
      seed: of the noise.
    """

    title: ClassVar[str] = "SmoothGrad"

    noise: float = setting(0.15, "standard deviation of the noise, of the image's range", low=0)
    samples: int = setting(25, "noisy copies, each with one gradient", low=1)
    seed: int = setting(0, "of the noise", low=0)

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Signed, float32 [N, H, W, C]."""
        from tfrobust.explain.saliency import smoothgrad

        return smoothgrad(
            model, x, target, noise=self.noise, samples=self.samples, seed=self.seed
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Explainer):
    """Attributions that add up to the logit: `integrated_gradients.integrated_gradients`.

    Attributes:
      baseline: value of every pixel of the plain image, in [0, 1].
      steps: points on the way from there, each a gradient.
    """

    title: ClassVar[str] = "integr. gradients"
    complete: ClassVar[bool] = True

    baseline: float = setting(0.0, "value of every pixel of the plain image", low=0, high=1)
    steps: int = setting(50, "points on the way from there, each a gradient", low=1)

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Signed, float32 [N, H, W, C], in logits."""
        from tfrobust.explain.integrated_gradients import integrated_gradients

        return integrated_gradients(model, x, target, baseline=self.baseline, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class ClassActivation(Explainer):
    """What class-activation maps have.

    Attributes:
      target_layer: whose maps are read; None is the last with a map larger than 1x1.
    """

    reads_layers: ClassVar[bool] = True
    function: ClassVar[str] = ""

    target_layer: str | None = setting(None, "layer whose maps are read")

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Of the layer's size enlarged to the image's, float32 [N, H, W], 0 or more."""
        from tfrobust.explain import class_activation

        function = getattr(class_activation, self.function)
        found: np.ndarray = function(model, x, target, **vars(self))
        return found


@dataclass(frozen=True, kw_only=True)
class GradCAM(ClassActivation):
    """`class_activation.gradcam`."""

    title: ClassVar[str] = "Grad-CAM"
    function: ClassVar[str] = "gradcam"


@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(ClassActivation):
    """`class_activation.gradcam_plus_plus`."""

    title: ClassVar[str] = "Grad-CAM++"
    function: ClassVar[str] = "gradcam_plus_plus"


@dataclass(frozen=True, kw_only=True)
class LayerCAM(ClassActivation):
    """`class_activation.layercam`."""

    title: ClassVar[str] = "Layer-CAM"
    function: ClassVar[str] = "layercam"


@dataclass(frozen=True, kw_only=True)
class ScoreCAM(ClassActivation):
    """`class_activation.scorecam`.

    Attributes:
      channels: those that vary most, one forward pass each; None is all.
    """

    title: ClassVar[str] = "Score-CAM"
    function: ClassVar[str] = "scorecam"

    channels: int | None = setting(64, "channels that vary most, a forward pass each", low=1)
