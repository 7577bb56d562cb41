"""Downloads that are bounded in time, resumable, verified and atomic.

pooch moves a file into place once its digest is right; what it does not do is here: to go on from
where a download was cut, and to give up in time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests

from tfrobust.errors import TFRobustError
from tfrobust.progress import Progress

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
      url: its http(s) URL.
      size: its length in bytes.
      sha256: its digest, 64 hex digits.
    """

    url: str
    size: int
    sha256: str


def fetch(remote: Remote, target: Path, *, otherwise: str, timeout: float = 10.0) -> Path:
    """Downloads a file, unless it exists.

    `target` appears only when it is complete and its digest is right; until then the bytes are in
    '<target>.part', from which the next call resumes.

    Args:
      remote: what to download.
      target: the destination; its folder is created.
      otherwise: an alternative for the user, for messages ('give ... with --flag').
      timeout: seconds without a response, or without a byte, until it fails.

    Returns:
      `target`.

    Raises:
      TFRobustError: the server cannot be reached or fails, the disk is full or read-only, or the
        content does not match.
    """
    if target.exists():
        return _checked(remote, target, otherwise)
    part = target.absolute().with_name(f"{target.name}.part")
    try:
        pooch.retrieve(
            remote.url, f"sha256:{remote.sha256}", fname=target.name, path=part.parent,
            downloader=_resuming(remote, part, timeout),
        )  # fmt: skip
    except (requests.RequestException, ConnectionError, TimeoutError) as error:
        raise TFRobustError(
            f"Expected to download {remote.url} ({remote.size:,} bytes), found "
            f"'{_reason(error)}': run again with a connection (the download resumes), put the "
            f"file at {target} yourself, or {otherwise}."
        ) from error
    except OSError as error:
        raise TFRobustError(
            f"Expected to write {remote.size:,} bytes to {target}, found "
            f"'{error.strerror or error}': free some space or choose another folder with "
            "--data-dir."
        ) from error
    except ValueError as error:  # pooch has found another digest
        raise TFRobustError(f"{remote.url}: {error} Try again, or {otherwise}.") from error
    return target


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    return str(pooch.file_hash(str(path), alg="sha256"))


def _checked(remote: Remote, target: Path, otherwise: str) -> Path:
    """An existing file; pooch would replace a wrong one, which may be the user's."""
    if (found := sha256(target)) == remote.sha256:
        return target
    raise TFRobustError(
        f"Expected {remote.url} as {remote.size:,} bytes with SHA-256 {remote.sha256}, found "
        f"{target.stat().st_size:,} bytes with {found} in {target}: download it again, or "
        f"{otherwise}."
    )


def _resuming(remote: Remote, part: Path, timeout: float) -> Callable[[str, str, Any], None]:
    """A downloader for pooch that goes on from the bytes in `part`."""

    def download(url: str, output_file: str, _: Any) -> None:
        start = part.stat().st_size if part.exists() else 0
        if start < remote.size:
            _receive(remote, part, start, timeout)
        # Wrong bytes go with pooch's file: the next download does not go on from them.
        os.replace(part, output_file)

    return download


def _receive(remote: Remote, part: Path, start: int, timeout: float) -> None:
    # As it is: the size and the range are of the file, not of what it is compressed to.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with _ask(remote.url, headers, timeout) as response:
        response.raise_for_status()
        # A server that ignores the range sends the whole file with status 200.
        start = start if response.status_code == 206 else 0
        length = int(response.headers.get("Content-Length", remote.size - start))
        # The start of the file must not be a log-in page, for example.
        if start + length != remote.size:
            raise ConnectionError(f"a file of {start + length:,} bytes")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file.write, remote, start)


def _ask(url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """The response within `timeout` in total: requests' own does not cover the DNS look-up."""
    answer: list[requests.Response | Exception] = []

    def ask() -> None:
        try:
            answer.append(requests.get(url, headers=headers, stream=True, timeout=timeout))
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise TimeoutError(f"no answer within {timeout:g} seconds")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _copy(
    response: requests.Response, write: Callable[[bytes], Any], remote: Remote, done: int
) -> None:
    label = f"Downloading {Path(remote.url).name} (MB)"
    with closing(Progress(label, remote.size // 10**6, done=done // 10**6)) as progress:
        try:
            for block in response.iter_content(_BLOCK):
                done += len(block)
                if done > remote.size:
                    raise ConnectionError(f"a file of more than {remote.size:,} bytes")
                write(block)
                progress.update(done // 10**6)
        except requests.exceptions.ChunkedEncodingError as error:
            raise ConnectionError(f"the connection closed after {done:,} bytes") from error
    if done < remote.size:
        raise ConnectionError(f"the connection closed after {done:,} bytes")


def _reason(error: BaseException) -> str:
    """The cause, in the words of the server or the system."""
    if (response := getattr(error, "response", None)) is not None:
        return str(response.reason)
    below: BaseException | None = error
    while below is not None:
        if words := getattr(below, "strerror", None):
            return str(words)
        below = below.__cause__ or below.__context__
    return str(error)
