"""The example client, by REST against our server and by gRPC against Serving's own service."""

from __future__ import annotations

import importlib.util
import io
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tfrobust.runtime import tf

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("client", ROOT / "deploy" / "client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images() -> list[bytes]:
    found = []
    for colour in ((200, 40, 40), (40, 40, 200)):
        file = io.BytesIO()
        Image.new("RGB", (30, 20), colour).save(file, "PNG")
        found.append(file.getvalue())
    return found


def test_rest(example, client) -> None:
    found = example.ask_rest(client.address, "colours", images())
    assert [one["label_name"] for one in found] == ["red", "blue"]


@pytest.fixture
def grpc_address(exported) -> Any:
    """TensorFlow Serving's gRPC service over the SavedModel's own signatures."""
    grpc = pytest.importorskip("grpc")
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    served = tf.saved_model.load(str(exported / "1")).signatures

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
            answer = predict_pb2.PredictResponse()
            for name, value in served[request.model_spec.signature_name](**inputs).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_grpc(example, grpc_address) -> None:
    found = example.ask_grpc(grpc_address, "colours", images())
    assert [(one["label"], one["label_name"]) for one in found] == [(0, "red"), (2, "blue")]
    assert all(sum(one["probabilities"]) == pytest.approx(1) for one in found)


def test_the_command_prints_a_line_an_image(example, client, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "a.png").write_bytes(images()[0])
    args = ["client.py", "--model", "colours", "--rest", client.address, str(tmp_path / "a.png")]
    monkeypatch.setattr("sys.argv", args)
    assert example.main() == 0
    assert "a.png: red (" in capsys.readouterr().out
    (tmp_path / "b.png").write_bytes(b"none")
    monkeypatch.setattr("sys.argv", [*args[:-1], str(tmp_path / "b.png")])
    assert example.main() == 1 and "400" in capsys.readouterr().err


def told(example: Any, monkeypatch: Any, capsys: Any, *args: str) -> str:
    """What the command says when it fails."""
    monkeypatch.setattr("sys.argv", ["client.py", *args])
    assert example.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_what_fails_is_one_line(example, client, tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("grpc")
    image = str(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(images()[0])

    def say(*args: str) -> str:
        return told(example, monkeypatch, capsys, *args, image)

    assert "UNAVAILABLE" in say("--model", "colours", "--grpc", "127.0.0.1:1")
    assert "404" in say("--model", "of two words", "--rest", client.address)
    assert "unknown url type" in say("--model", "colours", "--rest", "localhost:8501")
    assert "InvalidURL" in say("--model", "colours", "--rest", "http://local host")
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert "gRPC needs grpcio" in say("--model", "colours", "--grpc", "127.0.0.1:1")
