"""The table of training methods: a name -> a Keras model that trains a base model robustly.

A method wraps a classifier (`base_model`), takes batches ``{'image', 'label'}`` and is
trained by Keras `fit`. All share one step (`step.py`): craft in inference mode, one
BatchNorm policy, one set of metrics.
"""

from tfrobust.tables import Table

METHODS = Table(
    "training method",
    {
        "nsl": "tfrobust.training.nsl:NSL",
        "standard": "tfrobust.training.standard:Standard",
        "pgd": "tfrobust.training.pgd:AdversarialTraining",
        "trades": "tfrobust.training.trades:Trades",
        "mart": "tfrobust.training.trades:Mart",
        "fast": "tfrobust.training.fast:Fast",
        "mixture": "tfrobust.training.pgd:Mixture",
        "blend": "tfrobust.training.pgd:Blend",
        "noise": "tfrobust.training.pgd:Noise",
    },
    "tfrobust.methods",
)
