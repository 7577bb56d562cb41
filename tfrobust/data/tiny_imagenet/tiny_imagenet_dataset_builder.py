"""Tiny ImageNet as a TensorFlow data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfrobust.data.tiny_imagenet import layout
from tfrobust.runtime import tf

URL = f"http://cs231n.stanford.edu/{layout.ZIP}"


class Builder(tfds.core.GeneratorBasedBuilder):
    """200 classes of 64x64 images: 'train' (500 per class) and 'test' (50 per class).

    'test' is the official val: the official test images have no labels. Images are stored
    unchanged; TFDS decodes even greyscale ones to RGB.

    Args:
      source: a local zip or extracted folder with all or part of the data set; None downloads
        the original. Give a part its own `data_dir`, since TFDS distinguishes prepared data sets
        only by folder, name and version.
      **kwargs: arguments of every TFDS builder (`data_dir`, `version`).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    def __init__(self, *, source: Path | str | None = None, **kwargs: Any) -> None:
        self._source = source
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(64, 64, 3), dtype=tf.uint8, encoding_format="jpeg"
                    ),
                    # A partial copy may have fewer classes: the names come with the data.
                    "label": tfds.features.ClassLabel(),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            metadata=tfds.core.MetadataDict(wnids=[]),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        source = Path(self._source or dl_manager.download(URL)).expanduser()
        files = layout.Layout(layout.locate(source) or source)
        self.info.features["label"].names = files.label_names
        self.info.metadata["wnids"] = list(files.wnids)
        return {
            "train": self._generate_examples(files, "train"),
            "test": self._generate_examples(files, "val"),
        }

    def _generate_examples(
        self, files: layout.Layout, split: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, label in files.examples(split):
            yield name, {"image": files.read(name), "label": label, "file_name": name}
