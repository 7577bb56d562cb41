"""One call from a model and images to maps of what it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.explain.table import EXPLAINERS
from tfrobust.models.classifier import as_classifier, as_graph
from tfrobust.models.opening import load_any
from tfrobust.models.views import InputView
from tfrobust.plugins import configured, parse
from tfrobust.typing import Array, Images, Model


def explain(
    model: Model | str | Path, x: Images, method: str = "gradcam", *,
    target: int | Sequence[int] | Array | None = None,
    view: InputView | None = None, **options: Any,
) -> Array:  # fmt: skip
    """Maps of what a model looks at in images.

    Args:
      model: any classifier that `as_classifier` takes, or the path of one. Class-activation maps
        need a graph of Keras's own layers (functional or Sequential, of tf_keras or Keras 3,
        nested or not); gradient methods work with any model.
      x: images float [N, H, W, C] in [0, 1]; an array or tensor.
      method: a name of `EXPLAINERS`, such as 'gradcam', or one with settings, such as
        'smoothgrad:samples=50'.
      target: int [N] or one int, the class to explain; None is the predicted class.
      view: the model's input range; None detects it, falling back to [0, 1].
      **options: of the method, such as `target_layer` or `samples`.

    Returns:
      float32: class-activation maps [N, H, W], 0 or more; gradient methods give signed
      attributions [N, H, W, C].

    Raises:
      UsageError: the method is unknown, or the model lacks the layers it needs.
      TFRobustError: the model does not accept the images, or a map is not finite.

    Examples:
      >>> maps = tr.explain(model, x[:2], method="saliency")
      >>> maps.shape == x[:2].shape
      True
      >>> tr.explain(model, x[:2], method="smoothgrad:samples=4", target=3).dtype
      dtype('float32')
    """
    name, given = parse(method, EXPLAINERS, "method")
    explainer = configured(EXPLAINERS[name], {**given, **options}, f"Explainer {name}")
    opened: Model = load_any(Path(model)) if isinstance(model, (str, Path)) else model
    images = np.asarray(x, np.float32)
    if images.ndim != 4 or not len(images):
        raise UsageError(f"Expected images [N, H, W, C], N >= 1, found {list(images.shape)}.")
    judge = as_classifier(opened, images[:64], view)
    graph = as_graph(judge, images.shape[1:])
    if graph is None and explainer.reads_layers:
        others = [one for one in EXPLAINERS.built_in if not EXPLAINERS[one].reads_layers]
        raise UsageError(
            f"{method}: expected a model whose layers are accessible (a graph of Keras's "
            f"own layers), found another kind: use {', '.join(others)}."
        )
    if target is None:
        target = np.argmax(judge(images), axis=1)
    chosen = np.broadcast_to(np.asarray(target), (len(images),)).astype(np.int32)
    found: np.ndarray = explainer(judge if graph is None else graph, images, chosen)
    return found
