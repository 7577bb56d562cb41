"""The classifier that a training trains: one of the backbones, or a model file of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.progress import Tell, silent
from tfrobust.tables import is_model_file

if TYPE_CHECKING:
    from tfrobust.data.types import Splits


def build_network(config: RunConfig, splits: Splits, tell: Tell = silent) -> Any:
    """The classifier that a configuration names, for the classes and images of `splits`."""
    from tfrobust.backbones import build

    backbone = config.backbone
    if is_model_file(backbone.name):
        return own_network(Path(backbone.name), splits, backbone.bn_momentum, tell)
    return build(
        backbone.name,
        num_classes=len(splits.train.label_names),
        image_shape=splits.train.image_shape,
        weights=backbone.weights,
        resize=backbone.resize,
        alpha=backbone.alpha,
        stem=backbone.stem,
        convolution=backbone.convolution,
        position_embedding=backbone.position_embedding,
        bn_momentum=backbone.bn_momentum,
        dropout=backbone.dropout,
        seed=config.seed,
        **backbone.settings,
    )


def own_network(
    path: Path, splits: Splits, bn_momentum: float | None = None, tell: Tell = silent
) -> Any:
    """The classifier in a model file as a flat tf_keras graph of [0, 1] images -> logits.

    Raises:
      UsageError: it is no graph of Keras's own layers, or of other classes or images.
      TFRobustError: the file cannot be read.
    """
    from tfrobust.models.classifier import as_classifier, as_graph
    from tfrobust.models.opening import load_any
    from tfrobust.training.batch_norm import batch_norm_layers

    shape, classes = splits.train.image_shape, len(splits.train.label_names)
    made = as_classifier(load_any(path), splits.train.pixels(slice(0, 64)))
    graph = as_graph(made, shape)
    if graph is None:
        raise UsageError(
            f"--backbone {path}: expected a graph of Keras's own layers, found another; from "
            "Python, tfrobust.robust(model, ...) trains any."
        )
    if made.classes != classes:
        raise UsageError(
            f"--backbone {path}: the model knows {made.classes} classes, the images have {classes}."
        )
    for line in made.notes:
        tell(f"Note: {line}.")
    if bn_momentum is not None:
        for layer in batch_norm_layers(graph):
            layer.momentum = bn_momentum
    return graph
