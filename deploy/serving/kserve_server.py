"""KServe's server around an exported model: V1, /v1/models/NAME:predict, and V2.

    pip install kserve tensorflow
    python deploy/serving/kserve_server.py --model saved_models/digits-nsl/1 --model_name digits-nsl

Accepts the requests of TensorFlow Serving: "instances" of {"b64": ...} or of floats [H][W][3], and
"signature_name". All flags of KServe's server are available besides --model and --host; --http_port
defaults to 8080. It does not need tfrobust: this file can be copied elsewhere, for example as the
predictor of an InferenceService, where it must be reachable from outside: --host 0.0.0.0.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from typing import Any

import kserve
import tensorflow as tf
from kserve import model_server
from kserve.errors import InvalidInput


class SavedModel(kserve.Model):
    """Answers with the outputs of one of the model's signatures, by rows."""

    def __init__(self, name: str, folder: str) -> None:
        super().__init__(name)
        # A signature lives only as long as the loaded object.
        self._loaded = tf.saved_model.load(folder)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answers one request without blocking the next ones."""
        return await asyncio.to_thread(self._answer, payload)

    def _answer(self, payload: Any) -> dict[str, list[dict[str, Any]]]:
        signature, inputs = self._asked(payload)
        try:
            outputs = signature(**inputs)
        except tf.errors.InvalidArgumentError as error:
            # The check that failed, without its place in the graph.
            reason = error.message.split("assertion failed: ")[-1].split("\n")[0]
            raise InvalidInput(reason) from error
        columns = {name: _listed(value) for name, value in outputs.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {"predictions": rows}

    def _asked(self, payload: Any) -> tuple[Any, dict[str, tf.Tensor]]:
        """The signature and its inputs."""
        if isinstance(payload, bytes):
            # Raw bytes if the content type is not JSON's, as with `curl -d`: TensorFlow Serving
            # accepts them all the same.
            try:
                payload = json.loads(payload)
            except ValueError as error:
                raise InvalidInput('Expected JSON with a list "instances".') from error
        instances = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(instances, list) or not instances:
            raise InvalidInput('Expected JSON with a list "instances".')
        encoded = isinstance(instances[0], dict) and "b64" in instances[0]
        name = payload.get("signature_name") or ("image_bytes" if encoded else "serving_default")
        if not isinstance(name, str) or name not in self._loaded.signatures:
            known = " or ".join(sorted(self._loaded.signatures))
            raise InvalidInput(f'"signature_name": expected {known}.')
        signature = self._loaded.signatures[name]
        [(argument, spec)] = signature.structured_input_signature[1].items()
        try:
            values = [base64.b64decode(one["b64"]) for one in instances] if encoded else instances
            tensor = tf.constant(values, spec.dtype)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput("Expected instances all of one kind, and of one size.") from error
        if not spec.shape.is_compatible_with(tensor.shape):
            raise InvalidInput(f"Expected {argument} {spec.shape}, found {tensor.shape}.")
        return signature, {argument: tensor}


def _listed(value: tf.Tensor) -> list[Any]:
    found = value.numpy().tolist()
    return [one.decode() for one in found] if value.dtype == tf.string else found


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(
        parents=[model_server.parser], conflict_handler="resolve",
        description="KServe's server around a SavedModel.",
    )  # fmt: skip
    parser.add_argument("--model", required=True, metavar="FOLDER", help="version folder, RUN/1")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    args = parser.parse_args()

    class RESTServer(model_server.RESTServer):
        """Listens at one address: KServe's own listens at all of them, without a flag for it."""

        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **named)
            self.config.host = args.host

    model_server.RESTServer = RESTServer
    # KServe's gRPC port has no setting for its address either: REST only.
    server = kserve.ModelServer(http_port=args.http_port, enable_grpc=False)
    server.start([SavedModel(args.model_name, args.model)])


if __name__ == "__main__":
    main()
