"""Tiny ImageNet for the table of data sets: found or downloaded, then prepared by TFDS."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfrobust.data.archives import cache_folder
from tfrobust.data.download import fetch
from tfrobust.data.tfds import is_prepared, prepared, read_prepared, remote
from tfrobust.data.tiny_imagenet import layout
from tfrobust.data.tiny_imagenet.tiny_imagenet_dataset_builder import Builder
from tfrobust.data.types import RawData, ReadOptions


def read(location: Path | None, options: ReadOptions, *, mirror: str | None = None) -> RawData:
    """Reads Tiny ImageNet: 200 classes of 64x64 images; the official val is 'test'.

    Y. Le and X. Yang, "Tiny ImageNet Visual Recognition Challenge", 2015.

    The TFDS builder prepares the data, once. Data from the original zip goes to TFDS's own
    folder, where `tfds.load('tiny_imagenet')` also finds it. Any other copy is prepared in the
    cache folder, under a name with the copy's fingerprint: a changed copy is prepared again.

    Args:
      location: a complete or partial copy (the zip, its folder, the extracted folder or its
        parent), or the folder to download the zip to; None is TFDS's own (`TFDS_DATA_DIR` or
        ~/tensorflow_datasets).
      options: how to read.
      mirror: another URL of the original zip.

    Raises:
      TFRobustError: the copy is broken, or the download fails.
    """
    if location is None and is_prepared(builder := Builder()):
        return read_prepared(builder, "file_name", options)
    source = _source(location, mirror)
    folder = _prepared_folder(source, options)
    builder = prepared(lambda: Builder(source=source, data_dir=folder))
    return read_prepared(builder, "file_name", options, source=source)


def _source(location: Path | None, mirror: str | None) -> Path:
    """The zip or extracted folder at `location`, downloaded if necessary."""
    if location is not None and (found := layout.locate(location)):
        return found
    original, target = remote(Builder())
    return fetch(
        dataclasses.replace(original, url=mirror or original.url),
        target if location is None else location / layout.ZIP,
        otherwise="give a local copy with --data-dir",
    )


def _prepared_folder(source: Path, options: ReadOptions) -> Path | None:
    """The TFDS data folder for a copy; None, TFDS's own, is only for the original."""
    key = layout.fingerprint(source)
    if key == remote(Builder())[0].sha256:
        return None
    return cache_folder(options) / f"tiny_imagenet-{key[:16]}"
