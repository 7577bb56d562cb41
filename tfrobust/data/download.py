"""Downloads that are bounded in time, resumable, verified and atomic."""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

from tfrobust.errors import TFRobustError
from tfrobust.progress import Progress

_BLOCK = 1 << 20
_PART = ".part"


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
        return _verified(remote, target, otherwise)
    part = target.with_name(target.name + _PART)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(remote, part, timeout)
        os.replace(_verified(remote, part, otherwise), target)
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise TFRobustError(
            f"Expected to download {remote.url} ({remote.size:,} bytes), found "
            f"'{getattr(error, 'reason', None) or error}': run again with a "
            f"connection (the download resumes), put the file at {target} yourself, or {otherwise}."
        ) from error
    except OSError as error:
        raise TFRobustError(
            f"Expected to write {remote.size:,} bytes to {target}, found "
            f"'{error.strerror or error}': free some space or choose another folder with "
            "--data-dir."
        ) from error
    return target


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _receive(remote: Remote, part: Path, timeout: float) -> None:
    start = part.stat().st_size if part.exists() else 0
    if start >= remote.size:
        return
    request = urllib.request.Request(remote.url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    with _open(request, timeout) as response:
        # A server that ignores the range sends the whole file with status 200.
        start = start if response.status == 206 else 0
        # The start of the file must not be a log-in page, for example.
        if response.length is not None and start + response.length != remote.size:
            raise ConnectionError(f"a file of {start + response.length:,} bytes")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, remote, start)


def _open(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """The response within `timeout` in total: urllib's own does not cover the DNS look-up."""
    answer: list[Any] = []

    def connect() -> None:
        try:
            # A new opener: urlopen keeps the proxies of its first call.
            answer.append(urllib.request.build_opener().open(request, timeout=timeout))
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            answer.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise TimeoutError(f"no answer within {timeout:g} seconds")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _copy(response: HTTPResponse, file: BinaryIO, remote: Remote, done: int) -> None:
    label = f"Downloading {Path(remote.url).name} (MB)"
    progress = Progress(label, remote.size // 10**6, done=done // 10**6)
    while block := response.read(_BLOCK):
        file.write(block)
        done += len(block)
        progress.update(done // 10**6)
    progress.close()
    if done < remote.size:
        raise ConnectionError(f"the connection closed after {done:,} bytes")


def _verified(remote: Remote, path: Path, otherwise: str) -> Path:
    found = sha256(path)
    if found == remote.sha256:
        return path
    size = path.stat().st_size
    if path.suffix == _PART:
        # Otherwise the next run would resume from corrupt bytes.
        path.unlink()
    raise TFRobustError(
        f"Expected {remote.url} as {remote.size:,} bytes with SHA-256 {remote.sha256}, found "
        f"{size:,} bytes with {found} in {path}: download it again, or {otherwise}."
    )
