"""Sends requests in TensorFlow Serving's REST form, with retries and limits."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.typing import Json

# Answers after which the same request may succeed.
_BUSY = (408, 425, 429, 500, 502, 503, 504)
# The longest pause between two tries, in seconds, and the largest answer, in bytes.
_LONGEST, _LARGEST = 30.0, 256 << 20
_EXAMPLE = "http://HOST:8501/v1/models/NAME"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The batches, concurrency, retries and limits of requests.

    Attributes:
      batch: images in a request, the most.
      at_once: concurrent requests.
      timeout: seconds to wait for an answer, for each try.
      tries: of each request, if the server is busy, fails or cannot be reached.
      wait: seconds before the second try, doubled before each further one; or the server's
        Retry-After.
      most: images in all; None is no limit.
      rate: images in a second, the most; None is no limit.
      headers: sent with every request, such as {'Authorization': 'Bearer ...'}.

    Raises:
      UsageError: a value out of range.
    """

    batch: int = 32
    at_once: int = 4
    timeout: float = 30.0
    tries: int = 5
    wait: float = 0.2
    most: int | None = None
    rate: float | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("batch", "at_once", "tries"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more, found {getattr(self, name)!r}.")
        for name in ("timeout", "rate", "most"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected more than 0, found {getattr(self, name)!r}.")
        if not self.wait >= 0:
            raise UsageError(f"wait: expected 0 or more, found {self.wait!r}.")


def is_address(text: Path | str) -> bool:
    """Whether a model is named by an address rather than a file.

    Also a `Path` of an address, which has lost one of its slashes.
    """
    return str(text).startswith(("http:/", "https:/"))


def as_address(text: Path | str) -> str:
    """An address in full: ``http://HOST/v1/models/NAME``, perhaps with a version.

    Raises:
      UsageError: it is no such address.
    """
    scheme, _, rest = str(text).partition(":/")
    whole = f"{scheme}://{rest.lstrip('/')}".rstrip("/").removesuffix(":predict")
    try:
        parts = urlsplit(whole)
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or "/v1/models/" not in f"{parts.path}/":
        raise UsageError(f"{text}: expected an address such as {_EXAMPLE}.")
    return whole


class RestClient:
    """One model's address, for several threads at once.

    Args:
      address: from `as_address`.
      patience: retries and limits.

    Attributes:
      images: how many were sent, without retries.
    """

    def __init__(self, address: str, patience: Patience) -> None:
        self.address, self.patience, self.images = address, patience, 0
        self._parts: SplitResult = urlsplit(address)
        self._lock, self._free = threading.Lock(), 0.0
        self._kept = threading.local()
        self._open: set[http.client.HTTPConnection] = set()

    def get(self, below: str = "") -> Json:
        """The answer to GET, for a path below the address; None if GET is not supported.

        Raises:
          TFRobustError: there is no such model, or no answer.
        """
        return self._answer("GET", below, None)

    def predict(self, instances: list[Json]) -> Json:
        """The answer to POST :predict for some images.

        Raises:
          TFRobustError: the request is rejected, the limit is reached, or there is no answer.
        """
        self._admit(len(instances))
        return self._answer("POST", ":predict", json.dumps({"instances": instances}).encode())

    def _admit(self, count: int) -> None:
        """Counts images, and waits as the rate requires."""
        most, rate = self.patience.most, self.patience.rate
        with self._lock:
            if most is not None and self.images + count > most:
                raise TFRobustError(
                    f"{self.address}: its limit of {most:,} queries is reached: raise it and "
                    "resume with --resume, or use fewer images or queries."
                )
            self.images += count
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + (count / rate if rate else 0.0)
        time.sleep(start - now)

    def _answer(self, method: str, below: str, body: bytes | None) -> Json:
        why, pause = "", self.patience.wait
        for attempt in range(self.patience.tries):
            if attempt:
                time.sleep(min(pause, _LONGEST))
                pause = 2 * min(pause, _LONGEST)
            try:
                status, content, after = self._once(method, below, body)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                why = str(error) or type(error).__name__
                continue
            if status == 200:
                return self._parsed(content)
            why = f"{status}: {_message(content)}"
            if status in (405, 501) and method == "GET":
                return None
            if status not in _BUSY:
                raise TFRobustError(self._rejected(status, content))
            pause = max(pause, after)
        raise TFRobustError(
            f"{self.address} gives no answer in {self.patience.tries} tries ({why}): expected a "
            f"model server there, such as {_EXAMPLE}."
        )

    def _once(self, method: str, below: str, body: bytes | None) -> tuple[int, bytes, float]:
        """(status, content, seconds to wait from Retry-After) of one request."""
        connection = self._connection()
        headers = {"Content-Type": "application/json", **self.patience.headers}
        connection.request(method, f"{self._parts.path}{below}", body, headers)
        answer = connection.getresponse()
        content = answer.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            self._drop()
            raise TFRobustError(
                f"{self.address} answers with more than {_LARGEST >> 20} MB: expected a row of "
                "outputs for each image."
            )
        after = answer.getheader("Retry-After") or ""
        return answer.status, content, float(after) if after.isdecimal() else 0.0

    def _connection(self) -> http.client.HTTPConnection:
        """The connection of this thread, which stays open."""
        if getattr(self._kept, "connection", None) is None:
            secure = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            self._kept.connection = kind(
                str(self._parts.hostname), self._parts.port, timeout=self.patience.timeout
            )
            self._open.add(self._kept.connection)
        found: http.client.HTTPConnection = self._kept.connection
        return found

    def _drop(self) -> None:
        self._kept.connection.close()
        self._open.discard(self._kept.connection)
        self._kept.connection = None

    def close(self) -> None:
        """Closes all connections."""
        for connection in tuple(self._open):
            connection.close()

    def _parsed(self, content: bytes) -> Json:
        try:
            found: Json = json.loads(content)
            return found
        except (ValueError, RecursionError) as error:
            raise TFRobustError(
                f"{self.address} answers with invalid JSON ({content[:40]!r}): "
                f"expected TensorFlow Serving's REST form, at an address such as {_EXAMPLE}."
            ) from error

    def _rejected(self, status: int, content: bytes) -> str:
        if status == 404:
            return (
                f"{self.address} not found ({_message(content)}): expected the address of a "
                f"model, such as {_EXAMPLE}."
            )
        return (
            f"{self.address} rejects the request ({status}: {_message(content)}): expected a "
            "model of images in [0, 1] in TensorFlow Serving's REST form."
        )


def _message(content: bytes) -> str:
    """A server's error message, in one line."""
    try:
        found = json.loads(content)
        text = str(found.get("error", found)) if isinstance(found, dict) else str(found)
    except (ValueError, RecursionError):
        text = content.decode(errors="replace")
    return " ".join(text.split())[:200].rstrip(".") or "no reason given"
