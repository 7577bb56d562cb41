"""Data set objects saved by a real torch, where one is installed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torch_pickles import TaskDataset, load

from tfrobust.errors import TFRobustError

torch = pytest.importorskip("torch")

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
WHOLE = torch.from_numpy(np.moveaxis(PIXELS, 3, 1).copy())
IMAGES = {
    "Pillow images": [Image.fromarray(one) for one in PIXELS],
    "arrays": list(PIXELS),
    "one array": PIXELS,
    "one array of floats": PIXELS / 255,
    "tensors": list(WHOLE),
    "one tensor": WHOLE,
    "one tensor of floats": WHOLE.float() / 255,
    "tensors of floats": [one.double() / 255 for one in WHOLE],
    "a transposed view": torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "channels last in memory": WHOLE.contiguous(memory_format=torch.channels_last),
    "every second": WHOLE.repeat_interleave(2, 0)[::2],
    "a crop": torch.nn.functional.pad(WHOLE, (2, 3, 1, 4))[:, :, 1:6, 2:9],
}
LABELS = {
    "a list": [0, 1, 1, 0],
    "an array": np.array([0, 1, 1, 0]),
    "a tensor": torch.tensor([0, 1, 1, 0]),
    "tensors": list(torch.tensor([0, 1, 1, 0])),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("images", IMAGES)
def test_what_torch_saves_is_read(tmp_path, images, labels, protocol):
    imgs, targets = IMAGES[images], LABELS[labels]
    for dataset in (TaskDataset(imgs, targets, ids=[3, 4, 5, 6]), {"x": imgs, "y": targets}):
        torch.save(dataset, tmp_path / "set.pt", pickle_protocol=protocol)
        raw = load(tmp_path / "set.pt")
        assert np.array_equal(raw.train.images, PIXELS)
        assert raw.train.labels.tolist() == [0, 1, 1, 0]


def test_grey_images_expanded_to_channels_are_read(tmp_path):
    expanded = [one[:1].clone().expand(3, -1, -1) for one in WHOLE]
    torch.save(TaskDataset(expanded, [0, 1, 1, 0]), tmp_path / "set.pt")
    assert np.array_equal(load(tmp_path / "set.pt").train.images[..., 2], PIXELS[..., 0])


def test_the_format_before_zip_is_told(tmp_path):
    path = tmp_path / "set.pt"
    torch.save(TaskDataset(WHOLE, [0, 1, 1, 0]), path, _use_new_zipfile_serialization=False)
    with pytest.raises(TFRobustError, match="not in torch's zip format"):
        load(path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.nn.Parameter(WHOLE.float()), "a call of torch._utils._rebuild_parameter"),
        (WHOLE.bfloat16(), "a tensor of torch.BFloat16Storage"),
        (WHOLE.float().to_sparse(), "is rejected because it refers to a call of torch"),
        (WHOLE.float(), "image 0: float pixels range over 0..2"),
    ],
    ids=["parameter", "bfloat16", "sparse", "floats above one"],
)
def test_what_is_not_read_is_named(tmp_path, images, message):
    torch.save(TaskDataset(images, [0, 1, 1, 0]), tmp_path / "set.pt")
    with pytest.raises(TFRobustError, match=message):
        load(tmp_path / "set.pt")
