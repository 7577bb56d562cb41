"""Other serving engines around the exports of tfrobust: OpenVINO, ONNX Runtime, KServe.

The first two run the model inside this process, which shows the time of the engine itself; KServe
is a separate server, started from deploy/serving/kserve_server.py and queried by REST.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfrobust.export.formats import Run
from tfrobust.serving.model import newest_version

ROOT = Path(__file__).resolve().parents[1]
#: Engines that run inside this process -> the package that each needs.
INSIDE = {"tensorflow": "tensorflow", "openvino": "openvino", "onnxruntime": "onnxruntime"}


def is_there(package: str) -> bool:
    """Whether a package can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def opened(engine: str, folder: Path) -> Run:
    """An exported model in an engine: float32 [N, H, W, 3] in [0, 1] -> logits [N, K].

    Args:
      engine: in `INSIDE`.
      folder: run folder with a SavedModel, and with model.onnx for 'onnxruntime'.
    """
    if engine == "tensorflow":
        from tfrobust.serving.model import ServedModel

        return ServedModel(folder).logits
    if engine == "openvino":
        return _openvino(newest_version(folder))
    from tfrobust.export.portable import load

    return load("onnx", folder / "model.onnx")


def _openvino(saved_model: Path) -> Run:
    import openvino

    # It uses the signature serving_default. On processors with bfloat16 it computes in bfloat16 by
    # default: logits were .08 off.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(openvino.convert_model(str(saved_model)), "CPU", exact)
    logits = compiled.output("logits")

    def run(x: np.ndarray) -> np.ndarray:
        # The memory of the outputs is reused by the next call.
        return np.array(compiled(x)[logits])

    return run


def image_shape(folder: Path) -> tuple[int, ...]:
    """[H, W, 3] of the images of a run's SavedModel."""
    from tfrobust.models.opening import load_any

    return tuple(load_any(newest_version(folder)).image_shape)


@contextlib.contextmanager
def kserve(folder: Path, name: str) -> Iterator[tuple[int, int]]:
    """KServe's server around a run's SavedModel, until the block ends.

    Yields:
      (port on 127.0.0.1, process).

    Raises:
      SystemExit: the server did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [
        sys.executable, str(ROOT / "deploy" / "serving" / "kserve_server.py"), "--model",
        str(newest_version(folder)), "--model_name", name, "--http_port", str(port),
        # Its log lines for each request would be part of the measurement.
        "--enable_latency_logging", "false", "--configure_logging", "false",
    ]  # fmt: skip
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    server = subprocess.Popen(command, env={**os.environ, **quiet})
    try:
        _until_ready(f"http://127.0.0.1:{port}/v1/models/{name}", server)
        yield port, server.pid
    finally:
        server.terminate()
        try:
            server.wait(40)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _until_ready(address: str, server: subprocess.Popen[bytes], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("error: KServe's server did not start, see above.")
