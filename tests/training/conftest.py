"""What the tests of training share."""

from __future__ import annotations

import sys
from pathlib import Path

# `training_cases` is imported by its own name: `tests` may be another package's
# (tf-keras-vis installs one), and older versions of pytest then find that one.
sys.path.append(str(Path(__file__).parent))
