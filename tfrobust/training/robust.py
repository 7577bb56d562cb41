"""A robust model is a Keras model with `compile`, `fit`, `evaluate`, `predict` and `save`.

It wraps any classifier of tf_keras or Keras 3, functional, Sequential, subclassed or nested,
with logits, softmax, sigmoids or one output.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.losses import cross_entropy
from tfrobust.attacks.runner import run
from tfrobust.errors import UsageError
from tfrobust.models import heads
from tfrobust.models.classifier import as_classifier
from tfrobust.models.folding import fold
from tfrobust.models.inputs import is_integer
from tfrobust.models.pixel_range import view_of
from tfrobust.models.views import InputView
from tfrobust.runtime import tf
from tfrobust.tables import imported
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS, augmentation
from tfrobust.training.batch_norm import Statistics
from tfrobust.training.freezing import unfrozen
from tfrobust.training.methods import (
    AdversarialTraining,
    attack_as_dict,
    attack_from_dict,
    from_dict,
    known_methods,
)
from tfrobust.typing import Method as AnyMethod
from tfrobust.typing import Model, Tensor

_PACKAGE = "tfrobust"
# Number of images on which a model's output is detected if its graph does not define it.
_PROBED = 64


class _Robust:
    """Turns a method's step into a Keras model for users."""

    base_model: Any
    recipe: Any
    optimizer: Any
    train_function: Any
    make_train_function: Callable[..., Any]
    _freeze_batch_norm: Callable[[], None]
    _weights_of_batch: Tensor | None = None

    def __init__(
        self, model: Any, method: AnyMethod, ball: ThreatModel, validation_attack: PGD
    ) -> None:
        self._adapt(model)
        super().__init__(model, method.recipe(ball))  # type: ignore[call-arg]
        self.method, self.validation_attack = method, validation_attack
        library = heads.library_of(model)
        names = ("accuracy", "robust_accuracy", "val_loss", "robust_loss")
        self._tested = {name: library.metrics.Mean(name=name) for name in names}
        self._further: list[Any] = []
        # Its weights are the base model's: there is nothing to build later.
        self.built = bool(getattr(model, "built", True))

    def _adapt(self, model: Any) -> None:
        """Determines how to get logits from the model, and how to scale [0, 1] pixels for it."""
        scale = view_of(model).input_range[1]
        # Bypasses Keras's tracking of attributes, which starts with its constructor.
        object.__setattr__(self, "_scale", float(scale))
        object.__setattr__(self, "_outputs", _Logits(model, scale))
        flat = heads.library_of(model).__name__ == "tf_keras"
        object.__setattr__(self, "_folds", flat)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        self._look_at(x)
        keras_fit = super().fit  # type: ignore[misc]
        given = inspect.signature(keras_fit).bind(x, *args, **kwargs).arguments
        callbacks = given.get("callbacks") or []
        if not isinstance(callbacks, (list, tuple)):
            # A single callback, or a `CallbackList`.
            callbacks = getattr(callbacks, "callbacks", [callbacks])
        # A callback may take the data, or resume an earlier `fit`.
        for callback in callbacks:
            if hasattr(callback, "before_fit"):
                callback.before_fit(self, given)
        return keras_fit(**given)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        self._look_at(x)
        return super().evaluate(x, *args, **kwargs)  # type: ignore[misc]

    def _get_metrics_result_or_logs(self, logs: Any) -> dict[str, Any]:
        """Plain numbers: Keras 3 leaves tensors in the history of a custom step."""
        found = super()._get_metrics_result_or_logs(logs)  # type: ignore[misc]
        return {
            name: float(one) if tf.is_tensor(one) and one.shape.rank == 0 else one
            for name, one in found.items()
        }

    def _look_at(self, x: Any) -> None:
        """Detects the model's output on the first images if its graph does not define it."""
        outputs: _Logits = self._outputs  # type: ignore[attr-defined]
        if not outputs.kind_known:
            outputs.probe(np.asarray(_first_images(x), np.float32))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """The base model's output: `predict` and users of the model see no difference."""
        return self.base_model(x, training=training)

    def logits(self, x: Tensor, *, training: bool) -> Tensor:
        """float32 logits [B, K] of images in [0, 1]."""
        outputs: _Logits = self._outputs  # type: ignore[attr-defined]
        return outputs(x, training=training)

    def attacked(self) -> Callable[[Tensor], Tensor]:
        """The classifier in inference mode, folded if it is a flat tf_keras graph."""
        if self.is_plain:
            return fold(self.base_model)
        return lambda x: self.logits(x, training=False)

    @property
    def is_plain(self) -> bool:
        """Whether the base model itself is a tf_keras model and maps [0, 1] images to logits."""
        outputs: _Logits = self._outputs  # type: ignore[attr-defined]
        return outputs.plain and self._folds  # type: ignore[attr-defined]

    def pixels_and_labels(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The user's images, scaled to [0, 1]; their labels, int32 [B]."""
        return self._pixels(x), _as_labels(y)

    def compile(self, optimizer: Any = "adam", metrics: Any = None, **kwargs: Any) -> None:
        """As for every Keras model, except that the loss is the method's.

        Args:
          optimizer: of the model's Keras, or its name.
          metrics: further metrics of the base model's output on clean images; clean and robust
            'accuracy' are always measured.
          **kwargs: of Keras's own `compile`, except `loss`.

        Raises:
          UsageError: a loss is given.
        """
        if kwargs.pop("loss", None) is not None:
            raise UsageError("compile: the loss is the method's own; leave loss out.")
        library = heads.library_of(self.base_model)
        if isinstance(optimizer, str):
            optimizer = library.optimizers.get(optimizer)
        named = [one for one in metrics or () if one not in ("accuracy", "acc")]
        self._further = [library.metrics.get(one) for one in named]
        optimizer = _scaling(optimizer, self.base_model)
        # XLA on CPUs makes convolutions many times slower; it is opt-in.
        kwargs.setdefault("jit_compile", False)
        self._build_for_all(optimizer)
        super().compile(optimizer, **kwargs)  # type: ignore[misc]
        self.update_trainable()

    def _build_for_all(self, optimizer: Any) -> None:
        """Creates the optimiser's variables for all weights, including those unfrozen later."""
        if not hasattr(optimizer, "build"):
            return
        with unfrozen(self.base_model):
            optimizer.build(self.base_model.trainable_variables)

    def update_trainable(self) -> None:
        """Retraces; to be called after `trainable` changes, including during `fit`."""
        self._freeze_batch_norm()
        self._statistics = Statistics(self.base_model)
        # Keras 2 uses the list of trainable weights from `compile`.
        if hasattr(self, "_get_trainable_state"):
            state = self._get_trainable_state()
            object.__setattr__(self, "_compiled_trainable_state", state)
        if getattr(self, "train_function", None) is not None:
            self.train_function = None
            self.make_train_function(force=True)

    @property
    def metrics(self) -> list[Any]:
        """The metrics that `fit` and `evaluate` reset."""
        own: list[Any] = super().metrics  # type: ignore[misc]
        return [*own, *self._tested.values(), *self._further]

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """One update from (x, y), (x, y, sample_weight) or a dict with 'image' and 'label'."""
        x, y, weights = _unpacked(data)
        self._weights_of_batch = weights
        try:
            batch = {"image": self._augmented(self._pixels(x)), "label": _as_labels(y)}
            logs: dict[str, Tensor] = super().train_step(batch)  # type: ignore[misc]
        finally:
            self._weights_of_batch = None
        return logs

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """Clean and robust accuracy on a batch, by `validation_attack` in the ball."""
        x, y, weights = _unpacked(data)
        pixels, labels = self.pixels_and_labels(x, y)
        logits = self.logits(pixels, training=False)
        seed = tf.constant([self.recipe.seed, 0], tf.int32)
        ball = self.recipe.threat_model
        judge = lambda images: self.logits(images, training=False)  # noqa: E731
        found = run(self.validation_attack, self.attacked(), judge, pixels, labels, ball, seed)
        right = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        values = {
            "val_loss": cross_entropy(logits, labels), "accuracy": right,
            "robust_accuracy": right & ~found.success,
            "robust_loss": cross_entropy(found.logits, labels),
        }  # fmt: skip
        for name, value in values.items():
            self._tested[name].update_state(tf.cast(value, tf.float32), sample_weight=weights)
        logs = {name.removeprefix("val_"): self._tested[name].result() for name in values}
        return {**logs, **self._measured(x, y, weights)}

    def _measured(self, x: Tensor, y: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        if self._further:
            outputs = heads.pick_output(self.base_model(x, training=False))
            for metric in self._further:
                metric.update_state(y, outputs, sample_weight=weights)
        return {metric.name: metric.result() for metric in self._further}

    def _pixels(self, x: Tensor) -> Tensor:
        """The user's images, scaled to [0, 1]; others than the base model takes raise."""
        scale: float = self._scale  # type: ignore[attr-defined]
        pixels = tf.cast(x, tf.float32) / scale
        low, high = tf.reduce_min(pixels), tf.reduce_max(pixels)
        fits = (low >= -1e-3) & (high <= 1 + 1e-3)
        message = f"images: expected values in 0..{scale:g}, the model's range, found from, to:"
        if scale > 1:
            # A batch without a pixel brighter than 1 of 255 is taken to be in [0, 1].
            fits &= (high > 1.001 / scale) | tf.equal(high, 0.0)
        check = tf.debugging.Assert(fits, [message, low * scale, high * scale])
        with tf.control_dependencies([check]):
            return tf.identity(pixels)

    def _augmented(self, pixels: Tensor) -> Tensor:
        """The output of the base model's initial random layers, clipped to the bounds."""
        outputs: _Logits = self._outputs  # type: ignore[attr-defined]
        if outputs.augmentation is None:
            return pixels
        scale: float = self._scale  # type: ignore[attr-defined]
        made = tf.cast(outputs.augmentation(pixels * scale, training=True), tf.float32)
        return tf.clip_by_value(made / scale, *self.recipe.threat_model.bounds)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The batch's mean, weighted if `fit` has weights."""
        if self._weights_of_batch is None:
            mean: Tensor = super().cross_entropy(logits, y)  # type: ignore[misc]
            return mean
        depth, smoothing = tf.shape(logits)[1], self.recipe.label_smoothing
        even = smoothing / tf.cast(depth, tf.float32)
        target = tf.one_hot(y, depth, 1 - smoothing + even, even)
        return self.mean(tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=logits))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a loss [B], with the sample weights of `fit`."""
        weights = self._weights_of_batch
        if weights is None:
            return tf.reduce_mean(values)
        return tf.reduce_mean(values * tf.reshape(tf.cast(weights, values.dtype), [-1]))

    def get_config(self) -> dict[str, Any]:
        """The base model, the method and the ball."""
        library = heads.library_of(self.base_model)
        ball = self.recipe.threat_model
        return {
            "model": library.saving.serialize_keras_object(self.base_model),
            "method": self.method.as_dict(),
            "ball": {"norm": ball.norm, "eps": ball.eps, "bounds": list(ball.bounds)},
            "validation_attack": attack_as_dict(self.validation_attack),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Rebuilds the model; weights are loaded afterwards."""
        root = (
            "tf_keras" if any(k.__module__.startswith("tf_keras") for k in cls.__mro__) else "keras"
        )
        library = importlib.import_module(root)
        model = library.saving.deserialize_keras_object(config["model"])
        ball = config["ball"]
        return robust(
            model, from_dict(config["method"]),
            ThreatModel(ball["norm"], ball["eps"], tuple(ball["bounds"])),
            validation_attack=attack_from_dict(config["validation_attack"]),
        )  # fmt: skip


class _Logits:
    """A base model's logits as a function of [0, 1] images, sharing its weights."""

    def __init__(self, model: Any, scale: float) -> None:
        self._model, self._scale = model, scale
        self._layer: Any = None
        self._after: list[Callable[[Tensor], Tensor]] = []
        head = heads.cut(model)
        if head.activation:
            self._open(head)
        #: Whether it is known what kind of output the model has.
        self.kind_known = bool(head.activation) or head.known
        outputs = heads.graph_ends(model)[1]
        if len(outputs) == 1 and outputs[0].shape[-1] == 1:
            self._after.append(heads.as_two_classes)
        #: The initial random layers, which training passes skip; None if there are none.
        self.augmentation, self._rest = augmentation.split(self._model)
        #: Whether the model itself maps [0, 1] images to logits.
        self.plain = scale == 1 and self._layer is None and not self._after and head.known

    def _open(self, head: heads.Head) -> None:
        """Removes the last activation without copying weights."""
        own = {id(heads.raw(variable)) for variable in self._model.weights}
        if all(id(heads.raw(variable)) in own for variable in head.model.weights):
            self._model = head.model
            return
        # The activation belongs to a layer with weights: it is replaced temporarily.
        self._layer = heads.last_layer(self._model)

    def probe(self, x: np.ndarray) -> None:
        """Detects the kind of output from some images, [N, H, W, C]."""
        # `as_classifier` is the one judge: it tells activations from logits by their range.
        made = as_classifier(self._model, x[:_PROBED] / self._scale,
                             InputView((0.0, self._scale)))  # fmt: skip
        self._after = [step for step in made.after if step is not heads.pick_output]
        self.kind_known = True

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        if not self.kind_known:
            raise UsageError(
                "The model's graph does not say what it returns: call fit or evaluate on images "
                "first, or give a functional model."
            )
        x = x * self._scale if self._scale != 1 else x
        with _linear(self._layer):
            model = self._rest if training else self._model
            found = heads.pick_output(model(x, training=training))
        found = tf.cast(found, tf.float32)
        for step in self._after:
            found = step(found)
        return found


def _scaling(optimizer: Any, model: Any) -> Any:
    """The optimiser with loss scaling if a layer of the model computes in float16."""
    library = heads.library_of(model)
    halves = any(
        getattr(layer, "compute_dtype", None) == "float16" for layer in model._flatten_layers()
    )
    if not halves or "LossScale" in type(optimizer).__name__:
        return optimizer
    room = library.optimizers if hasattr(library, "ops") else library.mixed_precision
    return room.LossScaleOptimizer(optimizer)


@contextmanager
def _linear(layer: Any) -> Iterator[None]:
    """Inside the block a layer has no activation."""
    if layer is None:
        yield
        return
    before = layer.activation
    layer.activation = heads.library_of(layer).activations.linear
    try:
        yield
    finally:
        layer.activation = before


def _first_images(x: Any) -> Any:
    """The first images of the data given to `fit`."""
    if hasattr(x, "take") and hasattr(x, "element_spec"):
        return _unpacked(next(iter(x.take(1))))[0]
    if hasattr(x, "shape"):
        return x[:_PROBED]
    if isinstance(x, dict):
        return x["image"][:_PROBED]
    return x[0][0]  # a Sequence or PyDataset of batches


def _unpacked(data: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    if isinstance(data, dict):
        return data["image"], data["label"], data.get("sample_weight")
    if len(data) == 3:
        return data[0], data[1], data[2]
    x, y = data
    return x, y, None


def _as_labels(y: Tensor) -> Tensor:
    """Labels int32 [B] of integers [B] or [B, 1], or one-hot rows [B, K]."""
    y = tf.convert_to_tensor(y)
    if len(y.shape) == 2 and y.shape[1] != 1:
        return tf.argmax(y, axis=1, output_type=tf.int32)
    return tf.cast(tf.reshape(y, [-1]), tf.int32)


def robust(
    model: Model, method: AnyMethod | None = None, ball: ThreatModel | None = None, *,
    validation_attack: PGD | None = None,
) -> Any:  # fmt: skip
    """A Keras model that trains `model` robustly and otherwise behaves like `model`.

    Train it by `compile` and `fit` with arrays or `tf.data` of (x, y), (x, y, sample_weight) or
    dicts, with any optimiser, schedule and callback of its Keras. Images are in the base model's
    range: [0, 1], or 0..255 if its first layer is a Rescaling from there. Random layers at the
    start of a graph augment each batch once, before the attack. During `fit`, `accuracy` and
    `robust_accuracy` of `validation_data` are clean accuracy and accuracy under
    `validation_attack`; `evaluate` measures the same; `predict` returns the base model's
    output.

    Args:
      model: a built classifier of tf_keras or Keras 3; it is trained in place, as
        `base_model`.
      method: one of `tfrobust.training.methods`, such as ``Trades(beta=6)``; None is
        `AdversarialTraining`.
      ball: the threat model, such as ``Linf(8 / 255)``, the default.
      validation_attack: the attack for validation; None is PGD with 10 steps.

    Raises:
      UsageError: not a Keras model, or the method does not train against the norm.

    Examples:
      >>> robust = tr.robust(model, tr.AdversarialTraining(), tr.Linf(0.1))
      >>> robust.compile("sgd", metrics=["accuracy"])
      >>> history = robust.fit(x, y, epochs=1, batch_size=32, verbose=0)
      >>> "loss" in history.history
      True
    """
    if not heads.is_keras(model):
        raise UsageError(f"Expected a Keras model, found {type(model).__name__}.")
    if is_integer(model):
        raise UsageError(
            "Expected a model of floats, found an integer input, which gradients cannot "
            "pass: make its Input float32."
        )
    method = method or AdversarialTraining()
    ball = ball or ThreatModel("linf", 8 / 255)
    cls = _class_of(method.place, type(method).__name__, heads.library_of(model).__name__)
    made: Any = cls.__new__(cls, model)
    made.__init__(model, method, ball, validation_attack or PGD(steps=10))
    return made


@functools.cache
def _class_of(place: str, name: str, library: str) -> type:
    """The class of robust models for a method and a Keras version, registered for loading."""
    keras = importlib.import_module(library)
    logic = imported(place, "training method")
    made = type(f"Robust{name}", (_Robust, logic, keras.Model), {})
    registered: type = keras.saving.register_keras_serializable(_PACKAGE)(made)
    return registered


def load_robust(path: Path | str) -> Any:
    """Loads a robust model that `save` has written as a .keras file, to be compiled and trained.

    Args:
      path: of the file; only layers of this project and Keras are loaded.

    Raises:
      TFRobustError: the file is not a robust model, or contains code.

    Examples:
      >>> robust = tr.robust(model, tr.AdversarialTraining(), tr.Linf(0.1))
      >>> robust.compile("sgd")
      >>> robust.save(folder / "robust.keras")
      >>> again = tr.load_robust(folder / "robust.keras")
      >>> bool(np.allclose(again.predict(x, verbose=0), model(x), atol=1e-5))
      True
    """
    from tfrobust.models.safe_open import keras_version, refuse_code

    library = "keras" if keras_version(Path(path)).startswith("3.") else "tf_keras"
    refuse_code(Path(path))
    # Methods of installed packages are known once they are imported.
    for method in [METHODS[name] for name in METHODS] + known_methods():
        _class_of(method.place, method.__name__, library)
    return importlib.import_module(library).models.load_model(str(path), compile=False)
