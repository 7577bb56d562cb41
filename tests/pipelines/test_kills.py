"""The main command, killed by signal 9 at random moments, ends as if it had never been.

`TFROBUST_KILLS=3 python -m pytest -m slow tests/pipelines/test_kills.py` for a look in between.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfrobust.runtime import keras, tf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("TFROBUST_KILLS", "20"))
EPOCHS = 12
SMALL = [
    "--recipe", "digits", "--backbone", "simplenet", "--limit-train", "160", "--epochs",
    str(EPOCHS), "--limit", "40", "--attack", "fgsm", "--sweep", "none", "--select-limit", "40",
    "--select-steps", "2", "--flip", "--gaussian-noise", "0.02", "--dropout", "0.1", "--no-figures",
    "--export-anyway",
]  # fmt: skip


def begun(folder):
    """The command, from the moment on at which it trains; the same one goes on after a kill."""
    words = [sys.executable, "-m", "tfrobust", "train", *SMALL, "--resume", "--output", str(folder)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)  # fmt: skip
    shown = []
    while process.poll() is None and not (shown and shown[-1].startswith(("Stage", "Kept"))):
        shown.append(process.stdout.readline())
    return process, shown


def finished(folder):
    """Runs it to its end; the seconds that training took of it."""
    process, shown = begun(folder)
    begin, took = time.monotonic(), 0.0
    for line in process.stdout:
        shown.append(line)
        if line.startswith("Kept"):
            took = time.monotonic() - begin
    assert process.wait(timeout=900) == 0, "".join(shown[-40:])
    return took


def struck_after(folder, seconds):
    """Ends it by signal 9 so long after it began to train; whether it was still running."""
    process, _ = begun(folder)
    time.sleep(seconds)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), rest
    return running


def ends(folder):
    """All that training leaves: weights, optimiser and random states, and the kept model."""
    last = folder / "checkpoints" / f"epoch-{EPOCHS:04}" / "checkpoint"
    reader = tf.train.load_checkpoint(str(last))
    found = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()
             if key != "_CHECKPOINTABLE_OBJECT_GRAPH"}  # fmt: skip
    kept = keras.models.load_model(folder / "checkpoints" / "best.keras", compile=False)
    found |= {f"kept {place}": value for place, value in enumerate(kept.get_weights())}
    report = json.loads((folder / "evaluation.json").read_text())
    return found | {name: np.array(report[name]) for name in ("clean_accuracy", "robust_accuracy")}


def has_trained(folder):
    state = folder / "checkpoints" / "state.json"
    return state.is_file() and json.loads(state.read_text())["epoch"] == EPOCHS


def test_killed_at_random_moments_it_ends_the_same_each_time(tmp_path):
    """Moments of the training, and now and then of what comes after it."""
    takes = finished(tmp_path / "whole")
    whole, rng, struck, home = ends(tmp_path / "whole"), np.random.default_rng(2), 0, 0
    while struck < KILLS:
        folder = tmp_path / f"{home}"
        struck += struck_after(folder, rng.uniform(0, takes))
        print(f"kill {struck}, training {home}", flush=True)
        if struck < KILLS and not has_trained(folder):
            continue
        finished(folder)
        found = ends(folder)
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            np.testing.assert_array_equal(value, found[name], err_msg=name)
        home += 1
    print(f"{struck} kills of {home} trainings, all equal", flush=True)
