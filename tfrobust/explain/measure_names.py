"""The columns of the table of explanations: what each measures, and its heading on a page."""

from __future__ import annotations

#: Measure -> its meaning, in the order of the table.
COLUMNS = {
    "deletion": "area under deletion, lower is better",
    "insertion": "area under insertion, higher is better",
    "stability": "rank correlation of clean and adversarial map, higher is better",
    "random_head": "rank correlation with the map after randomising the head; near 0 passes",
    "random_half": "the same, upper half of the layers",
    "random_all": "the same, all layers",
    "completeness": "gap of integrated gradients' sum to the logit difference; 0 is complete",
}
#: Measure -> a short heading that shows which direction is better.
HEADS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "stability": "stability ↑",
    "random_head": "head randomised → 0",
    "random_half": "half randomised → 0",
    "random_all": "all randomised → 0",
    "completeness": "completeness gap → 0",
}
