"""Export: a SavedModel for serving, compared with the trained model before it is published.

The saved model is a plain graph. It needs neither tfrobust nor Keras 2: it loads with
``tf.saved_model.load``, in Keras 3 with ``TFSMLayer``, and in TensorFlow Serving.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export.extras import write_extras
from tfrobust.export.image_bytes import assert_some, decode
from tfrobust.models.classifier import Classifier, as_classifier
from tfrobust.models.inference import inference
from tfrobust.models.inputs import input_shape
from tfrobust.runtime import tf
from tfrobust.typing import Array, Model

TOLERANCE = 1e-5


def export(
    model: Model,
    folder: Path | str,
    class_names: Sequence[str] | None = None,
    *,
    version: int = 1,
    check_images: Array | None = None,
    label_names: Sequence[str] | None = None,
) -> Path:
    """Writes `model` as a SavedModel for inference and verifies that its outputs agree.

    There are two signatures; both return the same four outputs, one row per image:

    * ``serving_default``: ``images``, float32 [N, H, W, 3] in [0, 1], N >= 1.
    * ``image_bytes``: ``image_bytes``, string [N], each a JPEG or PNG of any size and mode with
      at most `MAX_PIXELS` pixels, in total at most `MAX_REQUEST_PIXELS`; transparency is blended
      with white, 16 bits become 8, a photograph is rotated by its EXIF orientation, and images
      are resized like Pillow's bilinear filter.

    The outputs are ``logits`` and ``probabilities`` (float32 [N, K]), ``label`` (int32
    [N]) and ``label_name`` (string [N]). Pixels outside [0, 1], data that is neither JPEG nor
    PNG, broken images, images that claim too many pixels (checked before decoding) and an empty
    batch raise ``InvalidArgumentError``.

    The class names and warm-up requests for TensorFlow Serving are written beside the graph
    (`extras`). The SavedModel is written to a hidden folder beside its final place, loaded again,
    compared with `model`, and only then moved to ``folder/version``, where it replaces an earlier
    one. A failure leaves the earlier one unchanged.

    Args:
      model: a Keras model (tf_keras or Keras 3) or a `Classifier` around one: images float32
        [None, H, W, 3] -> [None, K]. A final softmax or sigmoid is removed, so that 'logits' and
        'probabilities' are what their names say.
      folder: the run's folder, ``saved_models/<run>``; created if missing.
      class_names: the K classes' names, by label; None is '0', '1', ...
      version: number of the version folder, in TensorFlow Serving's sense.
      check_images: float32 [N, H, W, 3] in [0, 1], N >= 1: images on which the saved and the
        trained model are compared, in batches of 1, 3 and N; None uses noise.
      label_names: deprecated name of `class_names`.

    Returns:
      ``folder/version``.

    Raises:
      UsageError: an argument does not match the others.
      TFRobustError: the files cannot be written, or the reloaded logits differ from the trained
        model's by more than `TOLERANCE` (relative to the largest logit if that is above 1).

    Examples:
      >>> exported = tr.export(model, folder / "served", class_names=list("0123456789"))
      >>> served = tr.load_any(exported)
      >>> bool(np.allclose(tr.as_classifier(served, x)(x[:4]), model(x[:4]), atol=1e-4))
      True
    """
    folder = Path(folder)
    if check_images is None:
        check_images = _noise(model)
    _check_images(model, check_images)
    model = as_classifier(model, check_images)
    label_names = class_names if class_names is not None else label_names
    if label_names is None:
        label_names = [str(label) for label in range(model.classes)]
    _check_arguments(model, label_names, version)
    target = folder / str(version)
    staged = folder / f".{version}.partial-{os.getpid()}"
    try:
        with _write_errors(target):
            servable = _servable(model, label_names)
            signatures = {"serving_default": servable.serve, "image_bytes": servable.serve_bytes}
            tf.saved_model.save(servable, str(staged), signatures=signatures)
            write_extras(staged, folder.name, label_names, check_images)
        _compare(staged, model, label_names, check_images)
        with _write_errors(target):
            _publish(staged, target)
    finally:
        if staged.exists():
            shutil.rmtree(staged)
    return target


def _check_arguments(model: Classifier, label_names: Sequence[str], version: int) -> None:
    if len(label_names) != model.classes:
        raise UsageError(
            f"Expected {model.classes} label names, one for each logit, found {len(label_names)}: "
            "pass the names of the data the model was trained on."
        )
    if version < 1:
        raise UsageError(f"Expected a version number of at least 1, found {version}.")


def _noise(model: Any) -> np.ndarray:
    shape = input_shape(model)
    if shape is None or None in shape:
        raise UsageError(f"Expected a model of images of one fixed size, found input {shape}.")
    sides = [int(side or 0) for side in shape]
    return np.random.default_rng(0).uniform(size=(8, *sides)).astype(np.float32)


def _check_images(model: Any, images: np.ndarray) -> None:
    shape = input_shape(model)
    if shape is None or None in shape or shape[2] != 3:
        raise UsageError(f"Expected a model of images [None, H, W, 3], found input {shape}.")
    if images.dtype != np.float32 or images.shape[1:] != shape or len(images) == 0:
        raise UsageError(
            f"Expected check_images as float32 [N, {', '.join(map(str, shape))}], N >= 1, "
            f"found {images.dtype} {list(images.shape)}: pass test images of the model's data."
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise UsageError(
            f"Expected check_images in [0, 1], found {images.min():g} to {images.max():g}: "
            "divide pixels in 0..255 by 255."
        )


def _servable(model: Classifier, label_names: Sequence[str]) -> tf.Module:
    """A module of plain functions; tracking only the weights keeps Keras out of the files."""
    height, width = (int(side or 0) for side in (input_shape(model) or (0, 0))[:2])
    names = tf.constant(list(label_names))
    module = tf.Module()
    # Keras 3 wraps TensorFlow's variables in its own.
    module.model_weights = [
        weight if isinstance(weight, tf.Variable) else weight.value
        for weight in model.inner.weights
    ]
    classify = inference(model)

    @tf.function(
        input_signature=[tf.TensorSpec([None, height, width, 3], tf.float32)], autograph=False
    )
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A loaded signature does not check shapes by itself.
        images = tf.ensure_shape(images, [None, height, width, 3])
        with tf.control_dependencies([assert_some(images, "images"), _assert_unit_range(images)]):
            logits = classify(tf.identity(images))
        label = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return {
            "logits": logits,
            "probabilities": model.probabilities(logits),
            "label": label,
            "label_name": tf.gather(names, label),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return serve(decode(image_bytes, height, width))

    # `serve` is also the endpoint that Keras 3's TFSMLayer takes by default.
    module.serve, module.serve_bytes = serve, serve_bytes
    return module


@contextlib.contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise TFRobustError(
            f"The SavedModel cannot be written to {target}: {error}; free the path or the disk, "
            "or choose another folder."
        ) from error


def _assert_unit_range(images: tf.Tensor) -> tf.Operation:
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    # Resampling may leave [0, 1] by rounding errors; pixels in 0..255 leave it by far.
    # The minimum or maximum of NaN is NaN and fails too.
    fits = tf.logical_and(low >= -1e-3, high <= 1 + 1e-3)
    # An empty batch has no range; it is reported elsewhere.
    fits = tf.logical_or(fits, tf.equal(tf.size(images), 0))
    message = "images: expected values in [0, 1] (divide 0..255 by 255), found from, to:"
    return tf.debugging.Assert(fits, [message, low, high])


def _compare(
    folder: Path, model: Classifier, label_names: Sequence[str], images: np.ndarray
) -> None:
    """Reloads `folder` and compares both of its signatures with `model`.

    Raises:
      TFRobustError: the logits differ by more than `TOLERANCE`, or are not finite.
    """
    served = tf.saved_model.load(str(folder)).signatures
    # Compiled, like Keras's own predict and evaluate: under bfloat16, eager operations would
    # round differently.
    spec = tf.TensorSpec([None, *images.shape[1:]], tf.float32)
    trained = tf.function(inference(model), input_signature=[spec], autograph=False)
    for size in sorted({1, min(3, len(images)), len(images)}):
        batch = tf.constant(images[:size])
        answer = served["serving_default"](images=batch)
        _compare_logits(f"serving_default on a batch of {size}", answer, trained(batch))
        _compare_names(answer, label_names)
    whole = tf.image.convert_image_dtype(images[:3], tf.uint8, saturate=True)
    encoded = tf.stack([tf.io.encode_png(image) for image in whole])
    answer = served["image_bytes"](image_bytes=encoded)
    _compare_logits("image_bytes", answer, trained(tf.image.convert_image_dtype(whole, tf.float32)))


def _compare_logits(where: str, answer: dict[str, tf.Tensor], trained: tf.Tensor) -> None:
    expected = tf.cast(trained, tf.float32).numpy()
    if not np.isfinite(expected).all():
        raise TFRobustError(
            "Expected a trained model with finite logits, found NaN or infinity among them: "
            "nothing was exported; export an earlier checkpoint."
        )
    difference = float(np.max(np.abs(answer["logits"].numpy() - expected)))
    allowed = TOLERANCE * max(1.0, float(np.max(np.abs(expected))))
    # Written so that a difference of NaN fails.
    if not difference <= allowed:
        raise TFRobustError(
            f"The reloaded SavedModel ({where}) and the trained model should agree within "
            f"{allowed:.1e} but their logits differ by up to {difference:.3g}: nothing was "
            "exported; export in the process and precision of the training."
        )


def _compare_names(answer: dict[str, Any], label_names: Sequence[str]) -> None:
    labels = np.argmax(answer["logits"].numpy(), axis=-1)
    expected = [label_names[label] for label in labels]
    found = [name.decode() for name in answer["label_name"].numpy()]
    if found != expected:
        raise TFRobustError(
            f"The reloaded SavedModel should name the classes {expected[:3]} but names them "
            f"{found[:3]}: nothing was exported."
        )


def _publish(staged: Path, target: Path) -> None:
    """Moves `staged` to `target`; a folder already there is restored if that fails."""
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    if not target.exists():
        os.replace(staged, target)
        return
    os.replace(target, aside)
    try:
        os.replace(staged, target)
    except OSError:
        os.replace(aside, target)
        raise
    shutil.rmtree(aside)
