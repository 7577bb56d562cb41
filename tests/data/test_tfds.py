"""What happens when TFDS cannot write, is overtaken, or finds its files damaged."""

import io
import shutil
from pathlib import Path

import pytest

from tfrobust.data import tfds as prepared_module
from tfrobust.data.tfds import prepared, read_prepared
from tfrobust.data.tiny_imagenet import tiny_imagenet_dataset_builder
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

DUMMY = Path(tiny_imagenet_dataset_builder.__file__).parent / "dummy_data"


class Builder:
    """Stands in for a TFDS builder whose last step fails as `os.rename` does."""

    name = "fake"

    def __init__(self, folder, overtaken):
        self.data_dir = str(folder / "fake" / "1.0.0")
        self.data_dir_root = folder
        self.overtaken = overtaken

    def download_and_prepare(self):
        print("told by TFDS")
        if self.overtaken:
            Path(self.data_dir).mkdir(parents=True)
        raise OSError("Directory not empty" if self.overtaken else "No space left on device")


def test_overtaken_by_another_process(tmp_path, capsys):
    made = []

    def make():
        made.append(Builder(tmp_path, overtaken=True))
        return made[-1]

    # The second builder sees what the other process wrote; the first one saw nothing.
    assert prepared(make) is made[1]
    assert capsys.readouterr().out == ""


def test_a_full_disk(tmp_path):
    with pytest.raises(TFRobustError, match=f"fake to {tmp_path}, found 'No space left"):
        prepared(lambda: Builder(tmp_path, overtaken=False))


@pytest.mark.parametrize("fault", ["truncated", "missing"])
def test_damaged_files(tmp_path, fault):
    source = shutil.copytree(DUMMY, tmp_path / "copy")
    builder = prepared(
        lambda: tiny_imagenet_dataset_builder.Builder(source=source, data_dir=tmp_path / "tfds")
    )
    (shard,) = Path(builder.data_dir).glob("*train.tfrecord*")
    content = shard.read_bytes()
    shard.unlink()
    if fault == "truncated":
        shard.write_bytes(content[:-100])
    with pytest.raises(TFRobustError, match=f"{builder.data_dir}, found files missing or damaged"):
        read_prepared(builder, "file_name", ReadOptions())


def test_encoded_images_wait_in_a_file_and_a_full_disk_is_told(tmp_path, monkeypatch):
    builder = prepared(
        lambda: tiny_imagenet_dataset_builder.Builder(source=DUMMY, data_dir=tmp_path / "tfds")
    )
    cache = tmp_path / "cache"
    raw = read_prepared(builder, "file_name", ReadOptions(cache_dir=str(cache)))
    # Unnamed: nothing to find half-written, nothing left behind.
    assert len(raw.train) > 0 and not list(cache.iterdir())

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared_module.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(TFRobustError, match="No space left on device.*--cache-dir"):
        read_prepared(builder, "file_name", ReadOptions(cache_dir=str(cache)))
