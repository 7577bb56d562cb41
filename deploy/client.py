"""Queries TensorFlow Serving, or `pipelines.serve`, for the class of an image.

    python deploy/client.py --model digits-nsl --rest http://localhost:8501 cat.jpg
    python deploy/client.py --model digits-nsl --grpc localhost:8500 cat.jpg dog.png

REST needs only Python; gRPC needs grpcio and tensorflow-serving-api. Neither needs tfrobust: this
file works by itself.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

SIGNATURE = "image_bytes"


def ask_rest(address: str, model: str, images: list[bytes]) -> list[dict[str, Any]]:
    """[{'label', 'label_name', 'probabilities', ...}, ...], one per image."""
    encoded = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]
    body = json.dumps({"signature_name": SIGNATURE, "instances": encoded}).encode()
    name = urllib.parse.quote(model, safe="")
    request = urllib.request.Request(
        f"{address.rstrip('/')}/v1/models/{name}:predict", body,
        {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["predictions"]
    return found


def ask_grpc(address: str, model: str, images: list[bytes]) -> list[dict[str, Any]]:
    """The same by gRPC, which sends the bytes unencoded."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, SIGNATURE
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, shape=[len(images)]))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=30).outputs
        except grpc.RpcError as error:
            raise ConnectionError(f"{address}: {error.code().name}: {error.details()}") from error
    arrays = {name: tf.make_ndarray(value) for name, value in outputs.items()}
    return [
        {
            "label": int(arrays["label"][i]),
            "label_name": arrays["label_name"][i].decode(),
            "probabilities": arrays["probabilities"][i].tolist(),
        }
        for i in range(len(images))
    ]


def main() -> int:
    """Prints one line per image."""
    parser = argparse.ArgumentParser(description="Query a served model for the class of an image.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG or PNG")
    parser.add_argument("--model", required=True, help="name that the model is served under")
    parser.add_argument("--rest", default="http://localhost:8501", help="address for REST")
    parser.add_argument("--grpc", default=None, metavar="HOST:PORT", help="use gRPC instead")
    args = parser.parse_args()
    try:
        images = [path.read_bytes() for path in args.images]
        found = (
            ask_grpc(args.grpc, args.model, images) if args.grpc
            else ask_rest(args.rest, args.model, images)
        )  # fmt: skip
    except urllib.error.HTTPError as error:
        print(f"error: {error.code}: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"error: {error}: gRPC needs grpcio and tensorflow-serving-api", file=sys.stderr)
        return 1
    # The last two: an invalid address, or another kind of server.
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        print(f"error: {error!s} ({type(error).__name__})", file=sys.stderr)
        return 1
    for path, one in zip(args.images, found, strict=True):
        print(f"{path}: {one['label_name']} ({max(one['probabilities']):.1%})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
