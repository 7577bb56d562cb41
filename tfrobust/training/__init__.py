"""The table of training methods: a name -> a frozen dataclass of its settings, a `Method`.

Its `step()` is a Keras model that wraps a classifier (`base_model`), takes batches ``{'image',
'label'}`` and is trained by Keras `fit`. All methods share one step (`step.py`): crafting in
inference mode, one BatchNorm policy, one set of metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.training.methods import Method


class _Methods(Table["type[Method]"]):
    """Methods by name; a user's plain step inherits the settings of the one it derives from."""

    def __getitem__(self, name: str) -> type[Method]:
        from tfrobust.training.methods import method_of

        found: Any = super().__getitem__(name)
        return method_of(found)


METHODS = _Methods(
    "training method",
    {
        "nsl": "tfrobust.training.methods:NSLRegularisation",
        "standard": "tfrobust.training.methods:Standard",
        "pgd": "tfrobust.training.methods:AdversarialTraining",
        "trades": "tfrobust.training.methods:Trades",
        "mart": "tfrobust.training.methods:Mart",
        "fast": "tfrobust.training.methods:Fast",
        "mixture": "tfrobust.training.methods:Mixture",
        "blend": "tfrobust.training.methods:Blend",
        "noise": "tfrobust.training.methods:Noise",
    },
    "tfrobust.methods",
)
