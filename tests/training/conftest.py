"""What the tests of training share."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

# `training_cases` is imported by its own name: `tests` may be another package's
# (tf-keras-vis installs one), and older versions of pytest then find that one.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def small_cnn(small_cnn):
    """With one convolution: a step of training is traced in half of the time."""
    return partial(small_cnn, widths=(8,))
