"""Our ResNets answer like torch's on the same state dict, where torch is installed.

The networks are written here in plain torch, with the names of torchvision's modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrobust.backbones import build
from tfrobust.runtime import tf

torch = pytest.importorskip("torch")
nn = torch.nn


def conv(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> Any:
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, groups=groups, bias=False)


class Block(nn.Module):  # type: ignore[name-defined,misc]
    """A residual unit of the convolutions given as (inputs, outputs, side, stride, groups)."""

    def __init__(self, *convs: tuple[int, ...]) -> None:
        super().__init__()
        self.count = len(convs)
        for i, one in enumerate(convs, 1):
            setattr(self, f"conv{i}", conv(*one))
            setattr(self, f"bn{i}", nn.BatchNorm2d(one[1]))
        inputs, outputs, stride = convs[0][0], convs[-1][1], max(one[3] for one in convs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Any) -> Any:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def basic(inputs: int, channels: int, stride: int) -> Any:
    return Block((inputs, channels, 3, stride, 1), (channels, channels, 3, 1, 1))


def aggregated(inputs: int, channels: int, stride: int) -> Any:
    inner = 2 * channels  # 32 groups of 4 for 64 channels
    return Block(
        (inputs, inner, 1, 1, 1), (inner, inner, 3, stride, 32), (inner, 4 * channels, 1, 1, 1)
    )


class ResNet(nn.Module):  # type: ignore[name-defined,misc]
    def __init__(self, block: Any, depths: tuple[int, ...], expansion: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(depths):
            units = []
            for i in range(depth):
                units.append(block(inputs, 64 << stage, 2 if stage and not i else 1))
                inputs = expansion * (64 << stage)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*units))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Any) -> Any:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


KINDS = {
    "resnet18": (basic, (2, 2, 2, 2), 1),
    "resnet34": (basic, (3, 4, 6, 3), 1),
    "resnext50": (aggregated, (3, 4, 6, 3), 4),
}


def random(name: str, classes: int) -> Any:
    """The torch network with random weights, and BatchNorms that are not the identity."""
    torch.manual_seed(0)
    block, depths, expansion = KINDS[name]
    network = ResNet(block, depths, expansion, classes).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                nn.init.uniform_(tensor, low, high)
    return network


@pytest.mark.parametrize(
    ("name", "legacy"),
    [
        ("resnet18", False),
        ("resnet18", True),
        pytest.param("resnet34", False, marks=pytest.mark.slow),
        pytest.param("resnext50", False, marks=pytest.mark.slow),
    ],
)
def test_logits_and_gradients_agree_with_torch(name: str, legacy: bool, tmp_path: Path) -> None:
    network = random(name, 1000)
    path = tmp_path / "net.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    # An odd side as well: there torch's paddings and 'same' are different pixels.
    for side in (64, 75):
        x = np.random.default_rng(1).random((2, side, side, 3), np.float32)
        model = build(name, num_classes=1000, image_shape=x.shape[1:], weights=str(path))
        mean, std = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
        theirs = torch.from_numpy(((x - mean) / std).transpose(0, 3, 1, 2)).requires_grad_()
        expected = network(theirs)
        expected[:, 3].sum().backward()
        image = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(image)
            logits = model(image)
            total = tf.reduce_sum(logits[:, 3])
        np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=0, atol=1e-4)
        gradient = theirs.grad.numpy().transpose(0, 2, 3, 1) / std
        np.testing.assert_allclose(
            tape.gradient(total, image), gradient, atol=1e-3 * np.abs(gradient).max()
        )


def test_a_whole_module_is_told_to_be_saved_otherwise(tmp_path: Path) -> None:
    from tfrobust.errors import TFRobustError

    torch.save(random("resnet18", 3), tmp_path / "net.pth")
    with pytest.raises(TFRobustError, match=r"save model.state_dict\(\)"):
        build("resnet18", num_classes=3, image_shape=(32, 32, 3), weights=str(tmp_path / "net.pth"))
