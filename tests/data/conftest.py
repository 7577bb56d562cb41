"""What the tests of data files share."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

# The builders here are imported by their own names: `tests` may be another package's
# (tf-keras-vis installs one), and older versions of pytest then find that one.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def fake_torch(monkeypatch):
    """Names of torch, so that tensors can be pickled as torch does without it."""
    made = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    made["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in ("ByteStorage", "LongStorage", "FloatStorage", "BFloat16Storage"):
        setattr(made["torch"], name, type(name, (), {"__module__": "torch"}))
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made["torch"]
