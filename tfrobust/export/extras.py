"""Files in a SavedModel's `assets.extra`: class names, and warm-up requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tfrobust.io import read_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

FOLDER = "assets.extra"
#: Where TensorFlow Serving looks for requests to run before it reports that it is ready.
WARM_UP = "tf_serving_warmup_requests"
LABELS = "labels.json"


def write_extras(folder: Path, name: str, label_names: Sequence[str], images: np.ndarray) -> None:
    """Writes both files of a SavedModel.

    Args:
      folder: the SavedModel's folder, with `saved_model.pb` in it.
      name: of the model, as in the URL of requests.
      label_names: the classes' names, by label.
      images: float32 [N, H, W, 3] in [0, 1], N >= 1, the content of the requests: one image and
        all of them as floats, and the first as a PNG.
    """
    from tfrobust.runtime import tf

    extras = folder / FOLDER
    extras.mkdir(parents=True, exist_ok=True)
    write_text(extras / LABELS, json.dumps(list(label_names), ensure_ascii=False, indent=1) + "\n")
    png = tf.io.encode_png(tf.image.convert_image_dtype(images[0], tf.uint8, saturate=True))
    inputs = (
        ("serving_default", "images", tf.constant(images[:1])),
        ("serving_default", "images", tf.constant(images)),
        ("image_bytes", "image_bytes", png[None]),
    )
    with tf.io.TFRecordWriter(str(extras / WARM_UP)) as writer:
        for signature, key, value in inputs:
            writer.write(_log(name, signature, key, value))


def _log(name: str, signature: str, key: str, value: object) -> bytes:
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    from tfrobust.runtime import tf

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    predict = prediction_log_pb2.PredictLog(request=request)
    return prediction_log_pb2.PredictionLog(predict_log=predict).SerializeToString()


def read_labels(folder: Path) -> list[str] | None:
    """The class names of a SavedModel, by label; None if it has none."""
    file = folder / FOLDER / LABELS
    return read_json(file) if file.is_file() else None
