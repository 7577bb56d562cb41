"""Settings of the images: which, how they are split, and how they are augmented."""

from __future__ import annotations

from dataclasses import dataclass

from tfrobust.errors import UsageError
from tfrobust.settings import Checked, setting


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which images, and how they are split."""

    dataset: str = setting(
        "digits", "data set: a built-in name, or a folder, zip, .npz or .pt file", alias="data"
    )
    data_dir: str | None = setting(None, "where a built-in data set's files are, or go to")
    image_size: int | None = setting(None, "resize all images to this side, in pixels", low=8)
    select_fraction: float = setting(
        0.1, "part of train set aside for model selection", above=0, high=0.9
    )
    test_fraction: float = setting(
        0.2, "part taken for test where the source has no test split", above=0, high=0.9
    )
    # Of a later command on a run, whose seed is that of attacks: nobody sets it.
    split_seed: int | None = None
    limit_train: int | None = setting(None, "use only this many training images", low=1)
    augment_with: str | None = setting(
        None, "perturbed set to train on as well: an .npz file of pipelines.perturb"
    )
    pixel_range: tuple[float, ...] = setting(
        (), "LOW,HIGH: what the pixels of a file range over, where that is not 0..255 or [0, 1]"
    )
    skip_broken: bool = setting(False, "leave broken images out, with a list, instead of failing")
    cache_dir: str | None = setting(None, "where unpacked archives and caches go")
    memory_limit: float = setting(
        4.0, "gigabytes of decoded images kept in memory; more are mapped from disk", low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_range and not (
            len(self.pixel_range) == 2 and self.pixel_range[0] < self.pixel_range[1]
        ):
            raise UsageError(
                f"pixel_range: expected LOW,HIGH with LOW below HIGH, found {self.pixel_range}."
            )


@dataclass(frozen=True)
class AugmentConfig(Checked):
    """Augmentation of training images; a strength of 0 switches a step off."""

    flip: bool = setting(False, "flip images left to right, half of the time")
    crop_padding: int = setting(0, "random crop after padding by this many pixels", low=0)
    brightness: float = setting(0.0, "brightness jitter: factor in 1 +- this", low=0, high=1)
    contrast: float = setting(0.0, "contrast jitter: factor in 1 +- this", low=0, high=1)
    saturation: float = setting(0.0, "saturation jitter: factor in 1 +- this", low=0, high=1)
    hue: float = setting(0.0, "hue jitter: +- this part of the colour circle", low=0, high=0.5)
    gaussian_noise: float = setting(0.0, "standard deviation of Gaussian noise", low=0, high=1)
    poisson_noise: float = setting(0.0, "strength of Poisson (shot) noise", low=0, high=1)
    salt_pepper: float = setting(0.0, "part of pixels turned black or white", low=0, high=1)
