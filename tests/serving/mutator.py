"""Requests that mean harm, as bytes on the wire; from a seed, so that what is found stays found."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable

import numpy as np
from servers import BLUE, RED, REST, SIDE, encoded, png_that_claims, rest

# What JSON, HTTP and images are made of.
PIECES = (b"", b"null", b"[]", b"{}", b'"', b"1e999", b"9" * 400, b"\xc3\xa9", b'{"b64":""}',
          b"NaN", b"-", b"true", b"\0", b"\r\n", b"\r\n\r\n", b":", b"%00", b"../", b"\xff\xd8\xff",
          b"\x89PNG\r\n\x1a\n", b"A" * 3000)  # fmt: skip
PATHS = ("/", "/predict", "/explain", "/attack", "/attack?eps=8/255", REST, "/health", "/metrics",
         "/v1/models/colours", "/v1/models/colours/metadata", "/v1/models/colours/versions/1",
         "/v1/models/%00:predict", "/attack?eps=" + "9" * 5000, "/attack?eps=1e-999", "//", "/%",
         "/predict/../predict", "*", "http://elsewhere/predict", "/attack?eps=nan&eps=1/0",
         "/v1/models/colours/versions/" + "9" * 400 + ":predict")  # fmt: skip
METHODS = ("POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "post", "BREW")
HEADERS = (
    b"Content-Length: -1", b"Content-Length: 3\r\nContent-Length: 4", b"Content-Length: 1e3",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip", b"Content-Encoding: gzip", b"Content-Type: \xff\xfe",
    b"X: " + b"a" * 70_000, b"Expect: 100-continue", b"Upgrade: websocket\r\nConnection: upgrade",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings", b"Connection: close", b": empty",
    b"Host: a\r\nHost: b", b"Bad Name: x", b"X: a\r\n folded", b"X-Request-Id: \xe9\x00",
    b"Range: bytes=0-,0-,0-", b"Cookie: " + b"a=b; " * 2000, b"Serve-Multiplexed-Model-Id: x",
)  # fmt: skip
PREFACES = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0",
            b"POST /predict HTTP/9.9\r\n\r\n", b"\r\n" * 500, b"GET " + b"/a" * 40_000)  # fmt: skip


def _bodies() -> list[bytes]:
    texts = [{"b64": base64.b64encode(data).decode()} for data in (RED, BLUE)]
    deep = b"[" * 900 + b"]" * 900
    return [
        RED, BLUE, encoded((9, 9, 9), "GIF"), png_that_claims(60_000, 9000), png_that_claims(0, 7),
        rest(*texts, signature_name="image_bytes"), rest({"image_bytes": texts[0]}),
        rest(np.ones((SIDE, SIDE, 3)).tolist()), rest({"images": [[[0, 0.5, 1]] * SIDE] * SIDE}),
        b'{"instances": ' + deep + b"}", json.dumps({"inputs": texts}).encode(), b"", b"\0" * 2000,
    ]  # fmt: skip


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes of which some are overwritten, cut out or put in twice."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        a, b = sorted(rng.integers(0, len(data) + 1, 2))
        pieces = (*PIECES, bytes(data[a:b]) * 2, rng.bytes(3))
        data[a : min(b, a + 40)] = pieces[rng.integers(len(pieces))]
    return bytes(data)


def request(method: str, path: str, body: bytes, *headers: bytes) -> bytes:
    """A request as it goes over the wire."""
    length = b"" if any(b"Content-Length" in one or b"Transfer" in one for one in headers) else (
        b"Content-Length: %d" % len(body))  # fmt: skip
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: here", length, *headers]
    return b"\r\n".join(line for line in lines if line) + b"\r\n\r\n" + body


def requests(seed: int) -> Callable[[], bytes]:
    """A function whose every call is another request of the seed."""
    rng, bodies = np.random.default_rng(seed), _bodies()

    def drawn(some: tuple[str, ...] | tuple[bytes, ...] | list[bytes]) -> object:
        return some[rng.integers(len(some))]

    def one() -> bytes:
        body, path = drawn(bodies), drawn(PATHS)
        kind = rng.integers(8)
        if kind < 3:
            target = drawn(("/predict", "/explain", "/attack?eps=1/255", REST, REST))
            return request("POST", target, mutated(rng, body))
        if kind == 3:
            return request(drawn(METHODS), path, body)
        if kind == 4:
            return request("POST", path, body, *(drawn(HEADERS) for _ in range(rng.integers(1, 4))))
        if kind == 5:
            return mutated(rng, request("POST", path, body))
        if kind == 6:
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:]))
            chunked = request("POST", path, chunks + b"0\r\n\r\n", b"Transfer-Encoding: chunked")
            return mutated(rng, chunked)
        return drawn(PREFACES) if rng.integers(4) == 0 else rng.bytes(rng.integers(1, 600))

    return one


def answered(address: tuple[str, int], content: bytes, patience: float = 1.0) -> int:
    """The status of the answer; 0 where the connection is closed, or nothing comes for so long."""
    with socket.create_connection(address, timeout=10) as found:
        found.settimeout(patience)
        answer = b""
        try:
            found.sendall(content)
            while b"\r\n" not in answer and (more := found.recv(4096)):
                answer += more
        # It waits for more of the request, or has closed the connection.
        except OSError:
            pass
    parts = answer.split(b" ", 2)
    return int(parts[1]) if parts[0].startswith(b"HTTP/1") and parts[1].isdigit() else 0
