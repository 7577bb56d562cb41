"""Unpacking: nothing leaves the folder, nothing half-done is taken for complete."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfrobust.data import archives
from tfrobust.data.archives import cache_folder, open_zip, unpack
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

CONTENT = {"top/a.txt": b"alpha", "top/sub/b.txt": b"beta" * 1000}


def make_zip(path: Path, members: dict[str, bytes] = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, mode: str = "w", *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_every_kind_unpacks_to_the_same_files(tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    made = make_zip(path) if kind == "zip" else make_tar(path, f"w:{kind[4:]}")
    assert files(unpack(made, tmp_path / "cache")) == CONTENT


def test_a_second_run_reuses_and_a_changed_archive_does_not(tmp_path, monkeypatch):
    path, cache = make_zip(tmp_path / "data.zip"), tmp_path / "cache"
    first = unpack(path, cache)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_extract_all", lambda *_: pytest.fail("unpacked again"))
        assert unpack(path, cache) == first
    make_zip(path, {"new.txt": b"new"})
    assert files(unpack(path, cache)) == {"new.txt": b"new"}


def test_concurrent_runs_get_one_complete_folder(tmp_path):
    path, cache = make_zip(tmp_path / "data.zip"), tmp_path / "cache"
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: unpack(path, cache), range(16)))
    assert len(folders) == 1 and files(folders.pop()) == CONTENT
    assert len(list(cache.iterdir())) == 1


def test_what_a_killed_run_leaves_is_not_taken_for_complete(tmp_path):
    path, cache = make_zip(tmp_path / "data.zip"), tmp_path / "cache"
    target = unpack(path, cache)
    shutil.rmtree(target)
    old, young = (cache / f"{target.name}.partial-{age}" for age in ("old", "young"))
    for left in (old, young):
        (left / "content").mkdir(parents=True)
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    assert files(unpack(path, cache)) == CONTENT
    assert not old.exists() and young.exists()  # the young one may still be at work


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "a/../../out", "C:/out", "C:out", "a\\..\\out"]
)
def test_no_path_leaves_the_folder(tmp_path, name):
    path = make_zip(tmp_path / "data.zip", {"good": b"1", name: b"2"})
    with pytest.raises(TFRobustError, match="path that may leave its folder"):
        unpack(path, tmp_path / "cache")
    tar = make_tar(tmp_path / "data.tar", "w", tarfile.TarInfo(name))
    with pytest.raises(TFRobustError, match="path that may leave its folder"):
        unpack(tar, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir()) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused_by_name(tmp_path, kind):
    info = tarfile.TarInfo("evil")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(TFRobustError, match="(link|special file) 'evil'"):
        unpack(make_tar(tmp_path / "data.tar", "w", info), tmp_path / "cache")


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(TFRobustError, match="symbolic link 'evil'"):
        open_zip(tmp_path / "data.zip")


def test_an_encrypted_zip_is_refused(tmp_path):
    content = bytearray(make_zip(tmp_path / "data.zip", {"secret": b"1"}).read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag of encryption, in the table of contents
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(TFRobustError, match="encrypted file 'secret'"):
        unpack(tmp_path / "data.zip", tmp_path / "cache")


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "data.zip", {"zeros": bytes(1_000_000)})
    monkeypatch.setattr(archives, "_RATIO_MATTERS", 500_000)
    with pytest.raises(TFRobustError, match="more than 100 times its size"):
        unpack(path, tmp_path / "cache")
    monkeypatch.setattr(archives, "MAX_BYTES", 900_000)
    with pytest.raises(TFRobustError, match="unpacks to more than"):
        unpack(path, tmp_path / "cache")


def test_a_name_held_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("twin", "1")
        archive.writestr("twin", "2")
    with pytest.raises(TFRobustError, match="twice"):
        unpack(tmp_path / "data.zip", tmp_path / "cache")


def test_a_tar_cut_off_between_members_is_broken(tmp_path):
    path = make_tar(tmp_path / "data.tar")
    # Header and content of a.txt take one block of 512 bytes each.
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(TFRobustError, match="broken.*ends before its end mark"):
        unpack(path, tmp_path / "cache")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(TFRobustError, match="No space left.*free some space .*--cache-dir"):
        unpack(make_zip(tmp_path / "data.zip"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_missing_archive_and_bad_cache_folder(tmp_path):
    with pytest.raises(TFRobustError, match="none.zip cannot be read.*check the path"):
        unpack(tmp_path / "none.zip", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TFRobustError, match="--cache-dir"):
        cache_folder(ReadOptions(cache_dir=str(tmp_path / "file" / "sub")))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
@settings(
    max_examples=80,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1),
)
def test_a_damaged_archive_unpacks_or_is_told(tmp_path, kind, changes, keep):
    path = tmp_path / f"data.{kind}"
    path.unlink(missing_ok=True)
    made = make_zip(path) if kind == "zip" else make_tar(path, f"w:{kind[4:]}")
    content = bytearray(made.read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    path.write_bytes(content[: max(int(keep * 2 * len(content)), 1)])
    try:
        inside = files(unpack(path, tmp_path / "cache"))
    except TFRobustError:
        return
    assert kind == "tar" or all(value in CONTENT.values() for value in inside.values())
