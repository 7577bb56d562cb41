"""What the tests of networks share."""

from __future__ import annotations

import sys
from pathlib import Path

# The builders here are imported by their own names, as those of the data files' tests are.
sys.path.append(str(Path(__file__).parent))
