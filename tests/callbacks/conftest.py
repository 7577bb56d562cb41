"""What the tests of the callbacks share."""

from __future__ import annotations

import sys
from pathlib import Path

# `robust_cases` is imported by its own name, as `training_cases` is.
sys.path.append(str(Path(__file__).parents[1] / "training"))
