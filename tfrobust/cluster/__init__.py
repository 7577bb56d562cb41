"""Work on more than this process: a Ray cluster, of one machine or of many.

`connection.py` says which cluster and connects to it, `pool.py` has batches done there,
`worker.py` is what runs in its processes, `packing.py` makes bytes of models. Nothing here
knows what the batches are of. Ray (Moritz et al., 2018, https://arxiv.org/abs/1712.05889) is
the extra `[cluster]`; one machine needs none of it.
"""

# The pool is not among these: it imports TensorFlow, which commands import quietly.
from tfrobust.cluster.connection import Ray, as_ray, connected

__all__ = ["Ray", "as_ray", "connected"]
