"""A search of a known function, as a program: for the tests that kill it or run it twice.

python tests/search/stub_search.py FOLDER SECONDS [grid|random|tpe|refine] [--isolate]
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.search.isolate import Isolated
from tfrobust.search.plan import Search
from tfrobust.search.space import parse_space
from tfrobust.search.study import Searcher

SPACE = "batch_size=64,16,128;learning_rate=1e-3..1e-1:log:3"


def known(config, run, report):
    """Best at batch size 64 and learning rate 0.01: 1 there, less by the distance."""
    (stage,) = config.training.stages
    with (run.path.parent / "calls.txt").open("a", encoding="utf-8") as file:
        file.write(f"{config.training.batch_size} {stage.learning_rate:.6g} {os.getpid()}\n")
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
    distance = abs(math.log2(config.training.batch_size / 64)) / 8
    distance += abs(math.log10(stage.learning_rate / 0.01)) / 8
    report(1, {"select_clean": 1 - distance, "select_pgd": 0.5})
    if config.training.batch_size == 16 and os.environ.get("STUB_FAILS"):
        raise TFRobustError("The loss became nan.")
    if config.training.batch_size == 128 and os.environ.get("STUB_DIES"):
        os.kill(os.getpid(), 9)
    return {"clean": 1 - distance, "robust": distance, "best_epoch": 1}


def main():
    folder, kind, *more = sys.argv[1:]
    refine = 1 if kind == "refine" else 0
    sampler = "grid" if refine else kind
    search = Search(
        parse_space(os.environ.get("STUB_SPACE", SPACE)),
        RunConfig(),
        sampler=sampler,
        trials=8,
        refine=refine,
    )
    objective = Isolated(known) if "--isolate" in more else known
    Searcher(search, objective, Path(folder)).run()


if __name__ == "__main__":
    main()
