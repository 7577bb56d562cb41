"""Zip and tar archives: checked before a byte is written, unpacked safely and atomically."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, NoReturn, cast

from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

# Limits on what an archive may unpack to; above them it is treated as a bomb.
MAX_BYTES = 200 << 30
MAX_MEMBERS = 10_000_000
# Unpacked size over archive size, checked from 1 GiB unpacked on: images hardly compress, so a
# real data set stays far below it.
MAX_RATIO = 100
_RATIO_MATTERS = 1 << 30

# A killed run's leftover; at this age, no run can still be writing it.
_STALE_SECONDS = 24 * 3600
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # 'file', 'folder', or a rejected kind: 'symbolic link', ...
    open: Callable[[], IO[bytes]]


def cache_folder(options: ReadOptions) -> Path:
    """The folder for unpacked archives and file caches, created if missing.

    Raises:
      TFRobustError: it cannot be created.
    """
    return _created(Path(options.cache_dir or "~/.cache/tfrobust").expanduser())


def _created(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TFRobustError(
            f"The cache folder {folder} cannot be created ({error.strerror}): "
            "choose a writable one with --cache-dir."
        ) from error
    return folder


def free_space(folder: Path) -> str:
    """Free space on the disk of `folder`, for messages: '3.1 GB'."""
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB"


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip after checking that every member is safe to unpack.

    Raises:
      TFRobustError: it is not a zip, broken, encrypted, a bomb, or the path of a member would
        leave the target folder.
    """
    with _clear_errors(path):
        archive = zipfile.ZipFile(path)
    try:
        with _clear_errors(path):
            for _ in _checked(path, _zip_members(archive)):
                pass
    except BaseException:
        archive.close()
        raise
    return archive


def unpack(archive: Path, cache_dir: Path) -> Path:
    """Unpacks a zip or tar into its own folder of the cache, once.

    The folder's name contains a digest of the archive's name, size and modification time, so a
    later run finds it and a changed archive gets a new one. Unpacking goes to a temporary folder
    that is renamed when complete: a killed run leaves nothing that looks complete, and of
    concurrent runs the first one wins.

    Args:
      archive: a .zip, .tar, .tar.gz (.tgz), .tar.bz2 or .tar.xz file.
      cache_dir: the folder to unpack into, created if missing.

    Returns:
      The folder with the archive's content.

    Raises:
      TFRobustError: the archive is missing, broken, encrypted or a bomb; a member is a link or a
        device or its path leaves the folder; or the disk is full.
    """
    target = cache_dir / _key(archive)
    if target.is_dir():
        return target
    _sweep(_created(cache_dir), target.name)
    with (
        _clear_errors(archive, cache_dir),
        tempfile.TemporaryDirectory(prefix=f"{target.name}.partial-", dir=cache_dir) as folder,
    ):
        complete = Path(folder) / "content"
        complete.mkdir()
        _extract_all(archive, complete)
        _move(complete, target)
    return target


def _key(archive: Path) -> str:
    try:
        found = archive.stat()
    except OSError as error:
        raise TFRobustError(
            f"Archive {archive} cannot be read ({error.strerror}): check the path."
        ) from error
    identity = f"{archive.name}\0{found.st_size}\0{found.st_mtime_ns}"
    return f"{archive.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _sweep(cache_dir: Path, name: str) -> None:
    for left in cache_dir.glob(f"{glob.escape(name)}.partial-*"):
        with contextlib.suppress(FileNotFoundError):  # another run may sweep too
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left)


def _move(complete: Path, target: Path) -> None:
    try:
        os.replace(complete, target)
    except OSError:
        if not target.is_dir():  # else another run was first, with the same content
            raise


@contextlib.contextmanager
def _clear_errors(archive: Path, cache_dir: Path | None = None) -> Iterator[None]:
    """Turns errors of an archive into one sentence."""
    try:
        yield
    except _BROKEN as error:
        raise TFRobustError(
            f"Archive {archive} is broken or of an unknown kind ({error}): "
            "download or pack it again as .zip or .tar.gz."
        ) from error
    except OSError as error:
        where = f" into {cache_dir}" if cache_dir else ""
        raise TFRobustError(
            f"Archive {archive} could not be read or unpacked{where} "
            f"({error.strerror or error}): {_remedy(error, cache_dir)}."
        ) from error


def _remedy(error: OSError, cache_dir: Path | None) -> str:
    if cache_dir and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space ({free_space(cache_dir)} free) or choose another --cache-dir"
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return f"it contains {error.filename} twice, so pack it again"
    return "check that it exists, is complete and readable, and that --cache-dir is writable"


def _extract_all(archive: Path, folder: Path) -> None:
    if tarfile.is_tarfile(archive):
        # A tar has no table of contents: each member is checked when it is reached.
        with tarfile.open(archive) as tar:
            _write(_checked(archive, _tar_members(tar)), folder)
    else:
        with open_zip(archive) as packed:
            _write(_zip_members(packed), folder)


def _write(members: Iterable[_Member], folder: Path) -> None:
    for member in members:
        path = folder.joinpath(*PurePosixPath(_with_slashes(member.name)).parts)
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, open(path, "xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if info.flag_bits & 1:
            kind = "encrypted file"
        elif _with_slashes(info.filename).endswith("/"):
            kind = "folder"
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            kind = "file"
        else:
            kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
        yield _Member(info.filename, info.file_size, kind, partial(archive.open, info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if info.isreg() or info.isdir():
            kind = "file" if info.isreg() else "folder"
        else:
            kind = "link" if info.issym() or info.islnk() else "special file"
        source = partial(archive.extractfile, info)
        yield _Member(info.name, info.size, kind, cast(Callable[[], IO[bytes]], source))
    _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    # tarfile treats a broken header as the end. At the true end, a block of zeros was just
    # read and at least one more follows.
    rest, size = cast(IO[bytes], archive.fileobj), 0
    for block in iter(partial(rest.read, tarfile.RECORDSIZE), b""):
        size += len(block)
        if block.count(0) < len(block):
            raise tarfile.ReadError("a member's header is damaged")
    if size < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends before its end mark")


def _checked(archive: Path, members: Iterable[_Member]) -> Iterator[_Member]:
    """Yields the members while they are safe to unpack; the first unsafe one raises."""
    total, packed = 0, archive.stat().st_size
    for count, member in enumerate(members, 1):
        total += member.size
        if total > MAX_BYTES or count > MAX_MEMBERS:
            _reject(archive, f"unpacks to more than {MAX_BYTES >> 30} GiB or {MAX_MEMBERS:,} files")
        if total > max(_RATIO_MATTERS, packed * MAX_RATIO):
            _reject(archive, f"unpacks to more than {MAX_RATIO} times its size")
        if member.kind not in ("file", "folder"):
            _reject(archive, f"contains the {member.kind} {member.name!r}")
        if not _stays_inside(_with_slashes(member.name)):
            _reject(archive, f"contains {member.name!r}, a path that may leave its folder")
        yield member


def _reject(archive: Path, reason: str) -> NoReturn:
    raise TFRobustError(
        f"Archive {archive} is rejected because it {reason}: "
        "pack it again with plain files only, or do not trust it."
    )


def _stays_inside(name: str) -> bool:
    """Whether a member's name is a relative path that stays inside the folder on every system."""
    rooted = re.match(r"/|[A-Za-z]:", name)
    return bool(name) and not rooted and ".." not in name.split("/")


def _with_slashes(name: str) -> str:
    """A member's name with slashes, which some Windows packers write as backslashes."""
    return name.replace("\\", "/")
