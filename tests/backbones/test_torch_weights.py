"""State dicts of torch, in both formats, load whole or not at all; no code in them is run."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from state_dicts import MAGIC, save, save_legacy, state_dict_of

from tfrobust.backbones import build
from tfrobust.backbones.torch_weights import read

NET = {"image_shape": (32, 32, 3), "alpha": 0.125, "stem": "small"}


def small(num_classes: int = 3, **options: Any) -> Any:
    return build("resnet18", num_classes=num_classes, **NET, **options)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A classifier whose every variable differs from a new one's."""
    model = small()
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def arrays(trained: Any) -> dict[str, np.ndarray]:
    return state_dict_of(trained)


def same(a: Any, b: Any, *, head: bool = True) -> bool:
    pairs = list(zip(a.get_weights(), b.get_weights(), strict=True))
    return all(np.array_equal(x, y) for x, y in (pairs if head else pairs[:-2]))


def test_kernels_are_turned_and_statistics_keep_their_order(tmp_path: Path) -> None:
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) / 7
    dense = np.arange(6.0).reshape(2, 3)
    arrays = {
        "a.weight": kernel,
        "b.running_var": np.array([4.0]),
        "b.running_mean": np.array([3.0]),
        "b.bias": np.array([2.0]),
        "b.weight": np.array([1.0]),
        "b.num_batches_tracked": np.array(9),
        "c.d.weight": dense,
    }
    for name, write in (("zip.pth", save), ("legacy.pt", save_legacy)):
        found = read(write(tmp_path / name, arrays))
        assert list(found) == ["a", "b", "c.d"]
        # [O, I, h, w] -> [h, w, I, O]: one entry by hand, then all of them.
        assert found["a"][0].shape == (4, 5, 3, 2)
        assert found["a"][0][1, 2, 0, 1] == np.float32(kernel[1, 0, 1, 2])
        np.testing.assert_array_equal(found["a"][0].transpose(3, 2, 0, 1), np.float32(kernel))
        assert [one.item() for one in found["b"]] == [1, 2, 3, 4]
        np.testing.assert_array_equal(found["c.d"][0], dense.T)


@pytest.mark.parametrize("write", [save, save_legacy])
def test_a_state_dict_loads_whole(
    write: Callable[..., Path], tmp_path: Path, trained: Any, arrays: Any
) -> None:
    path = write(tmp_path / "net.pth", arrays)
    assert same(small(weights=str(path)), trained)


def test_a_checkpoint_of_parallel_training_loads_too(
    tmp_path: Path, trained: Any, arrays: Any
) -> None:
    parallel = {f"module.{name}": array for name, array in arrays.items()}
    for key in ("state_dict", "model_state_dict", "model"):
        path = save(tmp_path / f"{key}.pt", parallel, wrap=key)
        assert same(small(weights=str(path)), trained)


def test_a_head_for_other_classes_is_left_out_aloud(
    tmp_path: Path, trained: Any, arrays: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "net.pth", arrays)
    with caplog.at_level(logging.WARNING):
        model = small(num_classes=7, weights=str(path))
    assert same(model, trained, head=False)
    assert "the head for 3 classes" in caplog.text and "for 7" in caplog.text


# ---- what is refused ----


@pytest.fixture(scope="module")
def target() -> Any:
    return small()


def test_another_name_shape_or_number_is_named(tmp_path: Path, target: Any, arrays: Any) -> None:
    path = tmp_path / "net.pth"
    missing = {name: array for name, array in arrays.items() if name != "layer2.0.conv1.weight"}
    told = refused(target, save(path, missing))
    assert "do not fit resnet18 in 1 layers: layer2.0.conv1 is missing from the file" in told
    more = {**arrays, "aux.weight": np.ones((2, 3))}
    assert "aux of the file is not in the network" in refused(target, save(path, more))
    wide = {**arrays, "conv1.weight": np.ones((16, 3, 7, 7))}
    told = refused(target, save(path, wide))
    assert "conv1 expected [(3, 3, 3, 8)], found [(7, 7, 3, 16)]" in told
    unknown = {**arrays, "conv1.weight_g": np.ones(3)}
    assert "found 'weight_g' in 'conv1'" in refused(target, save(path, unknown))
    broken = {**arrays, "bn1.bias": np.full(8, np.nan)}
    assert "found NaN or infinity in bn1" in refused(target, save(path, broken))


class Evil:
    """Makes a folder when it is unpickled the usual way."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def write_pickle(path: Path, content: Any, *, legacy: bool) -> Path:
    if legacy:
        parts = [MAGIC, 1001, {"little_endian": True}, content, []]
        path.write_bytes(b"".join(pickle.dumps(one, 2) for one in parts))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", pickle.dumps(content, 2))
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_the_file_is_never_run(legacy: bool, tmp_path: Path, target: Any) -> None:
    place = tmp_path / "made"
    path = write_pickle(tmp_path / "net.pth", {"conv1.weight": Evil(place)}, legacy=legacy)
    assert f"is rejected because it refers to {os.name}.mkdir, which is not" in refused(
        target, path
    )
    assert not place.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_no_state_dict_is_told(legacy: bool, tmp_path: Path, target: Any) -> None:
    path = tmp_path / "net.pth"
    for content, message in (
        ([1, 2], "expected a state dict of named tensors, found a list: save model.state_dict()"),
        ({}, "expected a state dict of named tensors, found a dict"),
        ({"conv1.weight": 5}, "expected a tensor as 'conv1.weight', found a int"),
    ):
        assert message in refused(target, write_pickle(path, content, legacy=legacy))


@pytest.mark.parametrize("write", [save, save_legacy])
def test_a_truncated_file_is_refused(
    write: Callable[..., Path], tmp_path: Path, target: Any, arrays: Any
) -> None:
    whole = write(tmp_path / "whole.pth", arrays).read_bytes()
    path = tmp_path / "net.pth"
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        refused(target, path)
    path.write_bytes(b"no weights here, but text")
    assert "cannot be read as a file of torch.save" in refused(target, path)


def test_a_storage_of_an_impossible_length_is_refused(tmp_path: Path, target: Any) -> None:
    path = save_legacy(tmp_path / "net.pth", {"conv1.bias": np.ones(2)})
    content = path.read_bytes()
    for length in (-1, 3, 1 << 60):
        path.write_bytes(content[:-16] + length.to_bytes(8, "little", signed=True) + content[-8:])
        assert "cannot be read as a file of torch.save" in refused(target, path)
