"""Collects the builder's own test, which TFDS prescribes to stand beside the builder."""

import pytest

pytest.importorskip("dill", reason="TFDS's test case needs dill: pip install tfrobust[test]")

from tfrobust.data.tiny_imagenet.tiny_imagenet_dataset_builder_test import (  # noqa: E402
    TinyImagenetTest,
)

__all__ = ["TinyImagenetTest"]
