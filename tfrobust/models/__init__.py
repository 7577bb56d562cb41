"""Models of any make, seen as one kind of function: images in [0, 1] -> logits."""

from __future__ import annotations
