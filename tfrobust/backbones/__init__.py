"""Networks by name: image in [0, 1] -> normalise -> (resize) -> features -> logits.

``BACKBONES`` lists them; `build` builds one, `blocks` and `set_trainable` divide it for staged
unfreezing. To add a network, describe it as a `Backbone` and list it here.
"""

from __future__ import annotations

from tfrobust.backbones.classifier import build
from tfrobust.backbones.table import BACKBONES
from tfrobust.backbones.unfreezing import Block, blocks, set_trainable

__all__ = ["BACKBONES", "Block", "blocks", "build", "set_trainable"]
