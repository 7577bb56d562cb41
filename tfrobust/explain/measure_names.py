"""The columns of the table of explanations: what each measures, and its head on a page."""

from __future__ import annotations

#: What is measured -> what it means, in the order of the table.
COLUMNS = {
    "deletion": "area under deletion, lower is better",
    "insertion": "area under insertion, higher is better",
    "stability": "rank correlation of clean and adversarial map, higher is better",
    "random_head": "rank correlation with the map after the head is randomised, near 0 is sane",
    "random_half": "the same, upper half of the layers",
    "random_all": "the same, all layers",
    "completeness": "gap of the attributions' sum, of integrated gradients; 0 is complete",
}
#: What is measured -> a short head that tells which way is better.
HEADS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "stability": "stability ↑",
    "random_head": "head randomised → 0",
    "random_half": "half randomised → 0",
    "random_all": "all randomised → 0",
    "completeness": "completeness gap → 0",
}
