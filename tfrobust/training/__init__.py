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
    },
)
