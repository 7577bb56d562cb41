"""`pipelines.serve` under load: requests a second and their times, nothing lost, memory flat.

    python -m benchmarks.serving saved_models/RUN
    python -m benchmarks.serving saved_models/RUN --seconds 30 --clients 1 8 32 64

Starts the server in a process of its own and asks it, from as many clients as named, each
waiting for its answer before it asks again, what is in an image: the digits, as PNG. Both
run on this machine and share its cores.
"""

from __future__ import annotations

import argparse
import http.client
import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


def main() -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args()
    images = _images(args.side)
    command = [sys.executable, "-m", "pipelines.serve", args.model, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if " at http://" not in line:
            raise SystemExit("error: the server did not start, see above.")
        host, _, port = line.split(" at http://")[1].split("/")[0].partition(":")
        print(line.strip())
        print(f"{'clients':>8}{'requests':>10}{'lost':>6}{'a second':>10}{'p50 ms':>8}{'p99 ms':>8}"
              f"{'memory MB':>11}")  # fmt: skip
        _load(host, int(port), images, 4, 3.0)
        for count in args.clients:
            begin = time.perf_counter()
            times, lost = _load(host, int(port), images, count, args.seconds)
            spent = time.perf_counter() - begin
            p50, p99 = np.percentile(times or [np.nan], [50, 99]) * 1e3
            print(f"{count:8}{len(times):10,}{lost:6}{len(times) / spent:10.1f}{p50:8.1f}{p99:8.1f}"
                  f"{_memory(server.pid):11.0f}", flush=True)  # fmt: skip
    finally:
        server.terminate()
        server.wait(30)
    return 0


def _load(
    host: str, port: int, images: list[bytes], clients: int, seconds: float
) -> tuple[list[float], int]:
    """(seconds of each request that was answered, how many were not)."""
    times: list[float] = []
    lost: list[str] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        at = number
        while time.perf_counter() < end:
            begin = time.perf_counter()
            try:
                connection.request("POST", "/predict", images[at % len(images)])
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


def _images(side: int) -> list[bytes]:
    """Real images: digits, enlarged, as PNG."""
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
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return float(kilobytes) / 1024


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description="pipelines.serve under load.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="RUN", help="run folder with a SavedModel")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32], help="how many")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load, each")
    parser.add_argument("--side", type=int, default=64, help="of the images that are sent")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
