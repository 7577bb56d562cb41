"""Explainers as frozen dataclasses: settings, capabilities, and titles in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfrobust.plugins import as_dataclass
from tfrobust.settings import Checked, setting


@dataclass(frozen=True, kw_only=True)
class Explainer(Checked):
    """The base of all explainers: called as ``explain(model, x, target)``, returns float32 maps.

    Attributes:
      title: its name in figures; '' uses its name in the table.
      reads_layers: whether it reads a layer's maps, so that the model must be a graph.
      complete: whether its attributions sum to what they explain.
    """

    title: ClassVar[str] = ""
    reads_layers: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Maps of images [N, H, W, C] in [0, 1] for the classes int [N]."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__.")


def explainer_of(found: Any) -> Explainer:
    """An explainer with its default settings: of its class, or of a function.

    A function's keyword-only arguments are its settings; an argument named 'target_layer' means
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
      noise: standard deviation, as a fraction of the image's range.
      samples: number of noisy copies, each with one gradient.
      seed: of the noise.
    """

    title: ClassVar[str] = "SmoothGrad"

    noise: float = setting(0.15, "standard deviation of the noise, relative to the range", low=0)
    samples: int = setting(25, "number of noisy copies, each with one gradient", low=1)
    seed: int = setting(0, "seed of the noise", low=0)

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Signed, float32 [N, H, W, C]."""
        from tfrobust.explain.saliency import smoothgrad

        return smoothgrad(
            model, x, target, noise=self.noise, samples=self.samples, seed=self.seed
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Explainer):
    """Attributions that sum to the logit: `integrated_gradients.integrated_gradients`.

    Attributes:
      baseline: value of every pixel of the baseline image, in [0, 1].
      steps: number of points on the path from there, each with one gradient.
    """

    title: ClassVar[str] = "integr. gradients"
    complete: ClassVar[bool] = True

    baseline: float = setting(0.0, "value of every pixel of the baseline image", low=0, high=1)
    steps: int = setting(50, "points on the path from there, one gradient each", low=1)

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Signed, float32 [N, H, W, C], in logits."""
        from tfrobust.explain.integrated_gradients import integrated_gradients

        return integrated_gradients(model, x, target, baseline=self.baseline, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class ClassActivation(Explainer):
    """The base of class-activation maps.

    Attributes:
      target_layer: the layer to read; None is the last one with a map larger than 1x1.
    """

    reads_layers: ClassVar[bool] = True
    function: ClassVar[str] = ""

    target_layer: str | None = setting(None, "the layer to read")

    def __call__(self, model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Enlarged from the layer's size to the image's, float32 [N, H, W], 0 or more."""
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
      channels: number of channels that vary most, one forward pass each; None is all.
    """

    title: ClassVar[str] = "Score-CAM"
    function: ClassVar[str] = "scorecam"

    channels: int | None = setting(64, "channels that vary most, one forward pass each", low=1)
