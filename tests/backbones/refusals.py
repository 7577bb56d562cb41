"""How weight files are refused, whatever their format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrobust.backbones.weights import load
from tfrobust.errors import TFRobustError


def refused(model: Any, path: Path) -> str:
    """The one sentence with which `path` is refused; the model must stay untouched."""
    before = model.get_weights()
    with pytest.raises(TFRobustError) as error:
        load(model, path)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    message = str(error.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")
    return message
