"""`pipelines.serve` under load: requests per second, latencies, lost requests and memory.

    python -m benchmarks.serving saved_models/RUN
    python -m benchmarks.serving saved_models/RUN --seconds 30 --clients 1 8 32 64
    python -m benchmarks.serving saved_models/RUN --beside ray kserve openvino onnxruntime

Starts the server in a separate process and queries it from the given numbers of clients, each
waiting for its answer before the next request, with digits as PNG. Both run on this machine and
share its cores. With --beside it is queried in TensorFlow Serving's REST format, like KServe's
server and the same server in --replicas of Ray Serve (`ray`); the time of the model itself in each
engine, in one process without HTTP, is measured in alternation. ONNX Runtime needs the output of
`pipelines.export RUN --formats onnx`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import engines


@dataclass(frozen=True)
class Asked:
    """The destination of requests, and the process that answers them."""

    name: str
    host: str
    port: int
    path: str
    process: int


def main() -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args()
    _check(args)
    images = _images(args.side)
    if args.beside is None:
        with _ours(args.model, "/predict") as server:
            _report([server], images, args)
        return 0
    name = Path(args.model).resolve().name
    bodies = [_as_rest(image) for image in images]
    with contextlib.ExitStack() as stack:
        path = f"/v1/models/{name}:predict"
        servers = [stack.enter_context(_ours(args.model, path))]
        if "ray" in args.beside:
            flags = ("--on", "ray", "--replicas", str(args.replicas))
            servers.append(stack.enter_context(_ours(args.model, path, "ray", *flags)))
        if "kserve" in args.beside:
            port, process = stack.enter_context(engines.kserve(Path(args.model), name))
            servers.append(Asked("kserve", "127.0.0.1", port, path, process))
        _report(servers, bodies, args)
    inside = ["tensorflow", *(one for one in args.beside if one in engines.INSIDE)]
    _report_inside(Path(args.model), inside)
    return 0


def _check(args: argparse.Namespace) -> None:
    for one in args.beside or ():
        package = engines.INSIDE.get(one, one)
        if not engines.is_there(package):
            raise SystemExit(f"error: {one} is not installed: pip install {package}")
    if "onnxruntime" in (args.beside or ()) and not (Path(args.model) / "model.onnx").is_file():
        raise SystemExit(f"error: {args.model}/model.onnx is missing: python -m pipelines.export "
                         f"{args.model} --formats onnx")  # fmt: skip


@contextlib.contextmanager
def _ours(model: str, path: str, name: str = "tfrobust", *flags: str) -> Iterator[Asked]:
    command = [sys.executable, "-m", "pipelines.serve", model, "--port", "0", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if " at http://" not in line:
            raise SystemExit("error: the server did not start, see above.")
        host, _, port = line.split(" at http://")[1].split("/")[0].partition(":")
        print(line.strip())
        yield Asked(name, host, int(port), path, server.pid)
    finally:
        server.terminate()
        server.wait(60)


def _report(servers: list[Asked], bodies: list[bytes], args: argparse.Namespace) -> None:
    """Each server with each number of clients, alternating: other work affects all equally."""
    print(f"{'server':<10}{'clients':>8}{'requests':>10}{'lost':>6}{'a second':>10}{'p50 ms':>8}"
          f"{'p99 ms':>8}{'memory MB':>11}")  # fmt: skip
    for one in servers:
        _load(one.host, one.port, bodies, 4, 3.0, one.path)
    for count in args.clients:
        for one in servers:
            begin = time.perf_counter()
            times, lost = _load(one.host, one.port, bodies, count, args.seconds, one.path)
            spent = time.perf_counter() - begin
            p50, p99 = np.percentile(times or [np.nan], [50, 99]) * 1e3
            print(f"{one.name:<10}{count:8}{len(times):10,}{lost:6}{len(times) / spent:10.1f}"
                  f"{p50:8.1f}{p99:8.1f}{_memory(one.process):11.0f}", flush=True)  # fmt: skip


def _report_inside(folder: Path, names: list[str], rounds: int = 60) -> None:
    """Milliseconds of the model itself, for one image and for a batch; medians, alternating."""
    runs = {name: engines.opened(name, folder) for name in names}
    shape = engines.image_shape(folder)
    print(f"\n{'engine':<14}{'1 image ms':>12}{'32 images ms':>14}{'logits differ':>14}")
    x = np.random.default_rng(0).random((32, *shape), np.float32)
    first = np.asarray(runs[names[0]](x))
    times: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 5):
        for name, run in runs.items():
            for size in (1, 32):
                begin = time.perf_counter()
                run(x[:size])
                # The first calls compile.
                if turn >= 5:
                    times.setdefault((name, size), []).append(time.perf_counter() - begin)
    for name, run in runs.items():
        one, many = (np.median(times[name, size]) * 1e3 for size in (1, 32))
        apart = np.abs(np.asarray(run(x)) - first).max()
        print(f"{name:<14}{one:12.2f}{many:14.2f}{apart:14.1e}")


def _load(
    host: str, port: int, bodies: list[bytes], clients: int, seconds: float, path: str = "/predict"
) -> tuple[list[float], int]:
    """(seconds of each answered request, number of unanswered ones)."""
    times: list[float] = []
    lost: list[str] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        at = number
        while time.perf_counter() < end:
            begin = time.perf_counter()
            try:
                connection.request("POST", path, bodies[at % len(bodies)])
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                connection.close()
                continue
            if answer.status == 200:
                times.append(time.perf_counter() - begin)
            else:
                lost.append(str(answer.status))
            at += clients
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(lost)


def _as_rest(image: bytes) -> bytes:
    text = base64.b64encode(image).decode()
    return json.dumps({"signature_name": "image_bytes", "instances": [{"b64": text}]}).encode()


def _images(side: int) -> list[bytes]:
    """Real images: enlarged digits, as PNG."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = []
    for digit in load_digits().images[:64]:
        file = io.BytesIO()
        pixels = np.uint8(digit * 255 / 16)
        Image.fromarray(pixels).convert("RGB").resize((side, side)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def _memory(process: int) -> float:
    """Megabytes of a process and its children; shared memory counts in each."""
    found, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "status").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        status = dict(line.split(":", 1) for line in lines)
        parents[int(folder.name)] = int(status["PPid"])
        found[int(folder.name)] = float(status.get("VmRSS", "0 kB").split()[0]) / 1024
    family = {process}
    while more := {one for one, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(found[one] for one in family if one in found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description="pipelines.serve under load.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="RUN", help="run folder with a SavedModel")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32], help="client counts")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of load, each")
    parser.add_argument(
        "--beside", nargs="+", metavar="ENGINE",
        choices=["ray", "kserve", "openvino", "onnxruntime"],
        help="ray, kserve, openvino, onnxruntime: compare with the same requests or images there",
    )  # fmt: skip
    parser.add_argument("--replicas", type=int, default=2, help="replicas of Ray Serve")
    parser.add_argument("--side", type=int, default=64, help="side of the images sent")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
