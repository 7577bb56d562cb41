"""Explanations: maps of what a model looks at, data for their figures, and their scores.

Every explainer is called as `explain(model, x, target)` and returns float32 maps: signed
attributions [N, H, W, C], or class-activation maps [N, H, W], which are 0 or more.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from tfrobust.explain.table import EXPLAINERS as EXPLAINERS

if TYPE_CHECKING:
    from tfrobust.explain.explain import explain as explain


class _Callable(types.ModuleType):
    """`tfrobust.explain` is both a package and a function, whatever is imported first."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tfrobust.explain.explain import explain

        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
