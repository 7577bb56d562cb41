"""What the tests of attacks share is in modules beside them, imported by their own names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
